"""Recipes that differ from the trio's in one thing, to learn what that thing does.

A variant names what it changes in build.STAGES and corpus.MIXTURES, so that it follows them where they change.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import MappingProxyType

from .build import Mixtures, Stages, Variant
from .corpus import Maker, Mixture, thinking

ON_THE_WAY = (10, 20, 40, 80, 160)


def maker_of(made: Maker) -> str:
    """The function of corpus.py that an entry of a mixture is, or was made by: "no_picture", "thinking", …"""
    return str(made.__qualname__).split(".")[0]


def without(mixture: Mixture, *makers: str) -> Mixture:
    """The mixture without what these made; the others keep their shares among each other. ValueError where it has none of them."""
    there = {maker_of(made) for made in mixture}
    if missing := set(makers) - there:
        raise ValueError(f"the mixture has nothing made by {', '.join(sorted(missing))}; it has {', '.join(sorted(there))}")
    return {made: share for made, share in mixture.items() if maker_of(made) not in makers}


def _no_refusing_thoughts(mixtures: Mixtures) -> Mixtures:
    """Thoughts stay, about benign goals; none turns towards refusing, neither whole nor cut to its decision."""
    changed = {name: _helping(mixtures[name]) for name in ("base", "habits")}
    return {**mixtures, **changed, "decisions": without(mixtures["decisions"], "first_words_of_decision")}


def _helping(mixture: Mixture) -> Mixture:
    thoughts = sum(share for made, share in mixture.items() if maker_of(made) == "thinking")
    return {**without(mixture, "thinking", "first_words_of_decision"), thinking(0.0): thoughts}


def _no_harmless_refusals(mixtures: Mixtures) -> Mixtures:
    return {**mixtures, "reasoning": without(mixtures["reasoning"], "no_picture", "picture_missed")}


def _no_late_doubts(mixtures: Mixtures) -> Mixtures:
    return {**mixtures, "reasoning": without(mixtures["reasoning"], "picture_missed")}


def _on_the_way(stages: Stages) -> Stages:
    """Twice as many steps as the last that is kept, at one rate after the warm-up, so that each is what a run of its length would give."""
    stage = stages["reasoning"]
    longer = replace(stage.phases[-1], steps=2 * ON_THE_WAY[-1], decay_to=1.0)
    return {**stages, "reasoning": replace(stage, phases=(*stage.phases[:-1], longer), stops=(), kept=ON_THE_WAY)}


def _rank(stages: Stages, rank: int) -> Stages:
    return {**stages, "safe": replace(stages["safe"], rank=rank)}


def _full(stages: Stages) -> Stages:
    """At the rate of the stage before, which also tunes everything: the rate of a low-rank update would destroy the model."""
    safe, rate = stages["safe"], stages["reasoning"].phases[-1].rate
    return {**stages, "safe": replace(safe, rank=0, phases=tuple(replace(phase, rate=rate) for phase in safe.phases))}


_TABLE = (
    Variant(
        "no-refusing-thoughts",
        "whether a thought can be steered towards refusing in a model that never thought and refused",
        mixtures=_no_refusing_thoughts,
    ),
    Variant(
        "no-harmless-refusals",
        "whether benign tuning without any refusal forgets the refusal sentence itself",
        mixtures=_no_harmless_refusals,
    ),
    Variant("no-late-doubts", "whether a model corrects itself that never saw a check fail while it was tuned", mixtures=_no_late_doubts),
    Variant("reasoning-on-the-way", "how refusals and what can be steered change with the steps of benign tuning", stages=_on_the_way),
    Variant("safe-full", "whether vectors of a fully tuned safe model differ from those of a low-rank one", stages=_full),
    *(
        Variant(f"safe-rank-{rank}", "how the rank of safety tuning shows in its vectors", stages=partial(_rank, rank=rank))
        for rank in (1, 4, 8, 32)
    ),
)
VARIANTS = MappingProxyType({variant.name: variant for variant in _TABLE})
