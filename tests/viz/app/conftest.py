"""One small made run, one server and one browser for all tests of the app in a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of made-up words in which the first prompt is a script."""
    pytest.importorskip("duckdb", reason="the extra app is not installed")
    from thoughtlens.viz.made_run import make_run
    from visits import SCRIPT

    return make_run(tmp_path_factory.mktemp("runs") / "made", prompts=60, layers=4, token_scores=6000, texts=(SCRIPT,))


@pytest.fixture(scope="session")
def damaged(made: Path) -> Path:
    """Of the run, only: a table that is no Parquet file, one without rows, and two that are as they should be."""
    tables = made.parent / "damaged" / "tables"
    tables.mkdir(parents=True)
    for name in ("harm_histogram", "geometry"):
        shutil.copy(made / "tables" / f"{name}.parquet", tables)
    (tables / "detection.parquet").write_bytes(b"florp")
    pd.read_parquet(made / "tables" / "heads.parquet").iloc[:0].to_parquet(tables / "heads.parquet")
    return tables.parent


@pytest.fixture(scope="session")
def bare(made: Path) -> Path:
    """A run folder that holds nothing yet."""
    (made.parent / "bare" / "tables").mkdir(parents=True)
    return made.parent / "bare"


@pytest.fixture(scope="session")
def address(made: Path) -> Iterator[str]:
    from visits import served

    with served(made) as found:
        yield found


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'thoughtlens[test]'")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def profile(browser):
    """One profile for all, so that scripts are fetched and compiled once. Nothing of a view is kept in it: that is all in the URL."""
    return browser.new_context(color_scheme="light", reduced_motion="reduce", viewport={"width": 1280, "height": 900})


@pytest.fixture
def visit(profile, address: str) -> Iterator[Visit]:
    from visits import visiting

    with visiting(profile, address) as found:
        yield found
