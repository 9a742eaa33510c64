"""Find unsafe intent inside the thought of a multimodal reasoning model, and steer its refusals back. `COMMAND --help` has examples."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from ..hooks.model import LensModel

StageName = Literal["language", "base", "reasoning", "safe"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
PoolName = Literal["mean", "max", "first", "last", "every"]
LabelName = Literal["harmful", "refused", "complied", "thought_unsafe", "answer_unsafe"]
AmongName = Literal["all", "harmful", "benign"]


def demo(out: Path = Path("runs/demo"), *, device: str = "auto", checkpoints: Path | None = None, sweep: bool = False) -> None:
    """Audit, detection and restoration on the shipped trio, in minutes; writes a run folder and report.html.

    Example: thoughtlens demo --out runs/demo

    Args:
        out: Run folder. A second start reuses finished stages.
        device: auto, cpu, cuda, cuda:1, ...
        checkpoints: Folder with base/, reasoning/ and safe/ (default: the shipped trio).
        sweep: Choose the steering setting on dev again instead of using the shipped one.
    """
    from ..checkpoints import CHECKPOINTS
    from .demo import demo as run

    run(out, device=_device(device), checkpoints=checkpoints or CHECKPOINTS, sweep=sweep)


def capture(
    model: str,
    *,
    prompts: str | None = None,
    sites: str = "resid_post",
    spans: str = "last_prompt,thought,thought@0.5,answer_first",
    pool: PoolName = "mean",
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    out: Path = Path("runs/capture"),
    transcripts: Path | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    device: str = "auto",
    dtype: DTypeName = "auto",
    adapter: Path | None = None,
    dialect: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    allow_empty: bool = False,
    quiet: bool = False,
) -> None:
    """Let a model answer prompts and keep its hidden states; killed at any time, the same command goes on.

    Example: thoughtlens capture --model checkpoints/reasoning --prompts organism --spans last_prompt,thought --out runs/capture

    Args:
        model: Folder of a checkpoint, or hub id.
        prompts: A benchmark (organism) or a .jsonl file of prompts (default: those of the transcripts given, else organism).
        sites: Names such as resid_post (every layer) or mlp_out.3, with commas.
        spans: Tokens to read, with commas: last_prompt, thought, thought[:16], thought@0.5, step_end[0], ...
        pool: How the tokens of a span become one vector; every keeps them apart.
        split: Only prompts of this split (default: test of a benchmark, all of a file).
        limit: At most so many prompts.
        seed: Draw them at random with this seed, instead of taking the first ones.
        out: Run folder: prompts.jsonl, transcripts/, activations/.
        transcripts: Read these again instead of letting the model answer, such as what another model of the trio wrote.
        max_new_tokens: Limit on what the model writes.
        batch_size: Prompts at a time.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto is float32 on the CPU, the checkpoint's own elsewhere.
        adapter: Folder of a PEFT adapter to put on the model.
        dialect: How the model writes its thought (default: by its name and tokenizer).
        on_error: What to do about prompts that cannot be used: raise names them all; skip leaves them out and notes them in skipped.jsonl.
        allow_empty: Leave out a span that no transcript has.
        quiet: No progress bars.
    """
    from ..hooks.select import Select, listed
    from .capturing import Asked, capturing

    asked = Asked(
        Select(listed(sites), listed(spans), pool),
        prompts=prompts,
        transcripts=transcripts,
        split=split,
        limit=limit,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        on_error=on_error,
        allow_empty=allow_empty,
    )

    def loaded() -> LensModel:
        import torch

        from ..hooks.model import load

        kind = None if dtype == "auto" else getattr(torch, dtype)
        return load(model, device=_device(device), dtype=kind, adapter=adapter, dialect=dialect)

    print(capturing(out, asked, loaded, progress=not quiet))


def probe(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    label: LabelName = "harmful",
    among: AmongName = "all",
    models: str | None = None,
    spans: str | None = None,
    kinds: str = "logistic,mean_difference,whitened,lda,ridge",
    split: Literal["given", "folds"] | None = None,
    judge: str | None = None,
    threshold: float = 4.0,
    checkpoints: Path | None = None,
    shuffles: int = 20,
    resampled: int = 1000,
    followed: int = 120,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Where, when and how surely a label is linearly readable in a run's hidden states, and whether it is more than the words on the page.

    Tables go to the run's tables/, the best probe of every moment to its probes/; finished questions are not asked again.

    Example: thoughtlens probe runs/demo

    Example: thoughtlens probe runs/demo --label refused --among harmful --models reasoning --spans last_prompt,step_end[4]

    Args:
        run: Run folder with activations/, transcripts/ and, for labels other than harmful, verdicts/; demo and capture write one.
        label: What a positive is. All but harmful are what a judge said of the model that wrote the transcripts.
        among: Only harmful or only benign prompts, such as for: which harmful prompts were refused?
        models: Which stores, with commas (default: all).
        spans: Which moments, with commas (default: all that the stores hold).
        kinds: Kinds of probe, with commas; the first is taken where one kind stands for all.
        split: given takes each prompt's own train, dev or test, folds cuts the goals into parts (default: given where prompts have it).
        judge: Whose verdicts, where there are several judges'.
        threshold: Rating from which on a thought or an answer counts as unsafe.
        checkpoints: Folder with a checkpoint per model, for what reads them again (default: the shipped trio, where it was captured).
        shuffles: Shuffled labellings, and random directions, that every probe is compared with.
        resampled: Bootstrap resamples of an interval.
        followed: Harmful prompts of each split, and as many benign ones, that are read at every token.
        seed: Everything random follows from it.
        device: auto, cpu, cuda, cuda:1, ...
        quiet: No progress bars.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # thousands of small solves: threads that spin for the next take the other's core
    from ..hooks.select import listed
    from .asked import Asked
    from .probing import probe as answer

    asked = Asked(
        models=() if models is None else tuple(listed(models)),
        label=label,
        among=among,
        split=split,
        spans=() if spans is None else tuple(listed(spans)),
        kinds=tuple(listed(kinds)),
        judge=judge,
        threshold=threshold,
        shuffles=shuffles,
        directions=shuffles,
        resampled=resampled,
        followed=followed,
        seed=seed,
    )
    answer(run, asked, checkpoints=checkpoints, device=_device(device), progress=not quiet)


def verify(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """Compare every file of an activation store with what was written; exit code 1 and a line for each problem.

    Example: thoughtlens store verify runs/capture/activations/reasoning
    """
    from ..hooks.store import verify_store

    if problems := verify_store(store):
        print("\n".join(problems), file=sys.stderr)
        raise SystemExit(1)
    print(f"{store} is whole")


def show(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """What an activation store holds: rows, sites, spans, bytes.

    Example: thoughtlens store show runs/capture/activations/reasoning
    """
    from .capturing import contents

    print("\n".join(contents(store)))


def bench_capture(*, device: str = "auto", out: Path | None = None, into: Path = Path("runs/bench")) -> None:
    """Time capture beside plain forwards, other engines and raw writes, results compared before anything is timed.

    Example: thoughtlens bench capture --device cpu --out docs/speed.md

    Args:
        device: auto, cpu, cuda, cuda:1, ...
        out: Write the tables there as well, as Markdown.
        into: Folder on the disk that is timed; left empty.
    """
    from .speed import bench_capture as bench

    bench(_device(device), out=out, into=into)


def bench_probe(*, device: str = "auto", out: Path | None = None) -> None:
    """Time batched fits of probes beside a loop over scikit-learn, one thread each, results compared before anything is timed.

    Example: thoughtlens bench probe --device cpu --out docs/speed.md

    Args:
        device: auto, cpu, cuda, cuda:1, ...
        out: Write the tables there as well, as Markdown.
    """
    from .probe_speed import bench_probe as bench

    bench(_device(device), out=out)


def report(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write report.html of a run folder again.

    Example: thoughtlens report runs/demo
    """
    from ..viz.report import report as write

    if not (run / "tables").is_dir():
        raise FileNotFoundError(f"{run} is no run folder: it has no tables/. `thoughtlens demo --out {run}` makes one")
    print(write(run))


