"""Splitting a thought from an answer: every status and role, markers however a tokenizer cuts them, and which dialect a checkpoint writes."""

import dataclasses
import random
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.hooks import DIALECTS, Dialect, Kind, Markers, Split, Stream, bind, split
from thoughtlens.hooks.dialects import CHECKPOINTS, Role, choose, closing, output_kinds, pieces
from tiny import tiny_lens, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from written import CUTTINGS, cutting, outputs, read

OPEN, CLOSE, END = 1, 2, 0  # opener, closer, end; everything from 3 on is a word
NOTHING = torch.zeros(12, dtype=torch.bool)
ONE = Markers(DIALECTS["think"], ((OPEN,),), ((CLOSE,),), NOTHING, NOTHING, (END,))
INNER, ANSWER, TRAILING = 8, 9, 10
ROLES = dataclasses.replace(ONE, inners=((INNER,),), answers=((ANSWER,),), trailings=((TRAILING,),))
MANY = Markers(DIALECTS["think"], ((3, 4), (3, 5)), ((6, 3, 7), (6, 3, 8)), NOTHING, NOTHING, (END, 11))


@pytest.mark.parametrize(
    ("ids", "opened", "expected"),
    [
        ([OPEN, 7, 8, CLOSE, 9, END], False, Split("closed", (1, 3), (4, 5), ((0, 1), (3, 4)))),
        ([OPEN, 7, 8, CLOSE, 9], False, Split("closed", (1, 3), (4, 5), ((0, 1), (3, 4)))),
        ([7, 8, CLOSE, 9, END], True, Split("closed", (0, 2), (3, 4), ((2, 3),))),
        ([OPEN, CLOSE, END], False, Split("closed", (1, 1), (2, 2), ((0, 1), (1, 2)))),
        ([OPEN, 7, 8], False, Split("unclosed", (1, 3), (3, 3), ((0, 1),))),
        ([OPEN, 7, 8, END], False, Split("unclosed", (1, 3), (3, 3), ((0, 1),))),
        ([7, 8, END], True, Split("unclosed", (0, 2), (2, 2), ())),
        ([OPEN, 7, OPEN, 8], False, Split("unclosed", (1, 4), (4, 4), ((0, 1), (2, 3)))),
        ([7, 8, END], False, Split("absent", (0, 0), (0, 2), ())),
        ([], False, Split("absent", (0, 0), (0, 0), ())),
        ([END], False, Split("absent", (0, 0), (0, 0), ())),
        ([7, CLOSE, 9, END], False, Split("close_only", (0, 1), (2, 3), ((1, 2),))),
        ([OPEN, 7, CLOSE, 8, CLOSE, 9, END], False, Split("multiple", (1, 2), (3, 6), ((0, 1), (2, 3), (4, 5)))),
        ([OPEN, 7, CLOSE, 8, OPEN, 9], False, Split("multiple", (1, 2), (3, 6), ((0, 1), (2, 3), (4, 5)))),
        ([OPEN, 7, CLOSE, 8, END], True, Split("multiple", (0, 2), (3, 4), ((0, 1), (2, 3)))),
        ([7, OPEN, 8, CLOSE, 9, END], False, Split("closed", (2, 3), (4, 5), ((1, 2), (3, 4)))),
        ([OPEN, 7, END, CLOSE, 9], False, Split("unclosed", (1, 2), (2, 2), ((0, 1),))),
    ],
)
def test_every_status(ids: list[int], opened: bool, expected: Split) -> None:
    assert split(ids, ONE, opened) == expected


def test_an_unclosed_thought_has_no_answer_token() -> None:
    ids = [OPEN, 7, 8, 9]
    assert Kind.ANSWER not in output_kinds(split(ids, ONE), len(ids))


def test_end_token_and_what_follows_belong_to_nothing() -> None:
    ids = [OPEN, 7, CLOSE, 8, END, 9, CLOSE]
    assert output_kinds(split(ids, ONE), len(ids)) == [Kind.MARKER, Kind.THOUGHT, Kind.MARKER, Kind.ANSWER, *[Kind.TEMPLATE] * 3]


