"""An anchor: how a decision is recognised in a model's own hidden states, where thoughts differ in length and wording.

    a step of the thought ends at token t, and  w · h_t + b > threshold  at the anchor's site    ⇒    t is a decision

The same object serves both directions. As tokens arrive it is a gate, which opens at that very token for a site no earlier in the forward
pass than its own; in transcripts it tells positions, for which the span "decision" stands:

    steer(lens, vector, spans="decision", gate=anchor.gate())
    capture(lens, transcripts, Select("resid_post", "decision"), decisions=anchor.find(lens, transcripts), into=…)

How one is fitted, and on what: probes/recognising.py. Shapes: weight [d].
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from .artifact import load_artifact, save_artifact
from .gates import AtSteps, Gate, ProbeGate
from .model import LensModel
from .provenance import check_made_for
from .records import Transcript
from .select import Select
from .sites import parse_site
from .spans import STEP_ENDS
from .streaming import stream

log = logging.getLogger(__name__)

FACTS = ("bias", "site", "threshold")


@dataclass(frozen=True, eq=False)
class Anchor:
    """A readout that tells decisions from the other ends of steps.

    weight, bias   the readout, in the model's own space
    site           where it reads, such as "resid_post.3"
    threshold      above it the end of a step is a decision
    made_for       facts of the model it was fitted on (provenance.py)
    header         provenance and what it reached, JSON-able
    """

    weight: Float[Tensor, " d"]
    bias: float
    site: str
    threshold: float
    made_for: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weight.ndim != 1 or not bool(self.weight.isfinite().all()):
            raise ValueError(f"an anchor's weight is one finite direction [d], not {list(self.weight.shape)}")
        if not (math.isfinite(self.bias) and math.isfinite(self.threshold)):
            raise ValueError(f"the bias or threshold of the anchor at {self.site!r} is nan or inf; fit it again")
        if parse_site(self.site)[1] is None:
            raise ValueError(f"an anchor reads at one site, not at every {self.site}: write the layer, as in {self.site}.3")

    def __str__(self) -> str:
        return f"decision({self.site}, >{self.threshold:g})"

    def gate(self) -> Gate:
        """Open at the ends of steps that read above the threshold, each by itself."""
        reads = ProbeGate(self.weight, self.bias, self.site, self.threshold, latched=False, span=STEP_ENDS, made_for=self.made_for)
        return AtSteps() & reads

    def find(
        self, lens: LensModel, transcripts: Sequence[Transcript], *, batch_size: int = 32, foreign: bool = False, progress: bool = True
    ) -> dict[str, tuple[int, ...]]:
        """Prompt id -> output positions of its decisions, ascending; empty for a thought without one. How many have none is logged.

        foreign   read a model the anchor was not made for; how they differ is logged
        ValueError for another model, for two transcripts of one prompt, and where no thought has a step.
        """
        check_made_for(lens, self.made_for, f"the anchor at {self.site}", foreign=foreign)
        if len({t.id for t in transcripts}) < len(transcripts):
            raise ValueError(
                "two transcripts are of one prompt, and decisions are told by prompt. Let find() read each condition by itself."
            )
        begun = {t.id: len(t.prompt_ids) for t in transcripts}
        found: dict[str, list[int]] = {t.id: [] for t in transcripts}
        where = Select(self.site, STEP_ENDS, "every")
        for hidden, rows in stream(lens, transcripts, where, batch_size=batch_size, progress=progress):
            above = hidden[:, 0] @ self.weight.to(hidden) + self.bias > self.threshold
            here = rows[above.numpy()]
            for id_, start in zip(here["prompt_id"], here["start"], strict=True):
                found[id_].append(int(start) - begun[id_])
        if silent := sum(not places for places in found.values()):
            log.info("the anchor at %s finds no decision in %d of %d thoughts", self.site, silent, len(found))
        return {id_: tuple(sorted(places)) for id_, places in found.items()}

    def save(self, path: str | Path) -> Path:
        """Write as an artifact, which is never overwritten."""
        facts = {name: getattr(self, name) for name in FACTS}
        header = {"kind": "anchor", "anchor": facts, "made_for": dict(self.made_for), "header": dict(self.header)}
        return save_artifact(path, {"weight": self.weight}, header)

    @classmethod
    def load(cls, path: str | Path) -> Anchor:
        """Read what save() wrote. Whether it belongs to a model is asked when it is used."""
        tensors, header = load_artifact(path)
        if header.get("kind") != "anchor":
            raise ValueError(f"{path} holds a {header.get('kind')!r}, not an anchor. Pass a file written by Anchor.save().")
        return cls(tensors["weight"], **header["anchor"], made_for=header["made_for"], header=header["header"])
