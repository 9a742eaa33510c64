"""How an export is used, by target: what goes into its card. Commands are those of the stack itself.

`{folder}` stands for the export, `{model}` for the model it belongs to, `{auto}` for the class of transformers that loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import LensModel
    from .exporting import Exported

LORA = """\
```python
from peft import PeftModel
from transformers import {auto}

base = {auto}.from_pretrained("{model}")
model = PeftModel.from_pretrained(base, "{folder}")
```

or `thoughtlens.load("{model}", adapter="{folder}")`.
"""

MERGED = """\
```python
from transformers import {auto}

model = {auto}.from_pretrained("{folder}", dtype="{dtype}")
```

Tokenizer, processor and chat template are in the same folder.
"""

GGUF = """\
```
llama-server -m MODEL.gguf --control-vector {folder}/steering.gguf
```

MODEL.gguf is this model as llama.cpp's convert_hf_to_gguf.py writes it. The strength is in the file: scale 1, as above. Where llama.cpp
cannot read a control vector it logs an error and goes on unsteered, so look at its log.
"""

EASYSTEER = """\
```
vllm serve {model} --enable-steer-vector --steer-algorithms direct
```

`steering_spec.json` is the value of the field `steering` in the body of a request, or of `--steering-config`. Its `source` is a path on the
machine that serves: start there in this folder, or write the whole path. The strength is in the file: scale 1.
"""

VLLM_LENS = """\
```python
import json

vectors = json.load(open("{folder}/steering_vectors.json"))
body = {{"model": "{model}", "messages": [...], "vllm_xargs": {{"apply_steering_vectors": json.dumps(vectors)}}}}
```

for `/v1/chat/completions` of a server with vllm-lens; without a server, `SamplingParams(extra_args={{"apply_steering_vectors": vectors}})`.
`activations.safetensors` holds the same tensors. The strength is in them.
"""

USAGE: Mapping[str, str] = MappingProxyType({"lora": LORA, "merged": MERGED, "gguf": GGUF, "easysteer": EASYSTEER, "vllm-lens": VLLM_LENS})


def usage(lens: LensModel, exported: Exported) -> str:
    """How to use an export, as Markdown."""
    auto = "AutoModelForCausalLM" if lens.family.image_token is None else "AutoModelForImageTextToText"
    facts = {"folder": exported.path.name, "model": lens.name, "auto": auto, "dtype": str(lens.dtype).removeprefix("torch.")}
    return USAGE[exported.target].format(**facts)


def limits(exported: Exported) -> list[str]:
    """What whoever uses an export must know, one sentence each."""
    facts = exported.facts
    return [sentence for about, holds, sentence in _LIMITS if about == exported.target and holds(facts)]


def _always(_: Mapping[str, Any]) -> bool:
    return True


_LIMITS = (
    (
        "lora",
        lambda facts: facts["lora_bias"],
        "The adapter has biases (PEFT's lora_bias) and is for PEFT and transformers: vLLM refuses it, and so does llama.cpp's converter.",
    ),
    (
        "lora",
        lambda facts: not facts["mergeable"],
        "It cannot be merged with merge_and_unload: the base has no bias that these could be added to.",
    ),
    (
        "lora",
        lambda facts: not facts["lora_bias"],
        "The adapter has no bias, so it can be merged, and read by other engines that read LoRA.",
    ),
    (
        "merged",
        lambda facts: bool(facts["retyped"]),
        "The text model changed its type ({retyped}), which computes the same: its biases would be dropped on reload otherwise. Whatever "
        "goes by the type takes it for the new one.",
    ),
    ("merged", _always, "Weights are written in {dtype}, the dtype the model was loaded in, and rounded once."),
    ("gguf", _always, "llama.cpp adds it to every token of every request of the server; it cannot be set by request."),
    (
        "easysteer",
        _always,
        "The specification is that of EasySteer's current engine; older ones took other field names and refuse this one.",
    ),
    ("vllm-lens", _always, "vLLM-Lens adds it to every token of the requests that carry it, in the dtype of its model."),
)
