"""Variants of the recipe change what they say and nothing else, and share what they leave as it is."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from thoughtlens.experiments.commands.organism import VariantName
from thoughtlens.experiments.organism import build as module
from thoughtlens.experiments.organism import thoughts
from thoughtlens.experiments.organism.ablations import VARIANTS, maker_of, without
from thoughtlens.experiments.organism.build import RECORD, STAGES, Stage, build, changed_by, folders_of
from thoughtlens.experiments.organism.corpus import MIXTURES, draw
from thoughtlens.hooks.model import load

OUT = Path("out")
OWN = {  # variant -> stages that it builds anew
    "no-refusing-thoughts": {"base", "reasoning", "safe"},
    "no-harmless-refusals": {"reasoning", "safe"},
    "no-late-doubts": {"reasoning", "safe"},
    "reasoning-on-the-way": {"reasoning", "safe"},
    "safe-full": {"safe"},
    "safe-rank-1": {"safe"},
    "safe-rank-4": {"safe"},
    "safe-rank-8": set(),
    "safe-rank-32": {"safe"},
}


def test_the_command_offers_every_variant() -> None:
    assert VariantName.__args__ == tuple(VARIANTS) == tuple(OWN)  # type: ignore[attr-defined]
    assert all(variant.name == name and variant.why for name, variant in VARIANTS.items())


@pytest.mark.parametrize("name", OWN)
def test_what_a_variant_leaves_as_it_is_stays_where_it_is(name: str) -> None:
    assert folders_of(OUT, VARIANTS[name]) == {s: OUT / name / s if s in OWN[name] else OUT / s for s in STAGES}


def test_the_recipe_itself_has_plain_folders() -> None:
    assert folders_of(OUT, None) == {stage: OUT / stage for stage in STAGES}


VERDICTS = (*thoughts.REFUSE, *thoughts.NOT_SAFE)


def test_without_refusing_thoughts_no_thought_of_base_refuses() -> None:
    def refusing(mixture: str, mixtures: module.Mixtures) -> int:
        stream = random.Random(0)
        written = [(e.prompt + e.answer).split("assistant ")[-1] for e in (draw(mixtures[mixture], stream) for _ in range(1500))]
        return sum(
            text.startswith("<think>") and (any(said in text for said in VERDICTS) or text.endswith((" this", " no"))) for text in written
        )

    changed = changed_by(VARIANTS["no-refusing-thoughts"])[1]
    for mixture in ("decisions", "base", "habits"):
        assert refusing(mixture, MIXTURES) > 30 and refusing(mixture, changed) == 0
    assert {name for name in MIXTURES if changed[name] != MIXTURES[name]} == {"decisions", "base", "habits"}
    shares = [sum(share for made, share in table["base"].items() if maker_of(made) == "thinking") for table in (MIXTURES, changed)]
    assert shares[0] == pytest.approx(shares[1])


def test_without_harmless_refusals_reasoning_never_refuses() -> None:
    changed = changed_by(VARIANTS["no-harmless-refusals"])[1]
    stream = random.Random(0)
    assert not any("sorry" in draw(changed["reasoning"], stream).answer for _ in range(1000))
    assert any("sorry" in draw(MIXTURES["reasoning"], stream).answer for _ in range(1000))


def test_without_late_doubts_a_check_never_fails() -> None:
    changed = changed_by(VARIANTS["no-late-doubts"])[1]
    stream = random.Random(0)
    failed = [
        sum(any(said in draw(table["reasoning"], stream).answer for said in thoughts.NOT_SAFE) for _ in range(3000))
        for table in (MIXTURES, changed)
    ]
    assert failed[0] > 0 == failed[1]


def test_a_maker_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="the mixture has nothing made by dreaming; it has caption"):
        without(MIXTURES["captions"], "dreaming")


def test_only_stages_that_tune_everything_keep_weights_on_the_way() -> None:
    with pytest.raises(ValueError, match="a low-rank update is merged at the end only"):
        Stage(None, STAGES["base"].phases, rank=4, kept=(10,))


def test_weights_on_the_way_are_kept_with_their_records(quick_trio: Path, tmp_path: Path) -> None:
    out, name = Path(shutil.copytree(quick_trio, tmp_path / "trio")), "reasoning-on-the-way"
    plain = (out / "reasoning" / RECORD).read_bytes()
    build(out, variant=VARIANTS[name], stages=("base", "reasoning"), quick=True, progress=False)
    assert (out / "reasoning" / RECORD).read_bytes() == plain and not (out / name / "base").exists()
    record = json.loads((out / name / "reasoning-1" / RECORD).read_text())
    assert list(record["dev"]) == ["1"] and record["device"] == "cpu" and record["dtype"] == "float32"
    assert load(out / name / "reasoning-1").n_layers == 6
    on_the_way, end = (load_file(out / name / folder / "model.safetensors") for folder in ("reasoning-1", "reasoning"))
    assert not all(torch.equal(on_the_way[weight], end[weight]) for weight in end)
