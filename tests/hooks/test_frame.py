"""The kind of every prompt token, for every family's processor, against the tokenizer's own character offsets and the processor's own count."""

import dataclasses
import functools
import importlib
import sys
import types
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from thoughtlens.hooks.dialects import bind
from thoughtlens.hooks.frame import Frame, find_frame, prompt_kinds
from thoughtlens.hooks.kinds import Kind
from thoughtlens.hooks.processors import PROCESSORS, load_processor, messages, processor_class, render, tokenizer_of
from thoughtlens.hooks.records import Prompt
from tiny import WORDS, tiny_image
from zoo_processors import NAMES, SPECIALS_OF, TEXT_ONLY, zoo_processor

KINDS_OF_TOKENIZER = ("words", "pieces")
SIZES = ((56, 56), (84, 56), (28, 112), (100, 33))
SYSTEM_IN_TURN = ("gemma3",)
NO_SYSTEM_WITH_PICTURES = ("mllama",)
FLAGS: dict[str, tuple[dict[str, Any], ...]] = {
    "qwen2_vl": ({}, {"add_vision_id": True}),
    "qwen3": ({}, {"enable_thinking": False}),
    "qwen3_5": ({}, {"enable_thinking": False}),
    "glm46v": ({}, {"enable_thinking": False}),
}
SENTINEL = "\ue000"


@functools.cache
def frame_of(name: str, kind: str, flag: int = 0) -> Frame:
    processor, tokenizer = zoo_processor(name, kind), tokenizer_of(zoo_processor(name, kind))
    image = None if name in TEXT_ONLY else tokenizer.convert_tokens_to_ids(SPECIALS_OF[name]["image"])
    return find_frame(processor, image, FLAGS.get(name, ({},))[flag])


def by_offsets(
    name: str, kind: str, prompt: Prompt, pictures: list[Image.Image], template: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], list[int]]:
    """Ids and kinds of a prompt: a token is the user's when it covers a character of the user's text in what the tokenizer was given."""
    processor, frame = zoo_processor(name, kind), frame_of(name, kind)
    tokenizer, seen = tokenizer_of(processor), []
    if processor is tokenizer:
        ids = render(processor, prompt, pictures, frame.style, template)["input_ids"][0].tolist()
        seen = [
            (
                tokenizer.apply_chat_template(messages(prompt, [], frame.style), tokenize=False, add_generation_prompt=True, **template),
                False,
            )
        ]
    else:
        stock = type(tokenizer).__call__

        def listen(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append((text[0] if isinstance(text, list) else text, kwargs.get("add_special_tokens", True)))
            return stock(self, text, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(tokenizer), "__call__", listen)
            ids = render(processor, prompt, pictures, frame.style, template)["input_ids"][0].tolist()
    (text, special), *_ = seen
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    assert encoded["input_ids"] == ids
    marked = dataclasses.replace(prompt, text=f"   {SENTINEL}   ")
    written = processor.apply_chat_template(messages(marked, pictures, frame.style), tokenize=False, add_generation_prompt=True, **template)
    trims = marked.text not in written
    words = prompt.text.strip() if trims else prompt.text
    stop = len(text) - (len(written) - written.index(SENTINEL) - (1 if trims else 4))
    start = stop - len(words)
    assert text[start:stop] == words
    own = [(start, stop)]
    if prompt.system is not None and name in SYSTEM_IN_TURN:
        turn = text.index("\n") + 1
        own.append((turn, turn + len(prompt.system) + 2))  # with the blank line behind it
    kinds = [
        Kind.IMAGE
        if token == frame.image_token_id
        else Kind.INSTRUCTION
        if any(a < stop and b > start for start, stop in own)
        else Kind.TEMPLATE
        for token, (a, b) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    return ids, [int(kind) for kind in kinds]


GAPS = (" ", " ", " ", "\n", "\n\n", "  ", ". ", ".\n\n", "/")


def texts(name: str) -> st.SearchStrategy[str]:
    """Words, the template's own words and control tokens, with gaps of all kinds between and around them."""
    # a tokenizer that puts a space behind every control token leaves open whose the space is
    roles = {} if name in ("llava", "llava_next") else SPECIALS_OF[name]
    control = [token for role, token in roles.items() if not role.startswith(("image", "video"))]
    words = st.sampled_from([*WORDS, "USER", "ASSISTANT", "system", "user", "model", *control])
    edge = st.sampled_from(["", "", "", "", " ", "\n", "\n\n"])
    rest = st.lists(st.tuples(st.sampled_from(GAPS), words), max_size=6).map(lambda pairs: "".join(gap + word for gap, word in pairs))
    return st.tuples(edge, words, rest, st.sampled_from(["", ".", " ?", "\n", "  "])).map("".join)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS_OF_TOKENIZER)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_kinds_are_what_the_character_offsets_say(monkeypatch: pytest.MonkeyPatch, name: str, kind: str, data: st.DataObject) -> None:
    flags = FLAGS.get(name, ({},))
    flag = data.draw(st.integers(0, len(flags) - 1))
    text = data.draw(texts(name))
    sizes = data.draw(st.lists(st.sampled_from(SIZES), max_size=0 if name in TEXT_ONLY else 3))
    system = data.draw(st.sampled_from([None, "you are safe .", "be kind\nyou are safe"]))
    system = None if sizes and name in NO_SYSTEM_WITH_PICTURES else system
    pictures = [tiny_image(i, size) for i, size in enumerate(sizes)]
    ids, expected = by_offsets(name, kind, Prompt("p", text, tuple(pictures), system=system), pictures, flags[flag], monkeypatch)
    assert prompt_kinds(ids, frame_of(name, kind, flag)) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TEXT_ONLY])