def test_markers_of_several_tokens_and_half_markers() -> None:
    ids = [3, 5, 7, 6, 3, 9, 6, 3, 8, 9, 11]
    parts = split(ids, MANY)
    assert (parts.status, parts.thought, parts.answer) == ("closed", (2, 6), (9, 10))


@pytest.mark.parametrize(
    ("ids", "opened", "expected"),
    [
        (
            [OPEN, 7, CLOSE, ANSWER, 6, TRAILING, END],
            False,
            Split("closed", (1, 2), (3, 6), ((0, 1), (2, 3), (3, 4), (5, 6)), ((3, 4), (5, 6))),
        ),
        ([OPEN, 7, ANSWER, 6, TRAILING, END], False, Split("closed", (1, 2), (3, 5), ((0, 1), (2, 3), (4, 5)), ((2, 3), (4, 5)))),
        ([7, ANSWER, 6], False, Split("close_only", (0, 1), (2, 3), ((1, 2),), ((1, 2),))),
        ([7, ANSWER, 6], True, Split("closed", (0, 1), (2, 3), ((1, 2),), ((1, 2),))),
        ([7, 6, TRAILING, END], False, Split("absent", (0, 0), (0, 3), ((2, 3),), ((2, 3),))),
        ([5, TRAILING, 5, OPEN, 7, CLOSE, 6], False, Split("closed", (4, 5), (6, 7), ((1, 2), (3, 4), (5, 6)), ((1, 2),))),
        ([INNER, 7, INNER, 6, CLOSE, 5], False, Split("closed", (1, 4), (5, 6), ((0, 1), (2, 3), (4, 5)), ((0, 1), (2, 3)))),
        ([5, OPEN, 7, INNER, 6], False, Split("unclosed", (2, 5), (5, 5), ((1, 2), (3, 4)), ((3, 4),))),
        ([7, INNER, 6, CLOSE, 5], True, Split("closed", (0, 3), (4, 5), ((1, 2), (3, 4)), ((1, 2),))),
        ([INNER, 7, OPEN, 6, CLOSE, 5], False, Split("multiple", (1, 4), (5, 6), ((0, 1), (2, 3), (4, 5)), ((0, 1),))),
        ([OPEN, 7, CLOSE, 6, INNER, 5], False, Split("multiple", (1, 2), (3, 6), ((0, 1), (2, 3), (4, 5)), ((4, 5),))),
        ([OPEN, 7, ANSWER, 6, CLOSE, 5], False, Split("multiple", (1, 2), (3, 6), ((0, 1), (2, 3), (4, 5)), ((2, 3),))),
    ],
)
def test_every_role(ids: list[int], opened: bool, expected: Split) -> None:
    assert split(ids, ROLES, opened) == expected


@given(ids=st.lists(st.integers(0, 10), max_size=14), opened=st.booleans())
def test_headings_and_tags_are_in_no_text_and_stray_markers_are(ids: list[int], opened: bool) -> None:
    parts = split(ids, ROLES, opened)
    thought, answer = pieces(ids, parts)
    assert not {INNER, ANSWER, TRAILING} & {*thought, *answer}
    kept = [token for token in ids[slice(*parts.thought)] if token not in (INNER, ANSWER, TRAILING)]
    assert thought == kept and (parts.status in ("multiple", "unclosed") or not {OPEN, CLOSE} & {*thought, *answer})
    assert pieces(ids, split(ids, ONE, opened)) == tuple(ids[slice(*part)] for part in dataclasses.astuple(split(ids, ONE, opened))[1:3])


@given(ids=st.lists(st.integers(0, 10), max_size=14), opened=st.booleans())
def test_the_marker_that_closed_the_thought_is_the_one_before_the_answer(ids: list[int], opened: bool) -> None:
    parts = split(ids, ROLES, opened)
    last = closing(ids, ROLES)
    assert last == (None if parts.status in ("absent", "unclosed") else parts.answer[0] - 1)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", CUTTINGS)
