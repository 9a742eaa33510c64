"""`thoughtlens vector`: a steering vector out of the hidden states that a run has captured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..hooks.store import open_store
from ..probes.subspace import subspace_from_stores
from ..probes.vectors import vector_from_stores

_TRUTH = {"true": True, "false": False}


def vectoring(
    run: Path,
    out: Path,
    source: str,
    target: str,
    contrast: str,
    span: str,
    sites: Sequence[str],
    where: Sequence[str],
    label: str | None,
    directions: int,
    strength: float | None,
) -> str:
    """Make the vector, write it, and say in a line or more what it is.

    where   column=value each; true and false are truth values
    ValueError for rows or sites that are not there, and for a file that is there already.
    """
    folders = {role: run / "activations" / role for role in (source, target)}
    if missing := [str(folder) for folder in folders.values() if not folder.is_dir()]:
        there = ", ".join(sorted(path.name for path in (run / "activations").glob("*"))) or "none"
        raise FileNotFoundError(f"there is no store {missing[0]}; stores there: {there}. `thoughtlens demo` and `capture` write them.")
    if directions < 1:
        raise ValueError(f"--directions is at least 1, got {directions}")
    if strength is not None and not math.isfinite(strength):
        raise ValueError(f"--strength is a finite number, got {strength}")
    if out.exists():
        raise FileExistsError(f"{out} is there already, and an artifact is never changed in place. Choose another name with --out.")
    asked: dict[str, Any] = {
        **{"source": open_store(folders[source]), "target": open_store(folders[target])},
        **{"contrast": contrast, "span": span, "where": rows_of(where), "label": label},
    }
    vector = vector_from_stores(**asked) if directions == 1 else subspace_from_stores(k=directions, **asked)
    vector = vector.at(*sites) if sites else vector
    if strength is not None:
        vector = vector.recommend(strength=strength, chosen_on="given by hand")
    vector.save(out)
    lengths = [
        f"{site}: {'measured difference ' + format(float(value.norm()), '.3g') if value.ndim == 1 else f'{len(value)} directions'}, "
        f"hidden states {vector.scale[site]:.3g} long"
        for site, value in vector.values.items()
    ]
    sizes = f"{vector.header['n_positive']} rows against {vector.header['n_negative']}"
    return "\n".join([f"{out}: {vector.source} at {span}, {sizes}, for {target}", *lengths])


def rows_of(where: Sequence[str]) -> dict[str, Any]:
    """{"harmful": True} of ["harmful=true"]."""
    found = {}
    for part in where:
        column, equals, value = part.partition("=")
        if not equals or not column.strip():
            raise ValueError(f"--where is column=value with commas, such as split=train,harmful=true; got {part!r}")
        found[column.strip()] = _TRUTH.get(value.strip(), value.strip())
    return found
