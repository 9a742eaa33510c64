"""Select: normalised, checked when made, and written as plain data."""

import json

import pytest
from thoughtlens.hooks import POOLS, Select, Site, parse_span


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
