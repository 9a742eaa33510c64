"""Edits: what is asked is checked when it is made; strengths default to what the vector recommends; sites share what is added."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from thoughtlens.hooks.edits import Edit, check_fits, edits_of
from thoughtlens.hooks.gates import AtSteps, FirstTokens
from thoughtlens.hooks.vector import Vector
from tiny import tiny_lens
from torch.testing import assert_close


def vector(*sites: str, width: int = 32) -> Vector:
    chance = torch.Generator().manual_seed(0)
    return Vector({site: torch.randn(width, generator=chance) for site in sites or ("resid_post.1",)}, "last_prompt", source="test")


def test_the_spans_are_those_of_the_vector_unless_said_otherwise() -> None:
    assert Edit(vector()).where == ("last_prompt",)
    assert Edit(vector(), spans="thought").where == ("thought",)
    assert Edit(vector(), spans=["thought[:4]", "answer"]).where == ("thought[:4]", "answer")


def test_the_strength_is_what_the_vector_recommends_for_this_operator() -> None:
    told = vector().recommend(strength=2.5, chosen_on="dev", operator="ablate")
    assert Edit(told, operator="ablate").strengths.item() == 2.5
    assert Edit(told).strengths.item() == 1.0
    assert Edit(told, 0.5, operator="ablate").strengths.item() == 0.5
    assert Edit(vector().recommend(strength=3, chosen_on="dev")).strengths.item() == 3.0
    assert Edit(vector().recommend(strength=3, chosen_on="dev"), unit="local").strengths.item() == 1.0


def test_the_spans_may_be_recommended_too() -> None:
    told = vector().recommend(strength=2.5, chosen_on="dev", operator="ablate", spans=["thought", "answer"])
    assert Edit(told, operator="ablate").where == ("thought", "answer")
    assert Edit(told, spans="answer", operator="ablate").where == ("answer",)
    assert Edit(told).where == ("last_prompt",)  # of another operator nothing was said


def test_sites_share_what_is_added_and_nothing_else() -> None:
    lens, several = tiny_lens(), vector("resid_post.0", "resid_post.1", "mlp_out.2")
    for site in several.sites:
        assert_close(Edit(several).change(lens, site).basis[0] * 3**0.5, several.values[site])
        assert_close(Edit(several, operator="ablate").change(lens, site).basis[0].norm().item(), 1.0)


def test_an_edit_says_what_it_is() -> None:
    edit = Edit(vector(), 0.5, operator="ablate", spans="thought", gate=FirstTokens(3))
    assert str(edit) == "test ablate 0.5 at resid_post.1, thought, first_tokens(3)"
    assert str(Edit(vector(), [1.0, 2.0], unit="local")) == "test add per row local at resid_post.1, last_prompt, always"
    assert edit.facts() == {
        **{"vector": "test", "sites": ["resid_post.1"], "spans": ["thought"], "operator": "ablate", "unit": "measured"},
        **{"strength": 0.5, "gate": "first_tokens(3)"},
    }


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"operator": "bend"}, "known are add, ablate, affine, rotate, subspace, transport"),
        ({"unit": "percent"}, '"measured" counts strength in differences of the two classes'),
        ({"unit": "local", "operator": "ablate"}, 'ablate counts in "measured"'),
        ({"operator": "affine"}, "does not know the class means"),
        ({"operator": "transport"}, "no transport"),
        ({"spans": []}, "at least one"),
        ({"spans": "thougt"}, "unknown span"),
        ({"strength": float("nan")}, "finite"),
        ({"strength": [[1.0]]}, "one per row"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Edit(vector(), **asked)  # type: ignore[arg-type]


def test_keywords_and_edits_are_not_mixed() -> None:
    nothing = {"strength": None, "gate": None}
    assert edits_of(vector(), {"strength": 2.0, "gate": None})[0].strengths.item() == 2.0
    assert len(edits_of([Edit(vector()), Edit(vector())], nothing)) == 2
    with pytest.raises(ValueError, match=r"an Edit says its own strength: write Edit\(vector, strength=…\)"):
        edits_of(Edit(vector()), {"strength": 2.0, "gate": None})
    with pytest.raises(TypeError, match="not Tensor"):
        edits_of([torch.ones(3)], nothing)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (vector(width=16), "width 16, tiny-words-0 has 32"),
        (vector("resid_post.3"), "layers 0 to 2"),
        (vector("head_out.1"), "act at resid_pre, attn_out, cross_attn_out, mlp_out, resid_post"),
    ],
)
def test_a_vector_of_another_model_does_not_fit(asked: Vector, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_fits(tiny_lens(), Edit(asked))


def test_an_edit_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Edit(vector()).operator = "ablate"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"vector": "v.safetensors"}, "made of a Vector, not of str. Vector.load"),
        ({"gate": "steps"}, "gate is a gate"),
        ({"gate": AtSteps}, "gate is a gate"),
        ({"spans": 4}, "the name of a span or several"),
        ({"strength": "much"}, "strength is a number or one per row"),
    ],
)
def test_what_is_taken_for_something_else_is_named(asked: dict[str, object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Edit(**{"vector": vector(), **asked})  # type: ignore[arg-type]


@pytest.mark.parametrize("gate", [AtSteps(first=3), AtSteps(only=(1, 2))])
def test_a_gate_that_never_meets_its_span_is_refused(gate: AtSteps) -> None:
    with pytest.raises(ValueError, match="is closed at step_end.4."):
        Edit(vector(), spans="step_end[4]", gate=gate)
    assert Edit(vector(), spans=["step_end[4]", "step_end[2]"], gate=gate).gate == gate