def test_image_tokens_are_those_the_processor_counts(name: str) -> None:
    processor, frame = zoo_processor(name), frame_of(name, "words")
    pictures = [tiny_image(i, size) for i, size in enumerate(SIZES)]
    row = render(processor, Prompt("p", "what is this", tuple(pictures)), pictures, frame.style, {})
    kinds = torch.tensor(prompt_kinds(row["input_ids"][0].tolist(), frame))
    types = torch.tensor(processor.create_mm_token_type_ids(row["input_ids"].tolist())[0])
    inside = {
        name: token for name, token in SPECIALS_OF[name].items() if name.startswith("image_")
    }  # written for a picture, not filled with one
    others = torch.isin(
        row["input_ids"][0], torch.tensor(processor.tokenizer.convert_tokens_to_ids(list(inside.values())), dtype=torch.int64)
    )
    assert ((kinds == Kind.IMAGE) == ((types == 1) & ~others)).all() and (kinds == Kind.IMAGE).any()
    for key in ("mm_token_type_ids", "token_type_ids"):
        if key in row:
            assert ((row[key][0] == 1) == (kinds == Kind.IMAGE)).all()


@pytest.mark.parametrize(
    ("name", "flag", "opened"),
    [("qwen3", 0, False), ("qwen3", 1, False), ("qwen3_5", 0, True), ("qwen3_5", 1, False), ("glm46v", 1, False)],
)
@pytest.mark.parametrize("kind", KINDS_OF_TOKENIZER)
def test_a_thought_the_template_opens_and_closes_is_not_open(name: str, flag: int, opened: bool, kind: str) -> None:
    tokenizer = tokenizer_of(zoo_processor(name, kind))
    markers = bind("think", tokenizer, [tokenizer.eos_token_id])
    assert frame_of(name, kind, flag).opened(markers) is opened


def with_template(name: str, template: str, kind: str = "pieces") -> Any:
    stock = zoo_processor(name, kind)
    return processor_class(name)(image_processor=stock.image_processor, tokenizer=stock.tokenizer, chat_template=template)


PARTS_BACKWARDS = "{% for c in m['content'] | reverse %}{% if c['type'] == 'image' %}\n<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\nPARTS<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


@pytest.mark.parametrize("pictures", [0, 1, 2])
@pytest.mark.parametrize("system", [None, "you are safe ."])
def test_a_template_may_put_the_pictures_behind_the_text(pictures: int, system: str | None) -> None:
    processor = with_template("qwen3_vl", TURNS.replace("PARTS", PARTS_BACKWARDS))
    frame = find_frame(processor, processor.image_token_id, {})
    shown = [tiny_image(i, SIZES[i]) for i in range(pictures)]
    ids = render(processor, Prompt("p", "open the box .", tuple(shown), system=system), shown, frame.style, {})["input_ids"][0]
    kinds = torch.tensor(prompt_kinds(ids.tolist(), frame))
    assert processor.tokenizer.decode(ids[kinds == Kind.INSTRUCTION]) == "open the box ."
    assert ((kinds == Kind.IMAGE) == (ids == processor.image_token_id)).all()
    assert frame.text_first


@pytest.mark.parametrize(
    "written",
    ["{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}", ""],
    ids=["refused", "forgotten"],
)
def test_a_template_without_a_system_prompt_says_so(written: str) -> None:
    turns = TURNS.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    processor = with_template("qwen3_vl", written + turns.replace("PARTS", PARTS_BACKWARDS))
    assert not find_frame(processor, processor.image_token_id, {}).takes_system
    assert frame_of("qwen3_vl", "pieces").takes_system and frame_of("mllama", "pieces").style == "system as text"


