"""Decision points from two models and what one of them wrote: measured, ranked three ways, and recognised.

    read_boundaries    the hidden states of both models at the last prompt token and every end of a step
    divergence         how far their next-token distributions part there                                          → gap
    a linear probe     fitted on the boundaries of training prompts, how far apart it reads harmful and benign    → margin
    effects            what one edited token takes back                                                           → effect
    decision_points    ranked on dev by all three, measured again on test; agreement() and stability() tell how firm that is
    recognise          an anchor, for thoughts that are decided at the fourth step or at the ninth

Nothing is known of the words. Prompts need a split and, for the ranking, a label harmful.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
import torch
from scipy.stats import kendalltau

from ..hooks.anchor import Anchor
from ..hooks.divergence import divergence
from ..hooks.gates import Gate
from ..hooks.model import LensModel
from ..hooks.provenance import facts_of
from ..hooks.records import Transcript
from . import decision, logistic
from .boundaries import Boundaries, read_boundaries
from .effect import RANDOM, STRENGTHS, chosen, effects, swept
from .metrics import auroc
from .recognising import COUNTS, PENALTIES, recognise


@dataclass(frozen=True, eq=False)
class Decisions:
    """What decision_points() found.

    table        a row per anchor and side, ranked (decision.py), and random_effect: the largest of any random direction there
    agreement    of the rankings with each other and across sides
    sweep        every setting in means (effect.swept)
    boundaries   a row per end of a step of every thought: what patching closes, decision, score, found
    readout      how well the anchor's readout, and those of other sites, tell decisions (recognising.py)
    anchor       recognises decisions in thoughts of any length
    edits        how many edits of one token were tried
    """

    table: pd.DataFrame
    agreement: pd.DataFrame
    sweep: pd.DataFrame
    boundaries: pd.DataFrame
    readout: pd.DataFrame
    anchor: Anchor
    edits: int

    def spans(self, n: int = 1) -> list[str]:
        """The first `n` anchors by number, as spans: "step_end[4]", …"""
        return decision.anchors(self.table, n)

    def gate(self) -> Gate:
        """Open at the decisions the anchor recognises, as they arrive."""
        return self.anchor.gate()


def decision_points(
    models: Mapping[str, LensModel] | tuple[LensModel, LensModel],
    transcripts: Sequence[Transcript],
    *,
    sites: Sequence[str] | None = None,
    ahead: int = 4,
    strengths: Sequence[float] = STRENGTHS,
    draws: int = 2,
    counts: float = COUNTS,
    split: str = "dev",
    confirm: str = "test",
    least: float = 0.5,
    resampled: int = 1000,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Decisions:
    """Find the decision points of what a reasoning model wrote, beside a safer model of its family.

    models        a trio by name, of which "safe" and "reasoning" are used, or the pair (safe, reasoning)
    transcripts   the reasoning model's own, of the splits train, `split` and `confirm`, harmful and benign
    sites         where is read and edited; by default residual sites of up to six layers, without the last
    ahead, strengths, draws    of the one-token sweep (effect.py)
    counts        nats that patching one token has to close for its boundary to be a decision (recognising.py)
    least         share of thoughts that come to an anchor for it to be ranked

    ValueError for models that do not go together, sides that lack a class, and where the models part nowhere.
    """
    safe, writer = _pair(models)
    _check(transcripts, ("train", split, confirm))
    read = read_boundaries(safe, writer, transcripts, sites=sites, batch_size=batch_size, progress=progress)
    held = [t for t in transcripts if t.prompt.split in (split, confirm)]
    apart = divergence(safe, writer, held, batch_size=batch_size, progress=progress)
    swept_rows = effects(safe, writer, transcripts, read, ahead=ahead, strengths=strengths, draws=draws, seed=seed, progress=progress)
    readouts = _margins(read, writer, split)
    ranked = decision.decision_points(
        apart, readouts, chosen(swept_rows, split=split), split=split, confirm=confirm, least=least, resampled=resampled, seed=seed
    )
    means = swept(swept_rows)
    recognised = recognise(read, swept_rows, made_for=facts_of(writer), counts=counts, resampled=resampled, seed=seed)
    words = writer.tokenizer.convert_ids_to_tokens(recognised.boundaries["token"].tolist())
    return Decisions(
        _beside_random(ranked, means),
        decision.agreement(ranked),
        means,
        recognised.boundaries.assign(token=words),
        recognised.readout,
        recognised.anchor,
        len(swept_rows),
    )


def stability(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How far several rankings agree, of other seeds or other trios: their tables by name, as in Decisions.table.

    Columns: ranking, runs, first (the anchor that comes first most often), times (in how many), firsts (of each run); tau and tau_low, the
    mean and the lowest of Kendall's tau over pairs of runs, on the side that decides, of the anchors ranked in both; pairs.
    ValueError for fewer than two.
    """
    if len(tables) < 2:
        raise ValueError(f"stability compares runs, and there is {len(tables)}. Pass several, such as of other seeds.")
    sides = {name: table[table["decides"]].set_index("anchor") for name, table in tables.items()}
    found = []
    for ranking, column in decision.rankings(next(iter(tables.values()))).items():
        firsts = {name: str(side[column].idxmin()) for name, side in sides.items()}
        first, times = Counter(firsts.values()).most_common(1)[0]
        both = [pd.concat([one[column], other[column]], axis=1).dropna() for one, other in combinations(sides.values(), 2)]
        taus = pd.Series([kendalltau(pair.iloc[:, 0], pair.iloc[:, 1]).statistic for pair in both], dtype=float)
        told = {"first": first, "times": times, "firsts": "; ".join(f"{name}: {one}" for name, one in firsts.items())}
        found.append({"ranking": ranking, "runs": len(sides), **told, "tau": taus.mean(), "tau_low": taus.min(), "pairs": len(taus)})
    return pd.DataFrame(found)


