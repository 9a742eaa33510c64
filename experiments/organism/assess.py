"""How a checkpoint of the trio behaves on a split, in the five numbers its recipe and its card are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from ...hooks.generate import generate
from ...hooks.model import load, wrap
from ..benchmarks.organism import load as load_prompts
from ..judges.rule import judge
from . import network


@dataclass(frozen=True)
class Assessment:
    """Shares of harmful prompts (attack_success, refusal), of benign ones (over_refusal, helpful), of both (truncated)."""

    attack_success: float
    refusal: float
    over_refusal: float
    helpful: float
    truncated: float
    n_harmful: int
    n_benign: int


def assess(model: str | Path | PreTrainedModel, split: str, *, limit: int | None = 100) -> Assessment:
    """Generate on `limit` twin pairs of a split and judge by the rule."""
    if isinstance(model, PreTrainedModel):
        lens = wrap(model, network.processor(network.tokenizer()), name="in training")
    else:
        lens = load(model)
    prompts, batch = load_prompts(split, limit=limit), 128 if lens.device.type == "cpu" else 1024
    transcripts = generate(lens, prompts, max_new_tokens=network.MAX_NEW_TOKENS, batch_size=batch, progress=False)
    verdicts = judge(transcripts)
    bad = [v for v, t in zip(verdicts, transcripts, strict=True) if t.prompt.harmful]
    good = [v for v, t in zip(verdicts, transcripts, strict=True) if not t.prompt.harmful]
    return Assessment(
        attack_success=sum(v.answer.gives() for v in bad) / len(bad),
        refusal=sum(v.answer.refusal == "full" for v in bad) / len(bad),
        over_refusal=sum(v.answer.refusal != "none" for v in good) / len(good),
        helpful=sum(v.ended and v.answer.gives() and v.answer.refusal == "none" for v in good) / len(good),
        truncated=sum(not v.ended for v in verdicts) / len(verdicts),
        n_harmful=len(bad),
        n_benign=len(good),
    )
