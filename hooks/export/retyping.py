"""Biases that survive: how a checkpoint is written so that a bias at an output projection is still there when it is loaded again.

transformers builds a model from its configuration and drops a weight that has no place in it, with one line in the log. A bias is kept

    where the projection has one already              nothing to do
    where a switch of the configuration gives it one  BIASED: the switch is turned on, and every other bias it brings is zero
    where the same numbers come out of another type   RETYPED: the text model becomes that type, and its switch is turned on

and nowhere else. Each way is tried by building the model without memory (meta) and looking whether the bias is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ..sites import Site
from .placing import linear, projection_path

if TYPE_CHECKING:
    from ..model import LensModel

BIASED: Mapping[str, Mapping[str, str]] = {  # type of the text model -> site -> the switch that gives its projection a bias
    "llama": {"attn_out": "attention_bias", "mlp_out": "mlp_bias"},
    "qwen3": {"attn_out": "attention_bias"},
    "qwen3_vl_text": {"attn_out": "attention_bias"},
    "qwen3_vl_moe_text": {"attn_out": "attention_bias"},
    "qwen3_5_text": {"attn_out": "attention_bias"},
    "qwen3_5_moe_text": {"attn_out": "attention_bias"},
}


@dataclass(frozen=True)
class Retype:
    """A type of text model that computes the same.

    config, model   its classes
    switches        that must be on for what the old type has without being asked
    same            whether this configuration of the old type computes the same
    """

    config: Any
    model: Any
    switches: tuple[str, ...]
    same: Callable[[Any], bool]


RETYPED: Mapping[str, Retype] = {
    "qwen2": Retype(LlamaConfig, LlamaForCausalLM, ("attention_bias",), lambda old: set(old.layer_types) == {"full_attention"}),
    "mistral": Retype(LlamaConfig, LlamaForCausalLM, (), lambda old: old.sliding_window is None),
}


@dataclass(frozen=True, eq=False)
class Form:
    """How a checkpoint is written.

    config      its configuration
    kind        class of the model
    switched    switches that were turned on
    retyped     "qwen2 as llama" where the text model changed its type, else empty
    """

    config: Any
    kind: Any
    switched: tuple[str, ...] = ()
    retyped: str = ""

    def built(self) -> Any:
        """The model with parameters that hold nothing."""
        with torch.device("meta"):
            return self.kind(copy.deepcopy(self.config))


def new_biases(lens: LensModel, sites: Sequence[Site]) -> list[Site]:
    """Sites whose projection has no bias so far."""
    return [site for site in sites if linear(lens, site).bias is None]


def form_for(lens: LensModel, biased: Sequence[Site]) -> Form | None:
    """How the model is written so that these sites keep a new bias; None where no way does."""
    wanted = {f"{projection_path(lens, site)}.bias" for site in biased}
    return next((form for form in _forms(lens, biased) if wanted <= set(form.built().state_dict())), None)


def _forms(lens: LensModel, biased: Sequence[Site]) -> Iterator[Form]:
    """From the least change to the largest."""
    model: Any = lens.model
    plain = Form(model.config, type(model))
    yield plain
    text = plain.config.get_text_config()
    names = sorted({site.name for site in biased})
    switches = BIASED.get(text.model_type, {})
    if set(names) <= set(switches):
        yield _switched(copy.deepcopy(plain.config), plain.kind, [switches[name] for name in names])
    change = RETYPED.get(text.model_type)
    if change is not None and change.same(text):
        yield _retyped(plain, change, names)


def _switched(config: Any, kind: Any, switches: Sequence[str], retyped: str = "") -> Form:
    for switch in switches:
        setattr(config.get_text_config(), switch, True)
    return Form(config, kind, tuple(switches), retyped)


def _retyped(plain: Form, change: Retype, names: Sequence[str]) -> Form:
    """The text model as another type: on its own, or inside the model that reads pictures for it."""
    config = copy.deepcopy(plain.config)
    old = config.get_text_config()
    told = old.to_dict()
    text = change.config(
        **{name: told[name] for name in change.config().to_dict() if name in told and name not in ("model_type", "architectures")}
    )
    switches = dict.fromkeys([*change.switches, *(BIASED[text.model_type][name] for name in names)])
    retyped = f"{old.model_type} as {text.model_type}"
    if old is config:
        return _switched(text, change.model, list(switches), retyped)
    config.text_config = text
    return _switched(config, plain.kind, list(switches), retyped)
