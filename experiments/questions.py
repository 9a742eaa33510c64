"""Questions that the stored vectors answer by themselves. Each is one function: an opened run in, tables out.

    detection     at which layer and moment, how surely, against which control                 every model
    held out      does it hold for a category or an attack never trained on, from text to image and back, from base to the tuned models
    transfer      from each model, attack, category and moment to each other
    geometry      how far the directions of layers and checkpoints are apart
    samples       how many goals does it take
    categories    can the kind of harm be read, not only that there is some
    projection    every prompt as a point: where do harmful ones lie

`moments` says which cells stand for a model where not all can: the best before the thought, and the best inside it where the words so far
tell nothing. Both are chosen on dev.
"""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from ..probes.categories import fit_categories
from ..probes.dataset import matrix
from ..probes.fit import Texts, fit_probes
from ..probes.geometry import angles, geometry
from ..probes.probe import Probe
from ..probes.samples import sample_sizes
from ..probes.splits import in_picture
from ..probes.sweep import ranked
from ..probes.transfer import transfer
from .asked import ORDER, Probing, Unanswered
from .detection import texts_at
from .labels import OF_PROMPT, TEXTS, baselines
from .probing_tables import LAST_PROMPT
from .projecting import projection

logger = logging.getLogger(__name__)

Tables = dict[str, pd.DataFrame]
INSIDE = ("thought", "step")  # how the names of moments inside the thought begin
WORDLESS = 0.6  # bag-of-words this close to chance tells nothing


def detection(p: Probing) -> Tables:
    """Every model, layer and moment, with all controls; the best probe of every moment goes to probes/."""
    found = []
    for model, store in p.stores.items():
        sweep = fit_probes(
            store, spans=p.spans, kinds=p.asked.kinds, texts=texts(p, model), complied=complied(p), **shared(p), **controls(p)
        )
        found.append(sweep.table)
        for span in p.spans:
            p.keep(sweep.pick(span=span), model, span)
    return {"detection": pd.concat(found, ignore_index=True)}


def shared(p: Probing) -> dict[str, Any]:
    """What every fit of a run has in common."""
    asked = p.asked
    return {
        **{"label": asked.label, "labels": p.labels or None, "split": p.split},
        **{"resampled": asked.resampled, "seed": asked.seed, "device": p.fits_on, "progress": p.progress},
    }


def controls(p: Probing) -> dict[str, Any]:
    return {"shuffles": p.asked.shuffles, "directions": p.asked.directions, "baselines": baselines(p.said)}


def complied(p: Probing) -> str | None:
    """The column that says which harmful prompts were complied with; only for the question whether prompts are harmful."""
    return "complied" if p.asked.label == OF_PROMPT and p.labels else None


def texts(p: Probing, model: str) -> Texts:
    """The words up to each moment, as the checkpoint spells its tokens; where it is not known, those of the prompt before the thought."""
    if model in p.homes:
        return {span: words for span, words in texts_at(p.stores[model], p.said, p.lens(model)).items() if span in p.spans}
    return {LAST_PROMPT: {t.id: t.prompt.text for t in p.said}} if LAST_PROMPT in p.spans else {}


def moments(table: pd.DataFrame, model: str) -> list[pd.Series]:
    """The dev rows of the cells that stand for a model: the best before the thought, and the best inside it where the words tell nothing.

    Where the words tell at every moment inside, the best of all is taken.
    """
    best = ranked(table[table.model == model])
    before, inside = best[best.span == LAST_PROMPT], best[best.span.str.startswith(INSIDE)]
    quiet = inside[(inside.text_auroc - 0.5).abs() <= WORDLESS - 0.5]
    return [rows.iloc[0] for rows in (before, quiet if len(quiet) else inside) if len(rows)] or [best.iloc[0]]


def moment(p: Probing, model: str) -> tuple[pd.Series, Probe]:
    """The cell that stands for what a model thinks, and its probe: inside the thought if it has one."""
    chosen = moments(p.table("detection"), model)[-1]
    return chosen, Probe.load(p.probe_file(model, chosen.span))


HELD_OUT = ("leave-category-out", "leave-attack-out", "text-to-image", "image-to-text", "base-to-reasoning-to-safe")


def held_out(p: Probing) -> Tables:
    """Every way of holding out that this run can, at the moments that stand for the reader; words beside the probe."""
    given(p)
    spans = [row.span for row in moments(p.table("detection"), p.reader)]
    lacking = lacks(p)
    words = {name: said for name, said in baselines(p.said).items() if name in TEXTS}
    found = []
    for split in HELD_OUT:
        if split not in lacking:
            stores = list(p.stores.values()) if split.startswith("base-") else p.stores[p.reader]
            options = {**shared(p), "split": split, "baselines": words, "shuffles": p.asked.shuffles, "directions": 0}
            for span in spans:
                try:
                    found.append(fit_probes(stores, spans=[span], kinds=p.asked.kinds[:1], **options).table)
                except ValueError as problem:  # such as a category without both labels at this moment; the others may do
                    lacking[f"{split} at {span}"] = str(problem)
    if not found:
        raise Unanswered("; ".join(dict.fromkeys(lacking.values())))
    for way, why in lacking.items():
        logger.warning("%s was left out: %s", way, why)
    return {"holdouts": pd.concat(found, ignore_index=True)}


