"""Loading a model and the facts about it that everything else leans on.

load() refuses a damaged checkpoint, an architecture without an entry, weights that would be left random, and a model whose layers do
not behave as the entry says (selfcheck.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from .checkpoint import find_adapter, find_checkpoint, fingerprint, weight_files
from .dialects import Dialect, Markers, choose
from .encode import Batch, Side, encode, kinds_of
from .families import Block, Family, blocks_of, family_of
from .frame import Frame, ends_replies, find_frame
from .loading import check_options, load_weights, without_peft
from .processors import load_processor, tokenizer_of, unmergeable
from .selfcheck import check
from .sites import Site, expand

if TYPE_CHECKING:
    from .steer import Steering

__all__ = ["Batch", "LensModel", "Side", "encode", "kinds_of", "load", "wrap"]

log = logging.getLogger(__name__)

_CACHED = re.compile(r"models--([^/]+)/snapshots/[^/]+")  # a snapshot in the cache of the hub
_RESERVED = (  # what the template is called with anyway, and what decides the kind of its result
    "messages conversation chat_template add_generation_prompt continue_final_message tools documents "
    "tokenize return_dict return_tensors bos_token eos_token"
).split()


@dataclass(eq=False)
class LensModel:
    """A model ready to be read and steered.

    model         the transformers model, in eval mode
    processor     chat template, tokenizer and pictures
    family        architecture facts
    dialect       how it writes its thought; markers: the same as token ids
    frame         its chat template as token ids
    name          folder or hub name, as it appears in tables
    path          folder it was loaded from; None for a model made in memory
    fingerprint   sha256 over configuration and weights, and adapter if there is one
    template      arguments of the chat template, such as {"enable_thinking": False}
    steering      what steer() has installed, if it is active
    """

    model: PreTrainedModel
    processor: Any
    tokenizer: Any
    family: Family
    dialect: Dialect
    markers: Markers
    frame: Frame
    name: str
    path: Path | None
    fingerprint: str
    template: Mapping[str, Any] = field(default_factory=dict)
    steering: Steering | None = None

    @property
    def layers(self) -> nn.ModuleList:
        found = self.model.get_submodule(self.family.layers)
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def inner(self) -> nn.Module:
        """The model without its output head."""
        return self.model.get_submodule(self.family.inner)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def text_config(self) -> Any:
        """The configuration of the decoder."""
        return self.model.config.get_text_config()

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """What each layer is made of."""
        return blocks_of(self.family, self.text_config)

    def expand(self, asked: str | Site | Iterable[str | Site]) -> list[Site]:
        """The sites meant, each once, in the order asked; a name alone means every layer that has it. ValueError for one not here."""
        return expand(asked, self.n_layers, [block.site for block in self.blocks])

    @property
    def outputs(self) -> list[Site]:
        """Every site whose value is added to the residual stream: attention and MLP of each layer."""
        return [Site(name, layer) for layer, block in enumerate(self.blocks) for name in (block.site, "mlp_out")]

    @property
    def deepstack(self) -> range:
        """Layers after which visual features are added at image tokens."""
        return range(len(attrgetter(self.family.deepstack)(self.model.config)) if self.family.deepstack else 0)

    @property
    def width(self) -> int:
        return int(self.text_config.hidden_size)

    @property
    def context(self) -> int:
        return int(self.text_config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embeddings, or where they run if they are offloaded."""
        embeddings: Any = self.model.get_input_embeddings()
        held = embeddings.weight.device
        return torch.device(embeddings._hf_hook.execution_device) if held.type == "meta" else held

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @cached_property
    def tokenizer_sha(self) -> str:
        """sha256 over the vocabulary with its ids."""
        return hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()

    @property
    def template_sha(self) -> str:
        """sha256 over the text of the chat template."""
        return hashlib.sha256(str(self.processor.chat_template).encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.markers.eos_ids[0] if pad is None else pad)

    @property
    def opened(self) -> bool:
        """Whether the chat template itself writes the opener of the thought."""
        return self.frame.opened(self.markers)


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    attention: str | None = None,
    adapter: str | Path | None = None,
    quantize: Literal["4bit", "8bit"] | None = None,
    offline: bool = False,
    dialect: Dialect | str | None = None,
    family: Family | None = None,
    template: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> LensModel:
    """Load a checkpoint from a folder or the hub.

    device       default: cuda if there is one, else cpu
    dtype        default: float32 on the CPU, the checkpoint's own elsewhere and with a device_map
    revision     of a hub id: branch, tag or commit
    device_map   instead of device: spread the layers over devices, "auto" or module path -> device (needs accelerate)
    attention    attention implementation of transformers: "eager", "sdpa", "flash_attention_2"; default: transformers' choice
    adapter      folder of a PEFT adapter, put into the model in place (needs peft)
    quantize     "4bit" or "8bit" weights (needs bitsandbytes)
    offline      fetch nothing
    dialect      default: by the checkpoint's name, else "think" if the tokenizer can write it, else "none"
    family       architecture facts for a model without an entry
    template     arguments of the chat template, such as {"enable_thinking": False}
    """
    check_options(device, device_map, quantize, adapter)
    folder = find_checkpoint(path, revision, offline=offline)
    if trust_remote_code:
        log.warning("%s: trust_remote_code=True runs Python code that comes with the checkpoint, with all your rights", path)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    family = family or family_of(config)
    files = weight_files(folder)
    patch = None if adapter is None else find_adapter(adapter)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    processor = load_processor(folder, config.model_type, trust_remote_code)
    name = _name(path)
    model = load_weights(
        folder,
        config,
        family,
        place=place,
        dtype=dtype,
        device_map=device_map,
        attention=attention,
        adapter=patch,
        quantize=quantize,
        trust_remote_code=trust_remote_code,
    )
    if patch is not None:
        name = f"{name}+{patch.resolve().name}"
    sha = fingerprint(folder, files, adapter=patch, quantize=quantize)
    return wrap(model, processor, name=name, path=folder, dialect=dialect, family=family, template=template, sha=sha)