def test_token_ids_say_what_the_text_says(kind: str, name: str) -> None:
    dialect, tokenizer = DIALECTS[name], cutting(kind)
    markers = bind(dialect, tokenizer, [tokenizer.eos_token_id])

    @settings(max_examples=40)
    @given(outputs(dialect, blanks=kind == "words"), st.booleans())
    def agree(text: str, opened: bool) -> None:
        ids, kinds, status = read(text, dialect, tokenizer, opened)
        parts = split(ids, markers, opened)
        assert (parts.status, output_kinds(parts, len(ids))) == (status, kinds)

    agree()


def test_a_marker_is_found_in_what_the_tokenizer_made_of_it_and_its_neighbours() -> None:
    tokenizer = cutting("merging")
    text = "<think>why.</think><answer>no</answer>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    words = [tokenizer.decode([i]) for i in ids]
    assert ".</" in words and "><" in words  # else this shows nothing
    parts = split(ids, bind("think_answer", tokenizer, []))
    thought, answer = (tokenizer.decode(part) for part in pieces(ids, parts))
    assert (parts.status, thought, answer) == ("closed", "why", "no")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("no<think>", "no <t h i n k>"),
        ("no.<think>", "no .< t h i n k>"),
        ("<think>. no", "<t h i n k >. ▁ no"),
        ("!<think>", "! <t h i n k>"),
    ],
)
def test_a_marker_whose_inside_is_cut_differently_beside_a_full_stop_is_found_there_too(text: str, cut: str) -> None:
    letters = {letter: i for i, letter in enumerate("▁abcdefghijklmnopqrstuvwxyz<>/.!")}
    merged = [(".", "<"), (">", "."), ("<", "t"), ("k", ">"), ("n", "o")]
    inner = Tokenizer(models.BPE({**letters, **{a + b: len(letters) + n for n, (a, b) in enumerate(merged)}}, merged))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == cut.split()
    assert split(ids, bind("think", tokenizer, [])).status == "unclosed"


def test_an_empty_thought_whose_markers_share_a_token_is_empty() -> None:
    tokenizer = cutting("merging")
    ids = tokenizer("<think></think>no", add_special_tokens=False)["input_ids"]
    parts = split(ids, bind("think", tokenizer, []))
    assert parts.markers[0][1] > parts.markers[1][0]  # else this shows nothing
    assert (parts.status, parts.thought[0] - parts.thought[1], tokenizer.decode(pieces(ids, parts)[1])) == ("closed", 0, "no")


MULBERRY = """### Image Description:
a kind box.

### Rationales:
open it.

### Let's think step by step.

### Step 1:
first turn it.

### Step 2:
then two.

### The final answer is: 5"""
LLAVA_COT = (
    "<SUMMARY> one. </SUMMARY>\n\n<CAPTION> a box. </CAPTION>\n\n<REASONING> turn it. </REASONING>\n\n<CONCLUSION> yes </CONCLUSION>"
)
VIRGO = "<|begin_of_thought|>\n\none two.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nyes\n\n<|end_of_solution|>"


@pytest.mark.parametrize("kind", ["bytes", "pieces", "merging", "special"])
@pytest.mark.parametrize(
    ("name", "text", "thought", "answer"),
    [
        ("think", "<think>\none two.\n</think>\n\nyes", "one two.", "yes"),
        ("think_answer", "<think>one two</think>\n<answer>yes</answer>", "one two", "yes"),
        ("mulberry", MULBERRY, "a kind box. open it. first turn it. then two.", "5"),
        ("llava_cot", LLAVA_COT, "one. a box. turn it.", "yes"),
        ("virgo", VIRGO, "one two.", "yes"),
        ("kimi", "◁think▷one two◁/think▷yes", "one two", "yes"),
        ("magistral", "[THINK]one two[/THINK]yes", "one two", "yes"),
        ("llamav_o1", "one two\n\nyes", "", "one two yes"),
        ("none", "<think>one</think>", "", "<think>one</think>"),
    ],
)
def test_what_each_family_writes(kind: str, name: str, text: str, thought: str, answer: str) -> None:
    tokenizer = cutting(kind)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = split(ids, bind(name, tokenizer, [tokenizer.eos_token_id]))
    assert parts.status == ("closed" if thought else "absent")
    assert [" ".join(tokenizer.decode(part).split()) for part in pieces(ids, parts)] == [thought, answer]


