"""Splits that keep a group whole, and ways of holding something out.

A group is the underlying goal of a prompt: the same goal wrapped as plain text, as a picture and as a role play is one group. A probe
that has seen one wrapping has seen the goal, so rows of one group must lie on one side, or the measured AUROC is partly memory.

What a probe is asked to generalise to is one word, `split`:

    given                         the sides as the rows name them
    folds                         rows without sides: groups are dealt to train (3 parts), dev and test (1 each)
    leave-category-out            per category: train and dev without it, test with it only. Rows without a category stay on every side
    leave-attack-out              the same per attack; so for any index column, leave-<column>-out
    text-to-image                 train and dev on requests in words, test on those that stand in the picture; and image-to-text. Rows
                                  without an attack stay on every side; an attack in neither table, IMAGE_BORNE or WORDED, is refused
    base-to-reasoning-to-safe     fitted and chosen on the first model, tested on each of the others; names as in the stores

Shapes: one entry per row, `n` rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Shaped
from sklearn.model_selection import StratifiedGroupKFold

from .dataset import group_names, truth, values_of

Groups = Shaped[np.ndarray, " n"]
Where = Mapping[str, Any]
SIDES = ("train", "dev", "test")
logger = logging.getLogger(__name__)

GIVEN: Mapping[str, Where] = MappingProxyType({side: MappingProxyType({"split": side}) for side in SIDES})
# attacks whose request is in the picture, and those with it in words; upper or lower case is one
IMAGE_BORNE = frozenset({"typographic", "image_swap", "figstep", "typo", "sd", "sd_typo", "hades"})
WORDED = frozenset({"plain", "text", "prefix", "roleplay", "template", "persuade", "logic"})
WORDS_AND_PICTURES: Mapping[str, bool] = MappingProxyType({"text-to-image": True, "image-to-text": False})  # is it tested on pictures
FOLDS = 5


@dataclass(frozen=True)
class Holdout:
    """One way to choose the three sides: for each the index columns and the value, or values, its rows have."""

    name: str
    train: Where
    dev: Where
    test: Where

    @property
    def sides(self) -> dict[str, Where]:
        return {side: getattr(self, side) for side in SIDES}


def holdouts(
    index: pd.DataFrame,
    split: str,
    *,
    sides: Mapping[str, Where] = GIVEN,
    label: str = "harmful",
    group: str = "group",
    pictures: Mapping[str, bool] | None = None,
    seed: int = 0,
) -> list[Holdout]:
    """Every way to choose sides that `split` stands for (see above).

    index      the rows of all stores
    sides      what the rows of each side have in any case; "folds" deals groups instead of the column `split`
    pictures   attack -> whether its request is in the picture, where the tables do not know it, or know better
    Raises ValueError for a split that is not known, or that these rows cannot give.
    """
    if split == "given":
        return [Holdout("given", **sides)]
    if split == "folds":
        return [_dealt(index, sides, label, group, seed)]
    if split in WORDS_AND_PICTURES:
        return [_carried(index, sides, split, pictures)]
    if split.startswith("leave-") and split.endswith("-out"):
        return _without_one(index, sides, split.removeprefix("leave-").removesuffix("-out"), label)
    if "-to-" in split:
        return list(_across_models(index, sides, split.split("-to-")))
    raise ValueError(
        f"unknown split {split!r}; known are given, folds, leave-<column>-out, text-to-image, image-to-text, <model>-to-<model>"
    )


def in_picture(index: pd.DataFrame, pictures: Mapping[str, bool] | None = None) -> dict[str, bool]:
    """Whether the request is in the picture, for every attack of the rows, in upper or lower case. ValueError: no table says."""
    said = {**dict.fromkeys(WORDED, False), **dict.fromkeys(IMAGE_BORNE, True)}
    said |= {attack.casefold(): there for attack, there in (pictures or {}).items()}
    attacks = _values(index, "attack")
    if unknown := [attack for attack in attacks if attack.casefold() not in said]:
        raise ValueError(
            f"it is not known whether the request of attack {unknown[0]!r} stands in words or in the picture. Say so with "
            f"pictures={{{unknown[0]!r}: True}} (in the picture) or False, or add it to IMAGE_BORNE or WORDED in probes/splits.py"
        )
    return {attack: said[attack.casefold()] for attack in attacks}


def group_folds(groups: Groups, y: Bool[np.ndarray, " n"], k: int = 5, seed: int = 0) -> Int[np.ndarray, " n"]:
    """The fold, 0 to k − 1, of every row: no group in two folds, both labels spread as evenly as the groups allow.

    For data that comes without splits: fold 0 the test side, fold 1 the dev side, the rest the training side.
    Raises ValueError where a label has fewer than k groups, since some fold would then miss it.
    """
    for value in (True, False):
        if (have := len(np.unique(groups[y == value]))) < k:
            raise ValueError(f"{k} folds were asked for, but only {have} groups hold a row labelled {value}; pass a smaller k")
    folds = np.empty(len(y), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros((len(y), 1)), y, groups)):
        folds[rows] = fold
    return folds


def check_whole(sides: Mapping[str, Groups]) -> None:
    """Raise ValueError where a group occurs on two of the named sides."""
    home: dict[str, str] = {}
    for side, groups in sides.items():
        for group in np.unique(groups):
            if (other := home.setdefault(str(group), side)) != side:
                raise ValueError(
                    f"group {str(group)!r} lies in {other} and in {side}: a probe would be tested on goals it was fitted on. "
                    "Give all rows of a group one split (group_folds makes such splits)"
                )


def _dealt(index: pd.DataFrame, sides: Mapping[str, Where], label: str, group: str, seed: int) -> Holdout:
    """Groups dealt to the sides by the labels of their prompts."""
    rows = index.drop_duplicates(["model", "condition", "prompt_id"])
    rows = rows[rows[label].notna()].reset_index(drop=True)
    groups = group_names(rows, group)
    folds = group_folds(groups, truth(rows[label], label), FOLDS, seed)
    of_side = {"train": folds > 1, "dev": folds == 1, "test": folds == 0}
    wheres = {side: {column: value for column, value in where.items() if column != "split"} for side, where in sides.items()}
    return Holdout("folds", **{side: {**wheres[side], group: sorted(set(groups[here]))} for side, here in of_side.items()})


def _carried(index: pd.DataFrame, sides: Mapping[str, Where], split: str, pictures: Mapping[str, bool] | None) -> Holdout:
    """Trained on requests in words, tested on requests in pictures, or the other way round."""
    there = in_picture(index, pictures)
    for pictured in (True, False):
        if pictured not in there.values():
            which = f"in a picture ({', '.join(sorted(IMAGE_BORNE))})" if pictured else "in words"
            raise ValueError(f"{split} needs attacks whose request is {which}; there are {', '.join(there) or 'none'}")
    tested = WORDS_AND_PICTURES[split]
    seen, unseen = ([attack for attack in there if (there[attack] == tested) == held] for held in (False, True))
    anywhere = _silent(index, "attack")
    return _restricted(split, sides, "attack", [*seen, *anywhere], [*unseen, *anywhere])


def _without_one(index: pd.DataFrame, sides: Mapping[str, Where], column: str, label: str) -> list[Holdout]:
    """A holdout per value of a column; a value without which, or of which alone, some side would lack a label is logged and left out."""
    there = _values(index, column)
    if len(there) < 2:
        raise ValueError(f"leaving one {column} out needs at least two; there is {', '.join(there) or 'none'}")
    anywhere = _silent(index, column)
    found = []
    for value in there:
        way = _restricted(f"without {value}", sides, column, [v for v in there if v != value] + anywhere, [value, *anywhere])
        lacking = [side for side, where in way.sides.items() if index[label][_matching(index, where)].dropna().nunique() < 2]
        if lacking:
            logger.warning(
                "leaving %s %r out leaves one label of %r only on %s; it is not told", column, value, label, " and ".join(lacking)
            )
        else:
            found.append(way)
    if not found:
        raise ValueError(f"no {column} leaves both labels of {label!r} on every side, so none can be left out; hold out something else")
    return found


def _matching(index: pd.DataFrame, where: Where) -> Bool[np.ndarray, " n"]:
    kept = np.ones(len(index), dtype=bool)
    for column, value in where.items():
        wanted = {None if _missing(v) else v for v in values_of(value)}
        kept &= np.array([(None if _missing(v) else v) in wanted for v in index[column]])
    return kept


def _across_models(index: pd.DataFrame, sides: Mapping[str, Where], models: Sequence[str]) -> Iterator[Holdout]:
    there = _values(index, "model")
    if unknown := [name for name in models if name not in there]:
        raise ValueError(f"no store holds the model {unknown[0]!r}; there are {', '.join(there)}. Pass the stores of all models named")
    first, *others = models
    for other in others:
        yield _restricted(f"{first}-to-{other}", sides, "model", [first], [other])


def _restricted(name: str, sides: Mapping[str, Where], column: str, seen: Sequence[Any], unseen: Sequence[Any]) -> Holdout:
    """Train and dev with the seen values of a column, test with the unseen; what a side itself asks of the column still holds."""
    values = {"train": seen, "dev": seen, "test": unseen}
    asked = {side: values_of(where[column]) if column in where else values[side] for side, where in sides.items()}
    return Holdout(name, **{side: {**where, column: [v for v in values[side] if v in asked[side]]} for side, where in sides.items()})


def _values(index: pd.DataFrame, column: str) -> list[str]:
    """The values of a column that say something, sorted."""
    if column not in index.columns:
        raise ValueError(f"no column {column!r} in the index; it has {', '.join(map(str, index.columns))}")
    return sorted(value for value in index[column].unique() if not _missing(value))


def _silent(index: pd.DataFrame, column: str) -> list[str | None]:
    """The values of a column that say nothing."""
    return sorted({"" if value == "" else None for value in index[column].unique() if _missing(value)}, key=str)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value or value == ""
