"""What tests do in a browser: open the app at a link, wait until it is drawn, click on figures; and what a visit must never do."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thoughtlens.viz.app.runs import Runs
from thoughtlens.viz.app.serving import bound, url

SCRIPT = "<script>window.hacked=1</script>"


@contextmanager
def served(*runs: Path) -> Iterator[str]:
    """The address of an app over these runs."""
    server = bound(Runs(runs), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield url("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Visit:
    """A tab of the browser and what went wrong in it."""

    page: Any
    address: str
    problems: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> Visit:
        self.page.goto(f"{self.address}?{query}")
        return self.settled()

    def settled(self) -> Visit:
        """When everything that was asked for is drawn."""
        self.page.locator("#columns").wait_for()
        while self.page.evaluate("!!document.querySelector('.pending, .stale') || thoughtlens.waiting() > 0"):
            self.page.wait_for_timeout(20)
        return self

    def tab(self, name: str) -> Visit:
        self.page.click(f"#tab-{name}")
        self.page.locator(f'#panel[aria-labelledby="tab-{name}"]').wait_for()
        return self.settled()

    def plot(self, key: str) -> str:
        """The selector of a figure, when it is drawn."""
        found = f"#sheet-0-{key} .js-plotly-plot"
        self.page.locator(f"{found} .main-svg").first.wait_for()
        return found

    def click(self, key: str, trace: str, x: float, y: float) -> None:
        """Clicks where a trace of a figure has its point (x, y)."""
        at = """([selector, name, x, y]) => {
            const plot = document.querySelector(selector), trace = plot._fullData.find((one) => one.name === name && one.visible === true);
            const axis = (letter) => plot._fullLayout[trace[letter + "axis"].replace(letter, letter + "axis")];
            plot.scrollIntoView({ block: "center" });
            const box = plot.getBoundingClientRect();
            return [box.x + axis("x")._offset + axis("x").d2p(x), box.y + axis("y")._offset + axis("y").d2p(y)];
        }"""
        left, top = self.page.evaluate(at, [self.plot(key), trace, x, y])
        self.page.mouse.move(left - 3, top)
        self.page.mouse.move(left, top, steps=2)
        self.page.locator(f"{self.plot(key)} .hoverlayer .hovertext").first.wait_for()  # plotly clicks what it hovers
        self.page.mouse.click(left, top)

    def keep(self, name: str) -> None:
        """A picture of the page, where CI keeps them."""
        if folder := os.environ.get("THOUGHTLENS_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@contextmanager
def visiting(context: Any, address: str) -> Iterator[Visit]:
    """A new tab; whatever the console says, what fails and what goes elsewhere is a problem at the end."""
    page = context.new_page()
    page.set_default_timeout(30_000)
    visit = Visit(page, address)
    page.on("console", lambda said: visit.problems.append(f"console: {said.text}"))
    page.on("pageerror", lambda error: visit.problems.append(f"error: {error}"))
    page.on("requestfailed", lambda request: visit.problems.append(f"failed: {request.url}"))
    page.on("response", lambda response: visit.problems.append(f"{response.status}: {response.url}") if response.status >= 400 else None)
    page.on("request", lambda request: visit.problems.append(f"elsewhere: {request.url}") if elsewhere(request.url, address) else None)
    yield visit
    page.close()
    assert visit.problems == [], "\n".join(visit.problems)


def elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))
