"""Gates: frozen values, combined with & | ~, and errors that say what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from thoughtlens.hooks.gates import Always, AtSteps, FirstTokens, Gate, InSpans, ProbeGate, evaluate, leaves, mapped
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


def test_steps_are_all_the_first_or_the_named() -> None:
    assert [str(gate) for gate in (AtSteps(), AtSteps(first=3), AtSteps(only=(0, 4)), AtSteps(first=2, headings=True))] == [
        "steps",
        "steps[:3]",
        "steps[0,4]",
        "headings[:2]",
    ]
    assert AtSteps.named(["step_end[4]", "step_end[1]"]) == AtSteps(only=(4, 1))
    assert str(InSpans("thought", "answer_first")) == "in thought|answer_first"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AtSteps(first=1, only=(2,)), "pass one of them"),
        (lambda: AtSteps(first=0), "at least 1"),
        (lambda: AtSteps(only=()), "at least one step"),
        (lambda: AtSteps(only=(-1,)), "numbered from 0"),
        (lambda: AtSteps.named(["last_prompt"]), "'last_prompt' is no step's end"),
        (lambda: AtSteps.named(["step_end[-1]"]), "no step's end counted from the first"),
        (lambda: InSpans(), "at least one span"),
        (lambda: InSpans("thougt"), "unknown span"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(make: Callable[[], Gate], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_combination_can_be_made_of_other_leaves() -> None:
    gate = ~(FirstTokens(3) | AtSteps()) & Always()
    assert str(mapped(gate, lambda leaf: InSpans("all") if leaf == AtSteps() else leaf)) == "(not (first_tokens(3) or in all) and always)"


def test_a_gate_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FirstTokens(3).k = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": torch.ones(2, 4)}, r"one direction \[d\]"),
        ({"weight": torch.tensor([1.0, float("nan"), 0.0, 0.0])}, "nan or inf"),
        ({"bias": float("inf")}, "nan or inf"),
        ({"threshold": float("nan")}, "nan or inf"),
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


@pytest.mark.parametrize("wrong", [lambda: AtSteps() and FirstTokens(3), lambda: AtSteps() or FirstTokens(3), lambda: not AtSteps()])
def test_pythons_own_logic_is_refused(wrong: Callable[[], object]) -> None:
    """It would take one of the two gates without a word."""
    with pytest.raises(TypeError, match="combined with &, | and ~"):
        wrong()


def test_a_gate_combines_with_gates_alone() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        AtSteps() & 3  # type: ignore[operator]
