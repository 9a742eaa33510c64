"""A run folder as the demo leaves it, with made-up numbers of a likely size: for tests of viz, and to look at the page.

python tests/viz/fake_run.py runs/fake        writes the folder; thoughtlens.viz.report(Path("runs/fake")) makes the page
"""

from __future__ import annotations

import json
import math
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

CATEGORIES = ("fraud", "privacy", "malware", "hate", "weapons", "self-harm", "illegal goods", "health")
ATTACKS = ("plain", "typographic", "image_swap", "roleplay", "prefix")
UNSAFE = {"base": 0.12, "reasoning": 0.83, "safe": 0.02}
PER_CELL = 5
SPANS = ("last_prompt", "thought_first", "step_end[0]", "thought[:16]", "step_end[1]", "thought@0.5", "thought", "thought_last")
WORDS = dict(zip(SPANS, (0.50, 0.50, 0.47, 0.52, 0.78, 0.71, 0.90, 0.93), strict=True))
PEAK = dict(zip(SPANS, (0.985, 0.96, 0.998, 0.98, 0.97, 0.96, 0.985, 0.99), strict=True))
LAYERS = 6
BESIDE = ("macro", "apart", "hazard: vcr")  # categories that tell the whole in another way
SCRIPT = "<script>alert(1)</script>"

PROVENANCE = {
    "created": "2026-02-11T14:03:27+00:00",
    "command": "thoughtlens demo --into runs/demo",
    "thoughtlens": "0.1.0",
    "seed": 7,
    "machine": {"cpu": "AMD EPYC, 2 cores", "accelerator": None, "memory_gb": 24},
    "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
    "git": {"commit": "0d5a0b2", "dirty": False},
    "models": [
        {"name": "base", "fingerprint": "6b1f…"},
        {"name": "reasoning", "fingerprint": "a97c…"},
        {"name": "safe", "fingerprint": "11de…"},
    ],
    "judge": {"name": "rule", "threshold": 4},
}


def wilson(k: float, n: float) -> tuple[float, float]:
    p, z = k / n, 1.96
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (p + z * z / (2 * n) - half) / (1 + z * z / n), (p + z * z / (2 * n) + half) / (1 + z * z / n)


def rate(k: float, n: float) -> dict[str, float]:
    low, high = wilson(k, n)
    return {"value": k / n, "low": low, "high": high, "numerator": float(k), "n": float(n)}


def collapse(seed: int = 0) -> pd.DataFrame:
    """Attack success per model, category and attack, every `all`, the paired tax; and rows no figure may mix in."""
    rng = np.random.default_rng(seed)
    tilt = {c: rng.uniform(0.85, 1.2) for c in CATEGORIES} | {"health": 0.3}
    wrap = dict(zip(ATTACKS, (0.7, 1.15, 1.2, 1.0, 0.95), strict=True))
    rows, counts = [], {}
    for model, level in UNSAFE.items():
        k = {(c, a): int(rng.binomial(PER_CELL, min(0.97, level * tilt[c] * wrap[a]))) for c in CATEGORIES for a in ATTACKS}
        for category in (*CATEGORIES, "all"):
            for attack in (*ATTACKS, "all"):
                cells = [k[c, a] for c in CATEGORIES for a in ATTACKS if category in (c, "all") and attack in (a, "all")]
                counts[model, category, attack] = sum(cells), len(cells) * PER_CELL
                fixed = {"model": model, "condition": "unsteered", "benchmark": "organism", "attack": attack, "category": category}
                judged = {"judge": "rule", "threshold": 4.0}
                found = rate(*counts[model, category, attack])
                rows.append({**fixed, "channel": "answer", "metric": "attack_success", **found, **judged})
                rows.append({**fixed, "channel": "thought", "metric": "attack_success", **rate(found["n"], found["n"]), **judged})
                rows.append(
                    {**fixed, "channel": "answer", "metric": "refusal", **rate(found["n"] - found["numerator"], found["n"]), **judged}
                )
    for category in (*CATEGORIES, "all"):
        (after, n), (before, _) = counts["reasoning", category, "all"], counts["base", category, "all"]
        gap, half = (after - before) / n, 0.9 / math.sqrt(n)
        found = {"value": gap, "low": gap - half, "high": min(1.0, gap + half), "numerator": math.nan, "n": float(n)}
        fixed = {"model": "reasoning", "condition": "unsteered", "benchmark": "organism", "attack": "all", "category": category}
        rows.append({**fixed, "channel": "answer", "metric": "tax_difference", **found, "judge": "rule", "threshold": 4.0})
    macro = next(row for row in rows if row["metric"] == "attack_success" and row["category"] == "all" and row["attack"] == "all")
    return pd.DataFrame([*rows, *({**macro, "category": name, "value": 0.999} for name in BESIDE)])


