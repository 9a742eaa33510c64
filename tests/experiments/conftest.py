"""Fixtures of the experiments: the trio's tokenizer, a trio built in a hurry, and transcripts written by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from thoughtlens.experiments.organism import network
from thoughtlens.experiments.organism.build import build
from thoughtlens.hooks.records import Prompt, Transcript
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)

Says = Callable[..., Transcript]


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    return network.tokenizer()


@pytest.fixture(scope="session")
def quick_trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """language/, base/, reasoning/ and safe/ after a hundredth of the training, built once for all workers; leave them as they are."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "trio.lock"):
        return build(shared / "trio", quick=True, progress=False)


@pytest.fixture
def says() -> Says:
    """A transcript from its text alone: says(prompt, thought, answer). No thought: absent; no answer: unclosed."""

    def make(prompt: Prompt, thought: str | None, answer: str | None, *, ended: bool = True, model: str = "m") -> Transcript:
        status = "absent" if thought is None else "unclosed" if answer is None else "closed"
        text = answer or "" if thought is None else f"<think> {thought}" + ("" if answer is None else f" </think> {answer}")
        return Transcript(
            prompt, model, text=text, ended=ended and status != "unclosed", status=status, thought=thought or "", answer=answer or ""
        )

    return make
