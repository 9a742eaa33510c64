"""load()'s options: where the weights go, adapters in place, quantized weights, offline, chat-template arguments, code from a checkpoint."""

import importlib.util
import json
import logging
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from thoughtlens.hooks import FAMILIES, LensModel, Prompt, Site, encode, load, wrap
from thoughtlens.hooks.attach import out_projection, site_width, watch
from tiny import tiny_folder, tiny_lens, tiny_prompts
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from zoo import FAMILIES_TINY, fill, zoo_folder, zoo_lens, zoo_model, zoo_prompts
from zoo_processors import zoo_processor


def everything(lens: LensModel, prompts: list[Prompt] | None = None) -> dict[str, Tensor]:
    """All sites of one forward of a few prompts, and the end."""
    found: dict[str, Tensor] = {}
    sites = lens.expand(["resid_pre", "attn_out", "mlp_out", "resid_post", "head_out"])
    handles = [watch(lens, site, lambda site, hidden: found.__setitem__(str(site), hidden.clone())) for site in sites]
    batch = encode(lens, prompts or tiny_prompts(3, images=(1, 0, 1)))
    with torch.no_grad():
        found["end"] = lens.inner(**batch.inputs, use_cache=False).last_hidden_state
    for handle in handles:
        handle.remove()
    return found


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with weights that matter, written by PEFT for the tiny model."""
    torch.manual_seed(0)
    base: Any = AutoModelForImageTextToText.from_pretrained(tiny_folder("words"), dtype=torch.float32)
    config = LoraConfig(r=2, target_modules=r".*language_model.*(o_proj|down_proj|q_proj)", init_lora_weights=False)
    folder = tmp_path_factory.mktemp("adapters") / "think-lora"
    get_peft_model(base, config).save_pretrained(str(folder))
    return folder


# every family


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_every_family_loads_from_its_folder(name: str) -> None:
    lens = zoo_lens(name)
    assert (lens.name, lens.width, lens.family) == (f"tiny-{name}", 32, FAMILIES[name])
    assert lens.model.config.model_type == name and lens.n_layers == lens.text_config.num_hidden_layers == len(lens.blocks)
    assert (lens.frame.image_token_id is None) == (FAMILIES[name].image_token is None)
    assert lens.markers.eos_ids == (lens.tokenizer.eos_token_id,) and lens.dialect.name == "think"
    assert encode(lens, zoo_prompts(name, 1)).ids


# placing


def test_a_model_spread_over_memory_and_disk_equals_the_plain_one() -> None:
    places = {
        "model.visual": "cpu",
        "model.language_model.embed_tokens": "disk",
        "model.language_model.layers.0": "cpu",
        "model.language_model.layers.1": "disk",
        "model.language_model.layers.2": "disk",
        "model.language_model.norm": "cpu",
        "model.language_model.rotary_emb": "cpu",
        "lm_head": "disk",
    }
    lens = load(tiny_folder("words"), device_map=places, dtype=torch.float32)
    assert lens.model.get_input_embeddings().weight.device.type == "meta" and lens.device == torch.device("cpu")
    assert lens.fingerprint == tiny_lens("words").fingerprint
    assert equal(everything(lens), everything(tiny_lens("words")))


def test_a_device_map_by_name_is_passed_on() -> None:
    lens = load(tiny_folder("words"), device_map="cpu", dtype=torch.float32)
    assert lens.device == torch.device("cpu") and equal(everything(lens), everything(tiny_lens("words")))


def test_the_attention_implementation_is_chosen_and_agrees() -> None:
    eager, sdpa = (load(tiny_folder("words"), attention=kind) for kind in ("eager", "sdpa"))
    assert (eager.text_config._attn_implementation, sdpa.text_config._attn_implementation) == ("eager", "sdpa")
    one, other = everything(eager, tiny_prompts(1)), everything(sdpa, tiny_prompts(1))
    assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)
    with pytest.raises(ValueError, match='attn_implementation="bogus".* is not supported'):
        load(tiny_folder("words"), attention="bogus")


def test_options_that_contradict_or_lack_a_package_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tiny_folder("words")
    with pytest.raises(ValueError, match="device='cpu' and device_map='auto' both say where"):
        load(folder, device="cpu", device_map="auto")
    with pytest.raises(ValueError, match="unknown quantize='2bit'; known are 4bit, 8bit"):
        load(folder, quantize="2bit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="revision='main' names a version of a hub id, and .* is a local folder"):
        load(folder, revision="main")
    find = importlib.util.find_spec
    for package, options, message in (
        ("bitsandbytes", {"quantize": "4bit"}, "quantize='4bit' needs bitsandbytes, which is not installed: pip install bitsandbytes"),
        ("accelerate", {"device_map": "auto"}, "device_map= needs accelerate, .*: pip install accelerate"),
        ("peft", {"adapter": tmp_path}, "adapter= needs peft, .*: pip install peft"),
    ):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, gone=package: None if name == gone else find(name))
        with pytest.raises(ImportError, match=message):
            load(folder, **options)  # type: ignore[arg-type]


# the hub


def test_offline_takes_only_what_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        if name == "someone/cached":
            return str(tiny_folder("words"))
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr("thoughtlens.hooks.checkpoint.snapshot_download", snapshot)
    lens = load("someone/cached", revision="v1", offline=True)
    assert (lens.name, asked["revision"], asked["local_files_only"]) == ("someone/cached", "v1", True)
    assert "consolidated*" in asked["ignore_patterns"]
    with pytest.raises(FileNotFoundError, match="neither a folder here nor in the local hub cache, and offline=True fetches nothing"):
        load("someone/else", offline=True)
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        load("someone/else")
    assert asked["local_files_only"] is False


# adapters


def test_an_adapter_is_put_in_place_and_computes_what_peft_computes(adapter: Path) -> None:
    lens, prompts = load(tiny_folder("words"), adapter=adapter), tiny_prompts(3, images=(1, 0, 1))
    base: Any = AutoModelForImageTextToText.from_pretrained(tiny_folder("words"), dtype=torch.float32)
    theirs: Any = PeftModel.from_pretrained(base, str(adapter)).eval()
    inputs = encode(tiny_lens("words"), prompts).inputs
    with torch.no_grad():
        assert torch.equal(lens.model(**inputs).logits, theirs(**inputs).logits)
    assert not torch.allclose(everything(lens)["end"], everything(tiny_lens("words"))["end"], atol=1e-3)


def test_with_an_adapter_sites_are_where_they_were(adapter: Path) -> None:
    lens = load(tiny_folder("words"), adapter=adapter)
    projection: Any = out_projection(lens, Site("head_out", 1))
    assert not isinstance(projection, nn.Linear) and site_width(lens, Site("head_out", 1)) == 32
    found = everything(lens)
    for layer in range(3):
        project: Any = out_projection(lens, Site("head_out", layer))
        assert torch.equal(project(found[f"head_out.{layer}"].flatten(2)).detach(), found[f"attn_out.{layer}"])


def test_an_adapter_is_part_of_name_and_fingerprint(adapter: Path, tmp_path: Path) -> None:
    plain, lens = tiny_lens("words"), load(tiny_folder("words"), adapter=adapter)
    assert lens.name == "tiny-words-0+think-lora" and lens.fingerprint != plain.fingerprint
    other = tmp_path / "think-lora"
    shutil.copytree(adapter, other)
    assert load(tiny_folder("words"), adapter=other).fingerprint == lens.fingerprint
    weights = load_file(other / "adapter_model.safetensors")
    next(iter(weights.values()))[0] += 1
    save_file(weights, other / "adapter_model.safetensors", metadata={"format": "pt"})
    assert load(tiny_folder("words"), adapter=other).fingerprint != lens.fingerprint


def change_adapter(folder: Path, name: str, shape: tuple[int, ...] | None) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    key = next(key for key in weights if "layers.0.self_attn.o_proj.lora_A" in key)
    old = weights.pop(key)
    weights[key.replace("layers.0", name)] = old if shape is None else torch.zeros(shape)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: change_adapter(f, "layers.0", (2, 77)), "does not fit .*Load it on the base model"),
        (
            lambda f: change_adapter(f, "layers.9", None),
            "does not fit .*: 2 weights have no counterpart, first .*layers.0.self_attn.o_proj",
        ),
        (
            lambda f: (f / "adapter_config.json").write_text(
                json.dumps({**json.loads((f / "adapter_config.json").read_text()), "target_modules": ["nonsense"]})
            ),
            "does not fit .*nonsense.*Load it on the base model",
        ),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "is no PEFT adapter: it lacks adapter_model.safetensors. Give the folder"),
        (lambda f: shutil.rmtree(f), "is no PEFT adapter: it lacks adapter_config.json and adapter_model.safetensors"),
        (
            lambda f: (f / "adapter_model.safetensors").write_bytes((f / "adapter_model.safetensors").read_bytes()[:-5]),
            "is cut short",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(adapter: Path, tmp_path: Path, damage: Any, message: str) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    damage(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(tiny_folder("words"), adapter=copy)


def test_a_peft_model_in_memory_is_unwrapped(adapter: Path) -> None:
    base: Any = AutoModelForImageTextToText.from_pretrained(tiny_folder("words"), dtype=torch.float32)
    lens = wrap(PeftModel.from_pretrained(base, str(adapter)), tiny_lens("words").processor, name="m")
    assert lens.model is base and equal(everything(lens), everything(load(tiny_folder("words"), adapter=adapter)))


# quantized


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_weights_are_near_and_have_a_fingerprint_of_their_own(bits: Any, tmp_path: Path) -> None:
    processor = zoo_processor("llama")
    config = zoo_model("llama", processor).config
    config.update({"hidden_size": 128, "intermediate_size": 256, "head_dim": 32})  # bitsandbytes packs blocks of 64
    model = AutoModelForCausalLM.from_config(config)
    fill(model)
    model.save_pretrained(tmp_path / "wide")
    processor.save_pretrained(tmp_path / "wide")
    plain, lens = load(tmp_path / "wide"), load(tmp_path / "wide", quantize=bits, device="cpu", dtype=torch.float32)
    assert lens.fingerprint != plain.fingerprint and lens.device == torch.device("cpu")
    assert type(out_projection(lens, Site("head_out", 0))) is not nn.Linear and site_width(lens, Site("head_out", 0)) == 128
    one, other = (everything(model, zoo_prompts("llama", 2))["resid_post.0"] for model in (lens, plain))
    assert 0 < (one - other).norm() / other.norm() < 0.5


# the chat template


def test_template_arguments_reach_every_prompt_and_a_misspelt_one_is_refused() -> None:
    lens, plain = load(zoo_folder("qwen3"), template={"enable_thinking": False}), zoo_lens("qwen3")
    prompt = Prompt("a", "open the box")
    closed = [plain.tokenizer.convert_tokens_to_ids(word) for word in ("<think>", "</think>")]
    assert encode(lens, [prompt]).ids[0] == [*encode(plain, [prompt]).ids[0], *closed]
    assert lens.template == {"enable_thinking": False} and plain.template == {} and not lens.opened
    with pytest.raises(ValueError, match="chat template of tiny-qwen3 does not read 'enable_thinkin', so .* would change nothing"):
        load(zoo_folder("qwen3"), template={"enable_thinkin": False})
    assert wrap(plain.model, plain.processor, name="m", template={"enable_thinking": True}, sha="-").template == {"enable_thinking": True}


# code that comes with a checkpoint


def test_code_of_a_checkpoint_runs_only_when_asked_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(zoo_folder("llama"), tmp_path / "own"))
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto, "architectures": ["OwnForCausalLM"]}))
    (folder / "configuration_own.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\n\nfrom .configuration_own import OwnConfig\n\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load(folder)
    with pytest.raises(ValueError, match="no entry for the architecture 'own'"):
        load(folder, trust_remote_code=True)
    with caplog.at_level(logging.WARNING):
        lens = load(folder, trust_remote_code=True, family=FAMILIES["llama"])
    assert "trust_remote_code=True runs Python code that comes with the checkpoint" in caplog.text
    assert type(lens.model).__name__ == "OwnForCausalLM" and sys.modules[type(lens.model).__module__].__file__
    prompts = zoo_prompts("llama", 2)
    assert equal(everything(lens, prompts), everything(zoo_lens("llama"), prompts))


def test_code_that_was_not_asked_for_does_not_choose_the_class_either(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo_folder("qwen2_5_vl"), tmp_path / "own"))
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
    assert type(load(folder).model) is type(zoo_lens("qwen2_5_vl").model)


@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl"])
def test_a_known_family_may_bring_a_tokenizer_of_its_own(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo_folder(name), tmp_path / "own"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenization_own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n\n\nclass OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    assert type(load(folder, trust_remote_code=True).tokenizer).__name__ == "OwnTokenizer"


@pytest.mark.parametrize("argument", ["messages", "conversation", "add_generation_prompt", "tools", "tokenize", "return_dict", "bos_token"])
def test_names_that_every_call_sets_are_no_template_arguments(argument: str) -> None:
    with pytest.raises(ValueError, match=f"such as enable_thinking, and '{argument}' is set by every call. Leave it out"):
        load(zoo_folder("llama"), template={argument: False})


DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}",
    "{% set today = strftime_now('%d %b %Y') %}",
)


def test_a_template_that_writes_the_date_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    plain, processor = zoo_lens("llama"), deepcopy(zoo_lens("llama").processor)

    def said(template: str, **given: str) -> str:
        processor.chat_template = template + plain.processor.chat_template
        caplog.clear()
        wrap(plain.model, processor, name="m", sha="-", template=given, dialect="none")
        return caplog.text

    assert not said("")
    assert "writes today's date into every prompt" in said(DATED[0]) and 'Pass template={"date_string": "…"}' in caplog.text
    assert not said(DATED[0], date_string="26 Jul 2024")
    assert "No argument of the template holds it fast" in said(DATED[1])
