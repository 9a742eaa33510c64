"""Loading a model and the facts about it that everything else leans on.

load() refuses a damaged checkpoint, an architecture without an entry, weights that would be left random, and a model whose layers do
not behave as the entry says: each layer must fire once in a small forward and return a tensor of the model's width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from .checkpoint import find_checkpoint, fingerprint, weight_files
from .dialects import Dialect, Markers, bind
from .encode import Batch, Side, encode, kinds_of, messages
from .families import Family, family_of
from .frame import Frame, find_frame
from .processors import load_processor
from .records import Prompt

if TYPE_CHECKING:
    from .steer import Steering

__all__ = ["Batch", "LensModel", "Side", "encode", "kinds_of", "load", "wrap"]

log = logging.getLogger(__name__)


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
    fingerprint   sha256 over configuration and weights
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
    def width(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def n_heads(self) -> int:
        return int(self.model.config.get_text_config().num_attention_heads)

    @property
    def context(self) -> int:
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

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
    dialect: Dialect | str | None = None,
    family: Family | None = None,
    trust_remote_code: bool = False,
) -> LensModel:
    """Load a checkpoint from a folder or the hub.

    device    default: cuda if there is one, else cpu
    dtype     default: float32 on the CPU, the checkpoint's own elsewhere
    dialect   default: "think" if the tokenizer can write it, else "none"
    family    architecture facts for a model without an entry
    """
    folder = find_checkpoint(path, revision)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    family = family or family_of(config)
    files = weight_files(folder)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    processor = load_processor(folder, config.model_type, trust_remote_code)
    auto: Any = AutoModelForImageTextToText
    model, report = auto.from_pretrained(
        folder,
        dtype=dtype or (torch.float32 if place.type == "cpu" else "auto"),
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        lost = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
        raise ValueError(
            f"{folder} has no fitting weights for {len(lost)} parameters, first {lost[0]!r}: they would be random. "
            "Save the whole model again."
        )
    if report["unexpected_keys"]:
        extra = sorted(report["unexpected_keys"])
        log.warning("%s: %d weights have no place in this architecture and are not used, first %r", folder, len(extra), extra[0])
    name = folder.resolve().name if Path(path).is_dir() else str(path)
    return wrap(model.to(place), processor, name=name, path=folder, dialect=dialect, family=family, sha=fingerprint(folder, files))


def wrap(
    model: PreTrainedModel,
    processor: Any,
    *,
    name: str,
    path: Path | None = None,
    dialect: Dialect | str | None = None,
    family: Family | None = None,
    sha: str | None = None,
) -> LensModel:
    """A LensModel around a model already in memory, checked like a loaded one. `sha` left out: computed from the weights."""
    family = family or family_of(model.config)
    tokenizer = processor.tokenizer
    eos = model.generation_config.eos_token_id if model.generation_config is not None else None
    eos = tokenizer.eos_token_id if eos is None else eos
    if eos is None:
        raise ValueError(f"{name} names no end token, in its generation config or its tokenizer. Set model.generation_config.eos_token_id.")
    markers = _markers(dialect, tokenizer, eos if isinstance(eos, list) else [eos])
    frame = find_frame(_renderer(processor), _two_words(tokenizer), int(getattr(model.config, family.image_token)))
    model.train(False)
    lens = LensModel(model, processor, tokenizer, family, markers.dialect, markers, frame, name, path, sha or _sha(model))
    _check(lens)
    return lens


def _markers(dialect: Dialect | str | None, tokenizer: Any, eos_ids: Sequence[int]) -> Markers:
    if dialect is not None:
        return bind(dialect, tokenizer, eos_ids)
    try:
        return bind("think", tokenizer, eos_ids)
    except ValueError:
        return bind("none", tokenizer, eos_ids)


def _renderer(processor: Any) -> Any:
    bos = processor.tokenizer.bos_token

    def render(text: str, pictures: int, system: str | None) -> list[int]:
        asked = messages(Prompt("sentinel", text, system=system), [None] * pictures)
        rendered = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        special = bos is None or not rendered.startswith(bos)
        ids: list[int] = processor.tokenizer(rendered, add_special_tokens=special)["input_ids"]
        return ids

    return render


def _two_words(tokenizer: Any) -> tuple[str, str]:
    """Two plain words of the vocabulary, one token each, that begin and end with different letters."""
    special = set(tokenizer.all_special_ids)
    first = ""
    for i in range(len(tokenizer)):
        word = "" if i in special else tokenizer.decode([i]).strip()
        if not (word.isascii() and word.isalpha() and len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1):
            continue
        if not first:
            first = word
        elif word[0] != first[0] and word[-1] != first[-1]:
            return first, word
    raise ValueError(
        "the tokenizer has no two plain words to find the chat template's own tokens with. Check that it was saved with its vocabulary."
    )


def _sha(model: PreTrainedModel) -> str:
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(
            f"{key} {value.dtype} {tuple(value.shape)}".encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


@torch.no_grad()
def _check(lens: LensModel) -> None:
    config = lens.model.config.get_text_config()
    for path in (lens.family.layers, lens.family.inner):
        try:
            lens.model.get_submodule(path)
        except AttributeError as error:
            raise ValueError(
                f"{lens.name}: the family entry names {path!r}, which the model does not have. "
                "Correct the entry; print(model) shows the paths."
            ) from error
    if lens.n_layers != config.num_hidden_layers:
        raise ValueError(
            f"{lens.name}: {lens.n_layers} layers at {lens.family.layers!r}, the configuration says {config.num_hidden_layers}. "
            "Correct the family entry."
        )
    for path in (lens.family.attention, lens.family.mlp, f"{lens.family.attention}.{lens.family.out}"):
        for number, layer in enumerate(lens.layers):
            try:
                layer.get_submodule(path)
            except AttributeError as error:
                raise ValueError(
                    f"{lens.name}: layer {number} has no {path!r}, which the family entry names. Correct the entry."
                ) from error
    ids = torch.tensor([[*lens.frame.lead, *lens.frame.tail][-8:]], device=lens.device)
    fired: list[tuple[int, Any]] = []
    handles = [
        layer.register_forward_hook(lambda _module, _args, output, number=number: fired.append((number, output)))
        for number, layer in enumerate(lens.layers)
    ]
    try:
        lens.inner(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if [number for number, _ in fired] != list(range(lens.n_layers)):
        raise ValueError(
            f"{lens.name}: in one forward the layers fired as {[n for n, _ in fired]}, expected each once in order. "
            f"Correct {lens.family.layers!r}."
        )
    wanted = (1, ids.shape[1], lens.width)
    for number, output in fired:
        if not isinstance(output, Tensor) or tuple(output.shape) != wanted:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"{lens.name}: layer {number} returned {shape}, expected a tensor {wanted}. This architecture needs an entry of its own."
            )
