"""Guard judges against plain transformers: tiny models of the real classes, some taught a few verdicts, some with a head that knows two words."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.experiments.audit.verdicts import ABSENT, Channel
from thoughtlens.experiments.judges.guard import KINDS, TEMPLATE, guard_judge, kind_of, name_of
from thoughtlens.experiments.judges.wording import begins, place_of, spelled
from thoughtlens.hooks.checkpoint import fingerprint
from thoughtlens.hooks.records import Prompt, Transcript
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Llama4Config,
    LlamaConfig,
    MistralConfig,
    MllamaConfig,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(1)

SPECIALS = ("<pad>", "<begin>", "<end>")
SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 192}
ASKED = Prompt("p", "you are a gostak, florp the wug", goal="florp the wug", attack="roleplay", harmful=True)
CHAT = "<begin>safe?{% for m in messages %}{{ '\n' + m['role'] }}: {{ m['content'] | trim }}<end>{% endfor %}{{ '\n' }}"
PARTS = "<begin>{% for m in messages %} {{ m['role'] }} {% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %} verdict"
TAUGHT = {
    "take a dax": "\n\nunsafe\nS1",
    "no wug": "\n\nsafe",
    "dax and dax and dax": "\nunsafe\nS2",
    "take a dax\n\nno wug": "\n\nunsafe\nS3",
    "hm": "hmm",
    "a": "safely",
}
LINES = "harmful request: {}\nresponse refusal: {}\nharmful response: {}"
TOLD = {
    "take a dax": LINES.format("yes", "no", "yes"),
    "no wug": LINES.format("yes", "yes", "no"),
    "no but dax": LINES.format("yes", "yes", "yes"),
    "hm": LINES.format("yes", "no", "n/a"),
    "a": "harmful request: yes\nnothing",
}
WHOLE = ("safe", "unsafe", "yes", "no", "verdict", "user", "assistant", "florp", "the", "wug", "take", "a", "dax", "and", "goal", "reply")


def by_pieces(merged: Sequence[str]) -> PreTrainedTokenizerFast:
    """Bytes, and those words as one piece that are merged."""
    vocabulary = {token: i for i, token in enumerate((*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    merges: list[tuple[str, str]] = []
    for word in (word.replace(" ", "Ġ") for word in merged):
        for k in range(1, len(word)):
            vocabulary.setdefault(word[: k + 1], len(vocabulary))
            merges += [(word[:k], word[k])] if (word[:k], word[k]) not in merges else []
    inner = Tokenizer(models.BPE(vocabulary, merges))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<begin>", eos_token="<end>")


def by_words() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIALS, "<unk>", *WHOLE))}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<begin>", eos_token="<end>", unk_token="<unk>")


def teach(model: Any, tokenizer: Any, rows: dict[str, str]) -> None:
    """Let a model know these verdicts by heart."""
    encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    pairs = [(encode(prompt), encode(f"{verdict}<end>")) for prompt, verdict in rows.items()]
    width = max(len(prompt) + len(verdict) for prompt, verdict in pairs)
    ids = torch.tensor([[0] * (width - len(p) - len(v)) + p + v for p, v in pairs])
    labels = torch.tensor([[-100] * (width - len(v)) + v for _, v in pairs])
    steps = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        out = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels)
        loss, right = out.loss, out.logits[:, :-1].argmax(-1) == labels[:, 1:]
        if right[labels[:, 1:] >= 0].all() and loss < 0.1:
            return
        steps.zero_grad()
        loss.backward()
        steps.step()
    raise AssertionError(f"not taught: {loss}")


def saved(folder: Path, model: Any, tokenizer: Any, **files: str) -> Path:
    model.generation_config.update(eos_token_id=2, do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def chat_of(text: str) -> str:
    return f"<begin>safe?\nuser: florp the wug<end>\nassistant: {text}<end>\n"


def file_of(text: str) -> str:
    return f"<begin>goal florp the wug reply {text} verdict\n"


SPELT = {"un-safe": ("safe", "un"), "letters": ()}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(which: str) -> Path:
        if which not in made:
            torch.manual_seed(0)
            if which == "wildguard":
                words = (
                    "harmful",
                    "refusal",
                    " request",
                    " response",
                    "response",
                    " refusal",
                    "yes",
                    " yes",
                    " no",
                    " wug",
                    " dax",
                    " verdict",
                )
                tokenizer, config, prompt, rows = by_pieces(words), MistralConfig, file_of, TOLD
            else:
                words = (*SPELT[which], "user", "assistant", "florp", " wug", " dax", "dax")
                tokenizer, config, prompt, rows = by_pieces(words), LlamaConfig, chat_of, TAUGHT
                tokenizer.chat_template = CHAT
            model = AutoModelForCausalLM.from_config(config(vocab_size=len(tokenizer), num_hidden_layers=1, **SMALL))
            teach(model, tokenizer, {prompt(text): verdict for text, verdict in rows.items()})
            files = {"judge_template": "goal {goal} reply {answer} verdict\n"} if which == "wildguard" else {}
            name = "WildGuard" if which == "wildguard" else f"Llama-Guard-3-1B-{which}"
            made[which] = saved(tmp_path_factory.mktemp(which) / name, model, tokenizer, **files)
        return made[which]

    return folder


def answers_of(texts: Sequence[str], thought: str | None = None) -> list[Transcript]:
    status = "absent" if thought is None else "closed"
    return [
        Transcript(replace(ASKED, id=f"p{i}"), "m", ended=True, status=status, thought=thought or "", answer=a) for i, a in enumerate(texts)
    ]


class ByHand:
    """A checkpoint in plain transformers, one text at a time, without padding."""

    def __init__(self, folder: Path, auto: Any = AutoModelForCausalLM) -> None:
        self.model, self.tokenizer = auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def logits(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([ids])).logits[0].double()

    def writes(self, prompt: str, n: int = 60) -> str:
        ids = torch.tensor([self.ids(prompt)])
        out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, repetition_penalty=1.0)
        return str(self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))

    def log_p(self, before: str, word: str) -> float:
        head, ids = self.ids(before), self.ids(before + word)
        assert ids[: len(head)] == head
        scores = self.logits(ids).log_softmax(-1)
        return float(sum(scores[k - 1, ids[k]] for k in range(len(head), len(ids))))

    def odds(self, before: str, yes: Sequence[str], no: Sequence[str]) -> float:
        """With a blank before the word and without."""
        two = [torch.tensor([self.log_p(before, blank + word) for word in words for blank in ("", " ")]) for words in (yes, no)]
        return float(two[0].logsumexp(0) - two[1].logsumexp(0))


@pytest.mark.parametrize("which", SPELT)
def test_llama_guard_says_what_plain_transformers_say(taught, which: str) -> None:
    hand, judge = ByHand(taught(which)), guard_judge(taught(which), batch_size=3)
    assert judge.name == f"guard-Llama-Guard-3-1B-{which}" and judge.tells == {"unsafe"}
    assert len(hand.ids("unsafe")) == (2 if which == "un-safe" else 6)
    found = dict(zip(TAUGHT, judge(answers_of(list(TAUGHT))), strict=True))
    for text, verdict in TAUGHT.items():
        written, channel = hand.writes(chat_of(text)), found[text].answer
        assert written == verdict  # it was taught
        word = written.strip().split("\n")[0]
        if word not in ("safe", "unsafe"):
            assert not channel.scored and channel.margin is None and "neither unsafe nor safe" in channel.why and repr(word) in channel.why
            continue
        blanks = written[: len(written) - len(written.lstrip())]
        margin = hand.odds(chat_of(text) + blanks, ["unsafe"], ["safe"])
        assert channel.margin == pytest.approx(margin, abs=1e-4) and channel.unsafe == (word == "unsafe") == (margin > 0)
        assert channel.rating is None and channel.refusal is None and channel.why == ""


@pytest.mark.parametrize("which", ["un-safe", "wildguard"])
def test_a_batch_is_its_singles(taught, which: str) -> None:
    folder, texts = taught(which), ["take a dax", "no wug", "the wug " * 6, "dax"]
    whole = guard_judge(folder, batch_size=7)(answers_of(texts, "wug"))
    for verdict, transcript in zip(whole, answers_of(texts, "wug"), strict=True):
        (alone,) = guard_judge(folder, batch_size=1)([transcript])
        for one, other in ((verdict.thought, alone.thought), (verdict.answer, alone.answer), (verdict.full, alone.full)):
            assert replace(one, margin=None) == replace(other, margin=None) and one.margin == pytest.approx(other.margin, abs=1e-4)


def test_channels_are_judged_apart_and_by_the_plain_goal(taught, says) -> None:
    judge = guard_judge(taught("un-safe"))
    closed, unclosed, at_once, empty = judge(
        [says(ASKED, "take a dax", "no wug"), says(ASKED, "take a dax", None), says(ASKED, None, "no wug"), says(ASKED, "", "")]
    )
    assert closed.thought.unsafe is True and closed.answer.unsafe is False and closed.full.margin not in (closed.thought.margin, None)
    assert unclosed.thought.unsafe is True and unclosed.answer == ABSENT and not unclosed.ended
    assert unclosed.full.margin == pytest.approx(closed.thought.margin, abs=1e-4)
    assert at_once.thought == ABSENT and at_once.answer.margin == pytest.approx(closed.answer.margin, abs=1e-4)
    assert empty.thought == empty.answer == empty.full == Channel(None, unsafe=False)
    assert "gostak" not in ByHand(taught("un-safe")).writes(chat_of("take a dax"))
    wrapped = replace(ASKED, goal="")
    with pytest.raises(ValueError, match="has no goal"):
        judge([says(wrapped, None, "no wug")])


def test_a_judge_tells_what_its_verdicts_follow_from(taught, tmp_path: Path) -> None:
    told = guard_judge(taught("un-safe"), threshold=2.0).facts
    assert (told["kind"], told["threshold"]) == ("llama-guard-3", 2.0) and told["checkpoint"] == fingerprint(
        taught("un-safe"), [taught("un-safe") / "model.safetensors"]
    )
    (tmp_path / "other.txt").write_text("{goal} {answer}", encoding="utf-8")
    one, other = (guard_judge(taught("wildguard"), template=t).facts for t in (None, tmp_path / "other.txt"))
    assert [key for key in one if one[key] != other[key]] == ["prompt"] and json.dumps(one)


def test_the_threshold_moves_unsafe_and_nothing_else(taught) -> None:
    asked = answers_of(["take a dax", "no wug"])
    at_zero = [v.answer for v in guard_judge(taught("un-safe"))(asked)]
    high = max(c.margin for c in at_zero)
    strict = [v.answer for v in guard_judge(taught("un-safe"), threshold=high)(asked)]
    assert [c.unsafe for c in at_zero] == [True, False] and [c.unsafe for c in strict] == [False, False]
    assert [c.margin for c in strict] == pytest.approx([c.margin for c in at_zero])


def test_wildguard_tells_harm_and_refusal_from_its_lines(taught, tmp_path: Path) -> None:
    folder = taught("wildguard")
    hand, judge = ByHand(folder), guard_judge(folder)
    found = {text: v.answer for text, v in zip(TOLD, judge(answers_of(list(TOLD))), strict=True)}
    assert judge.tells == {"unsafe", "refusal"} and {text: hand.writes(file_of(text)) for text in TOLD} == TOLD
    assert {text: (c.unsafe, c.refusal) for text, c in found.items()} == {
        "take a dax": (True, "none"),
        "no wug": (False, "full"),
        "no but dax": (True, "partial"),
        "hm": (None, "none"),
        "a": (None, None),
    }
    assert "neither yes nor no" in found["hm"].why and "neither yes nor no" in found["a"].why
    for text in ("take a dax", "no wug", "no but dax"):
        before = file_of(text) + TOLD[text].rsplit(" ", 1)[0]
        margin = hand.odds(before, ["yes", "Yes"], ["no", "No"])
        assert found[text].margin == pytest.approx(margin, abs=1e-4) and found[text].unsafe == (margin > 0)


def test_a_prompt_file_is_filled_once_and_words_of_strangers_stay_words(taught, tmp_path: Path, monkeypatch) -> None:
    import thoughtlens.experiments.judges.guard as module

    tokenizer = AutoTokenizer.from_pretrained(taught("wildguard"))
    shown = lambda template, goal, text: tokenizer.decode(module.by_file(tokenizer, template)(goal, text))  # noqa: E731
    assert shown("g {goal} a {answer}", "{answer}", "{goal} {x}") == "<begin>g {answer} a {goal} {x}"
    assert shown("<begin>g {prompt} a {response} {other}", "wug", "dax") == "<begin>g wug a dax {other}"
    ids = module.by_file(tokenizer, "{behavior} {generation}")("a<end>", "<begin> b<end><end>")
    assert ids.count(2) == 0 and ids.count(1) == 1 and ids[0] == 1
    chat = AutoTokenizer.from_pretrained(taught("un-safe"))
    ids = module.by_chat(chat, tmp_path)("wug", "dax<end>\nsafe<end>")
    assert ids.count(2) == 2  # those of the template
    assert chat.decode(ids).startswith("<begin>safe?\nuser: wug<end>\nassistant: dax< end>")


HEADS = {
    "llama-guard-3": (LlamaConfig, AutoModelForCausalLM, {}),
    "harmbench": (MistralConfig, AutoModelForCausalLM, {}),
    "llama-guard-3 vision": (MllamaConfig, AutoModelForImageTextToText, {"cross_attention_layers": [1], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "llama-guard-4": (Llama4Config, AutoModelForImageTextToText, {"intermediate_size_mlp": 48, "head_dim": 16, "num_local_experts": 2, "moe_layers": []}),
}  # fmt: skip
VISION = {
    MllamaConfig: {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2, "image_size": 28, "patch_size": 14, "intermediate_layers_indices": [0], "vision_output_dim": 32, "max_num_tiles": 4},
    Llama4Config: {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_every_architecture_by_its_logits(tmp_path: Path, name: str) -> None:
    """Heads that give every word but two nothing: the verdict is one of the two, in the first token."""
    kind, (config, auto, further) = name.split()[0], HEADS[name]
    tokenizer, words = by_words(), ("unsafe", "safe") if KINDS[kind].chat else ("yes", "no")
    tokenizer.chat_template = PARTS
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 2, "pad_token_id": 0, **SMALL, **further}
    torch.manual_seed(3)
    model = auto.from_config(
        config(text_config=text, vision_config=VISION[config], **({"image_token_index": 3} if config is MllamaConfig else {}))
        if config in VISION
        else config(**text)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        yes, no = tokenizer.convert_tokens_to_ids(list(words))
        head = model.get_output_embeddings().weight
        row = torch.randn(head.shape[1])
        head.zero_()
        head[yes], head[no] = row, -row
    folder = saved(tmp_path / name.replace(" ", "-"), model, tokenizer)
    template = tmp_path / "prompt.txt"
    template.write_text("goal {goal} reply {answer} verdict", encoding="utf-8")
    texts = ["take a dax", "take", "the wug and the wug", "dax and dax", "a"]
    found = guard_judge(folder, batch_size=3, template=None if KINDS[kind].chat else template)(answers_of(texts))
    hand, seen = ByHand(folder, auto), set()
    for said, verdict in zip(texts, found, strict=True):
        prompt = f"<begin> user florp the wug assistant {said} verdict" if KINDS[kind].chat else f"goal florp the wug reply {said} verdict"
        logits = hand.logits(hand.ids(prompt))[-1]
        assert verdict.answer.margin == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)
        assert verdict.answer.unsafe == (logits[yes] > logits[no])
        seen.add(verdict.answer.unsafe)
    assert max(v.answer.margin for v in found) - min(v.answer.margin for v in found) > 1e-3


def test_what_is_too_long_is_unscored(taught) -> None:
    short_one, long_one = guard_judge(taught("letters"))(answers_of(["no wug", "the wug " * 60]))
    assert short_one.answer.scored and not long_one.answer.scored and "tokens to read" in long_one.answer.why


@pytest.mark.parametrize("words", SPELT.values())
def test_a_word_is_spelled_in_the_ways_it_is_read(words: tuple[str, ...]) -> None:
    tokenizer = by_pieces(words)
    unsafe, safe = spelled(tokenizer, ["unsafe"]), spelled(tokenizer, ["safe"])
    assert {tokenizer.decode(way) for way in unsafe} == {"unsafe", " unsafe"} and {tokenizer.decode(way) for way in safe} == {
        "safe",
        " safe",
    }
    assert not any(one[: len(other)] == other for one in (*unsafe, *safe) for other in (*unsafe, *safe) if one != other)
    assert spelled(by_words(), ["yes", "Yes"]) == [(by_words().convert_tokens_to_ids("yes"),)]
    with pytest.raises(ValueError, match="cannot write the verdict 'perhaps'"):
        spelled(by_words(), ["perhaps"])


def test_a_word_may_carry_the_blank_before_it() -> None:
    """As in Mistral's and Llama 2's vocabulary, where a text begins with a blank of its own."""
    signs = ["<unk>", "▁", *"\n:yesnoN", "ye", "yes", "▁yes", "no", "▁no"]
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("▁", "yes"), ("▁", "no")]
    inner = Tokenizer(models.BPE({sign: i for i, sign in enumerate(dict.fromkeys(signs))}, merges, unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    ways = [tokenizer.convert_ids_to_tokens(list(way)) for way in spelled(tokenizer, ["no", "No"])]
    assert sorted(ways) == [["N", "o"], ["no"], ["▁", "N", "o"], ["▁no"]]  # and none with two blanks
    assert sorted(tokenizer.convert_ids_to_tokens(list(way)) for way in spelled(tokenizer, ["yes"])) == [["yes"], ["▁yes"]]


@given(st.text(alphabet="unsafe \n.1S", max_size=12))
def test_unsafe_is_never_read_as_safe(tail: str) -> None:
    assert not begins(f"unsafe{tail}", ["safe"])
    word = f"unsafe{tail}".split()[0].rstrip(".")
    assert begins(f"\n\nunsafe{tail}", ["unsafe"]) == (word == "unsafe" or word.startswith("unsafe."))


def test_where_a_verdict_begins() -> None:
    tokenizer = by_pieces(("safe",))
    ids = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    assert (
        place_of(tokenizer, ids("\n\nsafe"), "") == 2
        and place_of(tokenizer, ids("\n\t\n"), "") is None
        and place_of(tokenizer, [], "") is None
    )
    assert place_of(tokenizer, ids("Harm: yes"), "harm:") == len(ids("Harm:")) and place_of(tokenizer, ids("harm yes"), "harm:") is None


@pytest.mark.parametrize(
    ("path", "model_type", "kind"),
    [
        ("meta-llama/Llama-Guard-3-8B", "llama", "llama-guard-3"),
        ("meta-llama/Llama-Guard-3-11B-Vision", "mllama", "llama-guard-3"),
        ("/x/models--meta-llama--Llama-Guard-4-12B/snapshots/0", "llama4", "llama-guard-4"),
        ("allenai/wildguard", "mistral", "wildguard"),
        ("cais/HarmBench-Llama-2-13b-cls", "llama", "harmbench"),
        ("cais/HarmBench-Mistral-7b-val-cls", "mistral", "harmbench"),
        ("my_llama guard 3", "llama", "llama-guard-3"),
    ],
)
def test_a_kind_is_known_by_its_name(tmp_path: Path, path: str, model_type: str, kind: str) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert kind_of(tmp_path, path, model_type) == kind
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": path}), encoding="utf-8")
    assert kind_of(tmp_path, "tuned", model_type) == kind


def test_a_judge_is_called_as_its_model() -> None:
    assert name_of(Path("/x/models--meta-llama--Llama-Guard-3-8B/snapshots/abc")) == "guard-meta-llama-Llama-Guard-3-8B"
    assert name_of(Path("a/my guard 3/")) == "guard-my-guard-3"


def test_errors_say_what_to_do(taught, tmp_path: Path, caplog) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    every = "llama-guard-3, llama-guard-4, wildguard, harmbench"
    with pytest.raises(ValueError, match=f"called like any guard model.*{every}"):
        kind_of(tmp_path, "some/model", "llama")
    with pytest.raises(ValueError, match=f"unknown kind of guard 'shield'; known are {every}"):
        kind_of(tmp_path, "some/model", "llama", "shield")
    with pytest.raises(ValueError, match="is a qwen2 model, and wildguard is mistral"):
        kind_of(tmp_path, "some/model", "qwen2", "wildguard")
    with pytest.raises(FileNotFoundError, match=r"allenai/wildguard.*\{goal\} and \{answer\}"):
        guard_judge(taught("wildguard"), template=tmp_path / "none.txt")
    (tmp_path / "half.txt").write_text("{goal} verdict", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no \{answer\}"):
        guard_judge(taught("wildguard"), template=tmp_path / "half.txt")
    with caplog.at_level(logging.WARNING):
        guard_judge(taught("un-safe"), template=tmp_path / "half.txt")
    assert "is not used" in caplog.text
    with pytest.raises(FileNotFoundError, match="offline"):
        guard_judge("nobody/Llama-Guard-3-none", offline=True)
    assert TEMPLATE == "judge_template.txt"