def lacks(p: Probing) -> dict[str, str]:
    """Ways of holding out that this run cannot, and why."""
    index = p.stores[p.reader].index
    found = {f"leave-{column}-out": f"all prompts have one {column}" for column in ("category", "attack") if index[column].nunique() < 2}
    try:
        born = set(in_picture(index).values())
        unasked = "" if len(born) == 2 else f"{'every' if True in born else 'no'} request stands in a picture"
    except ValueError as unknown:
        unasked = str(unknown)
    found |= dict.fromkeys(("text-to-image", "image-to-text"), unasked) if unasked else {}
    if missing := [name for name in ORDER if name not in p.stores]:
        found["base-to-reasoning-to-safe"] = f"activations of {', '.join(missing)} are missing"
    return found


def transfers(p: Probing) -> Tables:
    """Matrices over models, attacks, categories and moments, at the site that stands for the reader."""
    given(p)
    chosen, _ = moment(p, p.reader)
    options = {"label": p.asked.label, "labels": p.sought, "site": chosen.site, "kind": p.asked.kinds[0]}
    options |= {"resampled": p.asked.resampled, "seed": p.asked.seed, "device": p.fits_on}
    spans, lacking, found = [row.span for row in moments(p.table("detection"), p.reader)], lacks(p), []
    if len(p.stores) > 1:
        found.append(transfer(p.stores, along="model", span=spans, **options))
    for column in ("attack", "category"):
        if f"leave-{column}-out" not in lacking:
            found.append(transfer(p.stores[p.reader], along=column, span=chosen.span, **options))
    if len(p.spans) > 1:
        found.append(transfer(p.stores[p.reader], along="span", span=p.spans, **options))
    if not found:
        raise Unanswered("there is one model, one attack, one category and one moment: nothing to carry a probe over to")
    return {"transfer": pd.concat(found, ignore_index=True)}


def given(p: Probing) -> None:
    """Unanswered unless prompts come with train, dev and test."""
    if p.split != "given":
        raise Unanswered("its prompts have no train, dev and test; give each prompt a split before capturing it")


def samples(p: Probing) -> Tables:
    """The sample-size curve of the cell that stands for the reader."""
    given(p)
    found, lacking = list[pd.DataFrame](), list[str]()
    for chosen in moments(p.table("detection"), p.reader):
        sides = [
            matrix(
                p.stores[p.reader],
                span=chosen.span,
                sites=[chosen.site],
                label=p.asked.label,
                where={"split": side},
                labels=p.sought,
            )
            for side in ("train", "test")
        ]
        try:
            found.append(
                sample_sizes(*sides, chosen.site, kind=chosen.probe, setting=chosen.c, resampled=p.asked.resampled, seed=p.asked.seed)
            )
        except ValueError as problem:  # such as a label too rare for the smallest number of goals
            lacking.append(f"{chosen.span}: {problem}")
    if not found:
        raise Unanswered("; ".join(lacking))
    for why in lacking:
        logger.warning("the curve was left out at %s", why)
    return {"samples": pd.concat(found, ignore_index=True)}


def geometries(p: Probing) -> Tables:
    """Cosines and principal angles between the mean-difference directions of all layers and checkpoints, at the reader's moments."""
    given(p)
    spans = [row.span for row in moments(p.table("detection"), p.reader)]
    options = {"label": p.asked.label, "labels": p.sought, "span": spans, "seed": p.asked.seed}
    found = {"geometry": geometry(p.stores, resampled=p.asked.resampled, shuffles=p.asked.shuffles, **options)}
    return found | ({"angles": angles(p.stores, **options)} if len(p.stores) > 1 else {})


def categories(p: Probing) -> Tables:
    """Which kind of harm a harmful prompt asks for, at the reader's moments."""
    given(p)
    if p.asked.label != OF_PROMPT:
        raise Unanswered(f"it is asked of harmful prompts, beside the label {OF_PROMPT!r}")
    if "leave-category-out" in (lacking := lacks(p)):
        raise Unanswered(lacking["leave-category-out"])
    spans = [row.span for row in moments(p.table("detection"), p.reader)]
    options = {"shuffles": p.asked.shuffles, "resampled": p.asked.resampled, "seed": p.asked.seed, "device": p.fits_on}
    table, _ = fit_categories(p.stores[p.reader], where={"harmful": True}, spans=spans, progress=p.progress, **options)
    return {"categories": table}


def projections(p: Probing) -> Tables:
    """Every prompt as a point at every moment and layer, harmful against benign."""
    if p.asked.label != OF_PROMPT:
        raise Unanswered(f"it shows harmful prompts among benign ones, and is asked of the label {OF_PROMPT!r} alone")
    return {"projection": projection(p.stores, p.spans)}