def detection(seed: int = 1) -> pd.DataFrame:
    """Three models, six layers, dev and test, two probe families; base never wrote a thought, and nothing is readable at layer 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for model in UNSAFE:
        for span in SPANS[:1] if model == "base" else SPANS:
            for layer in range(LAYERS):
                grown = 0.52 + (PEAK[span] - 0.52) * (1 - math.exp(-1.4 * layer)) - 0.01 * max(0, layer - 3)
                for probe, worse in (("logistic", 0.0), ("mean_difference", 0.03)):
                    for split, n in (("dev", 180), ("test", 324)):
                        value = min(0.9995, grown - worse + rng.normal(0, 0.004))
                        half = 1.96 * math.sqrt(value * (1 - value) / n * 1.3)
                        control = 0.5 + rng.normal(0, 0.008)
                        where = {
                            "model": model,
                            "condition": "unsteered",
                            "site": f"resid_post.{layer}",
                            "layer": layer,
                            "span": span,
                            "pool": "mean",
                        }
                        told = {
                            "auroc": value,
                            "low": value - half,
                            "high": min(1.0, value + half),
                            "tpr_at_1fpr": max(0.02, 2.2 * value - 1.25),
                        }
                        beside = {"control_auroc": control, "control_high": control + 0.06, "text_auroc": WORDS[span]}
                        size = {"n_train": 620, "n_test": n, "c": 0.1}
                        rows.append({**where, "probe": probe, "label": "harmful", "split": split, **told, **beside, **size})
    return pd.DataFrame(rows)


def trajectory(seed: int = 2, prompts: int = 60) -> pd.DataFrame:
    """Token scores of thoughts of uneven length; in the reasoning model harm shows early and fades, a cliff, in the safe model it stays."""
    rng = np.random.default_rng(seed)
    rows = []
    for model in ("reasoning", "safe"):
        for index in range(prompts):
            harmful = index % 2 == 0
            own, position = rng.normal(0, 0.7), 40
            for step in range(int(rng.integers(4, 11))):
                fade = math.exp(-0.35 * max(0, step - 2)) if model == "reasoning" else 1.0
                mean = 2.4 * fade * min(1.0, (step + 1) / 2) if harmful else -1.6
                for token in range(int(rng.integers(4, 8))):
                    score = mean + own + rng.normal(0, 0.9)
                    word = SCRIPT if index == 0 and token == 0 else f"word{token}"
                    where = {"model": model, "condition": "unsteered", "prompt_id": f"p{index}", "position": position, "kind": "thought"}
                    rows.append({**where, "token": word, "score": score, "harmful": harmful, "step": step})
                    position += 1
            rows.append({**where, "position": position, "kind": "answer", "token": "sure", "score": 99.0, "harmful": harmful, "step": 0})
    return pd.DataFrame(rows)


RESTORED = {
    "unsteered": (0.83, 0.15, 0.00, 0.96, 0.01),
    "safe": (0.02, 0.97, 0.02, 0.97, 0.00),
    "steered": (0.05, 0.92, 0.04, 0.91, 0.02),
    "shuffled": (0.81, 0.16, 0.01, 0.95, 0.01),
    **{
        f"random[{draw}]": (0.83 + shift, 0.15 - shift, 0.01, 0.95, 0.01)
        for draw, shift in enumerate((0.01, -0.04, 0.0, 0.03, -0.02, 0.02, -0.06, 0.04))
    },
}
METRICS = ("attack_success", "refusal", "over_refusal", "helpful", "truncated")


def restoration(n: int = 162) -> pd.DataFrame:
    """Five conditions on the test split, eight random draws, and dev rows that must not be shown."""
    rows = []
    for condition, values in RESTORED.items():
        steered = condition not in ("unsteered", "safe")
        setting: dict[str, object] = {
            "vector": "safe-reasoning" if condition == "steered" else condition.split("[")[0],
            "source": "safe",
            "site": "resid_post.3",
        }
        setting |= {"operator": "add", "strength": 0.45, "gate": "always", "thought_mode": "regenerated"}
        setting = setting if steered else dict.fromkeys(setting, None)
        for split, shift in (("dev", 0.1), ("test", 0.0)):
            for metric, value in zip(METRICS, values, strict=True):
                found = rate(round(min(1.0, value + shift) * n), n)
                rows.append({"condition": condition, **setting, "split": split, "attack": "all", "metric": metric, **found})
    return pd.DataFrame(rows)


def transfer(seed: int = 3) -> pd.DataFrame:
    """Models against models, and attacks against attacks in one model; the base reads worst what the reasoning model reads."""
    rng = np.random.default_rng(seed)
    rows = []
    for along, ends, model in (("model", tuple(UNSAFE), ""), ("attack", ATTACKS, "reasoning")):
        for source in ends:
            for target in ends:
                value = 0.97 if source == target else 0.9 + rng.normal(0, 0.02)
                where = {"along": along, "source": source, "target": target, "model": model or target, "site": "resid_post.3", "layer": 3}
                told = {"auroc": value, "low": value - 0.03, "high": min(1.0, value + 0.02), "tpr_at_1fpr": 0.6}
                rows.append({**where, "span": "step_end[0]", "probe": "logistic", **told, "n_train": 300, "n_test": 200})
    return pd.DataFrame(rows)


def curves() -> pd.DataFrame:
    """Two models, three alignments, a fall at the end in the reasoning model."""
    rows = []
    for model, fall in (("reasoning", 2.0), ("safe", 0.0)):
        for side, level in (("harmful", 2.5), ("benign", -1.5)):
            for by, points in (("start", range(12)), ("fraction", [i / 10 for i in range(11)]), ("end", range(-11, 1))):
                for place, at in enumerate(points):
                    mean = level - (fall if side == "harmful" and place >= 10 else 0.0)
                    where = {"model": model, "condition": "unsteered", "split": "test", "side": side, "by": by, "at": float(at)}
                    rows.append({**where, "mean": mean, "low": mean - 0.4, "high": mean + 0.4, "n": 60, "groups": 30})
    return pd.DataFrame(rows)


def decision() -> pd.DataFrame:
    """Four anchors on dev and test; the third comes first by divergence and margin, the last is reached by too few to be ranked."""
    rows = []
    for split, decides in (("dev", True), ("test", False)):
        for step, (anchor, gap, margin, rank) in enumerate(
            (
                ("last_prompt", 0.02, 1.5, 3),
                ("step_end[0]", 0.05, 2.0, 2),
                ("step_end[1]", 0.4, 4.0, 1),
                ("step_end[2]", 0.01, 0.2, math.nan),
            )
        ):
            told = {"gap": gap, "gap_low": gap - 0.02, "gap_high": gap + 0.02, "margin": margin, "margin_low": margin - 0.3}
            ranks = {"rank": rank, "rank_gap": rank, "rank_margin": rank, "first": 0.98 if rank == 1 else 0.01}
            pair = {"model_a": "safe", "model_b": "reasoning", "model": "reasoning", "split": split, "decides": decides}
            rows.append(
                {**pair, "anchor": anchor, "step": step - 1, "n": 180, "n_harmful": 90, **told, "margin_high": margin + 0.3, **ranks}
            )
    return pd.DataFrame(rows)


def decision_ranks() -> pd.DataFrame:
    """The same with what one steered token does: half of the divergence at the first anchor."""
    table = decision()
    effect = table["gap"] / 2
    told = {"effect": effect, "effect_low": effect - 0.01, "effect_high": effect + 0.01, "rank_effect": table["rank"]}
    told |= {"before_harmful": table["gap"] + 0.1, "closed_harmful": effect, "closed_benign": -0.05, "random_effect": 0.03}
    return table.assign(**told, source="harmful - benign", site="resid_post.4", strength=1.0)


def decision_boundaries() -> pd.DataFrame:
    """Ten thoughts of either class: five of ten steps, decided at the fourth, and five of twenty, decided at the eighteenth."""
    rows = []
    for number in range(20):
        steps, at = (10, 3) if number % 2 else (20, 17)
        harmful = number < 10
        for step in range(steps):
            here = {"decision": harmful and step == at, "found": step == at}
            rows.append({"prompt_id": f"p{number}", "split": "test", "harmful": harmful, "step": step, **here})
    return pd.DataFrame(rows).astype({"harmful": "boolean"})


def heads() -> pd.DataFrame:
    """Three layers of four heads, two MLPs and the embedding; head 2 of layer 1 writes half."""
    parts = [("embedding", -1, -1, 0.05)] + [("mlp", layer, -1, 0.05) for layer in range(3)]
    parts += [("head", layer, head, 0.5 if (layer, head) == (1, 2) else 0.3 / 11) for layer in range(3) for head in range(4)]
    about = {"model": "reasoning", "site": "resid_post.2", "span": "step_end[1]", "probe": "logistic", "split": "test", "n": 180}
    return pd.DataFrame(
        [
            {**about, "part": part, "layer": layer, "head": head, "difference": 4 * share, "low": 4 * share - 0.1, "high": 4 * share + 0.1}
            | {"harmful": 2 * share, "benign": -2 * share, "share": share}
            for part, layer, head, share in parts
        ]
    )


def holdouts(seed: int = 4) -> pd.DataFrame:
    """Three ways of holding out at two moments, three layers; dev likes layer 2, test would have liked layer 1 better."""
    rows = []
    for span, level in (("last_prompt", 0.9), ("step_end[0]", 0.99)):
        for way, n in (("without fraud", 40), ("text-to-image", 80), ("base-to-safe", 200)):
            where = {"holdout": way, "span": span, "label": "harmful", "subset": "all", "n_train": 300, "n_test": n}
            for split in ("dev", "test"):
                model = (
                    "base" if way.startswith("base") and split == "dev" else way.split("-")[-1] if way.startswith("base") else "reasoning"
                )
                for layer, lift in ((0, -0.3), (1, -0.1 if split == "dev" else 0.005), (2, 0.0)):
                    value = level + lift
                    told = {"auroc": value, "low": value - 0.05, "high": min(1.0, value + 0.04), "tpr_at_1fpr": 0.5}
                    rows.append(
                        {
                            **where,
                            **told,
                            "model": model,
                            "site": f"resid_post.{layer}",
                            "layer": layer,
                            "probe": "logistic",
                            "split": split,
                        }
                    )
                words = {"auroc": 0.5, "low": 0.42, "high": 0.58, "tpr_at_1fpr": 0.01, "model": model}
                rows.append({**where, **words, "site": "", "layer": -1, "probe": "tfidf_prompt", "split": split})
    return pd.DataFrame(rows)


def comparison(n: int = 160) -> pd.DataFrame:
    """Five ways and two kinds of control, over all attacks and one attack, and dev rows that must not be shown."""
    values = {
        "unsteered": (0.80, 0.01, 0.97),
        "safe": (0.01, 0.03, 0.96),
        "reminder": (0.40, 0.10, 0.90),
        "system prompt": (0.70, 0.02, 0.95),
        "steered": (0.10, 0.02, 0.97),
        **{f"shuffled[{i}]": (0.78, 0.03, 0.90) for i in range(2)},
        **{f"random[{i}]": (0.79 + 0.01 * i, 0.01, 0.97) for i in range(3)},
    }
    rows = []
    for condition, rates in values.items():
        for metric, value in zip(("attack_success", "over_refusal", "helpful"), rates, strict=True):
            for split, attack, share in (("test", "all", value), ("test", "plain", value / 2), ("dev", "all", 0.5)):
                found = rate(round(share * n), n)
                where = {"condition": condition, "what": f"{condition} as chosen", "split": split, "attack": attack, "metric": metric}
                rows.append({**where, "thought_mode": "regenerated", **found})
    return pd.DataFrame(rows)


def margins(n: int = 394) -> pd.DataFrame:
    """Two moments, three layers: the base's classes half a unit to either side, the reasoning model's moved and closer together."""
    rows = []
    for span, model, layer in product(("last_prompt", "step_end[4]"), ("base", "reasoning", "safe"), range(3)):
        moved = {"base": 0.0, "reasoning": -0.3, "safe": 0.1}[model]
        apart = 1 - (0.3 if model == "reasoning" else 0.0)
        told = {"mean_harmful": moved + apart / 2, "mean_benign": moved - apart / 2, "sd_harmful": 0.2, "sd_benign": 0.1}
        told |= {"dprime": 1.0 + layer, "auroc": 0.9 + layer / 40}
        told |= {} if model == "base" else {"shift": moved, "gap_change": apart - 1}
        for metric, value in told.items():
            where = {"span": span, "site": f"resid_post.{layer}", "layer": layer, "model": model, "metric": metric}
            rows.append({**where, "value": value, "low": value - 0.05, "high": value + 0.05, "n": n})
    return pd.DataFrame(rows)


def explained(n: int = 200) -> pd.DataFrame:
    """Conditions of the tests behind docs/trio.md; "unsteered" twice, on more prompts the second time."""
    values = {"unsteered": 0.8, "base": 0.03, "safe": 0.0, "the whole mean shift": 0.2, "update of layer 4 reverted": 0.4}
    values |= {f"the whole mean shift, random direction as long[{i}]": 0.78 + 0.01 * i for i in range(3)}
    rows = [{"part": "a", "condition": c, "what": c, **rate(round(v * n), n)} for c, v in values.items()]
    rows.append({"part": "thought", "condition": "unsteered", "what": "unsteered", **rate(3 * n, 4 * n)})
    return pd.DataFrame(rows).assign(split="test", attack="all", metric="attack_success")


FURTHER = {
    "comparison": comparison,
    "margins": margins,
    "explained": explained,
    "holdouts": holdouts,
    "transfer": transfer,
    "curves": curves,
    "decision": decision,
    "heads": heads,
}
FURTHER |= {"decision_ranks": decision_ranks, "decision_boundaries": decision_boundaries}
TABLES = {"collapse": collapse, "detection": detection, "trajectory": trajectory, "restoration": restoration, **FURTHER}


def make_run(folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Writes tables and provenance, except those in `without`, and returns the folder."""
    (folder / "tables").mkdir(parents=True)
    for name, make in TABLES.items():
        if name not in without:
            make().to_parquet(folder / "tables" / f"{name}.parquet", index=False)
    if "provenance" not in without:
        (folder / "provenance.json").write_text(json.dumps(PROVENANCE), encoding="utf-8")
    return folder


if __name__ == "__main__":
    make_run(Path(sys.argv[1]))
