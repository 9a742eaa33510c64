"""Select: normalised, checked when made, and written as plain data."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.hooks import NAMES, POOLS, Select, Site, parse_span
from thoughtlens.hooks.select import listed
from thoughtlens.hooks.spans import ANCHORS, STRETCHES


def test_one_value_or_many_and_each_once() -> None:
    assert Select("resid_post", "thought@.5") == Select(["resid_post", "resid_post"], ("thought@0.5",), "mean")
    assert Select(Site("attn_out", 1), parse_span("thought[:3]"), "max").sites == ("attn_out.1",)


def test_it_survives_json() -> None:
    for pool in POOLS:
        where = Select(["resid_pre.1", "head_out"], ["step_end[-1]", "thought[2:]"], pool)
        assert Select.from_dict(json.loads(json.dumps(where.to_dict()))) == where
    with pytest.raises(ValueError, match="'pool' is missing"):
        Select.from_dict({"sites": ["resid_post"], "spans": ["thought"]})


@pytest.mark.parametrize(
    ("sites", "spans", "pool", "message"),
    [
        ("resid", "thought", "mean", "unknown site 'resid'"),
        ("resid_post", "thoughts", "mean", "unknown span 'thoughts'"),
        ("resid_post", "thought", "sum", "unknown pool 'sum'; known are mean, max"),
        ((), "thought", "mean", "at least one site"),
        ("resid_post", [], "mean", "at least one site"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_made(sites: object, spans: object, pool: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Select(sites, spans, pool)  # type: ignore[arg-type]


SITES = st.one_of(st.sampled_from(NAMES), st.builds("{}.{}".format, st.sampled_from(NAMES), st.integers(0, 99)))
SPANS = st.one_of(
    st.sampled_from([*STRETCHES, *ANCHORS]),
    st.builds("{}[{}]".format, st.sampled_from(["step", "step_end"]), st.integers(-9, 99)),
    st.builds("{}[{}:{}]".format, st.sampled_from(STRETCHES), st.integers(-9, 99), st.one_of(st.just(""), st.integers(-9, 99))),
    st.builds("{}@{:.9f}".format, st.sampled_from(STRETCHES), st.floats(0, 1)),
)


@given(
    st.lists(SITES, min_size=1, max_size=4),
    st.lists(SPANS, min_size=1, max_size=4),
    st.sampled_from(POOLS),
    st.sampled_from(["", " ", "  "]),
)
def test_it_survives_being_written(sites: list[str], spans: list[str], pool: str, blank: str) -> None:
    where = Select(sites, spans, pool)  # type: ignore[arg-type]
    assert Select.parse(str(where)) == where
    text = f"{blank}{f'{blank},'.join(sites)}@{blank}{f',{blank}'.join(spans)}{blank}|{pool}{blank}"
    assert Select.parse(text) == where == Select.from_dict(where.to_dict())


def test_the_text_of_a_selection() -> None:
    where = Select(["resid_post", "mlp_out.3"], ["last_prompt", "thought@0.5"])
    assert str(where) == "resid_post,mlp_out.3 @ last_prompt,thought@0.5 | mean"
    assert Select.parse("resid_post,mlp_out.3 @ last_prompt,thought@.5") == where
    assert Select.parse("resid_post@thought@0.5|max") == Select("resid_post", "thought@0.5", "max")
    assert Select("resid_post", "thought@0.00001").spans == ("thought@0.00001",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resid_post", 'is written "sites @ spans | pool"'),
        ("resid_post @ thought |", 'is written "sites @ spans | pool"'),
        ("resid_post @ thought | sum", "unknown pool 'sum'"),
        ("resid_post @ thoughts", "unknown span 'thoughts'"),
        ("resid_post, @ thought", "unknown site ''"),
        ("@ thought", "at least one site"),
        ("resid_post @ | mean", "at least one site and one span"),
        ("", 'is written "sites @ spans | pool"'),
    ],
)
def test_what_is_wrong_in_the_text_of_a_selection_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        Select.parse(text)


def test_blanks_around_commas_are_no_part_of_a_name() -> None:
    assert listed(" last_prompt ,thought@0.5, answer") == ["last_prompt", "thought@0.5", "answer"] and listed("  ") == listed("") == []
