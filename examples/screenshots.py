"""The README's pictures of the app: `python examples/screenshots.py runs/demo docs/pictures`. Needs the extra "test" and Chromium."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
from PIL import Image
from thoughtlens.experiments.view_clicks import app, browser

WIDTH, HEIGHT, COLORS = 1280, 860, 256


def turned(run: Path) -> str:
    """The first harmful prompt whose tokens were read and whose unsafe answer became a refusal under steering."""
    answers = pd.read_parquet(run / "tables" / "answers.parquet").query("model == 'reasoning'")
    read = pd.read_parquet(run / "tables" / "readouts.parquet", columns=["prompt_id", "condition"]).query("condition == 'steered'")
    verdicts = answers[answers["prompt_id"].isin(read["prompt_id"])].pivot(index="prompt_id", columns="condition", values="verdict")
    return str(verdicts[(verdicts["unsteered"] == "unsafe") & (verdicts["steered"] == "refused")].index[0])


def main(run: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    views = {  # name -> what the address says, and what is scrolled to the top
        "layers": ({"tab": "layers", "layer": 4, "span": "step_end[4]"}, "figure"),
        "thoughts": ({"tab": "thoughts", "prompt": turned(run), "layer": 5, "shown": 1}, ".thoughts"),
        "steering": ({"tab": "steering"}, "figure"),
    }
    with app(run) as address, browser() as started:
        page = started.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        for name, (query, top) in views.items():
            page.goto(f"{address}?{urlencode(query)}", wait_until="networkidle")
            page.wait_for_timeout(1500)
            page.locator(top).first.evaluate("(seen) => { seen.scrollIntoView({ behavior: 'instant' }); scrollBy(0, -16); }")
            page.wait_for_timeout(500)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.quantize(COLORS, dither=Image.Dither.NONE).save(into / f"{name}.png", optimize=True)
            print(into / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
