"""export(): steering edits taken out of the running model, written whole or not at all, and proven on real prompts.

    refused       what the target cannot express, before anything is written (refusing.py)
    written       into a folder that gets its name last (folder.py)
    read back     from disk by what will use it, and compared with the hooked model on the same tokens (comparing.py)
    kept          only where  error / effect <= tolerance

thoughtlens.json in the folder says what was exported, for which model, how exactly, and the sha256 of every other file.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from ..artifact import FORMAT, FORMAT_VERSION
from ..edits import Edit, check_fits, edits_of
from ..provenance import facts_of
from ..records import Prompt
from ..steer import steer
from ..vector import Vector
from .comparing import Trace, largest_difference, rounding, tokens, traced
from .folder import check_free, sha256s, whole_folder
from .refusing import refuse
from .targets import Target, target_named

if TYPE_CHECKING:
    from ..model import LensModel

RECORD, CARD = "thoughtlens.json", "README.md"
PACKAGES = ("thoughtlens", "torch", "transformers", "safetensors", "peft", "gguf")
# error / effect. It was at most 1e-5 in float32 over tiny models of every family, and on tiny Llama, tiny Qwen2 and the shipped model 0.008
# in float16 and 0.07 in bfloat16, where the hooked model and the export both round every hidden state
TOLERANCE: Mapping[torch.dtype, float] = MappingProxyType(
    {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.1}
)
EQUATIONS: Mapping[str, str] = MappingProxyType(
    {
        "add": "h' = h + α v",
        "ablate": "h' = h − α (h · û) û",
        "affine": "h' = h + α (t − h · û) û",
        "rotate": "h turned by α θ in the plane of the two class means",
        "subspace": "h' = h − α Uᵀ U h",
        "transport": "h' = h + α Uᵀ ((A − I) U h + c)",
    }
)


@dataclass(frozen=True)
class Exported:
    """What was exported and how exactly.

    target      its name
    path        the folder
    files       sha256 of every file by its name
    error       largest difference of a logit between the export and the hooked model, over everything that reads it
    effect      largest difference between the hooked and the unsteered model, on the same tokens
    tolerance   how large error / effect may be
    tokens      how many tokens were compared, of `prompts` prompts; errors: by what read the export
    does        what it does, one line an edit
    facts       what the target wrote, JSON-able
    """

    target: str
    path: Path
    files: Mapping[str, str]
    error: float
    effect: float
    tolerance: float
    tokens: int
    prompts: int
    errors: Mapping[str, float]
    does: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def share(self) -> float:
        """error / effect."""
        return self.error / self.effect

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.target}, logits within {self.error:.2g} of the hooked model where steering moves them by {self.effect:.3g}"
            f" ({self.share:.1g}, allowed {self.tolerance:g}), {self.tokens} tokens of {self.prompts} prompts"
        )


@dataclass(frozen=True, eq=False)
class Draft:
    """An export that was compared and has not got its name yet.

    lens, edits     what is exported
    exported        as it will be, but for the files still to come
    folder          where it is for now
    reloaded        gives the export, read back from disk, as a running model
    """

    lens: LensModel
    edits: tuple[Edit, ...]
    exported: Exported
    folder: Path
    reloaded: Callable[[], AbstractContextManager[LensModel]]


def export(
    lens: LensModel,
    how: Vector | Edit | Iterable[Edit],
    target: str,
    path: str | Path,
    *,
    prompts: Iterable[Prompt],
    tolerance: float | None = None,
    card: Callable[[Draft], str] | None = None,
    foreign: bool = False,
) -> Exported:
    """Write edits as a `target` (targets.py) into the new folder `path`.

    prompts     real prompts the export is compared on, token by token; a few are enough
    tolerance   largest error / effect; left out, that of the model's dtype (TOLERANCE)
    card        writes the README of the folder, from the export as it was read back
    foreign     export a vector that was made for another model

    Raises CannotExport (a ValueError) for what the target cannot express, ValueError for a vector of another model or width, where the
    edits do nothing that can be measured, and where the export that was read back does not do what the hooked model does; FileExistsError
    where `path` is there. Nothing is left in any of these cases. The model itself is not changed.
    """
    chosen, path, asked, allowed = target_named(target), Path(path), list(prompts), _allowed(lens, tolerance)
    edits = edits_of(how, {})
    _check(lens, edits, asked)
    check_free(path)
    refuse(lens, edits, target, chosen.rules, chosen.together)
    with steer(lens, edits, foreign=foreign):
        hooked = traced(lens, asked)
    effect = _effect(lens, asked, hooked)
    with whole_folder(path) as folder:
        facts = chosen.write(lens, edits, folder)
        errors = _errors(lens, chosen, folder, asked, hooked)
        found = Exported(
            target,
            path,
            {},
            max(errors.values()),
            effect,
            allowed,
            tokens(hooked),
            len(asked),
            errors,
            tuple(f"{edit}: {_equation(edit)}" for edit in edits),
            facts,
        )
        _check_close(found)
        if card is not None:
            _, through = next(iter(chosen.readers(lens).items()))
            (folder / CARD).write_text(card(Draft(lens, edits, found, folder, lambda: through(lens, folder))), encoding="utf-8")
        files = sha256s(folder)
        (folder / RECORD).write_text(json.dumps(_record(lens, edits, found, files), indent=1) + "\n", encoding="utf-8")
        files = sha256s(folder)
    return Exported(**{**vars(found), "files": files})


def _check(lens: LensModel, edits: tuple[Edit, ...], prompts: list[Prompt]) -> None:
    if not edits or not prompts:
        missing = "edit to export. Pass a Vector or an Edit" if not edits else "prompt to compare the export on. Pass a few real ones"
        raise ValueError(f"there is no {missing}.")
    if lens.steering is not None:
        raise RuntimeError(f"{lens.name} is being steered, and an export is compared with the unsteered model. Leave that with-block.")
    for edit in edits:
        check_fits(lens, edit)


def _allowed(lens: LensModel, tolerance: float | None) -> float:
    if tolerance is None and lens.dtype not in TOLERANCE:
        raise ValueError(f"how exact an export can be in {lens.dtype} is not known; pass tolerance=, the largest error / effect.")
    allowed = TOLERANCE[lens.dtype] if tolerance is None else tolerance
    if not 0 <= allowed < 1:
        raise ValueError(f"tolerance={allowed} is a share of the effect, from 0 to below 1: an export that does nothing is 1 away")
    return allowed


def _effect(lens: LensModel, prompts: list[Prompt], hooked: list[Trace]) -> float:
    effect = largest_difference(hooked, traced(lens, prompts, hooked))
    if not math.isfinite(effect):
        raise ValueError(f"the logits of {lens.name} are not finite under these edits. Give less strength, or load it in a wider dtype.")
    if not effect > rounding(hooked, lens.dtype):
        raise ValueError(
            f"the edits move no logit of {lens.name} by more than rounding ({effect:.2g}) on these {len(prompts)} prompts, so whether an "
            "export carries them could not be told. Give more strength, other sites or other prompts."
        )
    return effect


def _errors(lens: LensModel, target: Target, folder: Path, prompts: list[Prompt], hooked: list[Trace]) -> dict[str, float]:
    """How far the export is from the hooked model, by what reads it."""
    errors = {}
    for name, through in target.readers(lens).items():
        with through(lens, folder) as reloaded:
            errors[name] = largest_difference(hooked, traced(reloaded, prompts, hooked))
    return errors


def _check_close(found: Exported) -> None:
    """ValueError for an export that does not do what the hooked model does."""
    if found.share <= found.tolerance:
        return
    reader = max(found.errors, key=lambda name: found.errors[name])
    unsteered = " The export hardly steers at all: what it holds was not read." if found.share > 0.5 else ""
    raise ValueError(
        f"read back by {reader}, the {found.target} export is {found.error:.2g} from the hooked model where steering moves logits by "
        f"{found.effect:.3g}: {found.share:.2g} of it, {found.tolerance:g} is allowed.{unsteered} Nothing was kept. In a narrow dtype both "
        "sides round: load the model in float32, or allow more with tolerance=."
    )


def _equation(edit: Edit) -> str:
    text = EQUATIONS[edit.operator] if edit.unit == "measured" else "h' = h + α |h| v̂"
    shared = len(edit.vector.sites)
    return text if edit.operator != "add" or shared == 1 else f"{text} / √{shared} at each site"


def _record(lens: LensModel, edits: tuple[Edit, ...], found: Exported, files: Mapping[str, str]) -> dict[str, Any]:
    """What thoughtlens.json says."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": "export",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {name: told for name in PACKAGES if (told := _version(name))},
        "target": found.target,
        "made_for": facts_of(lens),
        "edits": [{**edit.facts(), "values_sha256": _sha_of(edit.vector), "header": dict(edit.vector.header)} for edit in edits],
        "does": list(found.does),
        "error": found.error,
        "effect": found.effect,
        "share": found.share,
        "tolerance": found.tolerance,
        "tokens": found.tokens,
        "prompts": found.prompts,
        "errors": dict(found.errors),
        "written": dict(found.facts),
        "files": dict(files),
    }


def _sha_of(vector: Vector) -> str:
    digest = hashlib.sha256()
    for site, value in vector.values.items():
        digest.update(site.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
