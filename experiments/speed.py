"""What reading hidden states costs, measured on this machine against the same work without it.

    forward   a batch that is encoded already: the plain forward without the output head, output_hidden_states, our reading with span
              means at every layer, and nnsight and TransformerLens doing the same
    job       transcripts to a finished store: encoding and the plain forward alone, against capture() with span means and with every token
    memory    the most that one of these takes beyond the loaded model, each in a fresh process; and capture() of ten times the prompts
    store     writing a shard with its index, sha256 and fsync, against a plain write and fsync of the same bytes

All of a shape's conditions take turns, in another order every round, on one thread; what is told is the median over rounds of the ratio
to the plain one of the same round, and the interquartile range. Before the clock starts, every engine's numbers are checked to be ours.
Models are random Qwen2.5-VL networks in the trio's vocabulary, made in memory; every second prompt of the middle shape has a picture. A job
is short here, so what a store costs once (half a dozen flushes to the disk) weighs more than in a long one.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from ..hooks.shards import writing
from .progress import track
from .speed_tables import Measured, capture_tables, markdown, show, write_part
from .workload import ENGINES, LONG, SHAPES, Condition, Shape, forwards, jobs, subject, transcripts_for

COMMAND = "thoughtlens bench capture"
STORE_BYTES, STORE_ROUNDS = 256 * 2**20, 7
GOALS = {  # (kind of device, condition) -> no more than this many times the plain one
    ("cpu", "span means"): 1.05,
    ("cuda", "span means"): 1.03,
    ("cpu", "every token to disk"): 1.10,
    ("cuda", "every token to disk"): 1.10,
}
STORE_GOAL = 0.75  # of the plain write's bytes a second


def bench_capture(
    device: str | None = None, *, out: Path | None = None, into: Path = Path("runs/bench"), progress: bool = True
) -> Measured:
    """Measure, print the tables and, where `out` says so, write them into its part of that page.

    device    default: cuda if there is one, else cpu
    into      a folder on the disk that stores will be on; emptied of what was written there
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type not in SHAPES:
        raise ValueError(f"no shapes are chosen for the device {str(place)!r}; there are some for {', '.join(SHAPES)}.")
    machine, shapes = machine_line(place), SHAPES[place.type]
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch, one_thread(), track(progress) as task:
        with task("speed", sum(shape.rounds + shape.rounds // 3 for shape in shapes)) as advance:
            speed = pd.concat([_speed(shape, place, Path(scratch), advance) for shape in shapes], ignore_index=True)
        with task("memory", len(PEAKS)) as advance:
            memory = _memory(shapes[1], place, Path(scratch), advance)
        with task("store", STORE_ROUNDS) as advance:
            store = store_against_raw(Path(scratch), advance, size=STORE_BYTES, rounds=STORE_ROUNDS)
    measured = Measured(machine, speed, memory, store)
    tables = capture_tables(measured)
    show(machine, tables)
    if out is not None:
        write_part(out, COMMAND, markdown(COMMAND, machine, str(__doc__), tables))
    return measured


def _speed(shape: Shape, device: torch.device, scratch: Path, advance: Callable[[str, int], None]) -> pd.DataFrame:
    lens = subject(shape, device)
    transcripts = transcripts_for(lens, shape, shape.batch * shape.batches)
    one = forwards(lens, transcripts[: shape.batch], shape.forwards)
    check_same(one, tolerance=1e-4 if lens.dtype == torch.float32 else 5e-2)
    told = []
    everything = jobs(lens, shape, transcripts, scratch)
    for kind, conditions, n, rounds in (
        ("forward", one, shape.batch * shape.forwards, shape.rounds),
        ("job", everything, len(transcripts), shape.rounds // 3),
    ):
        took = in_turns(conditions, rounds, device, after_round(scratch, shape.name, advance))
        told.append(_ratios(took, shape, kind, device.type, n * shape.tokens))
    return pd.concat(told, ignore_index=True)


def after_round(scratch: Path, note: str, advance: Callable[[str, int], None]) -> Callable[[], None]:
    """Clears what the round wrote and moves the progress bar on, both outside the time that is taken."""

    def after() -> None:
        for left in scratch.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        advance(note, 1)

    return after


def check_same(conditions: Mapping[str, Condition], tolerance: float) -> None:
    """Every engine reads what we read, and what we read differs from layer to layer. RuntimeError: timing anything else would be idle."""
    ours = conditions["span means"]()
    assert ours is not None
    scale = float(ours.abs().max())
    if not 0 < scale < float("inf") or bool((ours[:, 1:] == ours[:, :-1]).all(-1).any()):
        raise RuntimeError("span means do not change from layer to layer: the hooks did not read the layers. Nothing was timed.")
    for name in ENGINES:
        theirs = conditions[name]()
        assert theirs is not None
        if (apart := float((theirs - ours).abs().max())) > tolerance * scale:
            raise RuntimeError(
                f"{name} reads hidden states that differ from ours by {apart:.2g} (they reach {scale:.2g}). Nothing was timed."
            )


def in_turns(
    conditions: Mapping[str, Condition], rounds: int, device: torch.device, each_round: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of every condition in every round, after running each once."""
    took: dict[str, list[float]] = {name: [] for name in conditions}
    chance = random.Random(0)
    for run in conditions.values():
        run()
    gc.collect()
    gc.freeze()  # what is there now is not searched again between two measurements
    try:
        for _ in range(rounds):
            for name in chance.sample(list(conditions), len(conditions)):
                took[name].append(seconds(conditions[name], device))
            each_round()
    finally:
        gc.unfreeze()
    return took


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long it takes, the device's work included, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start
    finally:
        gc.enable()


def _ratios(took: Mapping[str, Sequence[float]], shape: Shape, kind: str, device: str, tokens: int) -> pd.DataFrame:
    rows = []
    for name, seconds in took.items():
        low, ratio, high = quartiles([one / plain for one, plain in zip(seconds, took["plain"], strict=True)])
        median = statistics.median(seconds)
        rows.append(
            {
                "shape": str(shape),
                "kind": kind,
                "condition": name,
                "milliseconds": 1e3 * median,
                "ratio": ratio,
                "low": low,
                "high": high,
                "tokens_per_s": tokens / median,
                "goal": GOALS.get((device, name)),
            }  # fmt: skip
        )
    return pd.DataFrame(rows)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def store_against_raw(scratch: Path, advance: Callable[[str, int], None], *, size: int, rounds: int) -> pd.DataFrame:
    """One shard of `size` bytes as the store writes it, against the same bytes written plainly and flushed to the disk."""
    sites, width = 8, 1024
    vectors = torch.randn(size // (4 * sites * width), sites, width)
    rows = pd.DataFrame({"prompt_id": [f"p{i}" for i in range(len(vectors))], "span": "all", "order": range(len(vectors))})
    meta = {"sites": [f"resid_post.{i}" for i in range(sites)], "width": width}

    def raw() -> None:
        with open(scratch / "raw", "wb") as file:
            file.write(vectors.numpy().data)
            file.flush()
            os.fsync(file.fileno())

    def ours() -> None:
        with writing(tempfile.mkdtemp(dir=scratch), meta) as writer:
            writer.write(0, vectors, rows)
            writer.finish()

    took = in_turns({"plain write": raw, "store": ours}, rounds, torch.device("cpu"), after_round(scratch, "store", advance))
    told = []
    for name, seconds in took.items():
        low, ratio, high = quartiles([plain / one for one, plain in zip(seconds, took["plain write"], strict=True)])
        speed = vectors.nbytes / 1e6 / statistics.median(seconds)
        goal = STORE_GOAL if name == "store" else None
        told.append({"condition": name, "megabytes_per_s": speed, "ratio": ratio, "low": low, "high": high, "goal": goal})
    return pd.DataFrame(told)


# what a fresh process does while its memory is watched: condition, how many transcripts
PEAKS = (
    *((name, None) for name in ("plain", "output_hidden_states", "span means", *ENGINES)),
    *((name, count) for name in ("span means", "every token to disk") for count in (200, 2000)),
)


def _memory(shape: Shape, device: torch.device, scratch: Path, advance: Callable[[str, int], None]) -> pd.DataFrame:
    rows = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:
        for name, count in PEAKS:
            megabytes = fresh.submit(peak, name, shape if count is None else LONG, count, str(device), str(scratch)).result()
            rows.append(
                {"condition": name, "what": str(shape) if count is None else f"capture of {count} transcripts", "megabytes": megabytes}
            )
            advance(name, 1)
    return pd.DataFrame(rows)


def peak(condition: str, shape: Shape, count: int | None, device: str, scratch: str) -> float:
    """Megabytes a condition takes at most beyond what the loaded model takes. Meant for a process of its own.

    count    a job over that many transcripts; None: one forward of a batch
    """
    place = torch.device(device)
    with one_thread():
        lens = subject(shape, place)
        transcripts = transcripts_for(lens, shape, count or shape.batch)
        engines = [name for name in ENGINES if name == condition]
        run = (jobs(lens, shape, transcripts, Path(scratch)) if count else forwards(lens, transcripts, engines=engines))[condition]
        if place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place)
            before = torch.cuda.memory_allocated(place)
            run()
            return (torch.cuda.max_memory_allocated(place) - before) / 1e6
        with watched() as taken:
            run()
        return taken[0] / 1e6


@contextmanager
def watched() -> Iterator[list[int]]:
    """Yields a list that afterwards holds how many bytes the process took at most beyond what it had."""
    status = Path("/proc/self/status")
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts again from here
    before = _status(status, "VmRSS") if status.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken: list[int] = []
    yield taken
    after = _status(status, "VmHWM") if status.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken.append(after - before)


def _status(path: Path, key: str) -> int:
    return next(1024 * int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{key}:"))


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine_line(device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    return f"{chip}, one thread of {cores}, load {load:.1f}, torch {torch.__version__}, Python {platform.python_version()}"