@given(st.lists(st.integers(3, 9), max_size=6), st.lists(st.integers(3, 9), max_size=6), st.booleans())
def test_streaming_tells_each_token_at_once_when_a_marker_is_one_token(thought: list[int], answer: list[int], closed: bool) -> None:
    ids = [OPEN, *thought, *([CLOSE, *answer, END] if closed else [])]
    stream = Stream(ONE, 1)
    assert [int(stream.step(torch.tensor([token]))[0]) for token in ids] == output_kinds(split(ids, ONE), len(ids))


def test_rows_of_a_stream_do_not_touch_each_other() -> None:
    chance = random.Random(0)
    rows = [[chance.choice([OPEN, CLOSE, END, 7, 8]) for _ in range(chance.randint(1, 9))] for _ in range(20)]
    stream = Stream(ONE, len(rows))
    for at in range(9):
        ids = torch.tensor([row[at] if at < len(row) else 99 for row in rows])
        told = stream.step(ids, torch.tensor([at < len(row) for row in rows]))
        assert all(told[i] == Kind.PAD for i, row in enumerate(rows) if at >= len(row))
    assert stream.kinds == [output_kinds(split(row, ONE), len(row)) for row in rows]


@pytest.mark.parametrize("kind", ["words", "pieces"])
@pytest.mark.parametrize("opener", ["<think>", "<think>\n", "<think>\n\n"])
@pytest.mark.parametrize("closer", ["</think>", " </think> ", ".</think>\n\n", "\n</think>\n"])
def test_markers_are_found_whatever_the_tokenizer_merges_them_with(kind: str, opener: str, closer: str) -> None:
    lens = tiny_lens(kind)
    tokenizer = lens.tokenizer
    ids = tokenizer(f"{opener} first open it {closer} sorry no", add_special_tokens=False)["input_ids"]
    parts = split(ids, lens.markers)
    assert parts.status == "closed"
    assert "think" not in tokenizer.decode(ids[slice(*parts.thought)])
    assert tokenizer.decode(ids[slice(*parts.answer)]).split() == ["sorry", "no"]


def test_step_ends_are_read_from_token_text() -> None:
    for kind in ("words", "pieces"):
        lens = tiny_lens(kind)
        ids = lens.tokenizer("open . it ? no ! ok , yes", add_special_tokens=False)["input_ids"]
        ends = [lens.tokenizer.decode([i]).strip() for i in ids if lens.markers.step_end[i]]
        assert ends == [".", "?", "!"]
    newline = tiny_lens("pieces").tokenizer("why.\n\nso", add_special_tokens=False)["input_ids"]
    assert sum(bool(tiny_lens("pieces").markers.step_end[i]) for i in newline) == 1


def test_an_unknown_or_unwritable_dialect_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="unknown dialect 'klingon'; known are think, .*none. Or pass Dialect"):
        bind("klingon", tiny_tokenizer(), [0])
    with pytest.raises(ValueError, match="cannot write '<ponder>'. Pass dialect=\"none\""):
        bind(Dialect("ponder", "<ponder>", "</ponder>"), tiny_tokenizer(), [0])
    assert bind("none", tiny_tokenizer(), [0]).opens == ()


