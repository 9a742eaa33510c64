"""Site names and their layers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.hooks import NAMES, Site, expand, parse_site
from thoughtlens.hooks.attach import CHANGEABLE, PLACES, place
from thoughtlens.hooks.sites import ATTENTIONS

LAYERS = st.lists(st.sampled_from(ATTENTIONS), min_size=1, max_size=6)


def test_names_are_read_and_written() -> None:
    assert parse_site("resid_post.4") == ("resid_post", 4) and parse_site("mlp_out") == ("mlp_out", None)
    assert all(str(Site(name, 12)) == f"{name}.12" and parse_site(Site(name, 12)) == (name, 12) for name in NAMES)


def test_a_name_alone_means_every_layer_and_each_site_comes_once() -> None:
    assert [str(site) for site in expand("resid_post", 3)] == ["resid_post.0", "resid_post.1", "resid_post.2"]
    assert [str(site) for site in expand(["attn_out.2", "attn_out", Site("attn_out", 0)], 3)] == ["attn_out.2", "attn_out.0", "attn_out.1"]


@given(LAYERS)
def test_a_name_alone_means_every_layer_that_has_it(attention: list[str]) -> None:
    n = len(attention)
    both = [site for name in dict.fromkeys(attention) for site in expand(name, n, attention)]
    assert sorted(site.layer for site in both) == list(range(n)) and all(attention[site.layer] == site.name for site in both)
    assert expand("mlp_out", n, attention) == [Site("mlp_out", layer) for layer in range(n)]
    for name in ATTENTIONS:
        for layer in range(n):
            if attention[layer] == name:
                assert expand(f"{name}.{layer}", n, attention) == [Site(name, layer)]
            else:
                with pytest.raises(ValueError, match=f"'{name}.{layer}' is not in this model: .* Choose one of these"):
                    expand(f"{name}.{layer}", n, attention)


def test_an_attention_that_is_elsewhere_names_where_it_is() -> None:
    with pytest.raises(ValueError, match="'attn_out.1' is not in this model: attn_out is at layers 0, 2; cross_attn_out is at layers 1"):
        expand(["resid_post", "attn_out.1"], 3, ["attn_out", "cross_attn_out", "attn_out"])
    with pytest.raises(ValueError, match="'cross_attn_out' is not in this model: attn_out is at layers 0, 1; no layer has cross_attn_out"):
        expand("cross_attn_out", 2)


@pytest.mark.parametrize("text", ["resid", "resid_post.", "resid_post.-1", "resid_post.x", "", "resid_post.1.2"])
def test_an_unknown_site_is_named_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=f"unknown site.*{', '.join(NAMES)}"):
        parse_site(text)


def test_a_layer_out_of_range_names_the_range() -> None:
    with pytest.raises(ValueError, match="'resid_post.3' is out of range: this model has layers 0 to 2"):
        expand(["resid_post.0", "resid_post.3"], 3)


def test_every_name_has_a_place_and_those_that_can_be_changed_a_rank_in_the_order_they_run() -> None:
    assert set(PLACES) == set(NAMES) and set(CHANGEABLE) == set(NAMES) - {"head_out"}
    ranks = [place(Site(name, layer)) for layer in range(3) for name in CHANGEABLE]
    assert ranks == sorted(set(ranks))
    with pytest.raises(ValueError, match="act at resid_pre, attn_out, cross_attn_out, mlp_out, resid_post, not at 'head_out.1'"):
        place(Site("head_out", 1))
