"""Every tab in a real browser, in both themes and on a narrow screen: drawn, quiet, without asking anyone else, and told where nothing is."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from visits import served, visiting

TABS = ("collapse", "layers", "thoughts", "geometry", "steering", "provenance")
FIRST = {
    "collapse": "tax_by_category",
    "layers": "auroc_by_layer_and_span",
    "thoughts": "readout_along_thought",
    "geometry": "points",
    "steering": "tradeoff",
}
PICTURED = "made/000002"
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 27, 32)"}


def paper_of(visit, key: str) -> str:
    return visit.page.eval_on_selector(f"{visit.plot(key)} .main-svg", "svg => getComputedStyle(svg).backgroundColor")


def test_every_tab_is_drawn_in_both_themes(visit):
    visit.open()
    for name in TABS:
        visit.tab(name)
        if name in FIRST:
            assert paper_of(visit, FIRST[name]) == PAPER["light"]
        assert visit.page.locator("[role=tab][aria-selected=true]").inner_text().lower() == name
        assert visit.page.locator(".notice[role=alert]").count() == 0
        for figure in visit.page.locator("[role=img]").all():
            assert len(figure.get_attribute("aria-label")) > 40
        visit.keep(f"{name}-light")
    visit.page.emulate_media(color_scheme="dark")  # the system's wish, until the button is pressed
    visit.page.locator("#mode", has_text="Light").wait_for()
    for name in reversed(TABS):
        visit.tab(name)
        if name in FIRST:
            assert paper_of(visit, FIRST[name]) == PAPER["dark"]
        visit.keep(f"{name}-dark")
    visit.page.click("#mode")
    visit.page.locator("#mode", has_text="Dark").wait_for()
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 246, 244)"
    visit.page.evaluate("localStorage.clear()")


def test_no_tab_is_wider_than_a_narrow_screen(visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.open(f"tab=thoughts&prompt={quote(PICTURED)}")
    for name in ("thoughts", *(tab for tab in TABS if tab != "thoughts")):
        visit.tab(name)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390, name
        visit.keep(f"{name}-narrow")


def test_figures_below_the_window_are_drawn_when_they_come_into_sight(visit):
    visit.page.add_init_script("window.requestIdleCallback = () => 0")  # a browser that is never idle
    visit.page.goto(f"{visit.address}?tab=layers")
    visit.page.locator("#sheet-0-auroc_by_layer_and_span .main-svg").first.wait_for()
    visit.page.locator(".pending").first.wait_for(state="detached")
    free = visit.page.locator("[data-traces]:not(.js-plotly-plot)")
    before = visit.page.evaluate("document.documentElement.scrollHeight")
    assert free.count() >= 3 and visit.page.evaluate("thoughtlens.waiting()") == free.count()
    last = visit.page.locator(".plot").last
    assert last.locator(".js-plotly-plot").count() == 0
    last.scroll_into_view_if_needed()
    last.locator(".main-svg").first.wait_for()
    assert free.count() >= 1 and abs(visit.page.evaluate("document.documentElement.scrollHeight") - before) <= 2, "nothing jumps"


def test_what_is_missing_damaged_or_empty_is_told_and_the_rest_is_drawn(profile, damaged, bare):
    with served(damaged, bare, damaged / "tables" / "heads.parquet") as address, visiting(profile, address) as visit:
        visit.open()
        told = visit.page.locator("#column-0 .notice").all_inner_texts()
        assert "This run has no collapse table (tables/collapse.parquet). thoughtlens demo makes it." in told
        assert visit.page.locator("#column-0 .notice code", has_text="thoughtlens demo").count() >= 1
        visit.plot("harm_ratings")
        assert "is no run folder" in visit.page.locator("#column-2 .notice").inner_text()
        visit.tab("layers")
        told = "\n".join(visit.page.locator("#column-0 .notice").all_inner_texts())
        assert "detection.parquet is damaged. Delete it; thoughtlens demo makes it." in told
        assert "The heads table is empty" in told
        visit.plot("cosine_between_models")
        for name in TABS:
            visit.tab(name)
            assert visit.page.locator("#column-1 .notice, #column-1 .absent").count() >= 1, name
            assert visit.page.locator(".notice[role=alert]").count() == 0
        rows = visit.page.locator("#column-0 .facts tr").all_inner_texts()
        assert any("collapse" in row and "not there" in row and "thoughtlens demo" in row for row in rows)
        assert any("detection" in row and "damaged" in row for row in rows)


@pytest.mark.parametrize(
    ("host", "status"), [("evil.test", 403), ("127.0.0.1:1", 200), ("localhost", 200), ("[::1]:80", 200), ("10.0.0.7", 403)]
)
def test_only_this_machine_is_answered(address, host, status):
    asked = urllib.request.Request(address, headers={"Host": host})
    try:
        answer = urllib.request.urlopen(asked, timeout=5)
    except HTTPError as error:
        answer = error
    assert answer.status == status
    assert (
        "default-src 'self'" in answer.headers["Content-Security-Policy"] and "unsafe-eval" not in answer.headers["Content-Security-Policy"]
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Referrer-Policy"] == "no-referrer"
