"""What `thoughtlens probe` is asked, and the run folder it asks it of: stores, the transcripts they were read from, labels, checkpoints.

    activations/<model>/                 one store per model, all of the same transcripts
    prompts.jsonl, transcripts/<writer>.jsonl
    verdicts/<judge>/<writer>.jsonl      where labels other than `harmful` come from
    tables/<name>[@<label>].parquet      what comes out; the label `harmful` has no suffix
    probes/<label>/<model>/<span>.safetensors

`thoughtlens demo` and `thoughtlens capture` write such folders. Checkpoints are not part of one. They are needed where more than the stored
vectors is read, and are known again by their fingerprint: another checkpoint of the same name is never taken in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from transformers.utils.logging import disable_progress_bar

from ..hooks.checkpoint import find_checkpoint, fingerprint, weight_files
from ..hooks.files import sha256_of
from ..hooks.model import LensModel, load
from ..hooks.records import Transcript, read_prompts, read_transcripts
from ..hooks.store import INDEX, Store, open_store
from ..probes.kinds import KINDS
from ..probes.probe import Probe
from .audit.verdicts import THRESHOLD
from .labels import LABELS, OF_PROMPT, Labels, judged, labels_of
from .run import Run, package_version

Among = Literal["all", "harmful", "benign"]
ORDER = ("base", "reasoning", "safe")


class Unanswered(ValueError):
    """A question this run cannot answer: what is missing, and what to pass."""


@dataclass(frozen=True)
class Asked:
    """What is to be found out.

    models       which of the run's stores; all of them by default
    label        what a positive is: harmful, refused, complied, thought_unsafe, answer_unsafe
    among        only harmful or only benign prompts: whether a *harmful* prompt was refused is another question than whether it is harmful
    split        how rows become train, dev and test: given, or folds where prompts have no split; None: whichever the run has
    spans        moments; all that the stores hold by default
    kinds        kinds of probe
    judge        whose verdicts; needed where there are several judges'
    threshold    rating from which on a channel gives away what was asked for
    shuffles, directions   shuffled labellings and random directions every cell is compared with
    resampled    bootstrap resamples of an interval
    followed     harmful prompts of each split, and as many benign ones, that are read again at every token
    """

    models: tuple[str, ...] = ()
    label: str = OF_PROMPT
    among: Among = "all"
    split: str | None = None
    spans: tuple[str, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)
    judge: str | None = None
    threshold: float = THRESHOLD
    shuffles: int = 20
    directions: int = 20
    resampled: int = 1000
    followed: int = 120
    seed: int = 0

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"unknown label {self.label!r}; known are {', '.join(LABELS)}")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"unknown kind of probe {unknown[0]!r}; known are {', '.join(KINDS)}")
        for name, least in (("shuffles", 0), ("directions", 0), ("resampled", 0), ("followed", 1)):
            if (given := getattr(self, name)) < least:
                raise ValueError(f"{name} is at least {least}, got {given}")
        if self.label == OF_PROMPT and self.among != "all":
            raise ValueError(f"among {self.among} prompts {OF_PROMPT!r} has one value only; ask for {', '.join(LABELS[1:])} there")


@dataclass(frozen=True)
class Probing:
    """A run folder, opened for what is asked.

    stores     model -> its store, in the order base, reasoning, safe, others
    said       the transcripts all stores were read from, by one writer
    labels     prompt id -> label -> value, from the verdicts; empty without any
    judge      whose verdicts; "" without any
    homes      model -> checkpoint folder, for those that are known
    """

    run: Run
    asked: Asked
    stores: Mapping[str, Store]
    said: Sequence[Transcript]
    labels: Labels
    judge: str
    homes: Mapping[str, Path]
    device: str | None = None
    progress: bool = True
    loaded: dict[str, LensModel] = field(default_factory=dict)

    @property
    def writer(self) -> str:
        return self.said[0].model

    @property
    def reader(self) -> str:
        """The model most questions are about: the writer if its states were read, else the last one."""
        return self.writer if self.writer in self.stores else list(self.stores)[-1]

    @property
    def split(self) -> str:
        """`given` where every store has prompts of train, dev and test, else `folds`."""
        there = [set(store.index["split"]) for store in self.stores.values()]
        return self.asked.split or ("given" if all({"train", "dev", "test"} <= splits for splits in there) else "folds")

    @property
    def spans(self) -> tuple[str, ...]:
        """The moments asked for, by default all that every store holds. ValueError for one that a store lacks."""
        held = {model: list(store.index["span"].unique()) for model, store in self.stores.items()}
        for span in self.asked.spans:
            if lacking := [model for model, spans in held.items() if span not in spans]:
                raise ValueError(f"the store of {lacking[0]!r} has no span {span!r}; it has {', '.join(held[lacking[0]])}")
        first, *others = held.values()
        return self.asked.spans or tuple(span for span in first if all(span in spans for spans in others))

    @property
    def fits_on(self) -> str:
        """Where fits run: on the models' device if it knows float64."""
        return self.device if self.device is not None and self.device.startswith("cuda") else "cpu"

    def lens(self, model: str) -> LensModel:
        """The checkpoint behind a store. Raises Unanswered where it is not known."""
        if model not in self.homes:
            raise Unanswered(f"it reads {model!r} again: pass --checkpoints DIR, where DIR/{model} is the captured checkpoint")
        if model not in self.loaded:
            disable_progress_bar()  # transformers' own, which would break ours
            self.loaded[model] = replace(load(self.homes[model], device=self.device), name=model)
        return self.loaded[model]

    def named(self, table: str) -> str:
        """A table's name in the run folder: that of another label than `harmful` has it as a suffix."""
        label, among = self.asked.label, self.asked.among
        return table if label == OF_PROMPT else f"{table}@{label}" if among == "all" else f"{table}@{label}-{among}"

    @property
    def sought(self) -> Labels | None:
        """The labels a fit takes from here; None where the stores have them, as the prompt's own."""
        return None if self.asked.label == OF_PROMPT else self.labels

    def probe_file(self, model: str, moment: str) -> Path:
        """Where the best probe of a model and moment lies; a window's colon, which not every disk allows, becomes a dash."""
        return self.run.path("probes", self.named("").removeprefix("@") or OF_PROMPT, model, f"{moment.replace(':', '-')}.safetensors")

    def keep(self, probe: Probe, model: str, moment: str) -> None:
        """Save a probe where probe_file() says, in place of an earlier one."""
        file = self.probe_file(model, moment)
        file.unlink(missing_ok=True)
        probe.save(file)

    def table_file(self, name: str) -> Path:
        return self.run.path("tables", f"{self.named(name)}.parquet")

    def table(self, name: str) -> pd.DataFrame:
        return self.run.table(self.named(name))

    @property
    def inputs(self) -> dict[str, Any]:
        """What an answer depends on, whatever the question: what was asked, the bytes that were read, the code's version."""
        return {
            **{"asked": asdict(self.asked), "judge": self.judge, "writer": self.writer, "thoughtlens": package_version("thoughtlens")},
            **{"stores": {model: sha256_of(store.path / INDEX) for model, store in self.stores.items()}},
            **{"known": sorted(self.homes), "labels": [[t.id, self.labels.get(t.id)] for t in self.said]},
        }

    def stage_of(self, question: str) -> str:
        return self.named(f"probe {question}")

    def done(self, question: str) -> bool:
        """Whether a question was answered, as things are now."""
        return self.run.fresh(self.stage_of(question), self.inputs, [])

    @contextmanager
    def stage(self, name: str, outputs: Sequence[Path], inputs: Mapping[str, Any]) -> Iterator[bool]:
        """Yield whether the stage has to run; afterwards remember that it did."""
        if self.run.fresh(name, inputs, outputs):
            yield False
            return
        yield True
        self.run.finish(name, inputs)


