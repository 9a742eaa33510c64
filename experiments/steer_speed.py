"""What steering costs, measured on this machine against plain generation of as many tokens

    plain                  model.generate: greedy, with a cache, a fixed number of tokens, on a batch that is encoded already; each row is
                           a prompt and a thought begun with two steps
    one site               steer() adds a vector at every token, after the middle layer; it is entered before the clock starts
    every layer            the same after each layer, a vector of its own there
    a vector per row       each row of the batch carries another one
    behind a probe gate    a probe at the last prompt token decides for the rest of the row; half of the rows pass
    at step ends           at the last token of each step of the thought only; the clock looks for them at every token
    8 probes               monitor(): read at every token, each at another layer where there are as many, without steering
    8 probes, one site     the two together
    entered and left       one site, with what steer() does on entering and leaving
    hook                   the same additions by plain forward hooks
    nnsight                the same in a trace of generate
    TransformerLens        the same by hooks of its bridge, through hf_generate: its own generate does not take padded rows with pictures
    compiled               transformers' static cache and compiled decoding step, made anew for each measurement before its clock starts;
                           the ratio is to the plain one compiled. For one shape, whose layers are few: compiling takes long

Before the clock starts, what is the same edit is checked to write the same tokens from the same logits in every engine, compiled or not (in
bfloat16 the same logits as far as the tokens are the same), edits to change the logits, gates to open where they should, and probes to read
what plain hooks read. All of a shape's conditions take turns, in another order every round, on one thread, the compiled ones among
themselves; what is told is the median over rounds of the ratio to the plain one of the same round, and the interquartile range. Models are
random Qwen2.5-VL networks in the trio's vocabulary; every second prompt of the middle shape has a picture.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import torch

from .progress import Advance, track
from .speed import machine_line, one_thread, quartiles, seconds
from .speed_tables import goal_met, markdown, show, spread, write_part
from .steer_checks import check_compiled, check_same, written
from .steer_workload import COMPILED, EDITS, Condition, compiled, conditions, make_work, warmed
from .workload import SHAPES, Shape, subject

COMMAND = "thoughtlens bench steer"
AGAIN = 3
COLUMNS = ("shape", "kind", "condition", "milliseconds", "tokens_per_s", "ratio", "low", "high", "goal")
GOALS = {  # (kind of device, eager or compiled, condition) -> no more than this many times the plain one
    **{("cpu", "eager", name): 1.05 for name in EDITS},
    **{("cuda", "eager", name): 1.03 for name in EDITS},
    **{("cpu", "compiled", name): 1.05 for name in EDITS if name in COMPILED},
    **{("cuda", "compiled", name): 1.02 for name in EDITS if name in COMPILED},
    **{(device, "eager", "8 probes"): 1.05 for device in ("cpu", "cuda")},
}


@dataclass(frozen=True)
class Job:
    """What is generated with a model of some shape.

    new                tokens, in each row
    rounds, compiled   how often it is timed; and compiled, each time AGAIN generations after one another
    """

    shape: Shape
    new: int
    rounds: int
    compiled: int = 0

    def __str__(self) -> str:
        shape = self.shape
        return f"{shape.name} (d={shape.width}, {shape.layers} layers, {shape.batch} rows, {self.new} new tokens)"


JOBS: Mapping[str, tuple[Job, ...]] = MappingProxyType(
    {
        device: tuple(Job(shape, new, rounds, compiled) for shape, (new, rounds, compiled) in zip(SHAPES[device], sizes, strict=True))
        for device, sizes in {
            "cpu": ((24, 30, 0), (24, 30, 7), (16, 30, 0)),
            "cuda": ((64, 15, 0), (64, 15, 5), (64, 15, 0)),
        }.items()
    }
)


def bench_steer(device: str | None = None, *, out: Path | None = None, progress: bool = True) -> pd.DataFrame:
    """Measure, print the tables and, where `out` says so, write them into its part of that page.

    device    default: cuda if there is one, else cpu
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type not in JOBS:
        raise ValueError(f"no shapes are chosen for the device {str(place)!r}; there are some for {', '.join(JOBS)}")
    machine, found = machine_line(place), list[pd.DataFrame]()
    with one_thread(), track(progress) as task:
        for job in JOBS[place.type]:
            with task(job.shape.name, job.rounds + job.compiled) as advance:
                found += measure(job, place, advance)
    measured = pd.concat(found, ignore_index=True)
    tables = {f"{shape}, {kind}": told(rows) for (shape, kind), rows in measured.groupby(["shape", "kind"], sort=False)}
    show(machine, tables)
    if out is not None:
        write_part(out, COMMAND, markdown(COMMAND, machine, str(__doc__), tables))
    return measured