def test_markers_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"opener \(3, 4\) and closer \(6, 3, 4\) end in the same tokens"):
        Markers(DIALECTS["think"], ((3, 4),), ((6, 3, 4),), NOTHING, NOTHING, (END,))
    with pytest.raises(ValueError, match=r"closer \(4,\) and trailing marker \(3, 4\) end in the same tokens"):
        Markers(DIALECTS["think"], (), ((4,),), NOTHING, NOTHING, (END,), trailings=((3, 4),))
    with pytest.raises(ValueError, match=r"opener \(3, 4\) and closer \(6, 5, 4\) end in the same tokens"):
        Markers(DIALECTS["think"], ((3, 4),), ((6, 5, 4),), NOTHING, NOTHING, (END,), heads={5: 3})
    with pytest.raises(ValueError, match="Choose other markers"):
        bind(Dialect("twins", "<think>", "<think>"), cutting("pieces"), [0])


def test_a_heading_that_cannot_be_written_is_left_out_and_an_answer_tag_is_not() -> None:
    tokenizer = tiny_tokenizer()
    tagged = Dialect("tagged", "<think>", "</think>", inner=("<ponder>",), trailing=("</answer>",))
    assert bind(tagged, tokenizer, [0]).inners == ()
    with pytest.raises(ValueError, match="cannot write '<answer>'"):
        bind("think_answer", tokenizer, [0])


def test_a_dialect_tells_all_its_markers() -> None:
    assert DIALECTS["think_answer"].markers == (
        (Role.OPEN, "<think>"),
        (Role.CLOSE, "</think>"),
        (Role.ANSWER, "<answer>"),
        (Role.TRAILING, "</answer>"),
    )
    assert ("### Step 20:" in DIALECTS["mulberry"].inner, DIALECTS["none"].markers, DIALECTS["llamav_o1"].open) == (True, (), None)


@pytest.mark.parametrize(
    ("model_type", "name", "dialect"),
    [
        ("qwen2_5_vl", "Fancy-MLLM/R1-Onevision-7B", "think"),
        ("qwen2_5_vl", "MM-Eureka-Qwen-7B", "think_answer"),
        ("internvl", "MM-Eureka-8B", "think_answer"),
        ("qwen2_vl", "Mulberry_qwen2vl_7b", "mulberry"),
        ("llava_next", "HuanjinYao/Mulberry_llava_8b", "mulberry"),
        ("mllama", "Mulberry_llama_11b", "mulberry"),
        ("mllama", "Xkev/Llama-3.2V-11B-cot", "llava_cot"),
        ("mllama", "LLaVA-CoT", "llava_cot"),
        ("mllama", "LlamaV-o1", "llamav_o1"),
        ("mllama", "Llama-3.2-11B-Vision-Instruct", "think"),
        ("qwen2_vl", "RUC-AIBOX/Virgo-72B", "virgo"),
        ("kimi_vl", "Kimi-VL-A3B-Thinking-2506", "kimi"),
        ("kimi_vl", "Kimi-VL-A3B-Instruct", "think"),
        ("qwen3_vl", "Qwen3-VL-8B-Thinking", "think"),
        ("glm4v", "GLM-4.1V-9B-Thinking", "think_answer"),
        ("mistral3", "mistralai/Magistral-Small-2509", "magistral"),
        ("qwen2_5_vl", "reasoning", "think"),
        ("qwen3_vl", "/data/Qwen3-VL-8B-Thinking /hub/models--Qwen--Qwen3-VL-8B-Thinking/snapshots/0a1b", "think"),
        ("glm4v", "checkpoints/link /data/GLM-4.1V-9B-Thinking/snapshots/0a1b", "think_answer"),
        ("glm4v", "GLM-4.1V-9B-Base/thinking", "think"),  # two parts of a path are two names
        ("mllama", "llama-3.2V-11B/mascot llama-3.2V-11B cot", "think"),
        ("kimi_vl", "Kimi-VL-A3B-Instruct/thinking", "think"),
        ("llama", "virgo", "think"),  # a name alone does not make a Qwen2-VL of it
    ],
)
def test_a_checkpoint_is_known_by_its_name_and_architecture(model_type: str, name: str, dialect: str) -> None:
    tokenizer = cutting("pieces")
    assert choose(model_type, name, tokenizer, [7]).dialect.name == dialect
    assert choose(model_type, name, tokenizer, [7], "none").dialect.name == "none"


