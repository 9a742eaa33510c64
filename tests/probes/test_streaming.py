"""Probes from streamed rows are the probes of the same rows stored, and nothing but statistics is held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from thoughtlens.hooks import Select, capture
from thoughtlens.hooks.store import Store
from thoughtlens.hooks.streaming import stream
from thoughtlens.probes import kinds
from thoughtlens.probes.dataset import matrix
from thoughtlens.probes.metrics import auroc
from thoughtlens.probes.moments import Moments
from thoughtlens.probes.probe import Probe
from thoughtlens.probes.streaming import ALIKE, SOLVES, gather, tell
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

torch.set_num_threads(1)
SIGNAL = {"resid_post.1": 0.0, "resid_post.2": 2.0}
META = {"model": "reasoning", "fingerprint": "f00d", "template": {}, "dialect": "think"}


@dataclass
class Batches:
    """Rows of a store in random batches, handed over as a stream would."""

    store: Store
    seed: int = 0
    changed: Mapping[str, Any] | None = None

    @property
    def meta(self) -> dict[str, Any]:
        return {**META, "sites": self.store.sites, **(self.changed or {})}

    def __iter__(self) -> Iterator[tuple[torch.Tensor, pd.DataFrame]]:
        vectors, index = self.store.rows()
        rng = np.random.default_rng(self.seed)
        for at in np.array_split(rng.permutation(len(index)), 23):
            yield vectors[torch.from_numpy(at)], index.iloc[at]


@pytest.mark.parametrize("kind", SOLVES)
def test_equal_the_probes_of_the_stored_rows(build, kind) -> None:
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    probes = tell(Batches(store, seed=1), gather(Batches(store)), kinds=(kind,), resampled=100)
    assert set(probes) == {(site, span, kind) for site in SIGNAL for span in ("last_prompt", "thought")}
    for span in ("last_prompt", "thought"):
        sides = {side: matrix(store, span=span, label="harmful", where={"split": side}) for side in ("train", "dev", "test")}
        settings = kinds.KINDS[kind].settings
        weight, bias = kinds.KINDS[kind].fit(sides["train"].x.transpose(0, 1), sides["train"].y[None], settings)
        for i, site in enumerate(SIGNAL):
            probe = probes[site, span, kind]
            dev = sides["dev"].x[:, i].double() @ weight[i, :, 0].T + bias[i, :, 0]
            best = int(auroc(dev.T, sides["dev"].y).argmax())
            assert probe.setting == (None if np.isnan(settings[best]) else settings[best])
            torch.testing.assert_close(probe.weight.double(), weight[i, best, 0], rtol=1e-6, atol=1e-6)
            assert probe.metrics["auroc"]["value"] == pytest.approx(
                roc_auc_score(sides["test"].y, probe.readout(sides["test"].x[:, i])), abs=2e-4
            )
            assert probe.metrics["sizes"] == {
                "positives": int(sides["test"].y.sum()),
                "negatives": int((~sides["test"].y).sum()),
                "groups": 22,
            }
            assert bool((probe.probability(sides["dev"].x[:, i]).mean() - sides["dev"].y.float().mean()).abs() < 0.05)
            for side in ("dev", "test"):
                for name, value in (("negative", False), ("positive", True)):
                    data = sides[side]
                    scores = probe.readout(data.x[data.y == value, i]).sort().values
                    torch.testing.assert_close(probe.scores[f"{side}_{name}"], scores, rtol=1e-5, atol=1e-5)


def test_the_file_of_a_probe_holds_what_it_was_told(build, tmp_path) -> None:
    store = build(signal=SIGNAL)
    for kind, probe in ((cell[2], probe) for cell, probe in tell(Batches(store), gather(Batches(store))).items()):
        probe.save(tmp_path / f"{kind}-{probe.site}.safetensors")
        again = Probe.load(tmp_path / f"{kind}-{probe.site}.safetensors")
        assert (again.setting, again.calibration, again.metrics, again.header) == (
            probe.setting,
            probe.calibration,
            probe.metrics,
            probe.header,
        )
        low, high = (probe.metrics["auroc"][key] for key in ("low", "high"))
        assert low <= probe.metrics["auroc"]["value"] <= high and isinstance(probe.gate(fpr=0.05).threshold, float)


def test_workers_gather_apart_and_are_added_up(build, tmp_path) -> None:
    store = build(signal=SIGNAL)
    for worker, groups in enumerate((range(0, 45), range(45, 90))):
        where = {"split": "train", "group": [f"g{i}" for i in groups]}
        gather(Batches(store), where=where)["last_prompt"].save(tmp_path / f"{worker}.safetensors")
    added = Moments.total(Moments.load(tmp_path / f"{worker}.safetensors") for worker in (1, 0))
    whole = gather(Batches(store))["last_prompt"]
    torch.testing.assert_close(added.scatter, whole.scatter, rtol=1e-12, atol=1e-10)
    assert added.groups == whole.groups
    one, two = (tell(Batches(store), {"last_prompt": moments}, resampled=0) for moments in (added, whole))
    for cell, probe in one.items():
        torch.testing.assert_close(probe.weight, two[cell].weight, rtol=1e-5, atol=1e-6)


def test_a_transcript_that_two_workers_gathered_is_not_counted_twice(build) -> None:
    store = build(signal=SIGNAL)
    shares = [{"split": "train", "group": [f"g{i}" for i in groups]} for groups in (range(0, 50), range(45, 90))]
    one, two = (gather(Batches(store), where=where)["last_prompt"] for where in shares)
    assert len(one.transcripts) == one.count
    with pytest.raises(ValueError, match=r"6 transcripts are in both, of 78 and 66, and would count twice"):
        one + two


def test_a_score_is_the_readout_of_the_same_rows_bit_for_bit(build) -> None:
    store = build(signal=SIGNAL)
    held = Batches(store, seed=1)
    for (site, _, _), probe in tell(held, gather(Batches(store)), resampled=0).items():
        for side in ("dev", "test"):
            read = []
            for vectors, index in held:
                here = torch.from_numpy((index["split"] == side).to_numpy(copy=True))
                harmful = torch.from_numpy(index["harmful"][here.numpy()].to_numpy(dtype=bool))
                read.append(probe.readout(vectors[here, list(SIGNAL).index(site)].clone())[~harmful])
            assert torch.equal(torch.cat(read).sort().values, probe.scores[f"{side}_negative"])
            assert side == "test" or not bool((torch.cat(read) > probe.threshold(0.0)).any())


def test_from_the_model_without_a_store_equals_through_a_store(tmp_path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(24))
    labels = {t.id: {"odd": i % 2 == 1, "side": ("train", "dev", "test")[i // 2 % 3]} for i, t in enumerate(transcripts)}
    where, asked = Select("resid_post", ["last_prompt", "thought"]), {"labels": labels, "progress": False, "batch_size": 5}
    wheres = {"valid": {"side": "dev"}, "test": {"side": "test"}, "resampled": 0}
    streamed = stream(lens, transcripts, where, **asked)
    moments = gather(streamed, label="odd", where={"side": "train"})
    live = tell(streamed, moments, **wheres)
    store = capture(lens, transcripts, where, into=tmp_path / "s", **asked)
    stored = Batches(store, changed={key: store.meta[key] for key in ALIKE})
    for cell, probe in tell(stored, gather(stored, label="odd", where={"side": "train"}), **wheres).items():
        assert probe.model == live[cell].model == lens.name
        if cell[2] != "whitened":  # as many axes as rows: the pseudo-inverse magnifies rounding
            torch.testing.assert_close(probe.weight, live[cell].weight, rtol=1e-4, atol=1e-5 * float(probe.weight.abs().max()))


def test_no_more_than_a_batch_and_the_statistics_are_held(build, monkeypatch) -> None:
    store = build(signal=SIGNAL)
    sizes: list[int] = []
    of = Moments.of.__func__
    monkeypatch.setattr(
        Moments, "of", classmethod(lambda cls, x, *rest, **named: (sizes.append(x.shape[1]), of(cls, x, *rest, **named))[1])
    )
    gather(Batches(store))
    assert len(sizes) == 23 and max(sizes) <= len(store) // 23 + 1


def nan_at(hidden: torch.Tensor, index: pd.DataFrame) -> None:
    hidden[np.flatnonzero(index["prompt_id"] == "p5")[0], 1, 3] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "asked", "message"),
    [
        (nan_at, {}, r"prompt 'p5' at resid_post.2, span 'last_prompt', holds nan or inf"),
        (None, {"label": "refused"}, "no column 'refused'.*labels="),
        (None, {"label": "prompt_id"}, "label 'prompt_id' holds 'p.*true or false"),
        (None, {"where": {"split": "nowhere"}}, "no row with .*nowhere.* has a label 'harmful'"),
        (None, {"where": {"colour": "red"}}, "no column 'colour'"),
        (lambda hidden, index: index.assign(group=None), {}, "have no 'group'"),
        (
            lambda hidden, index: index.assign(pool=["mean", "max"] * (len(index) // 2)),
            {},
            "pool is 'm.*' in one and 'm.*' in the other",
        ),
    ],
)
def test_what_cannot_be_gathered_is_named(build, spoil, asked, message) -> None:
    with pytest.raises(ValueError, match=message):
        gather(Batches(build(signal=SIGNAL, spoil=spoil)), **asked)


def test_what_cannot_be_told_is_named(build) -> None:
    store = build(signal=SIGNAL)
    moments = gather(Batches(store))
    with pytest.raises(ValueError, match="'logistic' cannot be fitted from moments; mean_difference, whitened, lda, ridge can"):
        tell(Batches(store), moments, kinds=("logistic",))
    with pytest.raises(ValueError, match="fingerprint is 'f00d' there and 'beef' here"):
        tell(Batches(store, changed={"fingerprint": "beef"}), moments)
    with pytest.raises(ValueError, match="span 'last_prompt', dev: 0 rows, and both labels are needed"):
        tell(Batches(store), moments, valid={"split": "nowhere"})
    with pytest.raises(ValueError, match=r"group 'g\d+' lies in train and in dev"):
        tell(Batches(store), moments, valid={"split": "train"})
    one_class = gather(Batches(store), where={"split": "train", "harmful": True})
    with pytest.raises(ValueError, match="fit 0 of 1 has .* 0 negative rows"):
        tell(Batches(store), one_class)
