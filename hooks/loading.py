"""Weights into memory: on one device or spread over several, quantized, with an adapter in place. The rest of load() is in model.py."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig

from .families import Family

log = logging.getLogger(__name__)

QUANTIZE: dict[str, Mapping[str, Any]] = {
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "8bit": {"load_in_8bit": True},
}


def check_options(device: object, device_map: object, quantize: str | None, adapter: object) -> None:
    """ValueError for options that contradict each other, ImportError for one whose package is not installed."""
    if device is not None and device_map is not None:
        raise ValueError(f"device={str(device)!r} and device_map={device_map!r} both say where the model goes. Pass one of them.")
    if quantize is not None and quantize not in QUANTIZE:
        raise ValueError(f"unknown quantize={quantize!r}; known are {', '.join(QUANTIZE)}")
    wanted = {
        "peft": (adapter is not None, "adapter="),
        "bitsandbytes": (quantize is not None, f"quantize={quantize!r}"),
        "accelerate": (quantize is not None or device_map is not None, "device_map=" if quantize is None else f"quantize={quantize!r}"),
    }
    for package, (needed, asked) in wanted.items():
        if needed and importlib.util.find_spec(package) is None:
            raise ImportError(f"{asked} needs {package}, which is not installed: pip install {package}")


def load_weights(
    folder: Path,
    config: Any,
    family: Family,
    *,
    place: torch.device,
    dtype: torch.dtype | None,
    device_map: str | Mapping[str, Any] | None,
    attention: str | None,
    adapter: Path | None,
    quantize: str | None,
    trust_remote_code: bool,
) -> Any:
    """The model saved in `folder`. ValueError when weights are missing or do not fit, of the checkpoint or of the adapter."""
    # bitsandbytes packs the weights on the device they are loaded to; such a model is not moved afterwards
    spread = {"": place} if device_map is None and quantize is not None else device_map
    auto: Any = _auto_class(config, family, trust_remote_code)
    model, report = auto.from_pretrained(
        folder,
        dtype=dtype or (torch.float32 if place.type == "cpu" and device_map is None else "auto"),
        device_map=spread,
        attn_implementation=attention,
        quantization_config=_quantization(quantize, dtype),
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if lost := sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"])):
        raise ValueError(
            f"{folder} has no fitting weights for {len(lost)} parameters, first {lost[0]!r}: they would be random. "
            "Save the whole model again."
        )
    if extra := sorted(report["unexpected_keys"]):
        log.warning("%s: %d weights have no place in this architecture and are not used, first %r", folder, len(extra), extra[0])
    model = model.to(place) if spread is None else model
    if adapter is not None:
        _put_in(model, adapter, folder)
    return model


def without_peft(model: Any) -> Any:
    """The transformers model inside a PeftModel (who holds one has imported peft), else the model itself."""
    peft: Any = sys.modules.get("peft")
    return model.get_base_model() if peft is not None and isinstance(model, peft.PeftModel) else model


def _auto_class(config: Any, family: Family, trust_remote_code: bool) -> Any:
    """The class that loads a model with its output head, as the checkpoint's own code names it where it brings some that may run."""
    usual: Any = AutoModelForCausalLM if family.image_token is None else AutoModelForImageTextToText
    brought: Mapping[str, str] = config.to_dict().get("auto_map", {}) if trust_remote_code else {}
    choices: tuple[Any, ...] = (usual, AutoModelForCausalLM, AutoModel)
    return next((kind for kind in choices if kind.__name__ in brought), usual)


def _quantization(quantize: str | None, dtype: torch.dtype | None) -> Any:
    if quantize is None:
        return None
    kind: Any = BitsAndBytesConfig
    return kind(**QUANTIZE[quantize], bnb_4bit_compute_dtype=dtype or torch.bfloat16)


def _put_in(model: Any, adapter: Path, folder: Path) -> None:
    """Load a PEFT adapter into the model's own layers, so that paths stay as they are."""
    try:
        report = model.load_adapter(str(adapter))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"the adapter {adapter} does not fit {folder}: {error} Load it on the base model it was trained from.") from error
    if strange := sorted(str(key) for key in (*report.missing_keys, *report.unexpected_keys, *report.mismatched_keys)):
        raise ValueError(
            f"the adapter {adapter} does not fit {folder}: {len(strange)} weights have no counterpart, first {strange[0]!r}. "
            "Load it on the base model it was trained from."
        )
