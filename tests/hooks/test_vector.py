"""Steering vectors: chosen sites, natural length, saved and read back, refused when they make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from thoughtlens.hooks.artifact import save_artifact
from thoughtlens.hooks.vector import Vector
from tiny import tiny_lens


def make(**changes: object) -> Vector:
    values = {"resid_post.1": torch.tensor([3.0, 4.0]), "resid_post.2": torch.tensor([0.0, 2.0]), "mlp_out.1": torch.tensor([1.0, 0.0])}
    facts: dict[str, object] = {"values": values, "span": "thought[:4]", "pool": "last", "source": "safe-reasoning"}
    facts |= {"scale": {"resid_post.1": 10.0, "resid_post.2": 20.0}, "header": {"seed": 3}}
    return Vector(**(facts | changes))  # type: ignore[arg-type]


def test_sites_are_chosen_by_name() -> None:
    assert make().at("resid_post.2").sites == ("resid_post.2",)
    assert make().at("resid_post").sites == ("resid_post.1", "resid_post.2")
    assert make().at("mlp_out.1", "resid_post.1").sites == ("mlp_out.1", "resid_post.1")
    assert make().at("resid_post.2").scale == {"resid_post.2": 20.0}
    with pytest.raises(ValueError, match=r"no value at 'resid_post.5'; it has resid_post.1, resid_post.2, mlp_out.1"):
        make().at("resid_post.5")


def test_means_and_transport_go_with_their_sites() -> None:
    means = {site: torch.eye(2) for site in make().values}
    chosen = make(means=means).at("resid_post")
    assert tuple(chosen.means) == chosen.sites
    with pytest.raises(ValueError, match="does not know the class means at resid_post.1.*steering_vector"):
        make().means_at("resid_post.1")
    with pytest.raises(ValueError, match="no transport at resid_post.1.*steering_subspace"):
        make().transport_at("resid_post.1")


def test_several_directions_are_a_subspace_and_no_vector() -> None:
    several = make(values={"resid_post.1": torch.eye(2)}, scale={})
    assert torch.equal(several.basis("resid_post.1"), torch.eye(2)) and several.width == 2
    torch.testing.assert_close(make().basis("resid_post.1"), torch.tensor([[0.6, 0.8]]))
    with pytest.raises(ValueError, match="has 2 directions at resid_post.1, and this operator takes one"):
        several.direction("resid_post.1")


def test_a_recommendation_is_kept_with_where_it_was_chosen(tmp_path: Path) -> None:
    told = make().recommend(strength=2, chosen_on="organism dev", operator="affine")
    told.save(tmp_path / "v.safetensors")
    assert Vector.load(tmp_path / "v.safetensors").recommended == {"strength": 2.0, "chosen_on": "organism dev", "operator": "affine"}
    assert make().recommended == {}
    with pytest.raises(ValueError, match="not 'colour'"):
        make().recommend(strength=1, chosen_on="dev", colour="red")


def test_a_vector_survives_saving(tmp_path: Path) -> None:
    several = {"resid_post.2": torch.eye(2)}
    means = {"resid_post.1": torch.tensor([[1.0, 2.0], [4.0, 6.0]])}
    before = make(values={**make().values, **several}, means=means, transport={"resid_post.2": torch.ones(2, 2)})
    path = tmp_path / "vector.safetensors"
    before.save(path)
    after = Vector.load(path)
    assert after.sites == before.sites
    assert all(torch.equal(after.values[site], before.values[site]) for site in before.sites)
    assert after.means.keys() == means.keys() and torch.equal(after.means["resid_post.1"], means["resid_post.1"])
    assert after.transport.keys() == {"resid_post.2"} and torch.equal(after.transport["resid_post.2"], torch.ones(2, 2))
    for fact in ("span", "pool", "source", "scale", "header"):
        assert getattr(after, fact) == getattr(before, fact)
    with pytest.raises(FileExistsError):
        before.save(path)


def test_a_direction_at_every_output_is_saved_with_each_site(tmp_path: Path) -> None:
    lens = tiny_lens()
    value = torch.randn(32, generator=torch.Generator().manual_seed(0))
    vector = Vector(
        {"resid_post.1": value, "resid_post.2": 2 * value}, "last_prompt", source="test", means={"resid_post.1": torch.ones(2, 32)}
    )
    spread = vector.at("resid_post.1").elsewhere(lens.outputs)
    assert spread.sites == tuple(f"{name}.{layer}" for layer in range(3) for name in ("attn_out", "mlp_out"))
    assert spread.means == {} and spread.source == "test of resid_post.1"
    spread.save(tmp_path / "v.safetensors")
    assert all(torch.equal(one, value) for one in Vector.load(tmp_path / "v.safetensors").values.values())
    with pytest.raises(ValueError, match="has 2 sites, and one direction can act elsewhere"):
        vector.elsewhere(lens.outputs)


def test_another_artifact_is_no_vector(tmp_path: Path) -> None:
    path = save_artifact(tmp_path / "probe.safetensors", {"weight": torch.ones(2)}, {"kind": "probe"})
    with pytest.raises(ValueError, match="holds a 'probe', not a steering vector"):
        Vector.load(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"values": {}}, "no site"),
        ({"values": {"resid_post": torch.ones(2)}}, "every resid_post together"),
        ({"values": {"residual.1": torch.ones(2)}}, "unknown site"),
        ({"values": {"resid_post.1": torch.ones(2), "resid_post.2": torch.ones(3)}}, r"\[3\] at resid_post.2, expected .* \[2\]"),
        ({"values": {"resid_post.1": torch.zeros(2)}}, "zero at resid_post.1"),
        ({"values": {"resid_post.1": torch.tensor([1.0, float("nan")])}}, "not finite at resid_post.1"),
        ({"span": "thougt"}, "unknown span"),
        ({"scale": {"resid_post.1": 0.0}}, "mean length, above 0"),
        ({"values": {"resid_post.1": torch.ones(2, 2)}}, "not orthonormal"),
        ({"means": {"resid_post.1": torch.ones(2, 3)}}, r"means .* at resid_post.1 are finite and \[2, 2\], not \[2, 3\]"),
        ({"means": {"resid_post.1": torch.full((2, 2), float("nan"))}}, "means .* are finite"),
        ({"means": {"resid_post.9": torch.ones(2, 2)}}, "has means at resid_post.9, and no value there"),
        ({"values": {"resid_post.1": torch.ones(2, dtype=torch.int64)}}, "no tensor of numbers with a point at resid_post.1"),
        ({"values": {"resid_post.1": [1.0, 2.0]}}, "no tensor of numbers with a point"),
    ],
)
def test_a_vector_that_makes_no_sense_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(**changes)
