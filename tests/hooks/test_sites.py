"""Site names and their layers."""

import pytest
from thoughtlens.hooks import NAMES, Site, expand, parse_site


def test_names_are_read_and_written() -> None:
    assert parse_site("resid_post.4") == ("resid_post", 4) and parse_site("mlp_out") == ("mlp_out", None)
    assert all(str(Site(name, 12)) == f"{name}.12" and parse_site(Site(name, 12)) == (name, 12) for name in NAMES)


def test_a_name_alone_means_every_layer_and_each_site_comes_once() -> None:
    assert [str(site) for site in expand("resid_post", 3)] == ["resid_post.0", "resid_post.1", "resid_post.2"]
    assert [str(site) for site in expand(["attn_out.2", "attn_out", Site("attn_out", 0)], 3)] == ["attn_out.2", "attn_out.0", "attn_out.1"]


@pytest.mark.parametrize("text", ["resid", "resid_post.", "resid_post.-1", "resid_post.x", "", "resid_post.1.2"])
def test_an_unknown_site_is_named_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=f"unknown site.*{', '.join(NAMES)}"):
        parse_site(text)


def test_a_layer_out_of_range_names_the_range() -> None:
    with pytest.raises(ValueError, match="'resid_post.3' is out of range: this model has layers 0 to 2"):
        expand(["resid_post.0", "resid_post.3"], 3)