def test_every_dialect_has_a_checkpoint_that_writes_it() -> None:
    assert {name for _, _, name in CHECKPOINTS} | {"none"} == set(DIALECTS)


def test_a_tokenizer_that_cannot_write_the_known_dialect_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert choose("qwen2_vl", "virgo", tiny_tokenizer(), [0]).dialect.name == "think"
    assert "virgo is known to write dialect 'virgo', but" in caplog.text and "cannot write '<|begin_of_thought|>'" in caplog.text
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1}, unk_token="<unk>")), unk_token="<unk>"
    )
    assert choose("llama", "plain", plain, [0]).dialect.name == "none"


def tokens_of_their_own(*texts: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(cutting("pieces").backend_tokenizer.to_str()))
    tokenizer.add_tokens(list(texts))
    return tokenizer


@pytest.mark.parametrize(
    ("own", "dialect", "assumed"),
    [
        (("<think>", "</think>"), "think", False),
        (("[THINK]", "[/THINK]"), "magistral", False),
        (("◁think▷", "◁/think▷"), "kimi", False),
        (("[THINK]", "</think>"), "think", True),
        (("◁think▷", "◁/think▷", "[THINK]", "[/THINK]"), "think", True),
        (("◁think▷", "◁/think▷", "<think>", "</think>"), "think", False),
        ((), "think", True),
    ],
)
def test_a_checkpoint_nobody_knows_writes_the_markers_it_has_tokens_for(
    own: tuple[str, ...], dialect: str, assumed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose("qwen2_vl", "my-model", tokens_of_their_own(*own), [0]).dialect.name == dialect
    assert len(caplog.records) == assumed
    if assumed:
        assert "how my-model marks its thought is not known: dialect 'think' is only assumed" in caplog.text
        assert "pass dialect=… (known are think, " in caplog.text


def test_the_shipped_trio_is_loaded_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert choose("qwen2_5_vl", "checkpoints/reasoning", tiny_tokenizer(), [0]).dialect.name == "think"
    assert not caplog.records


THINKING = "<think>\n\nfirst open it.\n\nthen why\n\n</think>\n\n\nyes\n\nno"


@pytest.mark.parametrize("kind", CUTTINGS[1:])
@pytest.mark.parametrize("opened", [False, True])
def test_a_thought_and_an_answer_begin_with_a_word_however_newlines_are_cut(kind: str, opened: bool) -> None:
    tokenizer = cutting(kind)
    markers = bind("think", tokenizer, [])
    ids = tokenizer(THINKING.removeprefix("<think>" if opened else ""), add_special_tokens=False)["input_ids"]
    parts = split(ids, markers, opened)
    thought, answer = (tokenizer.decode(piece) for piece in pieces(ids, parts))
    assert thought[0] == "f" and thought.split() == "first open it. then why".split()
    assert answer == "yes\n\nno"
    said = [tokenizer.decode([ids[part[0]]]) for part in (parts.thought, parts.answer)]
    assert "first".startswith(said[0].strip()) and "yes".startswith(said[1].strip()) and all(text.strip() for text in said)
    last = closing(ids, markers)
    assert last is not None and tokenizer.decode(ids[: last + 1]).rstrip().endswith(">") and tokenizer.decode([ids[last]]).strip()
    steps = list(markers.ends([ids[at] for at in range(*parts.thought)]))
    assert sum(steps) == 2, "the full stop with its newlines, and the newline before the closer"


@pytest.mark.parametrize("kind", CUTTINGS[1:])
def test_a_thought_switched_off_is_empty_and_closed(kind: str) -> None:
    tokenizer = cutting(kind)
    ids = tokenizer("<think>\n\n</think>\n\nyes", add_special_tokens=False)["input_ids"]
    parts = split(ids, bind("think", tokenizer, []))
    thought, answer = pieces(ids, parts)
    assert (parts.status, thought, tokenizer.decode(answer)) == ("closed", [], "yes")
    assert Kind.THOUGHT not in output_kinds(parts, len(ids))


def test_blanks_belong_to_a_marker_and_not_to_an_output_that_has_none() -> None:
    markers = dataclasses.replace(ROLES, blank=NOTHING.index_fill(0, torch.tensor([3, 4]), True))
    M, T, A, X = Kind.MARKER, Kind.THOUGHT, Kind.ANSWER, Kind.TEMPLATE
    for ids, opened, kinds in (
        ([3, 7, 3], False, [A, A, A]),
        ([3, 7, 3], True, [M, T, T]),
        ([3, 3], True, [M, M]),
        ([3, OPEN, 3, 4, 7, 3, CLOSE, 4, 3, 5, 4], False, [X, M, M, M, T, T, M, M, M, A, A]),
        ([OPEN, 7, INNER, 3, 7, ANSWER, 3, 5, 3, TRAILING, 3, END, 3], False, [M, T, M, M, T, M, M, A, A, M, M, X, X]),
        ([5, TRAILING, 3, 5], False, [A, M, M, A]),
    ):
        assert output_kinds(split(ids, markers, opened), len(ids)) == kinds
        stream = Stream(markers, 1, opened)
        told = [int(stream.step(torch.tensor([token]))[0]) for token in ids]
        assert [kind for kind, known in zip(told, kinds, strict=True) if known != X] == [kind for kind in kinds if kind != X]
    ids = [OPEN, 3, INNER, 3, 7, INNER, 3, 6, 3, CLOSE, 3, ANSWER, 4, 5, TRAILING, 3]
    assert pieces(ids, split(ids, markers)) == ([7, 3, 6, 3], [5, 3])  # words on either side of a heading stay apart


def test_a_blank_that_a_tokenizer_drops_when_alone_is_blank() -> None:
    inner = Tokenizer(models.WordLevel({"<unk>": 0, "▁": 1, "▁a": 2, "<think>": 3, "</think>": 4, "<0x0A>": 5}, unk_token="<unk>"))
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Strip(" ", 1, 0)])
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert bind("think", tokenizer, []).blank.tolist() == [False, True, False, False, False, True]