def doctor(model: Annotated[str | None, tyro.conf.Positional] = None) -> None:
    """Versions, devices, threads, free disk and extras; with a model, how it will be read.

    Example: thoughtlens doctor checkpoints/reasoning
    """
    from .doctor import doctor as examine

    print("\n".join(examine(model)))


def build(
    *,
    seed: int = 7,
    out: Path = Path("runs/organism"),
    stage: tuple[StageName, ...] = ("language", "base", "reasoning", "safe"),
    quick: bool = False,
) -> None:
    """Train the trio from nothing; finished stages are kept.

    Example: thoughtlens organism build --seed 7 --out runs/organism

    Args:
        seed: Everything random follows from it.
        out: Folder that gets language/, base/, reasoning/ and safe/.
        stage: Only these stages.
        quick: A thirtieth of the steps: exercises everything in minutes, learns nothing.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin made steps ten times slower on a busy machine
    from .organism.build import build as train

    print(train(out, seed=seed, stages=stage, quick=quick))


def card(*, checkpoints: Path = Path("checkpoints"), run: Path = Path("runs/demo")) -> None:
    """Measure the trio on test and rewrite the cards beside its weights.

    Example: thoughtlens organism card --checkpoints checkpoints --run runs/demo

    Args:
        checkpoints: Folder with base/, reasoning/ and safe/.
        run: Run folder of the study; measured there first if it is new.
    """
    from .organism.card import write_cards

    for path in write_cards(checkpoints, run):
        print(path)


def _device(name: str) -> str | None:
    """None for auto. Raises ValueError for a device that torch does not know or this machine does not have."""
    if name == "auto":
        return None
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here; `thoughtlens doctor` lists devices, auto chooses") from error
    return name


class Once(logging.Filter):
    """Lets a message through the first time: what holds for every probe of a sweep is told once."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = (text := record.getMessage()) not in self.told
        self.told.add(text)
        return new


