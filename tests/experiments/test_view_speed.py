"""The app's benchmark: the same rows found twice, a clock that starts and stops where it says, and no fast click that did nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from thoughtlens.experiments import view_clicks
from thoughtlens.experiments.view_clicks import Click, browser, first_figure, fresh_page, repeated
from thoughtlens.experiments.view_rows import QUERIES, Values, values_of
from thoughtlens.experiments.view_speed import COLUMNS, against_pandas, bench_view, measured, tables
from thoughtlens.viz.made_run import make_run
from thoughtlens.viz.tables import TableProblem

LATE = 400  # milliseconds, longer than the quiet that ends a measurement
PAGE = f"""<!doctype html><div id="panel" class="plot cell"><div class="js-plotly-plot"></div></div>
<button id="slow">slow</button><button id="nothing">nothing</button><input id="typed">
<script>
  const go = (to) => history.pushState({{}}, "", to), panel = document.getElementById("panel");
  setTimeout(() => panel.firstChild.innerHTML = '<svg class="main-svg"><g class="trace"></g></svg>', {LATE});
  slow.onclick = async () => {{ go("?" + Math.random()); await fetch("/late"); panel.append("done"); }};
  nothing.onclick = () => panel.append("but nowhere else");
  let waiting; typed.oninput = () => {{ clearTimeout(waiting); waiting = setTimeout(() => {{ go("?" + typed.value); panel.append("now"); }}, {LATE}); }};
</script>"""


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Values:
    return values_of(make_run(tmp_path_factory.mktemp("made"), prompts=60, layers=2, token_scores=2000))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_the_app_and_pandas_find_the_same_rows(values, query):
    row = against_pandas(query, values, 3, 1)
    assert row["n"] == 3 and row["part"] == "rows" and row["ratio"] == pytest.approx(row["peer"] / row["p50"])
    assert len({str(query.ours(values, number)) for number in range(6)}) > 1 or query.name.startswith("open"), "another value every time"


def test_what_finds_other_rows_is_not_timed(values):
    with pytest.raises(ValueError, match="tokens of one output at a layer: the app finds"):
        against_pandas(replace(QUERIES[3], pandas=lambda values, number: []), values, 1, 1)


def test_a_run_without_the_tables(tmp_path):
    with pytest.raises(TableProblem, match="no readouts table"):
        values_of(tmp_path)


def test_what_is_shown_of_times():
    took = np.arange(1, 101.0)
    rows = [
        measured("clicks", "tab", took, budget=96),
        measured("clicks", "cell", took, budget=95),
        measured("rows", "page", took, peer=[300, 101, 7]),
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    assert table["p50"].tolist() == [50.5] * 3 and table["p95"].tolist() == pytest.approx([95.05] * 3)
    assert table["peer"].tolist()[2] == 101 and table["ratio"].tolist()[2] == 2
    told = tables(table)
    assert told["Clicks"].to_dict("list") == {
        "what": ["tab", "cell"],
        "n": ["100", "100"],
        "p50, ms": ["50", "50"],
        "p95, ms": ["95", "95"],
        "budget": ["under 96 ms: met", "under 95 ms: missed"],
    }
    assert told["Rows"].to_dict("list") == {
        "what": ["page"],
        "n": ["100"],
        "p50, ms": ["50"],
        "p95, ms": ["95"],
        "pandas p50, ms": ["101"],
        "times ours": ["2.0"],
    }


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page whose button answers late."""

    class Late(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/late":
                time.sleep(LATE / 1e3)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"late" if self.path == "/late" else PAGE.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Late)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def test_the_clock_of_a_browser(address, monkeypatch):
    pytest.importorskip("playwright")
    if not any(map(view_clicks.shutil.which, view_clicks.BROWSERS)):
        pytest.skip("no Chromium on this machine")
    with browser() as started, fresh_page(started) as page:
        assert first_figure(page, address) >= LATE
        seen: list[int] = []
        took = repeated(page, address, Click("slow", "", lambda page, _: page.click("#slow")), 2, lambda: seen.append(1))
        assert len(took) == len(seen) == 2 and min(one.answered for one in took) >= LATE, "a request on its way is waited for"
        type_ = Click("typed", "", lambda page, number: page.fill("#typed", f"florp {number}"))
        whole, acting = repeated(page, address, type_, 1), repeated(page, address, replace(type_, pauses=True), 1)
        assert whole[0].settled >= LATE and acting[0].settled < whole[0].settled, "the pause in typing does not count"
        monkeypatch.setattr(view_clicks, "NOTHING", 200)
        with pytest.raises(OSError, match="nothing: nothing happened at http"):
            repeated(page, address, Click("nothing", "", lambda page, _: page.click("#nothing")), 1)


def test_what_is_missing_is_named(monkeypatch, values, tmp_path):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(ImportError, match=r"pip install 'thoughtlens\[test\]'"):
        bench_view(values.run, progress=False)
    with pytest.raises(OSError, match="`thoughtlens view .*` did not start: .*no run folder"), view_clicks.app(Path(tmp_path)):
        pass
