"""plotly.js of the pages is of the version that plotly for Python writes for (test_made_run.py: it draws every kind of trace there is)."""

from __future__ import annotations

import re

from plotly.offline import get_plotlyjs_version
from thoughtlens.viz.plotlyjs import plotlyjs


def test_it_is_of_the_version_that_plotly_writes_for():
    told = re.search(r"plotly\.js \(cartesian - minified\) v(\d+)", plotlyjs()[:200])
    assert told and told[1] == get_plotlyjs_version().split(".")[0]


def test_it_cannot_close_the_script_it_is_written_into():
    assert "</script" not in plotlyjs().lower()
