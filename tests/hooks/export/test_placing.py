"""Where edits end up: a rewritten projection gives what the operators make of its output, and sums behind blocks are the sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from thoughtlens.hooks.export.placing import Rewrite, behind, projection, projection_path, rewrites, rewritten, sums
from thoughtlens.hooks.operators import changed
from thoughtlens.hooks.sites import Site
from torch import Tensor, nn
from torch.testing import assert_close
from zoo import zoo_lens

OPERATORS = ("add", "ablate", "affine", "rotate", "subspace", "transport")
SITE = Site("mlp_out", 1)


def output_of(rewrite: Rewrite, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """What the rewritten projection computes."""
    there = torch.zeros(len(weight)) if bias is None else bias
    return nn.functional.linear(x, rewrite.weight(weight), (there + rewrite.shift(bias)).to(weight.dtype))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_rewritten_projection_writes_what_the_operator_makes_of_its_output(edit: Any, operator: str, biased: bool) -> None:
    lens, one = zoo_lens("llama"), edit(operator, str(SITE), strength=0.6)
    weight, x = torch.randn(32, 7), torch.randn(5, 7)
    bias = torch.randn(32) if biased else None
    y = nn.functional.linear(x, weight, bias)
    theirs = changed(y, one.change(lens, str(SITE)), 0.6)
    found = rewrites(lens, [one])
    assert list(found) == [SITE]
    assert_close(output_of(found[SITE], weight, bias, x), theirs, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(theirs, y, atol=1e-2)
    left, right = found[SITE].factors(weight)
    assert_close((weight + left @ right).float(), found[SITE].weight(weight))


def test_edits_of_one_site_all_read_the_same_output_and_are_summed(edit: Any) -> None:
    lens, weight, bias, x = zoo_lens("llama"), torch.randn(32, 7), torch.randn(32), torch.randn(5, 7)
    edits = [edit(name, str(SITE), seed=seed, strength=0.3 + seed) for seed, name in enumerate(("affine", "add", "rotate", "subspace"))]
    y = nn.functional.linear(x, weight, bias)
    theirs = y + sum(changed(y, one.change(lens, str(SITE)), float(one.strengths)) - y for one in edits)
    (found,) = rewrites(lens, edits).values()
    assert found.basis.shape == (1 + 2 + 2, 32), "what only adds needs no row"
    assert_close(output_of(found, weight, bias, x), theirs, atol=1e-4, rtol=1e-4)


def test_what_adds_goes_where_the_same_sum_is_made(edit: Any) -> None:
    lens = zoo_lens("llama")
    edits = [edit("add", site, seed=seed) for seed, site in enumerate(("resid_post.1", "resid_pre.2", "mlp_out.1"))]
    assert [str(rewritten(one, Site(*parse(one)))) for one in edits] == ["mlp_out.1"] * 3
    assert rewritten(edit("add", "resid_pre.0"), Site("resid_pre", 0)) is None
    assert rewritten(edit("ablate", "resid_post.1"), Site("resid_post", 1)) == Site("resid_post", 1)
    total = sum(0.7 * one.vector.values[one.vector.sites[0]].double() for one in edits)
    assert isinstance(total, Tensor)
    (found,) = rewrites(lens, edits).values()
    assert_close(found.constant, total)
    assert list(sums(lens, edits)) == [1]
    assert_close(sums(lens, edits)[1], total)
    assert [behind(Site(name, 2)) for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")] == [1, None, 2, 2]


def parse(one: Any) -> tuple[str, int]:
    name, layer = one.vector.sites[0].split(".")
    return name, int(layer)


def test_several_sites_share_what_is_added(edit: Any) -> None:
    lens, one = zoo_lens("llama"), edit("add", "resid_post.0", "resid_post.2", strength=2.0)
    found = sums(lens, [one])
    assert {layer: float(v.norm()) for layer, v in found.items()} == {
        layer: pytest.approx(2 / 2**0.5 * float(one.vector.values[f"resid_post.{layer}"].norm())) for layer in (0, 2)
    }


def test_a_rewrite_keeps_the_dtype_and_rounds_once(edit: Any) -> None:
    (found,) = rewrites(zoo_lens("llama"), [edit("ablate", str(SITE))]).values()
    weight = torch.randn(32, 7).bfloat16()
    exact = weight.double() - 0.7 * torch.outer(found.basis[0], found.basis[0] @ weight.double())
    assert found.weight(weight).dtype == torch.bfloat16
    assert torch.equal(found.weight(weight), exact.bfloat16())


@pytest.mark.parametrize(
    ("family", "site", "path"),
    [
        ("llama", Site("attn_out", 1), "model.layers.1.self_attn.o_proj"),
        ("qwen2_5_vl", Site("mlp_out", 2), "model.language_model.layers.2.mlp.down_proj"),
        ("qwen3_5", Site("attn_out", 0), "model.language_model.layers.0.linear_attn.out_proj"),
        ("mllama", Site("cross_attn_out", 1), "model.language_model.layers.1.cross_attn.o_proj"),
    ],
)
def test_a_projection_is_where_the_family_says(family: str, site: Site, path: str) -> None:
    lens = zoo_lens(family)
    assert projection_path(lens, site) == path
    assert projection(lens, site) is lens.model.get_submodule(path)


def test_a_mixture_of_experts_has_no_projection() -> None:
    lens = zoo_lens("qwen3_vl_moe")
    assert [projection(lens, Site("mlp_out", layer)) is None for layer in range(3)] == [True, False, True]
