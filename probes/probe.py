"""A probe: one direction with a bias, the place it reads, and what its scores were on data it was not fitted on.

    readout(h) = w · h + b                                 in the model's own space, so h is taken as the model has it
    probability(h) = σ(slope · readout(h) + offset)        calibrated on dev (calibration.py), slope at least 0 (rows.py)

A threshold for a false positive rate is a quantile of the *dev* negatives; the rate reached on the *test* negatives is kept beside it,
since the two differ: with n dev negatives a rate below 1/n cannot be told apart from 0.

A sequence probe reads every token of its span and makes one score of them: their mean, their max, or the last. Its `scores` are those.

Shapes: weight [d], h [..., d] → readout [...].
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks.artifact import load_artifact, save_artifact
from ..hooks.gates import ProbeGate
from ..hooks.spans import ANCHORS, parse_span, streamable

logger = logging.getLogger(__name__)

FACTS = ("bias", "site", "span", "pool", "kind", "label", "model", "setting", "over", "calibration", "metrics")
SCORES = ("dev_negative", "dev_positive", "test_negative", "test_positive")
OVERS = ("", "mean", "max", "last")
Metrics = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, eq=False)
class Probe:
    """A calibrated direction.

    weight       [d], bias: the readout, float32
    site         where it reads, such as "resid_post.4"; span and pool: which tokens, and how they were reduced
    kind         a name in KINDS, or "sequence"
    label        what a positive is, such as "harmful"
    model        the checkpoint whose hidden states it was fitted on
    scores       readouts of held-out rows: dev_negative, dev_positive, test_negative, test_positive, each [n], ascending
    header       provenance, JSON-able: the sides and their prompts, and how it was chosen
    setting      C, shrinkage or alpha; None where the kind has none
    over         how the readouts of a sequence become one score: mean, max or last; "" for a probe of one vector per prompt
    calibration  slope and offset
    metrics      what it reaches on test: name -> value, low, high (95%), and sizes -> positives, negatives, groups
    """

    weight: Float[Tensor, " d"]
    bias: float
    site: str
    span: str
    pool: str
    kind: str
    label: str
    model: str
    scores: Mapping[str, Float[Tensor, " n"]]
    header: Mapping[str, Any] = field(default_factory=dict)
    setting: float | None = None
    over: str = ""
    calibration: tuple[float, float] | None = None
    metrics: Metrics = field(default_factory=dict)

    def __post_init__(self) -> None:
        if missing := [name for name in SCORES if name not in self.scores]:
            raise ValueError(f"a probe needs the scores {', '.join(SCORES)}; {missing[0]!r} is missing")
        if self.over not in OVERS:
            raise ValueError(f"token readouts cannot be put together by {self.over!r}; known are {', '.join(filter(None, OVERS))}")

    @property
    def made_for(self) -> dict[str, Any]:
        """Facts of the model it was fitted on (hooks/provenance.py), as far as they are known; nothing for a probe of several."""
        fingerprint = self.header.get("fingerprint", "+")
        return {} if "+" in fingerprint or self.header.get("aligned") else {"model": self.model, "fingerprint": fingerprint}

    @property
    def direction(self) -> Float[Tensor, " d"]:
        """The unit vector along which it reads, in the residual stream."""
        return self.weight / self.weight.norm()

    def readout(self, h: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """weight · h + bias, in float32 or wider. Higher means more like the label."""
        if h.shape[-1] != len(self.weight):
            width = len(self.weight)
            raise ValueError(f"the probe at {self.site} reads width {width}, the hidden state has {h.shape[-1]}; use model {self.model!r}")
        wide = h.to(torch.promote_types(h.dtype, self.weight.dtype))
        return wide @ self.weight.to(wide) + self.bias

    def probability(self, h: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """The calibrated probability of the label: of the prompt for one vector per prompt, of a token by itself for a sequence probe."""
        if self.calibration is None:
            raise ValueError("this probe was saved without a calibration, so its readout is no probability. Fit it again with fit_probes()")
        slope, offset = self.calibration
        return torch.sigmoid(slope * self.readout(h) + offset)

    def threshold(self, fpr: float = 0.01) -> float:
        """The lowest threshold that at most a share `fpr` of the dev negatives reads above."""
        negatives = self.scores["dev_negative"]
        if not 0 <= fpr < 1:
            raise ValueError(f"a false positive rate lies in [0, 1), not {fpr}")
        if 0 < fpr * len(negatives) < 1:
            logger.warning("a false positive rate of %g cannot be set on %d dev negatives; taking their largest score", fpr, len(negatives))
        return cut(negatives, fpr)

    def achieved(self, fpr: float = 0.01) -> dict[str, float]:
        """What the threshold for `fpr` does: its value, and on dev and test the false and true positive rates with their n."""
        value = self.threshold(fpr)
        report = {"threshold": value}
        for side in ("dev", "test"):
            for rate, name in (("fpr", "negative"), ("tpr", "positive")):
                scores = self.scores[f"{side}_{name}"]
                report |= {f"{side}_{rate}": float((scores > value).double().mean()), f"{side}_n_{name}": len(scores)}
        return report

    def gate(self, fpr: float = 0.01, *, span: str | None = None, latched: bool = True) -> ProbeGate:
        """A gate that opens where the readout passes the threshold for `fpr`.

        It reads at the probe's own span. A gate reads tokens one by one as they arrive, so its threshold holds for a probe of a single
        token, and for a sequence probe over "max": some token passes where the largest does. A probe of a span pooled into one vector,
        or of the mean over tokens, has no threshold for one token: ValueError, unless `span` says where to read all the same.
        """
        if span is None and not (self._reads_single_tokens() and streamable(self.span)):
            reads = f"{self.over or self.pool} over {self.span!r}"
            raise ValueError(
                f"this probe reads the {reads}, a gate reads single tokens as they arrive, and the threshold was not set on those. "
                "Take a probe at an anchor, such as sweep.pick(span='last_prompt'), or a sequence probe over 'max', "
                "or pass span= to read there anyway"
            )
        threshold = self.threshold(fpr)
        return ProbeGate(self.weight, self.bias, self.site, threshold, latched=latched, span=span or self.span, made_for=self.made_for)

    def _reads_single_tokens(self) -> bool:
        place = parse_span(self.span)
        anchored = place.base in (*ANCHORS, "step_end") or place.fraction is not None
        return anchored or self.over == "max" or (self.over == "" and self.pool == "every")

    def save(self, path: str | Path) -> None:
        """One safetensors file with a JSON header; refuses to overwrite."""
        facts = {name: getattr(self, name) for name in FACTS}
        achieved = {str(fpr): self.achieved(fpr) for fpr in (0.01, 0.05)}
        header = {"kind": "probe", "probe": facts, "achieved": achieved, "header": dict(self.header)}
        save_artifact(path, {"weight": self.weight, **self.scores}, header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what save() wrote, or what an earlier version did, which knew no calibration and no metrics."""
        tensors, header = load_artifact(path)
        if header.get("kind") != "probe":
            raise ValueError(f"{path} holds a {header.get('kind')!r}, not a probe. Pass a file written by Probe.save().")
        facts = header["probe"]
        if facts.get("calibration") is not None:
            facts = {**facts, "calibration": tuple(facts["calibration"])}
        return cls(weight=tensors.pop("weight"), scores=tensors, header=header["header"], **facts)


def cut(negatives: Float[Tensor, " n"], fpr: float) -> float:
    """The lowest threshold that at most a share `fpr` of the negatives, ascending, lies above: one of their scores."""
    return float(negatives[len(negatives) - 1 - int(fpr * len(negatives) + 1e-9)])
