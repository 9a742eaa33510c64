"""The fake run: its tables for tests of figures, a written folder with its report for tests of the page."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fake_run  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from thoughtlens.viz.report import report  # noqa: E402


@pytest.fixture(scope="session")
def tables() -> dict[str, pd.DataFrame]:
    return {name: make() for name, make in fake_run.TABLES.items()}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose report is written."""
    folder = fake_run.make_run(tmp_path_factory.mktemp("runs") / "demo")
    report(folder)
    return folder