def wrap(
    model: Any,
    processor: Any,
    *,
    name: str,
    path: Path | None = None,
    dialect: Dialect | str | None = None,
    family: Family | None = None,
    template: Mapping[str, Any] | None = None,
    sha: str | None = None,
) -> LensModel:
    """A LensModel around a model already in memory, checked like a loaded one.

    model       a model of transformers, or a PeftModel, whose base model is taken with the adapter in it
    processor   its processor, or the tokenizer of a model without pictures
    sha         its fingerprint; left out, computed from the weights
    """
    model = without_peft(model)
    family = family or family_of(model.config)
    tokenizer = tokenizer_of(processor)
    template = _checked(template or {}, processor, name)
    image_token = None if family.image_token is None else int(getattr(model.config, family.image_token))
    frame = find_frame(processor, image_token, template)
    known = [name] if path is None else [name, str(path), str(path.resolve())]
    markers = choose(
        model.config.model_type, " ".join(dict.fromkeys(known)), tokenizer, _ends(model, processor, frame, template, name), dialect
    )
    model.train(False)
    lens = LensModel(model, processor, tokenizer, family, markers.dialect, markers, frame, name, path, sha or _sha(model), template)
    check(lens)
    return lens


def _name(path: str | Path) -> str:
    """As given: the folder's own name, not that of what a link points to; the hub id, also of a snapshot in the hub's cache."""
    if not Path(path).is_dir():
        return str(path)
    given = Path(os.path.abspath(path))
    cached = _CACHED.fullmatch("/".join(given.parts[-3:]))
    return cached[1].replace("--", "/") if cached else given.name


def _ends(model: Any, processor: Any, frame: Frame, template: Mapping[str, Any], name: str) -> list[int]:
    """The end tokens: of the generation config, of the tokenizer, and the one the template ends turns with."""
    tokenizer = tokenizer_of(processor)
    told = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = [*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id]
    ends = [int(end) for end in dict.fromkeys(ends) if end is not None]
    if not ends:
        raise ValueError(f"{name} names no end token, in its generation config or its tokenizer. Set model.generation_config.eos_token_id.")
    behind = frame.tail[0] if frame.tail else ends[0]
    if behind in ends or behind not in unmergeable(tokenizer):
        return ends
    token, ending = tokenizer.convert_ids_to_tokens(behind), ends_replies(processor, frame, template)
    if ending:
        log.warning("%s: its chat template ends turns with %r, which its generation config does not name; it counts as an end", name, token)
        return [*ends, behind]
    if ending is None:
        log.warning(
            "%s: its chat template writes %r behind the user's words, and cannot say whether the model ends with it too. If it does, "
            "add it to model.generation_config.eos_token_id.",
            name,
            token,
        )
    return ends


def _checked(template: Mapping[str, Any], processor: Any, name: str) -> dict[str, Any]:
    """The template's arguments. ValueError for one that is not the caller's to give, or that the template does not read: jinja would
    pass over it in silence. A warning for a template that writes today's date."""
    if taken := [key for key in template if key in _RESERVED]:
        raise ValueError(
            f"template= gives arguments of the chat template's own, such as enable_thinking, and {taken[0]!r} is set by every call. "
            "Leave it out."
        )
    if strange := [key for key in template if not re.search(rf"\b{re.escape(key)}\b", str(processor.chat_template))]:
        raise ValueError(
            f"the chat template of {name} does not read {strange[0]!r}, so template={dict(template)} would change nothing. "
            "Check the spelling; the template is in lens.processor.chat_template."
        )
    _warn_of_date(template, str(processor.chat_template), name)
    return dict(template)


def _warn_of_date(template: Mapping[str, Any], written: str, name: str) -> None:
    if "strftime_now" not in written:
        return
    named = re.search(r"set\s+(\w+)\s*=\s*strftime_now", written)
    argument = named[1] if named and re.search(rf"\b{named[1]}\s+is\s+(not\s+)?defined", written) else None
    if argument in template:
        return
    way = f'Pass template={{"{argument}": "…"}} to hold it fast' if argument else "No argument of the template holds it fast"
    log.warning(
        "%s: its chat template writes today's date into every prompt, so that on another day the same prompt is other tokens. %s.",
        name,
        way,
    )


def _sha(model: PreTrainedModel) -> str:
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for key, value in sorted(model.state_dict().items()):
        if value.is_meta:
            raise ValueError(f"{key} is not in memory (device meta), so the weights cannot be hashed. Pass their fingerprint as sha=.")
        payload = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode() + payload)
    return digest.hexdigest()
