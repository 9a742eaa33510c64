"""Baselines: scores from what the prompts plainly show, on the same rows as the probes.

A text per prompt becomes tf-idf under a logistic regression, a number or several per prompt a logistic regression on log counts; the words
up to a span are its bag of words (controls.py). None of them sees a hidden state.

Shapes: scores [n] per side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .controls import lengths, tfidf, words
from .dataset import Dataset

WORDS = "words"  # what the bag of words is called in the table
Texts = Mapping[str, Mapping[str, str]]
Baselines = Mapping[str, Mapping[str, str] | Mapping[str, float] | Mapping[str, Sequence[float]]]


def baseline_scores(
    sides: Mapping[str, Dataset], span: str, texts: Texts, baselines: Baselines
) -> dict[str, dict[str, Float[Tensor, " n"]]]:
    """name -> side -> scores of the held-out rows; WORDS where the span has texts. ValueError: a prompt of the sides is not in them."""
    y = {side: data.y for side, data in sides.items()}
    found = {}
    if span in texts:
        found[WORDS] = words(_given(sides, f"texts[{span!r}]", "text, '' if it has none", texts[span]), y)
    for name, of_prompt in baselines.items():
        given = _given(sides, f"baselines[{name!r}]", "text or number", of_prompt)
        if isinstance(given["train"][0], str):
            found[name] = tfidf(given, y)
        else:
            found[name] = lengths({side: np.asarray(values, dtype=float) for side, values in given.items()}, y)
    return found


def _given(sides: Mapping[str, Dataset], name: str, what: str, of_prompt: Mapping[str, Any]) -> dict[str, list[Any]]:
    for data in sides.values():
        if missing := [prompt for prompt in data.index["prompt_id"] if prompt not in of_prompt]:
            raise ValueError(f"{name} lacks {len(missing)} prompts of the store, the first is {missing[0]!r}; give every prompt its {what}")
    return {side: [of_prompt[prompt] for prompt in data.index["prompt_id"]] for side, data in sides.items()}
