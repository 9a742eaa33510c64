"""What an artifact was made for: the facts of a model that must be the same where it is used, and how another model differs.

fingerprint     weights and configuration, and adapter
tokenizer       its vocabulary                       template    the chat template's text
arguments       of the chat template, thinking flags among them
dtype           what hidden states were computed in: another is told in the log, not refused
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import LensModel

log = logging.getLogger(__name__)

_WORDS = {
    "fingerprint": "other weights (fingerprint {there}, here {here})",
    "tokenizer": "another tokenizer (vocabulary {there}, here {here})",
    "template": "another chat template ({there}, here {here})",
    "arguments": "other arguments of the chat template ({there}, here {here})",
}


def facts_of(lens: LensModel) -> dict[str, Any]:
    """What an artifact made for this model says of it, JSON-able."""
    return {
        "model": lens.name,
        "fingerprint": lens.fingerprint,
        "tokenizer": lens.tokenizer_sha,
        "template": lens.template_sha,
        "arguments": dict(lens.template),
        "dtype": str(lens.dtype).removeprefix("torch."),
    }


def differences(lens: LensModel, made_for: Mapping[str, Any]) -> list[str]:
    """How this model differs from the one an artifact was made for, in words; nothing where the artifact does not say."""
    here = facts_of(lens)
    return [
        words.format(there=_short(made_for[fact]), here=_short(here[fact]))
        for fact, words in _WORDS.items()
        if fact in made_for and made_for[fact] != here[fact]
    ]


def check_made_for(lens: LensModel, made_for: Mapping[str, Any], what: str, *, foreign: bool) -> None:
    """ValueError where an artifact (`what`) was made for another model, listing how they differ; a warning where `foreign` allows it."""
    if made_for.get("dtype", facts_of(lens)["dtype"]) != facts_of(lens)["dtype"]:
        log.warning("%s was measured in %s, %s runs in %s", what, made_for["dtype"], lens.name, facts_of(lens)["dtype"])
    if not (found := differences(lens, made_for)):
        return
    told = f"{what} was made for {made_for.get('model', 'another model')!r}, and {lens.name} has {'; '.join(found)}."
    if not foreign:
        raise ValueError(f"{told} Make one for this model, or pass foreign=True (--foreign) if it is meant to be used here all the same.")
    log.warning("%s It is used all the same, as asked.", told)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