@pytest.mark.parametrize(
    "parts", ["{{ m['content'][-1]['text'] }}", "{{ m['content'][-1]['text'] }}<|image_pad|>{{ m['content'][-1]['text'] }}"]
)
def test_a_template_without_a_place_for_pictures_is_refused(parts: str) -> None:
    processor = with_template("qwen3_vl", TURNS.replace("PARTS", parts))
    with pytest.raises(ValueError, match="the chat template"):
        find_frame(processor, processor.image_token_id, {})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_off_or_foreign_is_refused(name: str) -> None:
    frame, processor = frame_of(name, "pieces"), zoo_processor(name, "pieces")
    pictures = [] if name in TEXT_ONLY else [tiny_image()]
    ids = render(processor, Prompt("p", "open the box", tuple(pictures)), pictures, frame.style, {})["input_ids"][0].tolist()
    for some in (ids[: len(ids) // 2], ids[: len(ids) - len(frame.tail)], ids[::-1]):
        with pytest.raises(ValueError, match="were not written by this model's chat template"):
            prompt_kinds(some, frame)


def test_every_family_has_a_processor_that_saves_and_loads_under_its_own_name(tmp_path: Any) -> None:
    for name in PROCESSORS:
        zoo_processor(name).save_pretrained(tmp_path / name)
        loaded = load_processor(tmp_path / name, name)
        assert PROCESSORS[name] in (tmp_path / name / "processor_config.json").read_text() and type(loaded).__name__ == PROCESSORS[name]
        pictures = [tiny_image(i, size) for i, size in enumerate(SIZES[:2])]
        prompt = Prompt("p", "what is this", tuple(pictures))
        ours, theirs = (render(one, prompt, pictures, "parts", {}) for one in (loaded, zoo_processor(name)))
        assert set(ours) == set(theirs) and all((ours[key] == theirs[key]).all() for key in ours)


def test_pixtral_is_written_as_transformers_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class needs torchvision for one function that processing does not use: a stand-in for that module lets it be imported here."""
    module = "transformers.models.pixtral.image_processing_pixtral"
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(get_resize_output_image_size=None))  # type: ignore[arg-type]
    theirs = importlib.import_module("transformers.models.pixtral.processing_pixtral").PixtralProcessor
    ours = zoo_processor("mistral3", "pieces")
    stock = theirs(ours.image_processor, ours.tokenizer, patch_size=14, spatial_merge_size=2, chat_template=ours.chat_template)
    for sizes in ([], SIZES[:1], SIZES[1:], [(300, 20)]):
        pictures = [tiny_image(i, size) for i, size in enumerate(sizes)]
        one, other = (render(some, Prompt("p", "what is this", tuple(pictures)), pictures, "parts", {}) for some in (ours, stock))
        assert set(one) == set(other) and all((one[key] == other[key]).all() for key in one)
        assert ours.create_mm_token_type_ids(one["input_ids"].tolist()) == stock.create_mm_token_type_ids(one["input_ids"].tolist())
    sys.modules.pop("transformers.models.pixtral.processing_pixtral")


def test_control_tokens_at_a_border_are_never_taken_for_merged() -> None:
    """A newline of the template may have merged with a newline of the user; <|assistant|> and <|vision_start|> cannot have."""
    glm, tokenizer = frame_of("glm4v", "pieces"), tokenizer_of(zoo_processor("glm4v", "pieces"))
    assert [tokenizer.decode([token]) for token in glm.tail] == ["<|assistant|>", "\n"]
    ids = render(zoo_processor("glm4v", "pieces"), Prompt("p", "open it\n"), [], glm.style, {})["input_ids"][0].tolist()
    prompt_kinds(ids, glm)
    with pytest.raises(ValueError, match="were not written by this model's chat template"):
        prompt_kinds([token for token in ids if token != glm.tail[0]], glm)
    qwen, processor = frame_of("qwen2_5_vl", "pieces"), zoo_processor("qwen2_5_vl", "pieces")
    pictures = [tiny_image()]
    ids = render(processor, Prompt("p", "open it", tuple(pictures)), pictures, qwen.style, {})["input_ids"][0].tolist()
    assert int(Kind.IMAGE) in prompt_kinds(ids, qwen)
    for edge in (qwen.before_image[0], qwen.after_image[-1]):
        with pytest.raises(ValueError, match="were not written by this model's chat template"):
            prompt_kinds([token for token in ids if token != edge], qwen)


def test_a_template_for_text_alone_on_a_model_with_pictures_says_what_to_do() -> None:
    template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    processor = with_template("qwen3_vl", template)
    with pytest.raises(ValueError, match="the chat template takes text alone, .*Set processor.chat_template to the one"):
        find_frame(processor, processor.image_token_id, {})


def test_an_argument_given_twice_is_not_taken_for_an_answer() -> None:
    with pytest.raises(TypeError, match="multiple values for keyword argument 'tokenize'"):
        find_frame(zoo_processor("qwen3"), None, {"tokenize": True})
