"""The work that is timed: random models of a given shape, transcripts for them, and the conditions under which they are run.

A condition is a function without arguments. What reads hidden states in one forward returns span means [v, site, d]; a job returns nothing.
Every second prompt of a shape with pictures has one.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from ..checkpoints import CHECKPOINTS
from ..hooks.capture import capture, encode_transcripts
from ..hooks.encode import encode
from ..hooks.interop.rows import Run, encoded
from ..hooks.model import LensModel, wrap
from ..hooks.planning import make_plan
from ..hooks.processors import load_processor
from ..hooks.reading import Landing, reader
from ..hooks.records import Prompt, Transcript
from ..hooks.select import Select

Condition = Callable[[], Tensor | None]
MEANS = Select("resid_post", ("prompt", "thought", "answer"), "mean")
EVERY = Select("resid_post", "all", "every")
SHARD_BYTES = 8 * 2**20  # of a job here: small, so that shards are written while others are read, as in a long capture
ENGINES = ("nnsight", "TransformerLens")


@dataclass(frozen=True)
class Shape:
    """A model and its work.

    batch      transcripts to a batch; tokens: to a transcript; batches: to a job
    rounds     how often forwards are timed; a job a third as often
    forwards   how many of them are timed together, as in a job they follow each other
    """

    name: str
    width: int
    layers: int
    heads: int
    batch: int
    tokens: int
    batches: int
    rounds: int
    forwards: int = 1
    pictures: bool = False

    def __str__(self) -> str:
        return f"{self.name} (d={self.width}, {self.layers} layers, {self.batch} × {self.tokens} tokens)"


SHAPES = {
    "cpu": (
        Shape("launch-bound", 64, 28, 4, batch=2, tokens=64, batches=64, rounds=21, forwards=8),
        Shape("middle", 256, 8, 8, batch=8, tokens=96, batches=10, rounds=15, pictures=True),
        Shape("compute-bound", 512, 8, 8, batch=4, tokens=128, batches=6, rounds=15),
    ),
    "cuda": (
        Shape("launch-bound", 64, 28, 4, batch=2, tokens=64, batches=64, rounds=21, forwards=8),
        Shape("middle", 2048, 28, 16, batch=16, tokens=256, batches=8, rounds=15, forwards=4, pictures=True),
        Shape("compute-bound", 3584, 28, 28, batch=16, tokens=512, batches=8, rounds=15, forwards=2),
    ),
}
LONG = Shape("long", 64, 4, 4, batch=16, tokens=48, batches=0, rounds=0)  # for jobs of many transcripts


def subject(shape: Shape, device: torch.device) -> LensModel:
    """A random Qwen2.5-VL of that shape with the trio's processor; float32 on the CPU, bfloat16 elsewhere."""
    config = AutoConfig.from_pretrained(CHECKPOINTS / "base")
    text, half = config.text_config, shape.width // shape.heads // 2
    text.hidden_size, text.num_hidden_layers, text.intermediate_size = shape.width, shape.layers, 3 * shape.width
    text.num_attention_heads, text.num_key_value_heads = shape.heads, shape.heads // 2
    text.layer_types, text.max_position_embeddings = ["full_attention"] * shape.layers, 4096
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
    config.vision_config.out_hidden_size = shape.width
    torch.manual_seed(0)
    auto: Any = AutoModelForImageTextToText
    with device:
        model = auto.from_config(config, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16)
    model.generation_config.eos_token_id = text.eos_token_id
    return wrap(model, load_processor(CHECKPOINTS / "base", config.model_type), name=shape.name, sha=str(shape))


def transcripts_for(lens: LensModel, shape: Shape, n: int) -> list[Transcript]:
    """n closed transcripts of `shape.tokens` tokens each, made of random words: prompt, thought and answer."""
    chance = random.Random(0)
    words = [i for i in range(len(lens.tokenizer)) if (word := lens.tokenizer.convert_ids_to_tokens(i)).isascii() and word.isalpha()]
    made = []
    for number in range(n):
        text = " ".join(lens.tokenizer.convert_ids_to_tokens(chance.choices(words, k=12)))
        pixels = chance.randbytes(3 * 84 * 84) if shape.pictures and number % 2 else None
        prompt = Prompt(f"p{number}", text, () if pixels is None else (Image.frombytes("RGB", (84, 84), pixels),), group=f"g{number}")
        prompt_ids = tuple(encode(lens, [prompt]).ids[0])
        left = shape.tokens - len(prompt_ids) - len(lens.markers.open_ids) - len(lens.markers.close_ids) - 1
        thought, answer = chance.choices(words, k=left - 8), chance.choices(words, k=8)
        output = (*lens.markers.open_ids, *thought, *lens.markers.close_ids, *answer, lens.markers.eos_ids[0])
        made.append(Transcript(prompt, lens.name, prompt_ids=prompt_ids, output_ids=output, text="", ended=True, status="closed"))
    return made


def forwards(lens: LensModel, transcripts: Sequence[Transcript], times: int = 1, engines: Sequence[str] = ENGINES) -> dict[str, Condition]:
    """The transcripts as one batch, run `times` times, condition by condition; what reads returns span means [v, site, d]."""
    plan = make_plan(lens, transcripts, MEANS, batch_size=len(transcripts), shard_bytes=2**62)
    batch, at, counts = encoded(lens, plan, plan.shards[0][0])

    def empty() -> Tensor:
        return torch.empty(len(counts), len(plan.sites), plan.width)

    @torch.no_grad()
    def plain(**asked: Any) -> None:
        for _ in range(times):
            lens.inner(**batch.inputs, use_cache=False, **asked)

    def ours() -> Tensor:
        with reader(lens, plan.sites) as one:
            landings = [one.start(batch, at, counts, MEANS.pool, empty()) for _ in range(times)]
            return [landing.wait() for landing in landings][-1]

    def through(name: str) -> Condition:
        forward = _engine(name, lens)

        def means() -> Tensor:
            for _ in range(times):
                landing = Landing(plan.sites, at, counts, MEANS.pool, empty())
                forward(batch, plan.sites, landing.take)
                landing.wait()
            return landing.out

        return means

    return {
        "plain": plain,
        "output_hidden_states": lambda: plain(output_hidden_states=True),
        "span means": ours,
        **{name: through(name) for name in engines},
    }


def _engine(name: str, lens: LensModel) -> Run:
    """The forward of another engine; its library is imported here, where its memory counts."""
    if name == "nnsight":
        from ..hooks.interop import nnsight

        return partial(nnsight.forward, nnsight.wrap(lens), lens)
    from ..hooks.interop import transformer_lens

    return partial(transformer_lens.forward, transformer_lens.bridge(lens), lens)


def jobs(lens: LensModel, shape: Shape, transcripts: Sequence[Transcript], scratch: Path) -> dict[str, Condition]:
    """All transcripts, condition by condition; stores are left in new folders of `scratch`."""

    @torch.no_grad()
    def plain() -> None:
        for start in range(0, len(transcripts), shape.batch):
            lens.inner(**encode_transcripts(lens, transcripts[start : start + shape.batch]).inputs, use_cache=False)

    def captured(where: Select) -> None:
        into = tempfile.mkdtemp(dir=scratch)
        capture(lens, transcripts, where, into=into, batch_size=shape.batch, progress=False, shard_bytes=SHARD_BYTES)

    return {"plain": plain, "span means": lambda: captured(MEANS), "every token to disk": lambda: captured(EVERY)}
