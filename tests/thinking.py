"""Made-up trajectories with known answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd


def thoughts(
    mean: Callable[[bool, int, int], float],
    *,
    groups: int = 40,
    per_group: int = 2,
    lengths: tuple[int, int] = (20, 20),
    step: int = 5,
    cluster: float = 0.5,
    noise: float = 1.0,
    kinds: tuple[str, ...] = ("thought", "marker", "answer"),
    split: str = "test",
    model: str = "reasoning",
    seed: int = 0,
) -> pd.DataFrame:
    """A table in which every second group is harmful and a readout is mean(harmful, moment, moments) + what a group shares + noise.

    A thought has `lengths` moments, the last of them the closing marker if kinds has "marker"; a sentence has `step` tokens.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(groups):
        shared = cluster * rng.normal()
        for one in range(per_group):
            n = int(rng.integers(lengths[0], lengths[1] + 1))
            for at in range(n + 3 * ("answer" in kinds)):
                kind = "answer" if at >= n else "marker" if at == n - 1 and "marker" in kinds else "thought"
                inside = kind == "thought"
                rows.append(
                    {
                        **{"model": model, "condition": "unsteered", "split": split, "prompt_id": f"{split}{group}-{one}"},
                        **{"group": f"{split}{group}", "harmful": group % 2 == 0, "position": at + 1, "kind": kind, "token": "word"},
                        **{"step": at // step if inside else -1 if kind == "answer" else None},
                        **{"boundary": inside and at % step == step - 1},
                        "score": mean(group % 2 == 0, at, n) + shared + noise * rng.normal(),
                    }
                )
    return pd.DataFrame(rows).astype({"step": "Int64"})


def copied(table: pd.DataFrame, times: int) -> pd.DataFrame:
    """Every prompt several times within its group: more rows, no more to know."""
    return pd.concat([table.assign(prompt_id=table["prompt_id"] + f"#{i}") for i in range(times)], ignore_index=True)
