"""Watching: what probes read at every token is what a hook of one's own reads; triggers flag, steer, stop and remind, and only then."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from replay import begin, replay
from thoughtlens.hooks.dialects import split
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.gates import AtSteps, FirstTokens, ProbeGate
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import Transcript, read_transcripts, write_transcripts
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import Seen, Trigger, Vector, monitor, steer
from thoughtlens.hooks.store import open_store
from tiny import tiny_lens, tiny_prompts, tiny_transcripts
from torch import Tensor
from torch.testing import assert_close


@dataclasses.dataclass(frozen=True)
class Direction:
    weight: Tensor
    bias: float
    site: str


def direction(site: str, seed: int = 0, bias: float = 0.25) -> Direction:
    return Direction(torch.randn(32, generator=torch.Generator().manual_seed(seed)), bias, site)


PROBES = {f"{site} {n}": direction(site, n) for n, site in enumerate(["resid_post.0", "resid_post.2", "resid_post.2", "mlp_out.1"])}


@pytest.fixture
def lens() -> LensModel:
    return tiny_lens()


@pytest.fixture
def transcripts(lens: LensModel) -> list[Transcript]:
    return tiny_transcripts(lens, tiny_prompts(5, images=(0, 1, 0, 2, 0), seed=1), statuses=("closed", "closed", "absent"), seed=1)


def vector(site: str = "resid_post.1", span: str = "all") -> Vector:
    return Vector({site: torch.randn(32, generator=torch.Generator().manual_seed(7))}, span=span, source="test")


def read_by_hand(lens: LensModel, transcript: Transcript, probe: Direction) -> Tensor:
    """The readout at every token from the last of the prompt to the last that is run, from a plain forward of the row alone."""
    found: list[Tensor] = []
    layer = lens.model.model.language_model.layers[int(probe.site[-1])]
    module = layer.mlp if probe.site.startswith("mlp") else layer
    handle = module.register_forward_hook(lambda m, a, out: found.append(out[0]))
    try:
        with torch.no_grad():
            lens.model(**begin(lens, [transcript], len(transcript.output_ids) - 1).inputs, use_cache=False)
    finally:
        handle.remove()
    return found[0][len(transcript.prompt_ids) - 1 :] @ probe.weight + probe.bias


# readouts


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_token_is_read_in_the_pass_that_writes_it(lens: LensModel, batch_size: int) -> None:
    prompts = tiny_prompts(5, images=(0, 1, 0, 2, 0))
    plain = generate(lens, prompts, max_new_tokens=9, batch_size=batch_size, progress=False)
    with monitor(lens, PROBES) as watching:
        written = generate(lens, prompts, max_new_tokens=9, batch_size=batch_size, progress=False)
    assert written == plain and {t.condition for t in written} == {"unsteered"}
    assert sorted(held.prompt_id for held in watching.watched) == sorted(prompt.id for prompt in prompts)
    for transcript in written:
        (held,) = (one for one in watching.watched if one.prompt_id == transcript.id)
        start = len(transcript.prompt_ids) - 1
        assert held.position.tolist() == list(range(start, start + len(transcript.output_ids)))
        for name, probe in PROBES.items():
            assert_close(torch.tensor(held.scores[name]), read_by_hand(lens, transcript, probe), atol=1e-4, rtol=1e-4)


def test_a_replayed_thought_is_read_as_if_it_arrived(lens: LensModel, transcripts: list[Transcript]) -> None:
    batch = begin(lens, transcripts, 4)
    with monitor(lens, PROBES) as watching:
        watching.expect(batch.prompt_lengths)
        replay(lens, transcripts, batch, 4)
        records = watching.record()
    for transcript, record in zip(transcripts, records, strict=True):
        for number, probe in enumerate(PROBES.values()):
            theirs = read_by_hand(lens, transcript, probe)
            assert_close(torch.tensor(record.scores[:, number]), theirs, atol=1e-4, rtol=1e-4)


def test_a_probe_at_a_steered_site_reads_what_the_model_wrote_there(lens: LensModel) -> None:
    prompts = tiny_prompts(3, images=(0,))
    probes = {"before": direction("resid_post.0"), "at": direction("resid_post.1"), "after": direction("resid_post.2")}
    (plain,) = generate(lens, prompts[:1], max_new_tokens=1, progress=False)
    with steer(lens, vector(), probes=probes) as steering:
        generate(lens, prompts[:1], max_new_tokens=1, progress=False)
    (held,) = steering.watched
    unsteered = {name: read_by_hand(lens, plain, probe) for name, probe in probes.items()}
    for name in ("before", "at"):
        assert_close(torch.tensor(held.scores[name]), unsteered[name], atol=1e-4, rtol=1e-4)
    assert abs(held.scores["after"][0] - unsteered["after"][0]) > 1e-2


def test_the_callback_hears_every_token(lens: LensModel) -> None:
    heard: list[Seen] = []
    prompts = tiny_prompts(4, images=(0,))
    with monitor(lens, PROBES, on_token=heard.append) as watching:
        written = generate(lens, prompts, max_new_tokens=6, batch_size=4, progress=False)
    for transcript in written:
        number = [prompt.id for prompt in prompts].index(transcript.id)
        row = list(heard[0].rows).index(number)
        tokens = [seen.tokens[row] for seen in heard if seen.tokens[row] is not None]
        assert tokens == [transcript.prompt_ids[-1], *transcript.output_ids[:-1]]
        (held,) = (one for one in watching.watched if one.prompt_id == transcript.id)
        for name in PROBES:
            told = [seen.scores[name][row] for seen in heard if seen.tokens[row] is not None]
            assert_close(torch.tensor(told, dtype=torch.float32), torch.tensor(held.scores[name]))


def test_hidden_states_are_recorded_while_probes_read(lens: LensModel, tmp_path) -> None:
    prompts = tiny_prompts(3)
    with monitor(lens, {"one": direction("resid_post.1", bias=0.0)}) as watching:
        written = generate(
            lens, prompts, max_new_tokens=5, where=Select("resid_post.1", "all", "every"), into=tmp_path / "s", progress=False
        )
    store = open_store(tmp_path / "s")
    for held in watching.watched:
        (transcript,) = (t for t in written if t.id == held.prompt_id)
        x, _ = store.rows({"prompt_id": held.prompt_id})
        theirs = x[len(transcript.prompt_ids) - 1 :, 0] @ direction("resid_post.1").weight
        assert_close(torch.tensor(held.scores["one"]), theirs[: len(held.position)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("probes", "says"),
    [
        ({}, "nothing to monitor"),
        ({"p": direction("resid_post.9")}, "layers 0 to 2"),
        ({"p": Direction(torch.ones(16), 0.0, "resid_post.1")}, "the probe 'p' at resid_post.1 has a weight of width 16"),
        ({"p": direction("head_out.1")}, "act at resid_pre"),
    ],
)
def test_a_probe_that_cannot_be_read_is_refused(lens: LensModel, probes: dict[str, Direction], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        with monitor(lens, probes):
            pass
    assert lens.steering is None


# triggers


def always_thinking(lens: LensModel, n: int = 4) -> tuple[list, list[list[int]]]:
    """Prompts, and an opened thought of each with its first sentence: what is written next stands in the thought."""
    prompts = tiny_prompts(n, images=(0,))
    ids = lens.tokenizer(" the box .", add_special_tokens=False)["input_ids"]
    return prompts, [[*lens.markers.open_ids, *ids] for _ in prompts]


def test_a_flag_is_noted_where_the_gate_opens(lens: LensModel) -> None:
    prompts = tiny_prompts(4, images=(0,))
    probe = direction("resid_post.0", bias=0.0)
    gate = ProbeGate(probe.weight, 0.0, probe.site, 0.5, latched=False, span="all")
    with monitor(lens, {"p": probe}, triggers=[Trigger(gate, name="odd")]) as watching:
        generate(lens, prompts, max_new_tokens=8, batch_size=4, progress=False)
    assert any(held.triggered["odd"] for held in watching.watched)
    for held in watching.watched:
        assert list(held.triggered["odd"]) == held.position[held.scores["p"] > 0.5].tolist()


def test_steering_that_is_set_off_begins_with_the_next_token(lens: LensModel) -> None:
    prompts = tiny_prompts(4, images=(0,))
    probe = direction("resid_post.0", bias=0.0)
    gate = ProbeGate(probe.weight, 0.0, probe.site, 0.5, latched=False, span="answer")
    with steer(lens, vector(span="answer"), probes={"p": probe}, triggers=[Trigger(gate, "steer")]) as steering:
        written = generate(lens, prompts, max_new_tokens=9, batch_size=4, progress=False)
    assert 0 < sum(t.fired > 0 for t in written)
    for transcript in written:
        (held,) = (one for one in steering.watched if one.prompt_id == transcript.id)
        above = [
            at
            for at, score in zip(held.position.tolist(), held.scores["p"], strict=True)
            if score > 0.5 and at >= len(transcript.prompt_ids)
        ]
        first = min(above, default=10**9)
        assert list(transcript.fired_at) == [at for at in held.position.tolist() if at > first]


def test_steering_that_is_never_set_off_is_a_warning_and_changes_nothing(lens: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    prompts = tiny_prompts(3, images=(0,))
    plain = generate(lens, prompts, max_new_tokens=6, progress=False, condition="c")
    never = ProbeGate(torch.ones(32), 0.0, "resid_post.0", 1e9, latched=False, span="all")
    with steer(lens, vector(), triggers=[Trigger(never, "steer")]):
        assert generate(lens, prompts, max_new_tokens=6, progress=False, condition="c") == plain
    assert "may have stayed closed" in caplog.text


def test_a_stop_cuts_the_output_off_and_it_has_not_ended(lens: LensModel) -> None:
    prompts = tiny_prompts(4, images=(0,))
    plain = generate(lens, prompts, max_new_tokens=9, batch_size=4, progress=False)
    with monitor(lens, {}, triggers=[Trigger(~FirstTokens(3), "stop")]) as watching:
        written = generate(lens, prompts, max_new_tokens=9, batch_size=4, progress=False)
    assert {t.condition for t in written} == {"stop when not first_tokens(3)"}
    for transcript, free in zip(written, plain, strict=True):
        if len(free.output_ids) <= 4:
            assert (transcript.output_ids, transcript.stopped) == (free.output_ids, False)
            continue
        assert transcript.stopped and not transcript.ended
        assert transcript.output_ids == (*free.output_ids[:4], lens.markers.eos_ids[0])
    assert any(t.stopped for t in written) and watching.writes


@pytest.mark.parametrize("times", [1, 2])
def test_a_reminder_is_written_at_the_next_boundary_of_the_thought(lens: LensModel, times: int) -> None:
    prompts, prefixes = always_thinking(lens)
    reminder = lens.tokenizer("is this safe ?", add_special_tokens=False)["input_ids"]
    with monitor(lens, {}, triggers=[Trigger(AtSteps(), "remind", "is this safe ?", times=times)]):
        written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=40, batch_size=4, progress=False)
        free = generate(lens, prompts, prefixes=[t.output_ids[: t.inserted[-1][1]] for t in written], max_new_tokens=3, progress=False)
    assert all(t.inserted[0] == (len(prefix), len(prefix) + len(reminder)) for t, prefix in zip(written, prefixes, strict=True))
    assert any(len(t.inserted) == times for t in written)
    for transcript in written:
        thought = split(transcript.output_ids, lens.markers).thought
        for start, stop in transcript.inserted:
            assert list(transcript.output_ids[start:stop]) == reminder[: stop - start]
            assert lens.markers.step_end[transcript.output_ids[start - 1]] and thought[0] < start < thought[1]
        own = [
            i
            for i in range(*thought)
            if lens.markers.step_end[transcript.output_ids[i]] and not any(a <= i < b for a, b in transcript.inserted)
        ]
        assert [start - 1 for start, _ in transcript.inserted] == own[: len(transcript.inserted)]
    assert len(free) == 4


def test_what_follows_a_reminder_is_the_models_own(lens: LensModel) -> None:
    prompts, prefixes = always_thinking(lens)
    with monitor(lens, {}, triggers=[Trigger(AtSteps(), "remind", "is this safe ?")]):
        written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=12, batch_size=4, progress=False)
    for transcript, logits in zip(written, forced(lens, written), strict=True):
        logits[:, lens.frame.image_token_id] = -torch.inf
        own = range(transcript.inserted[0][1], len(transcript.output_ids))
        assert [int(logits[i].argmax()) for i in own] == [transcript.output_ids[i] for i in own]


def test_a_reminder_waits_for_the_thought(lens: LensModel, transcripts: list[Transcript]) -> None:
    """Set off at the last prompt token, where no thought has begun; an answer without a thought is left alone."""
    prompts = tiny_prompts(4, images=(0,))
    whole = ProbeGate(torch.zeros(32), 1.0, "resid_post.0", 0.0)
    with monitor(lens, {}, triggers=[Trigger(whole, "remind", "no")]):
        plain = generate(lens, prompts, max_new_tokens=6, progress=False)
        opened = generate(lens, prompts, prefixes=[list(lens.markers.open_ids)] * 4, max_new_tokens=6, progress=False)
    n = len(lens.markers.open_ids)
    for transcript in plain:
        assert all(split(transcript.output_ids[:start], lens.markers).status == "unclosed" for start, _ in transcript.inserted)
    assert all(t.inserted == ((n, n + 1),) for t in opened)


def test_a_generation_that_would_not_write_is_refused(lens: LensModel) -> None:
    batch = begin(lens, tiny_transcripts(lens, tiny_prompts(2, images=(0,))))
    stop = [Trigger(~FirstTokens(2), "stop")]
    with pytest.raises(ValueError, match=r"logits_processor=\[steering.logits_processor\]"):
        with monitor(lens, {}, triggers=stop):
            lens.model.generate(**batch.inputs, max_new_tokens=5)
    with monitor(lens, {}, triggers=stop) as watching:
        ids = lens.model.generate(**batch.inputs, max_new_tokens=9, do_sample=False, logits_processor=[watching.logits_processor])
    assert ids.shape[1] <= batch.inputs["input_ids"].shape[1] + 4
    with pytest.raises(ValueError, match="cannot follow beam search"):
        with monitor(lens, {}, triggers=stop) as watching:
            lens.model.generate(**batch.inputs, max_new_tokens=5, num_beams=2, logits_processor=[watching.logits_processor])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"do": "shout"}, "known are flag, steer, stop, remind"),
        ({"do": "remind"}, "needs its text"),
        ({"do": "stop", "text": "no"}, "no other has one"),
        ({"do": "remind", "text": "no", "times": 0}, "at least 1"),
    ],
)
def test_a_trigger_that_makes_no_sense_is_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Trigger(AtSteps(), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"), [("no </think>", "marker of the thought"), ("zebra", "no tokens for all"), ("no <|im_end|>", "an end token")]
)
def test_a_reminder_that_would_break_the_thought_is_refused(lens: LensModel, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        with monitor(lens, {}, triggers=[Trigger(AtSteps(), "remind", text)]):
            pass


def test_what_was_written_for_the_model_is_kept_in_the_transcript(lens: LensModel, tmp_path) -> None:
    prompts, prefixes = always_thinking(lens, 2)
    with steer(lens, vector(span="thought"), triggers=[Trigger(AtSteps(), "remind", "no no"), Trigger(~FirstTokens(8), "stop")]):
        written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=12, progress=False)
    assert any(t.inserted for t in written) and any(t.stopped for t in written) and all(len(t.fired_at) == t.fired > 0 for t in written)
    path = write_transcripts(tmp_path / "t.jsonl", written)
    assert read_transcripts(path, prompts) == written


def test_what_would_do_nothing_or_is_taken_for_something_else_is_refused(lens: LensModel) -> None:
    with pytest.raises(ValueError, match="monitor\\(\\) steers nothing"):
        monitor(lens, {}, triggers=[Trigger(AtSteps(), "steer")])
    with pytest.raises(TypeError, match="probes is a mapping"):
        monitor(lens, direction("resid_post.1"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"triggers=\[Trigger"):
        monitor(lens, {}, triggers=Trigger(AtSteps()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a LensModel is steered.*wrap"):
        steer(lens.model, vector())  # type: ignore[arg-type]


# one and the same, however it is run


NOW_AND_THEN = ProbeGate(
    torch.randn(32, generator=torch.Generator().manual_seed(3)), 0.0, "resid_post.1", 0.0, latched=False, span="thought"
)
SETS: dict[str, list[Trigger]] = {
    "remind": [Trigger(AtSteps(), "remind", "is this safe ?", times=2)],
    "steer": [Trigger(NOW_AND_THEN, "steer"), Trigger(NOW_AND_THEN, "flag")],
    "stop": [Trigger(~FirstTokens(9), "stop"), Trigger(AtSteps(), "remind", "ok .")],
}


@pytest.mark.parametrize("kind", SETS)
def test_a_recording_changes_nothing_that_is_watched(lens: LensModel, tmp_path, kind: str) -> None:
    """It runs the last token too, which nothing may hear of; and rows alone do what they do in a batch."""
    prompts, prefixes = always_thinking(lens)
    found = []
    for how in (
        {"batch_size": 4},
        {"batch_size": 1},
        {"batch_size": 4, "where": Select("resid_post.1", "all", "mean"), "into": tmp_path / "s"},
    ):
        with steer(lens, vector("resid_post.2"), spans=["thought", "answer"], triggers=SETS[kind], probes=PROBES) as steering:
            written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=14, progress=False, **how)  # type: ignore[arg-type]
        found.append((written, [(one.prompt_id, one.position.tolist(), one.triggered) for one in steering.watched], steering.fired_total))
    assert found[0] == found[1] == found[2]
    assert any(any(held[2].values()) for held in found[0][1])


@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("kind", SETS)
def test_triggers_act_in_a_generation_of_ones_own(lens: LensModel, how: dict[str, object], kind: str) -> None:
    prompts, prefixes = always_thinking(lens)
    batch = encode(lens, prompts, prefixes=prefixes)
    with steer(lens, vector("resid_post.2"), spans=["thought", "answer"], triggers=SETS[kind]):
        wanted = generate(lens, prompts, prefixes=prefixes, max_new_tokens=14, batch_size=4, progress=False)
    with steer(lens, vector("resid_post.2"), spans=["thought", "answer"], triggers=SETS[kind]) as steering:
        steering.expect(batch.prompt_lengths)
        options = {"max_new_tokens": 14, "do_sample": False, "logits_processor": [steering.logits_processor], **how}
        ids = lens.model.generate(**batch.inputs, **options)  # type: ignore[operator]
        steering.expect(None)
        ranges, _ = steering.written()
    for row, transcript in enumerate(wanted):
        start, n = int(batch.offsets[row] + batch.prompt_lengths[row]), len(transcript.output_ids)
        assert ids[row, start : start + n].tolist() == list(transcript.output_ids)
        assert [span for span in ranges[row] if span[0] < n] == [
            (a, max(b, a + 4 if kind == "remind" else b)) for a, b in transcript.inserted
        ]


def test_an_output_that_is_stopped_is_not_reminded_at_the_same_boundary(lens: LensModel) -> None:
    prompts, prefixes = always_thinking(lens, 2)
    both = [Trigger(AtSteps(), "remind", "is this safe ?"), Trigger(AtSteps(), "stop")]
    with monitor(lens, {}, triggers=both):
        written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=6, progress=False)
    for transcript, prefix in zip(written, prefixes, strict=True):
        assert transcript.stopped and not transcript.inserted
        assert transcript.output_ids == (*prefix, lens.markers.eos_ids[0])


def test_what_a_trigger_set_off_is_replayed_token_by_token_or_not_at_all(lens: LensModel) -> None:
    prompts, prefixes = always_thinking(lens)
    with steer(lens, vector("resid_post.1"), spans=["thought", "answer"], triggers=[Trigger(AtSteps(only=(0,)), "steer")]):
        written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=10, progress=False)
        with pytest.raises(ValueError, match="stepwise=True"):
            forced(lens, written)
        logits = forced(lens, written, stepwise=True)
    for transcript, row, prefix in zip(written, logits, prefixes, strict=True):
        row[:, lens.frame.image_token_id] = -torch.inf
        assert transcript.fired
        own = range(len(prefix), len(transcript.output_ids))
        assert [int(row[i].argmax()) for i in own] == [transcript.output_ids[i] for i in own]


def test_two_triggers_of_one_name_are_refused(lens: LensModel) -> None:
    with pytest.raises(ValueError, match="two triggers have one name.*give each a name="):
        monitor(lens, {}, triggers=[Trigger(AtSteps()), Trigger(AtSteps())])


def test_a_probe_that_never_read_is_an_error(lens: LensModel, transcripts: list[Transcript], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"nothing was read at mlp_out\.1: .*the hook there never ran"):
        with monitor(lens, {"x": direction("mlp_out.1")}), torch.no_grad():
            monkeypatch.setattr(lens.layers[1].mlp, "_forward_hooks", {})
            lens.model(**begin(lens, transcripts).inputs)