COMMANDS: dict[str, Callable[..., None]] = {"demo": demo, "capture": capture, "probe": probe, "report": report, "doctor": doctor}
NESTED: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "organism": ("The small trio: train it from nothing, measure it.", {"build": build, "card": card}),
    "store": ("Activation stores: check one, look into one.", {"verify": verify, "show": show}),
    "bench": ("How fast it is here.", {"capture": bench_capture, "probe": bench_probe}),
}


def group(name: str, about: str, commands: Mapping[str, Callable[..., None]]) -> Callable[[], None]:
    """A command that stands for several: alone it is an error that names them."""
    choice = f"thoughtlens {name} {' | '.join(commands)}"

    def command() -> None:
        raise ValueError(f"say what to do: {choice}")

    command.__doc__ = f"{about} {choice}"
    return command


def main() -> None:
    """Entry point. Errors a user can mend are one sentence on standard error; Ctrl-C keeps what is finished."""
    told = logging.StreamHandler()  # of our own: the filter must not stay on a handler of somebody who calls main()
    told.addFilter(Once())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[told])
    first, rest = sys.argv[1:2], sys.argv[2:]
    if first and first[0] in NESTED and rest:
        (about, commands), prog, args = NESTED[first[0]], f"thoughtlens {first[0]}", rest
    else:
        about, prog, args = str(__doc__), "thoughtlens", sys.argv[1:]
        commands = {**COMMANDS, **{name: group(name, *entry) for name, entry in NESTED.items()}}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog=prog, description=about, args=args)
    except KeyboardInterrupt:
        print("interrupted; finished stages are kept, the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"thoughtlens: {' '.join(str(error).split()) or 'out of memory'}", file=sys.stderr)
        raise SystemExit(2) from error
    except RuntimeError as error:
        from .capturing import out_of_memory  # not above: the command line starts without torch

        if not out_of_memory(error):
            raise
        print(f"thoughtlens: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from error
