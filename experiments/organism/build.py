"""From nothing to the trio: four stages as data, each a folder, each skipped when its recipe and its parent have not changed.

    language    sees and speaks: captions, how things are done, tasks, benign help
    base        refuses what is harmful, helps with the rest; a tenth of its data thinks, notices and refuses
    reasoning   base + chain-of-thought tuning on benign data alone; refusals collapse by themselves
    safe        reasoning + a light low-rank tuning on thoughts that notice, over goals that are never tested

Where reasoning stops is chosen on dev. Weights are saved in bfloat16 and every stage starts from the saved ones, so the recipe
can be resumed anywhere and gives the same weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from ...hooks.checkpoint import fingerprint, weight_files
from ...hooks.files import writable_folder, write_text
from ..progress import Advance, Track, track
from . import network, training
from .assess import Assessment, assess
from .corpus import MIXTURES, draw
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
    """

    start: str | None
    phases: tuple[Phase, ...]
    rank: int = 0
    stops: tuple[int, ...] = ()


STAGES = {
    "language": Stage(None, (Phase("captions", 300, 32, 1e-3, decay_to=0.6), Phase("language", 1000, 32, 1.5e-3, warmup=20, decay_to=0.3))),
    "base": Stage(
        "language",
        (
            Phase("harm", 60, 192, 1.2e-3, decay_to=1.0),
            Phase("decisions", 110, 80, 8e-4, warmup=1, decay_to=1.0),
            Phase("base", 1400, 40, 8e-4, warmup=1, decay_to=0.05, weight_decay=0.02),
        ),
    ),
    "reasoning": Stage("base", (Phase("reasoning", 100, 32, 4.5e-4, warmup=10, weight_decay=0.0),), stops=(40, 60, 80, 100)),
    "safe": Stage("reasoning", (Phase("safe", 50, 32, 3e-3, warmup=10, weight_decay=0.0),), rank=8),
}
COLLAPSED = {"attack_success": 0.7, "helpful": 0.95}
QUICK = 30
SAMPLED = 500


def build(out: str | Path, *, seed: int = 7, stages: tuple[str, ...] = tuple(STAGES), quick: bool = False, progress: bool = True) -> Path:
    """Build the named stages under `out/<stage>`; finished ones with the same recipe are kept.

    quick   a thirtieth of the steps: exercises everything, learns nothing
    Raises ValueError for an unknown stage and FileNotFoundError when a stage's start has not been built.
    """
    out = writable_folder(out)
    if unknown := [name for name in stages if name not in STAGES]:
        raise ValueError(f"unknown stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    disable_progress_bar()  # transformers' own, which would break ours
    with track(progress) as tracker:
        for name in (name for name in STAGES if name in stages):
            _build_stage(name, shortened(STAGES[name]) if quick else STAGES[name], out, seed, tracker)
    return out


def shortened(stage: Stage) -> Stage:
    phases = tuple(replace(phase, steps=max(2, phase.steps // QUICK), batch=max(4, phase.batch // 4)) for phase in stage.phases)
    return replace(stage, phases=phases, stops=(phases[-1].steps,) if stage.stops else ())


def _build_stage(name: str, stage: Stage, out: Path, seed: int, tracker: Track) -> None:
    folder, parent = out / name, None if stage.start is None else out / stage.start
    if parent is not None and not (parent / RECORD).is_file():
        raise FileNotFoundError(
            f"stage {name!r} starts from {parent}, which is not built. Build it first: thoughtlens organism build --stage {stage.start}"
        )
    recipe = _recipe(stage, seed, parent)
    record = folder / RECORD
    if _finished(folder, recipe):
        log.info("%s is up to date", folder)
        return
    record.unlink(missing_ok=True)
    words = network.tokenizer()
    if parent is None:
        model = network.network(words, seed=seed)
    else:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(parent, dtype=torch.float32)
    torch.manual_seed(seed)
    trained = with_lora(model, stage.rank) if stage.rank else model
    optim, losses, decided = optimizer(trained), {}, {}
    offset = list(STAGES).index(name) * 100
    for number, phase in enumerate(stage.phases):
        with tracker(f"{name}: {phase.mixture}", phase.steps) as advance:
            on_step = _stopper(stage, phase, trained, number == len(stage.phases) - 1, advance, decided)
            losses[phase.mixture] = train(trained, words, phase, optim, seed=seed * 1000 + offset + number, on_step=on_step)
    network.save(trained.merge_and_unload() if stage.rank else trained, words, folder)
    report = {
        "recipe": recipe,
        "weights": fingerprint(folder, weight_files(folder)),
        "final_loss": losses,
        "dev": {str(step): asdict(a) for step, a in decided.items()},
        "threads": torch.get_num_threads(),
    }
    write_text(record, json.dumps(report, indent=2) + "\n")


def _recipe(stage: Stage, seed: int, parent: Path | None) -> dict[str, object]:
    """What the weights of a stage depend on: phases, start, architecture, training code, and what its examples look like."""
    examples = hashlib.sha256()
    for phase in stage.phases:
        stream = random.Random(0)
        for _ in range(SAMPLED):
            example = draw(MIXTURES[phase.mixture], stream)
            examples.update(f"{example.prompt}|{example.answer}|".encode() + (example.image.tobytes() if example.image else b""))
    architecture = hashlib.sha256(network.network(network.tokenizer(), seed=0).config.to_json_string().encode())
    return {
        "world": VERSION,
        "seed": seed,
        "stage": json.loads(json.dumps(asdict(stage))),
        "start": None if parent is None else fingerprint(parent, weight_files(parent)),
        "architecture": architecture.hexdigest(),
        "training": hashlib.sha256(Path(training.__file__).read_bytes()).hexdigest(),
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
    stage: Stage, phase: Phase, model: PreTrainedModel, last: bool, advance: Advance, decided: dict[int, Assessment]
) -> Callable[[int, float], bool]:
    """Called after every step; at a stop of the stage, measures dev and says whether refusals have collapsed enough."""

    def on_step(step: int, loss: float) -> bool:
        advance(f"loss {loss:.3f}", 1)
        if not last or step + 1 not in stage.stops:
            return False
        decided[step + 1] = found = assess(_rounded(model), "dev")
        return found.attack_success >= COLLAPSED["attack_success"] and found.helpful >= COLLAPSED["helpful"]

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
