"""Links: what an address reads it writes, and a change of what is listed starts the list at its first page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.viz.app.state import State
from thoughtlens.viz.app.views import Address

WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(search=WORDS, left=WORDS, right=WORDS, layer=st.none() | st.integers(0, 99), shown=st.booleans())
def test_an_address_is_read_back_as_it_was_written(search, left, right, layer, shown):
    address = Address(State(tab="thoughts", search=search, layer=layer, shown=shown), left, right)
    assert Address.read(address.href()) == address


def test_a_link_changes_one_thing_and_the_page_only_where_the_list_is_another():
    address = Address(State(tab="thoughts", page=3, attack="plain"), left="safe")
    assert address.href() == "?tab=thoughts&attack=plain&page=3&left=safe"
    assert address.href(prompt="a/b") == "?tab=thoughts&attack=plain&prompt=a%2Fb&page=3&left=safe"
    assert address.href(attack="") == "?tab=thoughts&left=safe"
    assert address.href(left="", right="base @ random[0]") == "?tab=thoughts&attack=plain&page=3&right=base%20%40%20random%5B0%5D"
    assert Address().href() == "?"


def test_what_is_too_long_or_unknown_is_left_out():
    assert Address.read("?left=" + "x" * 3000 + "&florp=1&layer=wug") == Address(left="x" * 2000)
