"""In a real browser: every figure is drawn, nothing is refused by the page's own policy, and no text from data becomes code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from fake_run import SCRIPT, make_run
from thoughtlens.viz.report import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def opened(path: Path, profile: Path, *flags: str) -> tuple[str, str]:
    """The page after its scripts ran, and what the console said."""
    wanted = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        *QUIET,
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--virtual-time-budget=8000",
    ]
    done = subprocess.run([*wanted, *flags, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize(("preferred", "paper"), [(0, "rgb(23, 27, 32)"), (1, "rgb(255, 255, 255)")])
def test_every_figure_is_drawn_in_the_theme_asked_for(run, tmp_path, preferred, paper):
    dom, console = opened(run / "report.html", tmp_path / "profile", f"--blink-settings=preferredColorScheme={preferred}")
    assert console == ""
    assert len(re.findall(r'<div class="plot js-plotly-plot"', dom)) == 19
    assert len(re.findall(rf'class="main-svg"[^>]*style="[^"]*background: {re.escape(paper)}', dom)) == 19


def test_a_script_in_the_data_stays_text_in_the_drawing(tmp_path):
    run = make_run(tmp_path / "run", without=("detection", "trajectory", "restoration"))
    path = run / "tables" / "collapse.parquet"
    table = pd.read_parquet(path)
    table.assign(category=table["category"].replace({"fraud": SCRIPT})).to_parquet(path)
    report(run)
    dom, console = opened(run / "report.html", tmp_path / "profile")
    assert console == "" and "<script>alert" not in dom
    assert len(re.findall(r"&lt;script&gt;[^<]*</t(?:ext|span)>", dom)) >= 1
