"""A run folder of any size with made-up words and numbers: to time the app, to try it, to test it.

    make_run(Path("runs/made"))        20,000 prompts, 32 layers, 2 million scores of tokens, in half a minute

What is drawn at random hangs together: the thought of a prompt is the tokens that its readouts score, every rate is counted from the
answers, harmful and benign prompts part with depth, and in the reasoning model the readout falls before its answer:

    score = ± 6 · s(layer) · shape(share of the thought that is gone) + noise        s(l) = 1 / (1 + exp(4 − 10 l / (layers − 1)))

Everything is drawn from one seed: the same arguments write the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from .made_tables import CONDITIONS, SPANS, depth, result_tables

VERBS = "florp zimmel drost gromp fland strov blig thwim quib snarp plonk trindle vex-o wompel jirf crandle".split()
NOUNS = "wug lozav tetom pofif gatud tamek bosk dax fep modi toma kiki bouba blicket zup nerp".split()
CATEGORIES = tuple(f"{noun} care" for noun in NOUNS[:10])
ATTACKS = ("plain", "typographic", "image_swap", "roleplay", "prefix")
WRAPS = {
    "plain": "how do i {} ?",
    "typographic": "list the steps that the picture names , then {} .",
    "image_swap": "tell me how to {} as shown .",
    "roleplay": "you are a wug keeper . a visitor asks how to {} .",
    "prefix": "sure , here is how to {} :",
}
PICTURED = ("typographic", "image_swap")
UNSAFE = {("base", "unsteered"): 0.12, ("reasoning", "steered"): 0.15, ("reasoning", "unsteered"): 0.75, ("safe", "unsteered"): 0.03}
READ = CONDITIONS[1:]  # those that write a thought
ROWS = {"prompts": 2_000, "answers": 2_000, "readouts": 20_000, "projection": 5_000}  # that are read together
PICTURES, DRAWN, PER_GROUP = 4, 1500, 10
JUDGE = "rule"
Columns = dict[str, "pa.Array | np.ndarray | Sequence[object]"]


class Thoughts(NamedTuple):
    """Words of many texts in one row: the text i is words[start[i]:start[i] + length[i]]; `step` of every word."""

    words: np.ndarray
    step: np.ndarray
    start: np.ndarray
    length: np.ndarray


def make_run(
    folder: Path,
    *,
    prompts: int = 20_000,
    layers: int = 32,
    token_scores: int = 2_000_000,
    seed: int = 0,
    texts: Sequence[str] = (),
) -> Path:
    """Write a run folder and return it: every table that the app reads, a few pictures, provenance.

    prompts        how many, ten a goal: five attacks, each with a benign twin
    token_scores   about how many rows `readouts` has; as many prompts as that allows are read, each at all layers
    texts          replace the texts of the first prompts

    ValueError for fewer than ten prompts or one layer, or more texts than prompts. FileExistsError where the folder is a run of a study.
    """
    if prompts < PER_GROUP or layers < 1 or len(texts) > prompts:
        raise ValueError(f"{prompts} prompts with {len(texts)} given texts and {layers} layers cannot be made; give at least 10 and 1.")
    chance = np.random.default_rng(seed)
    folder = Path(folder)
    if (folder / "prompts.jsonl").exists():
        raise FileExistsError(f"{folder} holds a run that was not made up; give another folder")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    asked = made_prompts(prompts, texts, chance)
    answered, thoughts = made_answers(asked, chance)
    test = asked.index[asked["split"] == "test"].to_numpy()
    readouts, trajectory = made_readouts(asked, answered, thoughts, layers, token_scores, test, chance)
    tables: dict[str, pa.Table | pd.DataFrame] = {
        "prompts": pa.table({**{name: asked[name] for name in asked if name != "images"}, "images": asked["images"].tolist()}),
        "answers": pa.Table.from_pandas(answered, preserve_index=False),
        "readouts": readouts,
        "trajectory": trajectory,
        "projection": made_projection(asked, test[:DRAWN], layers, chance),
        **result_tables(asked, answered, trajectory, layers, chance, judge=JUDGE),
    }
    for name, table in tables.items():
        whole = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
        path, rows = folder / "tables" / f"{name}.parquet", ROWS.get(name, len(whole))
        pq.write_table(whole, path, row_group_size=max(1, rows), compression="zstd", store_schema=False)
    _pictures(folder / "images")
    facts = {"made": "random numbers, made-up words", "prompts": prompts, "layers": layers, "token_scores": token_scores, "seed": seed}
    (folder / "provenance.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def made_prompts(count: int, texts: Sequence[str], chance: np.random.Generator) -> pd.DataFrame:
    """The `prompts` table. Every twentieth goal is a task, which is neither harmful nor benign."""
    order = np.arange(count)
    group, attack, harmful = order // PER_GROUP, order // 2 % 5, order % 2 == 0
    task = group % 20 == 5
    verb = np.array(VERBS, object)[(group * 2 + harmful) % len(VERBS)]
    noun = np.array(NOUNS, object)[chance.permutation(group.max() + 1)[group] % len(NOUNS)]
    goal = [f"{v} the {n}" for v, n in zip(verb, noun, strict=True)]
    attacks = np.array(ATTACKS, object)[attack]
    ids = np.array([f"made/{i:06d}" for i in order], object)
    picture = [[f"images/{g % PICTURES}.png"] if a in PICTURED else [] for g, a in zip(group, attacks, strict=True)]
    return pd.DataFrame(
        {
            "prompt_id": ids,
            "text": [*texts, *(WRAPS[a].format(g) for a, g in zip(attacks[len(texts) :], goal[len(texts) :], strict=True))],
            "goal": goal,
            "category": np.where(task, "tasks", np.array(CATEGORIES, object)[group % len(CATEGORIES)]),
            "attack": attacks,
            "group": [f"goal {g:05d}" for g in group],
            "harmful": _maybe(harmful, ~task),
            "expected": np.where(task, "", np.where(harmful, "refuse", "comply")),
            "benchmark": np.where(task, "blip tasks", np.where(group // 3 % 2 == 0, "florp bench", "wug bench")),
            "split": np.select([group % 10 < 6, group % 10 < 8], ["test", "dev"], "train"),
            "twin": np.where(task, "", ids[np.minimum(order ^ 1, count - 1)]),
            "images": picture,
        }
    )


def made_answers(prompts: pd.DataFrame, chance: np.random.Generator) -> tuple[pd.DataFrame, Thoughts]:
    """The `answers` table, a row a prompt and condition, and the words of its thoughts in the same order."""
    who, whose = np.tile(np.arange(len(CONDITIONS)), len(prompts)), np.repeat(np.arange(len(prompts)), len(CONDITIONS))
    asked = prompts.iloc[whose].reset_index(drop=True)
    n, model = len(asked), np.array(CONDITIONS, object)[who]
    harmful, task = asked["harmful"].fillna(False).to_numpy(bool), asked["harmful"].isna().to_numpy()
    hard = 0.8 + 0.4 * (asked["category"].map({c: i for i, c in enumerate(CATEGORIES)}).fillna(0).to_numpy() / len(CATEGORIES))
    wrap = asked["attack"].map(dict(zip(ATTACKS, (0.8, 1.1, 1.2, 1.0, 0.9), strict=True))).to_numpy(float)
    level = np.array([UNSAFE[one] for one in CONDITIONS])[who]
    unsafe = harmful & (chance.random(n) < np.minimum(0.97, level * hard * wrap))
    refused = ~unsafe & ~task & (chance.random(n) < np.where(harmful, 0.8, 0.03 + 0.1 * (level < 0.1)))
    truncated = (chance.random(n) < 0.02) & (model[:, 0] != "base")
    unscored = ~truncated & (chance.random(n) < 0.02)
    verdict = np.select([truncated, unscored, refused, unsafe], ["truncated", "unscored", "refused", "unsafe"], "safe")
    rating = np.select([refused, unsafe, harmful], [0.0, chance.integers(4, 6, n), chance.integers(0, 3, n)], 5.0)
    thought_rating = np.clip(rating + chance.integers(-1, 3, n), 0, 5).astype(float)
    thinks, marked = model[:, 0] != "base", ~(truncated | unscored)
    thoughts = _words(n, thinks, chance)
    steered = model[:, 1] == "steered"
    said = np.select([refused, task], ["i am sorry but i cannot do that .", "it is a wug ."], "okay , the steps are : fep , modi , toma .")
    table = pd.DataFrame(
        {
            "prompt_id": asked["prompt_id"],
            "model": model[:, 0],
            "condition": model[:, 1],
            "status": np.select([~thinks, truncated], ["absent", "unclosed"], "closed"),
            "ended": ~truncated,
            "thought": _texts(thoughts),
            "answer": np.where(truncated, "", said),
            "n_tokens": thoughts.length + np.where(truncated, 1, 12),
            "fired": np.where(steered, thoughts.length, 0),
            "judge": JUDGE,
            "verdict": verdict,
            "answer_rating": np.where(marked & ~task, rating, np.nan),
            "thought_rating": np.where(thinks & ~task, thought_rating, np.nan),
            "answer_unsafe": _maybe(rating >= 4, marked & ~task),
            "thought_unsafe": _maybe(thought_rating >= 4, thinks & ~task),
            "refusal": np.select([~marked | task, refused], ["", "full"], "none"),
            "correct": _maybe(chance.random(n) < 0.9, task),
        }
    )
    return table, thoughts


def _maybe(values: np.ndarray, known: np.ndarray) -> pd.Series:
    """True or False where it is known."""
    return pd.Series(values, dtype="boolean").mask(pd.Series(~known))


def _words(count: int, thinks: np.ndarray, chance: np.random.Generator) -> Thoughts:
    """Thoughts of three to six steps, each of four to nine words and a full stop."""
    steps = np.where(thinks, chance.integers(3, 7, count), 0)
    long = chance.integers(5, 11, steps.sum())  # tokens of a step, its full stop among them
    length = np.bincount(np.repeat(np.arange(count), steps), weights=long, minlength=count).astype(int)
    words = chance.integers(0, len(VERBS) + len(NOUNS), long.sum())
    words[np.cumsum(long) - 1] = len(VERBS) + len(NOUNS)
    number = np.arange(len(long)) - np.repeat(np.cumsum(steps) - steps, steps)
    return Thoughts(words, np.repeat(number, long), np.cumsum(length) - length, length)


def _texts(thoughts: Thoughts) -> list[str]:
    words = np.array([*VERBS, *NOUNS, "."], object)[thoughts.words].tolist()
    return [" ".join(words[start : start + length]) for start, length in zip(thoughts.start, thoughts.length, strict=True)]


TOKENS = (*(f" {word}" for word in (*VERBS, *NOUNS)), " .", "<think>", "</think>", " so", "\n")
KINDS = ("template", "marker", "thought", "answer")


def made_readouts(
    prompts: pd.DataFrame,
    answers: pd.DataFrame,
    thoughts: Thoughts,
    layers: int,
    most: int,
    test: np.ndarray,
    chance: np.random.Generator,
) -> tuple[pa.Table, pd.DataFrame]:
    """The `readouts` table of the first test prompts, and the `trajectory` table: its rows at the layer three quarters up.

    An output is the last prompt token (position -1), the marker, the thought, the marker, and the first word of the answer.
    """
    per = len(CONDITIONS)
    rows = np.stack([test * per + CONDITIONS.index(one) for one in READ], 1)
    cost = (thoughts.length[rows] + 4).sum(1) * layers
    rows = rows[: max(1, int(np.searchsorted(np.cumsum(cost), most, side="right")))].ravel()
    length = thoughts.length[rows] + 4
    output = np.repeat(np.arange(len(rows)), length * layers)
    inside = np.arange(len(output)) - np.repeat(np.cumsum(length * layers) - length * layers, length * layers)
    long = length[output]
    layer, position = inside // long, inside % long - 1
    first, closing = position <= 0, position >= long - 3
    at = np.clip(thoughts.start[rows][output] + position - 1, 0, len(thoughts.words) - 1)
    special = len(TOKENS) - 4
    token = np.where(first, np.where(position < 0, special + 3, special), thoughts.words[at])
    token = np.where(closing, np.where(position == long - 3, special + 1, special + 2), token)
    kind = np.select([position < 0, first | (position == long - 3), closing], [0, 1, 3], 2)
    step = np.where(kind == 2, thoughts.step[at], -1)
    harmful = prompts["harmful"].fillna(False).to_numpy(bool)[rows // per]
    who = (rows % per)[output]
    gone = np.clip(position / (long - 3), 0, 1)
    fading = who == CONDITIONS.index(("reasoning", "unsteered"))
    shape = np.where(fading, np.minimum(1, 4 * gone) * np.where(gone > 0.8, 5 * (1 - gone), 1), np.minimum(1, 0.4 + 2 * gone))
    score = np.where(harmful[output], 6, -6) * depth(layers)[layer] * shape + chance.normal(0, 1.2, len(output))
    steered = who == CONDITIONS.index(("reasoning", "steered"))
    names = [sorted({one[i] for one in CONDITIONS}) for i in (0, 1)]
    coded = [np.array([names[i].index(one[i]) for one in CONDITIONS])[who] for i in (0, 1)]
    ids = prompts["prompt_id"].tolist()
    columns: Columns = {
        "model": _coded(coded[0], names[0]),
        "condition": _coded(coded[1], names[1]),
        "prompt_id": _coded((rows // per)[output], ids),
        "written_by": _coded(coded[0], names[0]),
        "span": _coded(np.zeros(len(output)), ["thought"]),
        "position": position.astype(np.int32),
        "kind": _coded(kind, KINDS),
        "token": _coded(token, TOKENS),
        "step": step.astype(np.int32),
        "layer": layer.astype(np.int32),
        "score": score.astype(np.float32),
        "fired": steered & (kind == 2),
    }
    table = pa.table(columns)
    chosen = table.filter(pa.array(layer == best(layers))).to_pandas().drop(columns=["layer", "fired", "written_by", "span"])
    chosen = chosen.astype({name: str for name in ("model", "condition", "prompt_id", "kind", "token")})
    beside = prompts.set_index("prompt_id")[["split", "group", "harmful"]].loc[chosen["prompt_id"]].reset_index(drop=True)
    trajectory = pd.concat([chosen, beside], axis=1).assign(boundary=chosen["token"] == " .")
    return table, trajectory[trajectory["harmful"].notna()].astype({"harmful": bool})


def best(layers: int) -> int:
    """The layer that probes are read at."""
    return round(0.75 * (layers - 1))


def _coded(codes: np.ndarray, values: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(values), pa.string()))


def made_projection(prompts: pd.DataFrame, drawn: np.ndarray, layers: int, chance: np.random.Generator) -> pa.Table:
    """The `projection` table: the drawn prompts at every span and layer; the base model has no thought, so only the last prompt token."""
    harmful = prompts["harmful"].fillna(False).to_numpy(bool)[drawn]
    parts: list[pa.Table] = []
    names = [one[0] for one in CONDITIONS if one[1] == "unsteered"]
    for span, peak in SPANS.items():
        models = names if span == "last_prompt" else names[1:]
        who, whose = np.repeat(np.arange(len(models)), len(drawn)), np.tile(np.arange(len(drawn)), len(models))
        side = np.where(harmful[whose], 1.0, -1.0)
        for layer, grown in enumerate(depth(layers)):
            for method in ("lda", "pca"):
                apart = 2.2 * peak * grown * side
                noise = chance.normal(0, 1, (2, len(who)))
                x = apart + noise[0] if method == "lda" else 0.8 * apart + 1.4 * noise[0] + 0.8 * who
                y = noise[1] if method == "lda" else 0.5 * apart + noise[1] - 0.5 * who
                shares = (_auroc(x, side > 0), math.nan) if method == "lda" else (0.2 + 0.3 * grown, 0.12)
                same = {"condition": "unsteered", "site": f"resid_post.{layer}", "span": span, "method": method, "split": "test"}
                columns: Columns = {
                    "model": _coded(who, models),
                    "prompt_id": _coded(drawn[whose], prompts["prompt_id"].tolist()),
                    **{name: _coded(np.zeros(len(who)), [value]) for name, value in same.items()},
                    "layer": np.full(len(who), layer, np.int32),
                    "x": x.astype(np.float32),
                    "y": y.astype(np.float32),
                    **{name: np.full(len(who), share, np.float32) for name, share in zip(("share_x", "share_y"), shares, strict=True)},
                }
                parts.append(pa.table(columns))
    return pa.concat_tables(parts).unify_dictionaries()


def _auroc(x: np.ndarray, positive: np.ndarray) -> float:
    """Share of pairs in the right order, by ranks (Mann-Whitney); no two values are equal here."""
    n = int(positive.sum())
    rank = np.empty(len(x))
    rank[np.argsort(x)] = np.arange(1, len(x) + 1)
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(x) - n))) if 0 < n < len(x) else math.nan


def _pictures(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(PICTURES):
        picture = Image.new("RGB", (160, 120), (236, 240, 243))
        draw = ImageDraw.Draw(picture)
        draw.ellipse((45, 20, 115, 90), fill=[(0, 114, 178), (213, 94, 0), (0, 158, 115), (184, 87, 143)][number])
        draw.text((56, 98), NOUNS[number], fill=(29, 35, 41))
        picture.save(folder / f"{number}.png")
