"""Figures as files: of the size and kind that was asked for; what cannot be drawn says why."""

from __future__ import annotations

import builtins
import shutil

import pytest
from fake_run import make_run
from PIL import Image
from thoughtlens.viz.images import images
from thoughtlens.viz.sections import drawings
from thoughtlens.viz.tables import TableProblem

in_a_browser = pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="no chromium on this machine")


@in_a_browser
def test_every_form_is_written_and_dark_paper_is_dark(run, tmp_path):
    pytest.importorskip("kaleido")
    (dark,) = images(run, ["tax_by_category"], into=tmp_path, width=600, mode="dark")
    picture = Image.open(dark)
    assert dark.name == "tax_by_category.png" and picture.width == 1200 and picture.convert("RGB").getpixel((2, 2)) == (23, 27, 32)
    (lines,) = images(run, ["tax_by_category"], form="pdf", into=tmp_path)
    assert lines.read_bytes().startswith(b"%PDF-")


def test_what_is_not_there_is_said(tmp_path):
    run = make_run(tmp_path / "run", without=tuple(name for drawing in drawings().values() for name in drawing.tables))
    told: list[str] = []
    assert images(run, told=told.append) == [] and not (run / "figures").exists()
    assert len(told) == len(drawings()) and all("left out" in line for line in told)
    with pytest.raises(TableProblem, match="no detection table.*thoughtlens demo"):
        images(run, ["auroc_by_layer_and_span"])
    with pytest.raises(ValueError, match="no figure is called 'tax'; there are tax_by_category"):
        images(run, ["tax"])
    with pytest.raises(ValueError, match="png, pdf, svg, not as 'gif'"):
        images(run, form="gif")


def test_without_kaleido_it_says_what_to_install(run, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("kaleido"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'thoughtlens\[images\]'"):
        images(run, ["tax_by_category"], into=tmp_path)
