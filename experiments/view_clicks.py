"""`thoughtlens view` in a real browser: how long it takes to open, and how long a click takes, measured inside the page.

open       from starting the process, interpreter and imports included, until the first figure is drawn in a browser that is running already
page       from asking the server that is up for the page, with an empty cache, until the first figure is drawn
a click    from the time stamp of the mouse button, key or choice until it is
             answered   the last change of anything in the visible part of the page: a DOM mutation of an element that overlaps the window
                        when the next frame is drawn, or plotly_afterplot of such a figure. That a request is on its way (aria-busy and
                        Dash's own mark of it) is no change; text, figures, dimming and the place of what was scrolled are
             settled    the last change of any of the page, figures below the window included
           both before it was quiet, which is 250 ms without a change and without a request, and with no figure left to draw
after a pause    for what waits until nothing more is typed or dragged, the clock starts when it acts, which is when the address changes

A click that leaves the address as it was is an error, not a fast click.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE, NOTHING = 60_000.0, 5_000.0  # milliseconds to wait for anything, and for a click to do something
FIRST_FIGURE = ".js-plotly-plot .main-svg .trace, .js-plotly-plot .main-svg .hm"
WATCH = """
(() => {
  const QUIET = 250, now = () => performance.now();
  const seen = { event: 0, went: 0, last: 0, visible: 0, flying: 0, first: 0 };
  const changed = () => (seen.last = now());
  const inSight = (element) => {
    const { top, bottom, width } = element.getBoundingClientRect();
    return width > 0 && bottom > 0 && top < innerHeight;
  };
  const sight = (elements) => {
    const at = now();
    requestAnimationFrame(() => { if (elements.some(inSight)) seen.visible = Math.max(seen.visible, at); });
  };
  const BUSY = ["aria-busy", "data-dash-is-loading"];
  const whereof = (node) => {
    const element = node instanceof Element ? node : node.parentElement;
    return element?.closest(".js-plotly-plot") || element;
  };
  new MutationObserver((records) => {
    changed();
    const real = records.filter((record) => !BUSY.includes(record.attributeName));
    const nodes = real.flatMap(({ target, addedNodes }) => (addedNodes.length ? [...addedNodes] : [target]));
    sight([...new Set(nodes.map(whereof))].filter((element) => element && element !== document.documentElement));
    if (!seen.first && document.querySelector("FIRST_FIGURE")) seen.first = now();
  }).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  for (const kind of ["mouseup", "keydown", "change", "input"])
    document.addEventListener(kind, (event) => (seen.event ||= event.timeStamp), true);
  const fetched = window.fetch;
  window.fetch = (...asked) => {
    seen.flying += 1;
    return fetched(...asked).finally(() => { seen.flying -= 1; changed(); });
  };
  const pushed = history.pushState;
  history.pushState = function (...to) { seen.went ||= now(); return pushed.apply(this, to); };
  const pause = () => new Promise((next) => setTimeout(next, 10));
  const until = async (name, patience) => {
    for (const from = now(); !seen[name] && now() - from < patience; ) await pause();
    return seen[name];
  };
  const settled = async (patience) => {
    for (const from = now(); now() - from < patience; ) {
      for (const plot of document.querySelectorAll(".js-plotly-plot"))
        if (plot.on && !plot.watched) {
          plot.watched = true;
          plot.on("plotly_afterplot", () => { changed(); sight([plot]); });
        }
      if (!seen.flying && !window.thoughtlens?.waiting?.() && now() - seen.last > QUIET) return { ...seen };
      await pause();
    }
    return null;
  };
  window.watched = { until, settled, start: () => { seen.event = seen.went = seen.visible = 0; changed(); } };
})();
""".replace("FIRST_FIGURE", FIRST_FIGURE)
BACK = "to => { watched.start(); history.pushState({}, '', to); dispatchEvent(new PopStateEvent('popstate')); }"
PLACE = """
([selector, kind, number]) => {
  const plot = document.querySelector(selector);
  plot.scrollIntoView({ block: "center", behavior: "instant" });
  const full = plot._fullLayout, box = plot.getBoundingClientRect();
  const told = (data, i, j) => [j === undefined ? data.customdata?.[i] : data.customdata?.[i]?.[j]].flat()[0];
  const places = plot._fullData.filter((data) => data.visible === true).flatMap((data) => {
    const x = full["xaxis" + (data.xaxis || "x").slice(1)], y = full["yaxis" + (data.yaxis || "y").slice(1)];
    const place = (left, top) => ({ x: box.left + x._offset + x.d2p(left), y: box.top + y._offset + y.d2p(top) });
    const at = (left, top, means) => typeof means === kind && place(left, top);
    if (data.type === "heatmap")
      return [...data.z].flatMap((line, i) => [...line].map((_, j) => at(data.x?.[j] ?? j, data.y?.[i] ?? i, told(data, i, j))));
    return [...(data.x || [])].map((left, i) => at(left, data.y[i], told(data, i)));
  }).filter((place) => place && place.y > 0 && place.y < innerHeight && place.x > 0 && place.x < innerWidth);
  return places.length ? places[(number * 7919) % places.length] : null;
}
"""


@dataclass(frozen=True)
class Took:
    """Milliseconds until a click was answered in the visible part of the page, and until all of the page was at rest."""

    answered: float
    settled: float


@dataclass(frozen=True)
class Click:
    """Something an analyst does over and over.

    start    the address it begins at, after the question mark
    act      does it for the time of that number
    again    goes back to `start` before every time
    pauses   acts only when nothing more is typed or dragged for a moment
    new      every time shows figures that were not there
    """

    name: str
    start: str
    act: Callable[[Page, int], None]
    again: bool = False
    pauses: bool = False
    new: bool = False


def tabs(page: Page, number: int) -> None:
    names = ("layers", "thoughts", "geometry", "steering", "provenance", "collapse")
    page.click(f"#tab-{names[number % len(names)]}")


def on_figure(selector: str, kind: Literal["number", "string"]) -> Callable[[Page, int], None]:
    """A click on a cell (its data begins with a number, the layer) or a point (a string, the prompt), the mouse being there before."""

    def act(page: Page, number: int) -> None:
        page.wait_for_selector(f"{selector} .js-plotly-plot .main-svg")
        place = page.evaluate(PLACE, [f"{selector} .js-plotly-plot", kind, number])
        if place is None:
            raise OSError(f"no cell or point of the figure {selector} can be clicked; look at {page.url} in a browser")
        page.mouse.move(place["x"], place["y"])
        page.wait_for_timeout(120)
        page.evaluate("watched.start()")
        page.mouse.down()
        page.mouse.up()

    return act


def choose(selector: str) -> Callable[[Page, int], None]:
    """The next of the choices of a list."""

    def act(page: Page, number: int) -> None:
        choices = page.locator(f"{selector} option").count()
        page.select_option(selector, index=(number + 1) % choices)

    return act


def write(selector: str, words: Sequence[str]) -> Callable[[Page, int], None]:
    def act(page: Page, number: int) -> None:
        page.fill(selector, words[number % len(words)])

    return act


def slide(selector: str) -> Callable[[Page, int], None]:
    """One step of a slider by the keyboard, from end to end and back."""

    def act(page: Page, number: int) -> None:
        at, last = int(page.input_value(selector)), int(page.get_attribute(selector, "max") or 1)
        up = at == 0 or (at < last and number // last % 2 == 1)
        page.focus(selector)
        page.keyboard.press("ArrowRight" if up else "ArrowLeft")

    return act


def clicks(words: Sequence[str], prompt: str) -> tuple[Click, ...]:
    """What is timed. words: to search for; prompt: one whose tokens were read."""
    return (
        Click("tab", "", tabs, new=True),
        Click("cell of the heatmap", "tab=layers", on_figure(".plot.cell", "number")),
        Click("filter by category", "", choose("#filter-category"), new=True),
        Click("point, its thought opens", "tab=geometry", on_figure(".plot.point", "string"), again=True),
        Click("search", "tab=thoughts", write("#filter-search", words), pauses=True),
        Click("slider of layers, points", "tab=geometry", slide("input[type=range]"), pauses=True),
        Click("slider of layers, tokens", f"tab=thoughts&prompt={prompt}", slide("input[type=range]"), pauses=True),
    )


@contextmanager
def browser() -> Iterator[Browser]:
    """Headless, the system's Chromium before Playwright's own. ImportError and OSError say what to install."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise ImportError("clicks are timed with playwright, which is not installed: pip install 'thoughtlens[test]'") from error
    there = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=there)
        except Error as error:
            told = f"{there} does not start" if there else "there is no Chromium"
            raise OSError(f"{told}: install one (apt install chromium, or playwright install chromium)") from error
        try:
            yield started
        finally:
            started.close()