def open_probing(
    folder: str | Path, asked: Asked, *, checkpoints: Path | None, shipped: Path, device: str | None = None, progress: bool = True
) -> Probing:
    """Open a run folder for what is asked.

    checkpoints   folder with a folder per model; None: `shipped`, as far as its checkpoints are the captured ones
    FileNotFoundError, ValueError: no stores, no transcripts, no verdicts for the label, checkpoints other than the captured ones.
    """
    home = Path(folder)
    stores = stores_of(home, asked.models)
    said = transcripts_of(home, stores)
    judge, verdicts = judged(home, said[0].model, asked.judge)
    labels = labels_of(said, verdicts, threshold=asked.threshold)
    if asked.label != OF_PROMPT and not labels:
        raise ValueError(
            f"the label {asked.label!r} comes from verdicts, and {home} has none on what {said[0].model!r} wrote "
            f"(verdicts/<judge>/{said[0].model}.jsonl). `thoughtlens demo` writes them; {OF_PROMPT!r} needs none"
        )
    if asked.among != "all":
        kept = {t.id for t in said if t.prompt.harmful is (asked.among == "harmful")}
        labels = {id_: {**row, asked.label: row[asked.label] if id_ in kept else None} for id_, row in labels.items()}
    homes = known(stores, shipped) if checkpoints is None else given_homes(stores, checkpoints)
    return Probing(Run(home), asked, stores, said, labels, judge, homes, device, progress)


