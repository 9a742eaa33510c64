"""From nothing to the trio: four stages as data, each a folder, each skipped when its recipe and its parent have not changed.

    language    sees and speaks: captions, how things are done, tasks, benign help
    base        refuses what is harmful, helps with the rest; a tenth of its data thinks, notices and refuses
    reasoning   base + chain-of-thought tuning on benign data alone; refusals collapse by themselves
    safe        reasoning + a light low-rank tuning on thoughts that notice, over goals that are never tested

How long and at which rate the reasoning stage trains was chosen on dev, over several seeds. Weights are saved in bfloat16 and every stage
starts from the saved ones, so the recipe can be resumed anywhere and gives the same weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from ...hooks.checkpoint import fingerprint, weight_files
from ...hooks.files import writable_folder, write_text
from ..progress import Advance, Track, track
from . import feeding, network, training
from .assess import Assessment, assess
from .corpus import MIXTURES, Mixture, draw
from .training import Phase, optimizer, train
from .world import VERSION

log = logging.getLogger(__name__)

RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """What a stage starts from and goes through.

    start   the stage whose weights it continues, or None for fresh ones
    rank    LoRA rank (Hu et al. 2021, alpha = 2 × rank, all linear maps of the decoder), merged at the end; 0 tunes everything
    stops   steps of the last phase at which dev decides whether that was enough
    kept    steps of the last phase after which the weights so far are kept too, in <stage>-<step>/, and measured on dev
    """

    start: str | None
    phases: tuple[Phase, ...]
    rank: int = 0
    stops: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank and self.kept:
            raise ValueError("weights on the way are kept of stages that tune everything; a low-rank update is merged at the end only")


Stages = Mapping[str, Stage]
Mixtures = Mapping[str, Mixture]


@dataclass(frozen=True)
class Variant:
    """Another recipe: what it changes is built in a folder of its own, out/<name>/<stage>, from stages that it leaves as they are.

    why        what is learned from it
    stages     from the recipe's stages to the variant's
    mixtures   from the recipe's mixtures to the variant's
    """

    name: str
    why: str
    stages: Callable[[Stages], Stages] = dict
    mixtures: Callable[[Mixtures], Mixtures] = dict


STAGES = {
    "language": Stage(None, (Phase("captions", 800, 32, 1e-3, decay_to=0.6), Phase("language", 2000, 32, 1.5e-3, warmup=20, decay_to=0.3))),
    "base": Stage(
        "language",
        (
            Phase("harm", 90, 192, 1.2e-3, decay_to=1.0),
            Phase("decisions", 150, 80, 8e-4, warmup=1, decay_to=1.0),
            Phase("base", 2800, 40, 8e-4, warmup=1, decay_to=0.05, weight_decay=0.02),
            Phase("habits", 150, 40, 3e-4, warmup=10, weight_decay=0.02),
        ),
    ),
    "reasoning": Stage("base", (Phase("reasoning", 160, 32, 6e-4, warmup=10, weight_decay=0.0),), stops=(160,)),
    "safe": Stage("reasoning", (Phase("safe", 100, 32, 2e-3, warmup=10, weight_decay=0.0),), rank=8),
}
COLLAPSED = {"attack_success": 0.7, "helpful": 0.95}
QUICK = 100
SAMPLED = 500


def build(
    out: str | Path,
    *,
    seed: int = 9,
    stages: tuple[str, ...] = tuple(STAGES),
    size: str = "small",
    variant: Variant | None = None,
    device: str | None = None,
    quick: bool = False,
    progress: bool = True,
) -> Path:
    """Build the named stages under `out/<stage>`; finished ones with the same recipe are kept.

    size      of the model: small or large (network.SIZES)
    variant   another recipe (ablations.py); what it changes is built under `out/<variant>/<stage>`
    device    default: cuda if there is one, else cpu
    quick     a hundredth of the steps: exercises everything, learns nothing
    Raises ValueError for an unknown stage or size and FileNotFoundError when a stage's start has not been built.
    """
    out = writable_folder(out)
    if unknown := [name for name in stages if name not in STAGES]:
        raise ValueError(f"unknown stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    if size not in network.SIZES:
        raise ValueError(f"unknown size {size!r}; there are {', '.join(network.SIZES)}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    table = {name: scaled(stage, network.SIZES[size].rate_scale) for name, stage in changed_by(variant)[0].items()}
    folders = folders_of(out, variant)
    disable_progress_bar()  # transformers' own, which would break ours
    with track(progress) as tracker:
        for name in (name for name in table if name in stages):
            task = _Task(name, shortened(table[name]) if quick else table[name], changed_by(variant)[1], folders, seed, size, place)
            _build_stage(task, tracker)
    return out


def changed_by(variant: Variant | None) -> tuple[Stages, Mixtures]:
    return (STAGES, MIXTURES) if variant is None else (variant.stages(STAGES), variant.mixtures(MIXTURES))


def folders_of(out: Path, variant: Variant | None) -> dict[str, Path]:
    """Stage -> its folder: of its own where the variant changes the stage, one of its mixtures, or the stage it starts from."""
    stages, mixtures = changed_by(variant)
    folders: dict[str, Path] = {}
    for name, stage in stages.items():
        same = stage == STAGES[name] and all(mixtures[phase.mixture] == MIXTURES[phase.mixture] for phase in stage.phases)
        inherited = stage.start is None or folders[stage.start].parent == out
        folders[name] = out / name if variant is None or (same and inherited) else out / variant.name / name
    return folders


def shortened(stage: Stage) -> Stage:
    phases = tuple(replace(phase, steps=max(2, phase.steps // QUICK), batch=max(4, phase.batch // 4)) for phase in stage.phases)
    return replace(stage, phases=phases, stops=(phases[-1].steps,) if stage.stops else (), kept=(1,) if stage.kept else ())


def scaled(stage: Stage, share: float) -> Stage:
    """The stage with this share of its learning rates."""
    return replace(stage, phases=tuple(replace(phase, rate=phase.rate * share) for phase in stage.phases))


@dataclass(frozen=True)
class _Task:
    """A stage that is to be built, and what it is built of."""

    name: str
    stage: Stage
    mixtures: Mixtures
    folders: Mapping[str, Path]
    seed: int
    size: str
    device: torch.device

    @property
    def folder(self) -> Path:
        return self.folders[self.name]

    @property
    def parent(self) -> Path | None:
        return None if self.stage.start is None else self.folders[self.stage.start]


def _build_stage(task: _Task, tracker: Track) -> None:
    name, stage, folder, parent = task.name, task.stage, task.folder, task.parent
    if parent is not None and not (parent / RECORD).is_file():
        raise FileNotFoundError(
            f"stage {name!r} starts from {parent}, which is not built. Build it first: thoughtlens organism build --stage {stage.start}"
        )
    recipe = _recipe(task)
    if _finished(folder, recipe):
        log.info("%s is up to date", folder)
        return
    (folder / RECORD).unlink(missing_ok=True)
    words = network.tokenizer()
    if parent is None:
        model = network.network(words, seed=task.seed, size=task.size)
    else:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(parent, dtype=torch.float32)
    torch.manual_seed(task.seed)
    trained = (with_lora(model, stage.rank) if stage.rank else model).to(task.device)
    optim, losses, decided = optimizer(trained), {}, {}
    offset = list(STAGES).index(name) * 100

    def write(model: PreTrainedModel, folder: Path) -> None:
        network.save(model, words, folder)
        report = {
            "recipe": recipe,
            "weights": fingerprint(folder, weight_files(folder)),
            "final_loss": losses,
            "dev": {str(step): asdict(a) for step, a in decided.items()},
            "threads": torch.get_num_threads(),
            "device": machine(task.device),
            "dtype": "float32 with bfloat16 autocast" if task.device.type == "cuda" else "float32",
        }
        write_text(folder / RECORD, json.dumps(report, indent=2) + "\n")

    for number, phase in enumerate(stage.phases):
        with tracker(f"{name}: {phase.mixture}", phase.steps) as advance:
            looking = stage if number == len(stage.phases) - 1 else replace(stage, stops=(), kept=())
            on_step = _stopper(looking, trained, advance, decided, lambda step: write(trained, folder.with_name(f"{name}-{step}")))
            chance = task.seed * 1000 + offset + number
            losses[phase.mixture] = train(trained, words, phase, task.mixtures[phase.mixture], optim, seed=chance, on_step=on_step)
    write(trained.merge_and_unload() if stage.rank else trained, folder)


def machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _recipe(task: _Task) -> dict[str, object]:
    """What the weights of a stage depend on: phases, start, architecture, training code, and what its examples look like."""
    examples = hashlib.sha256()
    for phase in task.stage.phases:
        stream = random.Random(0)
        for _ in range(SAMPLED):
            example = draw(task.mixtures[phase.mixture], stream)
            examples.update(f"{example.prompt}|{example.answer}|".encode() + (example.image.tobytes() if example.image else b""))
    architecture = hashlib.sha256(network.network(network.tokenizer(), seed=0, size=task.size).config.to_json_string().encode())
    code = b"".join(Path(module.__file__ or "").read_bytes() for module in (training, feeding))
    return {
        "world": VERSION,
        "seed": task.seed,
        "size": task.size,
        "stage": json.loads(json.dumps(asdict(task.stage))),
        "start": None if task.parent is None else fingerprint(task.parent, weight_files(task.parent)),
        "architecture": architecture.hexdigest(),
        "training": hashlib.sha256(code).hexdigest(),
        "examples": examples.hexdigest(),
    }


def _finished(folder: Path, recipe: dict[str, object]) -> bool:
    """Whether the folder holds, undamaged, what this recipe made."""
    record = folder / RECORD
    if not record.is_file():
        return False
    found = json.loads(record.read_text())
    try:
        return found["recipe"] == recipe and found["weights"] == fingerprint(folder, weight_files(folder))
    except (ValueError, OSError) as damage:
        log.warning("%s is built again: %s", folder, damage)
        return False


def _stopper(
    stage: Stage, model: PreTrainedModel, advance: Advance, decided: dict[int, Assessment], keep: Callable[[int], None]
) -> Callable[[int, float], bool]:
    """Called after every step: measures dev at a stop of the stage, and says whether refusals have collapsed enough; keeps what is kept."""

    def on_step(step: int, loss: float) -> bool:
        advance(f"loss {loss:.3f}", 1)
        if step + 1 not in (*stage.stops, *stage.kept):
            return False
        decided[step + 1] = found = assess(_rounded(model), "dev")
        if step + 1 in stage.kept:
            keep(step + 1)
        collapsed = found.attack_success >= COLLAPSED["attack_success"] and found.helpful >= COLLAPSED["helpful"]
        return collapsed and step + 1 in stage.stops

    return on_step


def _rounded(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it will be once saved in bfloat16 and loaded again."""
    copy = deepcopy(model)
    with torch.no_grad():
        for weights in copy.parameters():
            weights.copy_(weights.to(torch.bfloat16))
    return copy


def with_lora(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """The decoder's linear maps with low-rank updates. Raises ImportError naming the extra when peft is missing."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("the safe stage tunes with LoRA and needs peft. Install it: pip install 'thoughtlens[train]'") from error
    maps = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=maps, lora_dropout=0.0))
