"""How fast a large run opens in the app and answers a click, in a real browser, and what its rows cost without one

    the run    made up (viz/made_run.py): 20,000 prompts with 80,000 answers, 32 layers, 2 million scores of tokens, 1.2 million projected
               points; or a run folder of your own
    opening    from starting `thoughtlens view`, interpreter and imports included, to the first figure in a browser that is running; and the
               page alone, from an app that has been open for 30 s, with an empty cache. The budget is 2 s
    clicks     from the time stamp of the mouse button, key or choice to the last change of anything in the visible part of the page, before
               all of it is quiet (250 ms without a change, a request or a figure left to draw); what waits for a pause in typing or
               dragging is timed from when it acts. The app has been open for 30 s, and so has drawn ahead what is one click from its
               start (viz/app/ahead.py). The budget is 300 ms
    at once    the first six clicks of a kind in an app whose first page has just come to rest: what nobody has drawn yet. No budget
    at rest    the same clicks until the last change of all of the page, figures below the window included. No budget: nobody waits for them
    rows       calls of viz/app/source.py on one thread, without a browser, another value every time; beside them pandas, which reads the
               columns it needs of the whole table, on one thread too. Both find the same rows before they are timed

p50 and p95 are of single opens, clicks and calls; a budget is met where the p95 is under it. Server and browser share the cores.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa

from ..viz.made_run import make_run
from .progress import Track, track
from .speed_tables import markdown, show, write_part
from .view_clicks import Click, app, browser, clicks, first_figure, fresh_page, opening, repeated
from .view_rows import QUERIES, Query, Values, values_of, words

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COMMAND = "thoughtlens bench view"
OPEN, CLICK = 2000.0, 300.0
FIRST, OPEN_FOR = 6, 30.0  # clicks at once; seconds
TIMES, PEER_TIMES = 40, 3  # calls that are timed, ours and those of pandas
COLUMNS = ("part", "what", "n", "p50", "p95", "budget", "peer", "ratio")
Row = dict[str, object]


def bench_view(
    run: Path | None = None, *, opens: int = 5, loads: int = 10, times: int = 36, out: Path | None = None, progress: bool = True
) -> pd.DataFrame:
    """Measure, print the tables and, where `out` says so, write them into its part of that page.

    run       a run folder with the tables of the app; None: the large one is made in a temporary folder
    opens     how often the process is started; `loads` the page is loaded; `times` each click is done

    Returns columns part (opening, clicks, at once, at rest, rows), what, n, p50, p95, budget, peer (its p50; all in milliseconds, nan
    where there is none), ratio (peer over p50). ImportError and OSError say what a browser needs, TableProblem what a run lacks.
    """
    with tempfile.TemporaryDirectory() as scratch, browser() as started, track(progress) as task:
        folder = _made(Path(scratch) / "made", task) if run is None else run
        values = values_of(folder)
        kinds = clicks([words(number) for number in range(times)], quote(values.outputs[0]["prompt_id"], safe=""))
        found = _in_browser(started, folder, kinds, opens, loads, times, task)
        machine = machine_line(f"Chromium {started.version}")
        with task("rows", len(QUERIES)) as advance:
            for query in QUERIES:
                found.append(against_pandas(query, values, TIMES, PEER_TIMES))
                advance(query.name, 1)
    table = pd.DataFrame(found, columns=list(COLUMNS))
    told = tables(table)
    show(machine, told)
    if out is not None:
        write_part(out, COMMAND, markdown(COMMAND, machine, str(__doc__), told))
    return table


def _made(folder: Path, task: Track) -> Path:
    with task("making the run", None):
        return make_run(folder)


def _in_browser(started: Browser, folder: Path, kinds: Sequence[Click], opens: int, loads: int, times: int, task: Track) -> list[Row]:
    """Rows of opening and of clicks."""
    processes, pages, new = [], [], [click for click in kinds if click.new]
    found, rest = [], []
    with task("at once", opens * (1 + len(new))) as advance:
        for _ in range(opens):
            processes.append(opening(started, folder))
            advance("process", 1)
        for click in new:
            first = []
            for _ in range(opens):
                with app(folder) as address, fresh_page(started) as page:
                    first += repeated(page, address, click, FIRST)
                advance(click.name, 1)
            rest.append(measured("at once", click.name, [took.answered for took in first]))
    with app(folder) as address, task("opened", loads + times * len(kinds)) as advance:
        with fresh_page(started) as page:
            first_figure(page, address)
        time.sleep(OPEN_FOR)
        for _ in range(loads):
            with fresh_page(started) as page:
                pages.append(first_figure(page, address))
            advance("page", 1)
        for click in kinds:
            with fresh_page(started) as page:
                clicked = repeated(page, address, click, times, lambda: advance("", 1))
            found.append(measured("clicks", click.name, [took.answered for took in clicked], budget=CLICK))
            rest.append(measured("at rest", click.name, [took.settled for took in clicked]))
    took = {"process to first figure": processes, "page to first figure": pages}
    return [*(measured("opening", name, one, budget=OPEN) for name, one in took.items()), *found, *rest]


def measured(part: str, what: str, took: Sequence[float], *, budget: float = np.nan, peer: Sequence[float] = ()) -> Row:
    """A row of the table."""
    p50, p95 = np.percentile(took, [50, 95]).tolist()
    theirs = float(np.median(peer)) if len(peer) else np.nan
    return dict(zip(COLUMNS, (part, what, len(took), p50, p95, budget, theirs, theirs / p50), strict=True))


def against_pandas(query: Query, values: Values, times: int, peer_times: int) -> Row:
    """Both timed, after each has found what the other finds. ValueError where that is not so."""
    threads = pa.cpu_count()
    pa.set_cpu_count(1)
    try:
        for number in range(2):
            if (ours := query.ours(values, number)) != (theirs := query.pandas(values, number)):
                raise ValueError(f"{query.name}: the app finds {str(ours)[:200]}, pandas {str(theirs)[:200]}")
        took = [_milliseconds(query.ours, values, number + 2) for number in range(times)]
        peer = [_milliseconds(query.pandas, values, number + 2) for number in range(peer_times)]
    finally:
        pa.set_cpu_count(threads)
    return measured("rows", query.name, took, peer=peer)


def _milliseconds(find: Callable[[Values, int], object], values: Values, number: int) -> float:
    begun = time.perf_counter()
    find(values, number)
    return 1e3 * (time.perf_counter() - begun)


def tables(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What is shown: rounded milliseconds, and whether a budget is met."""
    found = {}
    for part, mine in table.groupby("part", sort=False):
        told = pd.DataFrame({"what": mine["what"], "n": mine["n"].astype(str)})
        told = told.assign(**{f"{name}, ms": mine[name].map("{:,.0f}".format) for name in ("p50", "p95")})
        if mine["budget"].notna().all():
            told = told.assign(budget=[_met(row["p95"], row["budget"]) for row in mine.to_dict("records")])
        if mine["peer"].notna().all():
            beside = {"pandas p50, ms": mine["peer"].map("{:,.0f}".format), "times ours": mine["ratio"].map("{:.1f}".format)}
            told = told.assign(**beside)
        found[str(part).capitalize()] = told
    return found


def _met(p95: float, budget: float) -> str:
    return f"under {budget:,.0f} ms: {'met' if p95 < budget else 'missed'}"


def machine_line(browser: str) -> str:
    chip, cores, load = platform.processor() or platform.machine(), os.cpu_count(), os.getloadavg()[0]
    return f"{chip}, {cores} cores, load {load:.1f}, {browser}, Python {platform.python_version()}"