def _pair(models: Mapping[str, LensModel] | tuple[LensModel, LensModel]) -> tuple[LensModel, LensModel]:
    if not isinstance(models, Mapping):
        safe, writer = models
        return safe, writer
    if missing := [name for name in ("safe", "reasoning") if name not in models]:
        raise ValueError(f"decision points compare a safe and a reasoning model, and {missing[0]!r} is not among {', '.join(models)}.")
    return models["safe"], models["reasoning"]


def _check(transcripts: Sequence[Transcript], splits: Sequence[str]) -> None:
    there = Counter((t.prompt.split, t.prompt.harmful) for t in transcripts)
    for split in splits:
        if lacking := [word for word, label in (("harmful", True), ("benign", False)) if not there[split, label]]:
            raise ValueError(
                f"decision points are decided on one side of the data and confirmed on another, and the split {split!r} has no "
                f"{lacking[0]} prompt. Pass transcripts of {', '.join(splits)}, of both classes."
            )


def _margins(read: Boundaries, lens: LensModel, split: str) -> pd.DataFrame:
    """Readouts of one probe at every boundary: harmful from benign, fitted on train, its site and penalty chosen by AUROC on `split`."""
    labelled = torch.from_numpy(read.rows["harmful"].notna().to_numpy(dtype=bool).copy())
    known = read.where(labelled)
    y = torch.from_numpy(known.rows["harmful"].to_numpy(dtype=bool).copy())
    train, dev = (torch.from_numpy((known.rows["split"] == side).to_numpy(dtype=bool).copy()) for side in ("train", split))
    x = known.b.transpose(0, 1)
    weight, bias = logistic.fit(x, y[None], PENALTIES, rows=train[None], balanced=True)
    scores = torch.einsum("snd,scd->scn", x.double(), weight[:, :, 0]) + bias[:, :, 0, None]
    site, penalty = divmod(int(auroc(scores[..., dev], y[dev]).argmax()), len(PENALTIES))
    words = lens.tokenizer.convert_ids_to_tokens(known.rows["token"].tolist())
    return known.rows.assign(token=words, score=scores[site, penalty].numpy(), model=lens.name)


def _beside_random(ranked: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Beside each effect the largest that any random direction had there, over sites and strengths."""
    drawn = means[means["source"] == RANDOM].groupby(["anchor", "split"])["effect"].max().rename("random_effect")
    return ranked.merge(drawn, on=["anchor", "split"], how="left")