def stores_of(run: Path, models: Sequence[str]) -> dict[str, Store]:
    """The run's stores of pooled spans, by model. FileNotFoundError, ValueError: there are none, or not the one asked for."""
    found = {path.parent.name: path.parent for path in sorted((run / "activations").glob(f"*/{INDEX}"))}
    if not found:
        raise FileNotFoundError(f"{run} holds no activations/<model>/. `thoughtlens capture --out {run}` or `thoughtlens demo` writes them")
    stores = {name: open_store(path) for name, path in found.items()}
    pooled = {name: store for name, store in stores.items() if name == store.meta["model"].split("/")[-1]}
    if not pooled:
        raise ValueError(
            f"no store of {run / 'activations'} has the name of the model it was captured from ({', '.join(found)}). "
            "Name each folder after its model, or capture into a fresh run"
        )
    if unknown := [name for name in models if name not in pooled]:
        raise ValueError(f"{run} holds no activations of {unknown[0]!r}; it has {', '.join(pooled) or 'none'}")
    order = [*(name for name in ORDER if name in pooled), *(name for name in pooled if name not in ORDER)]
    return {name: pooled[name] for name in order if not models or name in models}


def transcripts_of(run: Path, stores: Mapping[str, Store]) -> list[Transcript]:
    """What the stores were read from, by the one model that wrote it."""
    writers = {name: sorted(set(store.index["written_by"])) for name, store in stores.items()}
    if len(names := sorted({name for several in writers.values() for name in several})) > 1:
        raise ValueError(
            f"the stores of {run} hold what several models wrote ({', '.join(names)}); labels and transfer need one. Choose stores with "
            "--models, or capture the same transcripts with every model (capture --transcripts)"
        )
    file = run / "transcripts" / f"{names[0].split('/')[-1]}.jsonl"
    for needed in (run / "prompts.jsonl", file):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing: the words the states were read from. Copy it there, or capture again")
    there = {prompt for store in stores.values() for prompt in store.index["prompt_id"]}
    said = [t for t in read_transcripts(file, read_prompts(run / "prompts.jsonl")) if t.id in there]
    if missing := sorted(there - {t.id for t in said}):
        raise ValueError(
            f"{file} lacks {len(missing)} prompts whose states are stored, the first is {missing[0]!r}. Copy the whole file there"
        )
    return said


def known(stores: Mapping[str, Store], shipped: Path) -> dict[str, Path]:
    """The shipped checkpoints that are the captured ones."""
    folders = {name: shipped / name for name in stores if (shipped / name / "config.json").is_file()}
    return {name: folder for name, folder in folders.items() if same(folder, stores[name])}


def given_homes(stores: Mapping[str, Store], checkpoints: Path) -> dict[str, Path]:
    """The given checkpoints, each compared with its store; a model without a folder is left out."""
    if not checkpoints.is_dir():
        raise FileNotFoundError(f"there is no folder {checkpoints}; --checkpoints is a folder with {', '.join(stores)} in it")
    folders = {name: checkpoints / name for name in stores if (checkpoints / name).is_dir()}
    for name, folder in folders.items():
        if not same(folder, stores[name]):
            raise ValueError(
                f"{folder} is not the checkpoint whose states {stores[name].path} holds (its fingerprint differs); "
                "pass the one that was captured, or capture again"
            )
    return folders


def same(folder: Path, store: Store) -> bool:
    """Whether a checkpoint is the one a store was captured from."""
    home = find_checkpoint(folder)
    return fingerprint(home, weight_files(home)) == store.meta["fingerprint"]
