"""Gates: frozen values, combined with & | ~, and errors that say what to do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from thoughtlens.hooks.gates import Always, AtSteps, FirstTokens, Gate, ProbeGate, evaluate, leaves
from torch import Tensor


def probe(**changes: object) -> ProbeGate:
    gate = ProbeGate(weight=torch.ones(4), bias=0.0, site="resid_post.1", threshold=0.5)
    return dataclasses.replace(gate, **changes)  # type: ignore[arg-type]


def test_combinations_are_the_logic_of_their_leaves() -> None:
    first, steps, reading = FirstTokens(3), AtSteps(), probe()
    facts = {first: [True, True, False, False], steps: [True, False, True, False], reading: [False, True, True, False]}

    def opened(gate: Gate) -> Tensor:
        return torch.tensor([facts[gate]])

    assert evaluate(first & steps, opened).tolist() == [[True, False, False, False]]
    assert evaluate(first | steps, opened).tolist() == [[True, True, True, False]]
    assert evaluate(~first, opened).tolist() == [[False, False, True, True]]
    assert evaluate(~(first | steps) | reading, opened).tolist() == [[False, True, True, True]]
    assert list(leaves(~(first | steps) & reading)) == [first, steps, reading]


def test_a_gate_says_what_it_is() -> None:
    gate = AtSteps() & ~FirstTokens(4) | probe()
    assert str(gate) == "((steps and not first_tokens(4)) or probe(resid_post.1, last_prompt, >0.5, latched))"
    assert str(Always()) == "always"


def test_a_gate_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FirstTokens(3).k = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": torch.ones(2, 4)}, r"one direction \[d\]"),
        ({"weight": torch.tensor([1.0, float("nan"), 0.0, 0.0])}, "nan or inf"),
        ({"site": "residual.3"}, "residual"),
        ({"span": "thoughts"}, "thoughts"),
    ],
)
def test_a_probe_gate_that_cannot_be_read_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        probe(**changes)


def test_first_tokens_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FirstTokens(0)
