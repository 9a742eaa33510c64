"""Steering vectors: chosen sites, natural length, saved and read back, refused when they make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from thoughtlens.hooks.artifact import save_artifact
from thoughtlens.hooks.vector import Vector


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


def test_unit_and_natural_length() -> None:
    torch.testing.assert_close(make().unit().values["resid_post.1"], torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(make().at("resid_post").natural().values["resid_post.2"], torch.tensor([0.0, 20.0 / 2**0.5]))
    with pytest.raises(ValueError, match="no mean residual length at mlp_out.1"):
        make().natural()


def test_a_vector_survives_saving(tmp_path: Path) -> None:
    path, before = tmp_path / "vector.safetensors", make()
    before.save(path)
    after = Vector.load(path)
    assert after.sites == before.sites
    assert all(torch.equal(after.values[site], before.values[site]) for site in before.sites)
    for fact in ("span", "pool", "source", "scale", "header"):
        assert getattr(after, fact) == getattr(before, fact)
    with pytest.raises(FileExistsError):
        before.save(path)


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
    ],
)
def test_a_vector_that_makes_no_sense_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(**changes)
