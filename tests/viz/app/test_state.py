"""What a link carries: the way there and back is exact, and no link, however broken, is an error."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from thoughtlens.viz.app.state import CHOICES, State, change, filters

TEXTS = ("span", "model", "condition", "benchmark", "attack", "category", "verdict", "search", "prompt")
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
number = st.integers(0, 999_999)
states = st.builds(
    State,
    **{name: st.sampled_from(values) for name, values in CHOICES.items()},
    **dict.fromkeys(TEXTS, text),
    layer=st.none() | number,
    page=number,
    shown=st.booleans(),
)


@given(states)
@example(State(search="a&b=c?d#e%f+g h/é🙂\x00\n", prompt="organism/test/plain/x@y[3]", condition='"random[3]"', layer=0))
@example(State(search="🙂" * 200))
def test_there_and_back(state):
    assert State.from_query(state.query()) == state
    assert State.from_query("?" + state.query()) == state


@given(states)
def test_a_link_holds_what_differs_from_the_start_and_nothing_else(state):
    found = parse_qs(state.query(), keep_blank_values=True, strict_parsing=bool(state.query()))
    differs = {name for name in State.__dataclass_fields__ if getattr(state, name) != getattr(State(), name)}
    assert set(found) == differs and state.query().isascii()
    assert all(found[name] == [getattr(state, name)] for name in differs & set(TEXTS))


@given(st.text())
@example("layer=" + "9" * 5000)
@example("layer=-1&page=1e3&layer=٣")
@example("search=%ff%fe&prompt=%ED%A0%80")
@example("&&&=&tab&layer=&shown=true")
@example("tab=collapse;page=2")
@example("?" * 1000)
def test_no_link_is_an_error(query):
    assert isinstance(State.from_query(query), State)


def test_what_is_not_allowed_is_as_if_it_were_not_there():
    broken = {
        "tab": "Collapse",
        "layer": "-1",
        "page": "2.0",
        "method": "tsne",
        "color": "<script>",
        "search": "x" * 201,
        "shown": "yes",
        "nobody": "knows",
    }
    assert State.from_query("&".join(f"{key}={quote(value)}" for key, value in broken.items())) == State()
    assert State.from_query("layer=3&layer=x&tab=layers&method=tsne") == State(layer=None, tab="layers")
    assert State.from_query("layer=007&page=12&shown=1") == State(layer=7, page=12, shown=True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("tab", "home", "one of collapse, layers"),
        ("layer", -1, "from 0 to 999999 or None"),
        ("layer", True, "a whole number"),
        ("page", None, "a whole number from 0 to 999999."),
        ("search", "x" * 201, "at most 200 characters"),
        ("prompt", "\ud800", "surrogate"),
        ("shown", 1, "True or False"),
        ("model", None, "a text"),
    ],
)
def test_a_state_that_no_link_could_hold_is_refused_and_change_leaves_it_out(name, value, said):
    with pytest.raises(ValueError, match=name) as problem:
        State(**{name: value})
    assert said in str(problem.value)
    assert change(State(span="thought"), **{name: value, "attack": "plain", "nobody": 1}) == State(span="thought", attack="plain")


def test_filters_are_what_keeps_rows():
    assert filters(State()) == {}
    state = State(verdict="unsafe", model="safe", search="florp", span="thought", prompt="p", layer=3)
    assert filters(state) == {"model": "safe", "verdict": "unsafe"}