def test_token_ids_may_have_gaps_and_models_may_write_ids_beyond_the_tokenizer() -> None:
    words = {"<unk>": 0, "one": 1, "two": 2, "<think>": 40, "</think>": 50, ".": 60}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert len(tokenizer) < max(words.values())  # else this shows nothing
    markers = bind("think", tokenizer, [])
    assert (markers.opens, markers.closes, len(markers.step_end), len(markers.blank)) == (((40,),), ((50,),), 61, 61)
    ids = [40, 999, 1, 30, 60, 50, 999, 2]
    parts = split(ids, markers)
    assert (parts.status, parts.thought, parts.answer) == ("closed", (1, 5), (6, 8))
    assert list(markers.ends(ids[1:5])) == [False, False, False, True]


def test_binding_to_a_large_vocabulary_is_fast() -> None:
    thirty = Dialect("thirty", "<think>", "</think>", inner=tuple(f"### Step {n}:" for n in range(1, 27)), trailing=("</answer>", "## end"))
    words = [word for _, text in thirty.markers for word in text.split()]
    edges = (">", ".###", "1:!", "<", "")
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(("<unk>", *words, *(f"{n}{edges[n % 5]}" for n in range(150_000)))))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")

    def seconds() -> float:
        start = time.process_time()
        assert len(bind(thirty, tokenizer, [0]).patterns) == 30
        return time.process_time() - start

    assert min(seconds(), seconds()) < 1.5