def measure(job: Job, device: torch.device, advance: Advance) -> list[pd.DataFrame]:
    """Check the conditions of one shape, time them, and tell: as they are, then compiled. RuntimeError: they do not do the same."""
    work = make_work(subject(job.shape, device), job.shape, job.new)
    eager = conditions(work)
    faster = {name: partial(compiled, work, eager[name]) for name in COMPILED} if job.compiled else {}
    found = {name: written(work, condition) for name, condition in eager.items()}
    check_same(work, found)
    check_compiled(work, {name: written(work, condition) for name, condition in faster.items()}, found)
    warm = {name: partial(warmed, condition) for name, condition in eager.items()}
    took = in_turns(warm, job.rounds, device, partial(advance, "eager", 1))
    tables = [_ratios(took, job, "eager", device.type)]
    if faster:
        beside = {**faster, "plain, not compiled": warm["plain"]}
        took = in_turns(beside, job.compiled, device, partial(advance, "compiled", 1), times=AGAIN)
        tables.append(_ratios(took, job, "compiled", device.type))
    return tables


def in_turns(
    turns: Mapping[str, Condition], rounds: int, device: torch.device, each_round: Callable[[], None] = lambda: None, *, times: int = 1
) -> dict[str, list[float]]:
    """Seconds that each condition takes to write in every round; it is entered before its clock starts, and left after it stopped.

    times   how often it writes in a round
    """
    took: dict[str, list[float]] = {name: [] for name in turns}
    chance = random.Random(0)
    gc.collect()
    gc.freeze()  # what is there now is not searched again between two measurements
    try:
        for _ in range(rounds):
            for name in chance.sample(list(turns), len(turns)):
                with turns[name]() as write:
                    took[name] += [seconds(write, device) for _ in range(times)]
            each_round()
    finally:
        gc.unfreeze()
    return took


def _ratios(took: Mapping[str, list[float]], job: Job, kind: str, device: str) -> pd.DataFrame:
    rows = []
    for name, times in took.items():
        ratios = [one / plain for one, plain in zip(times, took["plain"], strict=True)]
        low, ratio, high = quartiles(ratios) if len(ratios) > 1 else ratios * 3
        median = statistics.median(times)
        rows.append(
            {
                **{"shape": str(job), "kind": kind, "condition": name, "milliseconds": 1e3 * median / job.new},
                **{"tokens_per_s": job.shape.batch * job.new / median, "ratio": ratio, "low": low, "high": high},
                "goal": GOALS.get((device, kind, name)),
            }
        )
    return pd.DataFrame(rows)[list(COLUMNS)]


def told(measured: pd.DataFrame) -> pd.DataFrame:
    """What is shown of one shape: words and rounded numbers."""
    return pd.DataFrame(
        {
            "condition": measured.condition,
            "ms a step": measured.milliseconds.map("{:.2f}".format),
            "tokens/s": measured.tokens_per_s.map("{:,.0f}".format),
            "times plain": spread(measured),
            "goal": [goal_met(goal, ratio, "at most") for goal, ratio in zip(measured.goal, measured.ratio, strict=True)],
        }
    )
