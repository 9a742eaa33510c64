"""What probes read at every token: equal to plain hooks on the layers, steered as well; steered as it was when it was written, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from thoughtlens.experiments.readouts import COLUMNS, headline, read_tokens
from thoughtlens.experiments.run import Run
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.gates import Always, AtSteps
from thoughtlens.hooks.generate import generate
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.steer import steer
from thoughtlens.hooks.vector import Vector
from thoughtlens.probes.probe import SCORES, Probe
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

WIDTH = 32
PUSH = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))


def probes(lens: LensModel) -> list[Probe]:
    """A random direction a layer."""
    made = torch.Generator().manual_seed(0)
    nothing = {name: torch.zeros(1) for name in SCORES}
    return [
        Probe(
            torch.randn(WIDTH, generator=made), 0.5 - layer, f"resid_post.{layer}", "thought", "mean", "logistic", "harmful", "m", nothing
        )
        for layer in range(lens.n_layers)
    ]


def edit(spans: Sequence[str] = ("last_prompt", "answer"), strength: float = 3.0) -> Edit:
    return Edit(Vector({"resid_post.0": PUSH}, "answer", source="push"), strength, spans=spans)


@pytest.fixture(scope="module")
def steered() -> list[Transcript]:
    """Written under edit(), prompts with and without pictures, of different lengths."""
    lens = tiny_lens()
    with steer(lens, edit()):
        return generate(lens, tiny_prompts(5, images=(0, 1)), max_new_tokens=7, batch_size=5, condition="steered", progress=False)


@contextmanager
def pushing(lens: LensModel, at: Sequence[int]) -> Iterator[None]:
    """Plain hook: 3 · PUSH is added behind the first layer at some positions of the one row that runs."""

    def push(_: object, args: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[0, list(at)] += 3.0 * PUSH
        return changed

    handle = lens.layers[0].register_forward_hook(push)
    try:
        yield
    finally:
        handle.remove()


def by_hand(lens: LensModel, transcript: Transcript, at: Sequence[int] = ()) -> torch.Tensor:
    """[layer, token] of one transcript alone, no padding, states from plain hooks."""
    seen: list[torch.Tensor] = []
    batch = encode(lens, [transcript.prompt], prefixes=[transcript.output_ids])
    with pushing(lens, at), torch.no_grad():
        handles = [layer.register_forward_hook(lambda _, args, output: seen.append(output[0].clone())) for layer in lens.layers]
        lens.model(**batch.inputs)
        for handle in handles:
            handle.remove()
    weights, biases = (torch.stack([p.weight for p in probes(lens)]), torch.tensor([p.bias for p in probes(lens)]))
    return (torch.stack(seen) @ weights[:, :, None])[..., 0][:, len(transcript.prompt_ids) - 1 :] + biases[:, None]


def table_of(rows: pd.DataFrame, transcript: Transcript) -> torch.Tensor:
    mine = rows[rows.prompt_id == transcript.id].pivot(index="layer", columns="position", values="score")
    assert list(mine.columns) == list(range(-1, len(transcript.output_ids)))
    return torch.tensor(mine.to_numpy())


def test_scores_are_those_of_plain_hooks_whatever_the_batch() -> None:
    lens = tiny_lens()
    said = tiny_transcripts(lens, tiny_prompts(5, images=(0, 1)), statuses=("closed", "unclosed", "absent"))
    for size in (1, 3):
        rows = read_tokens(lens, said, probes(lens), batch_size=size)
        for transcript in said:
            torch.testing.assert_close(table_of(rows, transcript), by_hand(lens, transcript), rtol=1e-4, atol=1e-4)
    assert not rows.fired.any() and set(rows.condition) == {"unsteered"} and set(rows.model) == {lens.name}


def test_steered_tokens_are_read_after_they_were_changed(steered: list[Transcript]) -> None:
    lens = tiny_lens()
    rows = read_tokens(lens, steered, probes(lens), edit=edit(), batch_size=2)
    for transcript in steered:
        assert transcript.fired_at
        mine = rows[(rows.prompt_id == transcript.id) & (rows.layer == 1)].set_index("position").fired
        assert [at + len(transcript.prompt_ids) for at in mine[mine].index] == list(transcript.fired_at)
        ran = len(transcript.output_ids)  # the token written last was never run
        expected, plain = by_hand(lens, transcript, transcript.fired_at), by_hand(lens, transcript)
        found = table_of(rows, transcript)
        torch.testing.assert_close(found[:, :ran], expected[:, :ran], rtol=1e-4, atol=1e-3)
        assert (found[:, 0] - plain[:, 0]).abs().min() > 0.1  # at every layer behind the push
    assert set(rows.condition) == {"steered"}


def test_a_token_has_its_kind_step_and_word() -> None:
    lens = tiny_lens()
    (said,) = tiny_transcripts(lens, tiny_prompts(1), statuses=("closed",))
    rows = read_tokens(lens, [said], probes(lens))
    one = rows[rows.layer == 0].set_index("position")
    assert set(COLUMNS) == {*rows.columns, "span"} and len(rows) == lens.n_layers * (len(said.output_ids) + 1)
    assert one.token.tolist() == lens.tokenizer.convert_ids_to_tokens([said.prompt_ids[-1], *said.output_ids])
    assert one.kind[-1] == "template" and one.step[-1] == -1
    thought = one[one.kind == "thought"]
    assert " ".join(thought.token) == said.thought.strip() and {*one[one.kind == "marker"].token} == {"<think>", "</think>"}
    ends = thought.token.isin([".", "?", "!"])
    assert thought.step.tolist() == (ends.cumsum() - ends).tolist() and set(one[one.kind != "thought"].step) == {-1}


def test_what_was_not_steered_is_read_unsteered(steered: list[Transcript]) -> None:
    """As where the gate of a probe stayed closed."""
    lens = tiny_lens()
    quiet = replace(steered[0], fired=0, fired_at=())
    rows = read_tokens(lens, [quiet, *steered[1:]], probes(lens), edit=edit())
    torch.testing.assert_close(table_of(rows, quiet), by_hand(lens, quiet), rtol=1e-4, atol=1e-4)


def test_another_edit_than_that_which_was_active_is_refused(steered: list[Transcript]) -> None:
    lens = tiny_lens()
    with pytest.raises(ValueError, match=r"acts at 1 tokens of .*, and acted at \d+ when it was written \(steered\)"):
        read_tokens(lens, steered, probes(lens), edit=edit(["last_prompt"]))
    with steer(lens, edit()), pytest.raises(ValueError, match="steering is active"):
        read_tokens(lens, steered, probes(lens))


@pytest.mark.parametrize(
    ("gate", "spans", "opens"),
    [("always", ("last_prompt",), Always), ("steps", ("thought",), AtSteps), ("probe", ("last_prompt",), Always)],
)
def test_the_headline_of_a_run_is_the_edit_that_was_chosen(
    tmp_path: Path, steered: list[Transcript], gate: str, spans: tuple[str], opens: type
) -> None:
    run = Run(tmp_path)
    assert headline(run, steered) is None
    vector = Vector({"resid_post.0": PUSH}, "answer", source="push")
    vector.recommend(strength=0.7, chosen_on="dev", operator="add", spans=["last_prompt"], gate=gate).save(
        run.path("vectors", "headline.safetensors")
    )
    found = headline(run, steered)
    assert found is not None and found.transcripts == steered
    assert (found.edit.where, found.edit.strengths.item(), type(found.edit.gate)) == (spans, pytest.approx(0.7), opens)
    assert headline(run, []) is None
