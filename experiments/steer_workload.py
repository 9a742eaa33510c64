"""The work of `thoughtlens bench steer`: thoughts that are begun, what is added to hidden states, and the conditions they are gone on with.

A condition is a function that returns a context. Entering it installs what changes or reads hidden states; its value writes the tokens, and
takes options of transformers' generate. So what is installed once is done before the clock starts.

The edit is the same in every engine, in the same arithmetic: h' = h + v, added in float32 and rounded once, at every token of the sequence,
v half as long as hidden states are at that layer; at every layer each of n vectors is divided by √n.

Shapes: `b` rows, `n` new tokens, `v` vocabulary, `d` width, `l` layers, `k` probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import CompileConfig

from ..hooks.dialects import pieces, split
from ..hooks.edits import Edit
from ..hooks.encode import Batch, encode
from ..hooks.gates import AtSteps, ProbeGate
from ..hooks.model import LensModel
from ..hooks.steer import monitor, steer
from ..hooks.steering import Steering
from ..hooks.vector import Vector
from .workload import Shape, transcripts_for

Write = Callable[..., Any]
Condition = Callable[[], AbstractContextManager[Write]]
SHARE, PROBES, STEP = 0.5, 8, 4  # length of a vector among hidden states; words of a step of the thought that is begun
BACKEND = "inductor"
ALIKE = {  # condition -> another that writes the same tokens
    "one site, entered and left": "one site",
    "8 probes": "plain",
    "8 probes, one site": "one site",
    "hook, one site": "one site",
    "hook, every layer": "every layer",
    "hook, a vector per row": "a vector per row",
    "nnsight, one site": "one site",
    "nnsight, every layer": "every layer",
    "TransformerLens, one site": "one site",
    "TransformerLens, every layer": "every layer",
}
EDITS = ("one site", "every layer", "a vector per row")  # what steers every token
COMPILED = ("plain", "one site", "every layer", "hook, one site")  # what is also measured compiled


@dataclass(frozen=True, eq=False)
class Work:
    """A batch to go on with, and what is done to it meanwhile.

    batch    prompts, each followed by the beginning of a thought, two steps long
    new      tokens that are written
    layer    the one site is resid_post of this layer
    one      [d], every [l, d], rows [b, d]: what is added at the one site, at each layer (where it is divided by √l), in each row
    probes   name -> a readout; read [b, k]: what they read at the last prompt token, by plain hooks
    gate     opens for half of the rows, at the last prompt token; opened [b]: which
    """

    lens: LensModel
    batch: Batch
    new: int
    layer: int
    one: Float[Tensor, " d"]
    every: Float[Tensor, "l d"]
    rows: Float[Tensor, "b d"]
    probes: Mapping[str, ProbeGate]
    read: Float[Tensor, "b k"]
    gate: ProbeGate
    opened: Bool[Tensor, " b"]

    @property
    def site(self) -> str:
        return f"resid_post.{self.layer}"

    @property
    def run(self) -> Int64[Tensor, " b"]:
        """Tokens of each row that are run: the last one is written only."""
        return self.batch.lengths + self.new - 1

    @property
    def half(self) -> bool:
        """Whether the model runs in half precision."""
        return self.lens.dtype != torch.float32

    @property
    def tolerance(self) -> float:
        """How far numbers that should be equal may be apart, as a share of the largest."""
        return 5e-2 if self.half else 1e-4

    @property
    def options(self) -> dict[str, Any]:
        """Greedy, and exactly so many tokens."""
        eos, pad = list(self.lens.markers.eos_ids), self.lens.pad_id
        return {"do_sample": False, "max_new_tokens": self.new, "min_new_tokens": self.new, "eos_token_id": eos, "pad_token_id": pad}

    @property
    def at_one(self) -> dict[int, Tensor]:
        """Layer -> what is added there, on the device."""
        return {self.layer: self.one.to(self.lens.device)}

    @property
    def at_every(self) -> dict[int, Tensor]:
        return dict(enumerate((self.every / math.sqrt(len(self.every))).to(self.lens.device)))

    @property
    def by_row(self) -> dict[int, Tensor]:
        return {self.layer: self.rows[:, None].to(self.lens.device)}


def make_work(lens: LensModel, shape: Shape, new: int) -> Work:
    """A shape's batch of prompts with begun thoughts, vectors and probes drawn for it."""
    transcripts = transcripts_for(lens, shape, shape.batch)
    stop = lens.tokenizer.convert_tokens_to_ids(".")
    thoughts = [pieces(one.output_ids, split(one.output_ids, lens.markers))[0] for one in transcripts]
    begun = [(*lens.markers.open_ids, *words[:STEP], stop, *words[STEP : 2 * STEP], stop) for words in thoughts]
    batch = encode(lens, [one.prompt for one in transcripts], prefixes=begun)
    states = residuals(lens, batch).cpu()
    lengths = states[:, batch.inputs["attention_mask"].bool().cpu()].norm(dim=-1).mean(-1)  # [l]
    at_last = states[:, torch.arange(shape.batch), batch.offsets + batch.prompt_lengths - 1]  # [l, b, d]
    chance, width, layer = torch.Generator().manual_seed(0), lens.width, lens.n_layers // 2

    def drawn(count: int, length: Tensor) -> Float[Tensor, "count d"]:
        values = torch.randn(count, width, generator=chance)
        return values / values.norm(dim=-1, keepdim=True) * SHARE * length

    def readout(layer: int, threshold: float = 0.0) -> ProbeGate:
        return ProbeGate(torch.randn(width, generator=chance) / math.sqrt(width), 0.1, f"resid_post.{layer}", threshold)

    every = drawn(lens.n_layers, lengths[:, None])
    layers = [number * lens.n_layers // PROBES for number in range(PROBES)]
    probes = [readout(number) for number in layers]
    read = torch.stack([at_last[number] @ probe.weight + probe.bias for number, probe in zip(layers, probes, strict=True)], 1)
    gate = readout(layer)
    scores = at_last[layer] @ gate.weight + gate.bias
    threshold = float(scores.sort().values[shape.batch // 2 - 1 : shape.batch // 2 + 1].mean())
    return Work(
        lens,
        batch,
        new,
        layer,
        every[layer],
        every,
        drawn(shape.batch, lengths[layer]),
        {f"probe {number}": probe for number, probe in enumerate(probes)},
        read,
        ProbeGate(gate.weight, gate.bias, gate.site, threshold),
        scores > threshold,
    )


@torch.no_grad()
def residuals(lens: LensModel, batch: Batch) -> Float[Tensor, "l b p d"]:
    """resid_post of every layer as plain hooks see it."""
    found: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda _, args, output: found.append(output)) for layer in lens.layers]
    try:
        lens.inner(**batch.inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found).float()


def conditions(work: Work) -> dict[str, Condition]:
    """What the tokens are written under, by its name in the table. Other engines get a model of their own on the same weights."""
    from ..hooks.interop import nnsight, transformer_lens

    lens = work.lens
    one = Vector({work.site: work.one}, span="all", source="one site")
    every = Vector({f"resid_post.{layer}": value for layer, value in enumerate(work.every)}, span="all", source="every layer")
    rows = [Edit(Vector({work.site: value}, span="all", source=f"row {number}")) for number, value in enumerate(work.rows)]
    traced, bridged = nnsight.wrap(lens), transformer_lens.bridge(lens)
    return {
        "plain": partial(_plain, work),
        "one site": partial(_steered, work, partial(steer, lens, one)),
        "every layer": partial(_steered, work, partial(steer, lens, every)),
        "a vector per row": partial(_steered, work, partial(steer, lens, rows, rows=range(1, len(rows) + 1))),
        "behind a probe gate": partial(_steered, work, partial(steer, lens, one, gate=work.gate)),
        "at step ends": partial(_steered, work, partial(steer, lens, one, gate=AtSteps())),
        "8 probes": partial(_steered, work, partial(monitor, lens, work.probes)),
        "8 probes, one site": partial(_steered, work, partial(steer, lens, one, probes=work.probes)),
        "one site, entered and left": partial(_entering, partial(_steered, work, partial(steer, lens, one))),
        "hook, one site": partial(_hooked, work, work.at_one),
        "hook, every layer": partial(_hooked, work, work.at_every),
        "hook, a vector per row": partial(_hooked, work, work.by_row),
        "nnsight, one site": partial(_traced, work, traced, work.at_one),
        "nnsight, every layer": partial(_traced, work, traced, work.at_every),
        "TransformerLens, one site": partial(_bridged, work, bridged, work.at_one),
        "TransformerLens, every layer": partial(_bridged, work, bridged, work.at_every),
    }


def _write(work: Work, **asked: Any) -> Any:
    return work.lens.model.generate(**work.batch.inputs, **{**work.options, **asked})  # type: ignore[operator]


@contextmanager
def _plain(work: Work) -> Iterator[Write]:
    yield partial(_write, work)


@contextmanager
def _steered(work: Work, enter: Callable[[], AbstractContextManager[Steering]]) -> Iterator[Write]:
    with enter() as steering:
        steering.expect(work.batch.prompt_lengths)
        yield partial(_write, work)


@contextmanager
def _entering(condition: Condition) -> Iterator[Write]:
    """Entering and leaving is part of the writing."""

    def write(**asked: Any) -> Any:
        with condition() as inside:
            return inside(**asked)

    yield write


@contextmanager
def _hooked(work: Work, added: Mapping[int, Tensor]) -> Iterator[Write]:
    """Forward hooks as one writes them by hand."""
    handles = [
        work.lens.layers[layer].register_forward_hook(lambda _, args, output, value=value: _plus(output, value))
        for layer, value in added.items()
    ]
    try:
        yield partial(_write, work)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _traced(work: Work, engine: Any, added: Mapping[int, Tensor]) -> Iterator[Write]:
    """nnsight: what happens at every step is written inside the trace, which each generation opens anew."""
    from ..hooks.interop.nnsight import envoy

    places = [(envoy(work.lens, engine, f"resid_post.{layer}"), value) for layer, value in added.items()]

    def write(**asked: Any) -> Any:
        options = {**work.options, **asked}
        steps = options["max_new_tokens"]
        with engine.trace(fn=engine.generate, **work.batch.inputs, **options) as tracer:
            for _ in tracer.iter[:steps]:
                for module, value in places:
                    module.output = _plus(module.output, value)
            told = tracer.result.save()
        return told

    yield write


@contextmanager
def _bridged(work: Work, engine: Any, added: Mapping[int, Tensor]) -> Iterator[Write]:
    """TransformerLens' hf_generate: generate() of its bridge refuses a padded batch with pictures."""
    from ..hooks.interop.transformer_lens import hook_name

    inputs = dict(work.batch.inputs)
    ids = inputs.pop("input_ids")
    hooks = [
        (hook_name(work.lens, f"resid_post.{layer}"), lambda hidden, hook, value=value: _plus(hidden, value))
        for layer, value in added.items()
    ]
    with engine.hooks(fwd_hooks=hooks):
        yield lambda **asked: engine.hf_generate(ids, return_type="tokens", **inputs, **{**work.options, **asked})


def _plus(hidden: Float[Tensor, "b p d"], value: Float[Tensor, "*b1 d"]) -> Float[Tensor, "b p d"]:
    return (hidden + value).to(hidden.dtype)


@contextmanager
def warmed(condition: Condition) -> Iterator[Write]:
    """A condition that has run a prompt and a step already."""
    with condition() as write:
        write(max_new_tokens=2, min_new_tokens=2)
        yield write


@contextmanager
def compiled(work: Work, condition: Condition) -> Iterator[Write]:
    """A condition whose decoding step is compiled anew, as transformers does it with a static cache, before it is run.

    Graphs of other conditions are dropped first: one process keeps them by code, and one condition would take another's for its own.
    RuntimeError where nothing was compiled, and where something is compiled later.
    """
    from torch._dynamo.utils import counters

    config = CompileConfig()
    if work.lens.device.type == "cpu":  # where transformers compiles only if told so, and its default mode records CUDA graphs
        config = CompileConfig(backend=BACKEND, mode=None)  # type: ignore[arg-type]
        config._compile_all_devices = True  # type: ignore[assignment]
    torch.compiler.reset()
    try:
        with condition() as write:
            made = counters["stats"]["unique_graphs"]
            run = partial(write, cache_implementation="static", compile_config=config)
            run()
            run()
            if counters["stats"]["unique_graphs"] == made:
                raise RuntimeError("transformers was asked to compile the decoding step and did not. Nothing was timed.")
            with torch.compiler.set_stance("fail_on_recompile"):
                yield run
    finally:
        torch.compiler.reset()