@contextmanager
def app(run: Path) -> Iterator[str]:
    """The address of `thoughtlens view RUN` in a process of its own."""
    command = "from thoughtlens.experiments.cli import main; main()"
    asked = [sys.executable, "-c", command, "view", str(run), "--port", "0", "--no-browser"]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if not (found := re.search(r"http://\S+", line)):
            process.kill()
            raise OSError(f"`thoughtlens view {run}` did not start: {process.stderr.read()[-400:] or line}")
        yield found.group()
    finally:
        process.kill()
        process.communicate()


@contextmanager
def fresh_page(started: Browser) -> Iterator[Page]:
    """A page that is watched, with nothing in its cache."""
    context = started.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(WATCH)
    try:
        yield context.new_page()
    finally:
        context.close()


def first_figure(page: Page, address: str) -> float:
    """Milliseconds from asking for the page until its first figure is there."""
    page.goto(address, wait_until="commit")
    if not (first := page.evaluate("patience => watched.until('first', patience)", PATIENCE)):
        raise OSError(f"no figure is drawn at {address}; look at it in a browser")
    return float(first)


def opening(started: Browser, run: Path) -> float:
    """Milliseconds from starting the process to the first figure."""
    with fresh_page(started) as page:
        begun = time.perf_counter()
        with app(run) as address:
            first_figure(page, address)
            return 1e3 * (time.perf_counter() - begun)


def repeated(page: Page, address: str, click: Click, times: int, done: Callable[[], None] = lambda: None) -> list[Took]:
    """How long each of so many times took. OSError where nothing happens."""
    begin = f"{address}?{click.start}"
    page.goto(begin)
    settle(page)
    took = []
    for number in range(times):
        if click.again and number:
            page.evaluate(BACK, f"?{click.start}")
            settle(page)
        page.evaluate("watched.start()")
        click.act(page, number)
        page.wait_for_timeout(20)
        seen = settle(page, went=True, what=click.name)
        begun = seen["went"] if click.pauses else seen["event"]
        took.append(Took((seen["visible"] or seen["last"]) - begun, seen["last"] - begun))
        done()
    return took


def settle(page: Page, *, went: bool = False, what: str = "") -> dict[str, Any]:
    """What was seen until the page was quiet, and until its address changed where it should."""
    if went and not page.evaluate("patience => watched.until('went', patience)", NOTHING):
        raise OSError(f"{what}: nothing happened at {page.url}; look at it in a browser")
    if not (seen := page.evaluate("patience => watched.settled(patience)", PATIENCE)):
        raise OSError(f"{what or 'the page'}: {page.url} does not come to rest; look at it in a browser")
    return dict(seen)
