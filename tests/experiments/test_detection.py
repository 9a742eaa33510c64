"""What words a probe is compared with, and its readout along the thought, against plain transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from thoughtlens.experiments.detection import _steps, texts_at, trajectory, wordless
from thoughtlens.hooks.capture import capture
from thoughtlens.hooks.select import Select
from thoughtlens.probes.probe import SCORES, Probe
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

SPANS = ("last_prompt", "thought_first", "step_end[0]", "step_end[1]", "thought", "thought_last")


def test_the_bag_of_words_sees_what_was_written_when_the_moment_came(tmp_path: Path) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(4))
    texts = texts_at(capture(lens, transcripts, Select("resid_post.0", SPANS), into=tmp_path / "store", progress=False), transcripts, lens)
    assert set(texts) == set(SPANS)
    for one in transcripts:
        assert texts["last_prompt"][one.id] == one.prompt.text
        first, second = one.thought.split(" . ")
        assert texts["thought_first"][one.id].split() == ["<think>", first.split()[0]]
        assert texts["step_end[0]"][one.id].split() == ["<think>", *first.split(), "."]
        assert texts["step_end[1]"][one.id].split() == texts["thought"][one.id].split() == ["<think>", *one.thought.split()]
        assert texts["thought_last"][one.id].split() == ["<think>", *one.thought.split(), "</think>"]


def test_the_readout_along_the_thought_is_a_dot_product_per_token(tmp_path: Path) -> None:
    lens, site = tiny_lens(), "resid_post.1"
    transcripts = tiny_transcripts(lens, tiny_prompts(3))
    weight = torch.randn(lens.width, generator=torch.Generator().manual_seed(0))
    probe = Probe(weight, 0.5, site, "thought", "mean", "logistic", "harmful", "m", dict.fromkeys(SCORES, torch.zeros(1)))
    store = capture(lens, transcripts, Select(site, ("thought", "answer"), "every"), into=tmp_path / "store", progress=False)
    table = trajectory(store, transcripts, probe, lens)
    assert set(table.columns) >= {"model", "condition", "prompt_id", "position", "kind", "token", "score"}
    for one in transcripts:
        rows = table[table.prompt_id == one.id]
        words = lens.tokenizer.convert_ids_to_tokens(one.output_ids)
        close = words.index("</think>")
        assert rows.token.tolist() == [word for word in words[:-1] if word not in ("<think>", "</think>")]
        assert rows.kind.tolist() == ["thought"] * (close - 1) + ["answer"] * (len(words) - close - 2)
        assert rows.step.tolist() == [words[1:i].count(".") for i in range(1, close)] + [-1] * (len(words) - close - 2)
        assert set(rows.harmful) == {one.prompt.harmful}
        states: list[torch.Tensor] = []
        handle = lens.layers[1].register_forward_hook(lambda module, args, output, states=states: states.append(output))
        ids = torch.tensor([one.prompt_ids + one.output_ids])
        content = [{"type": "image", "image": picture} for picture in one.prompt.images] + [{"type": "text", "text": one.prompt.text}]
        inputs = lens.processor.apply_chat_template(
            [[{"role": "user", "content": content}]], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, len(one.output_ids), dtype=torch.long)], 1)
        with torch.no_grad():
            lens.model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds})
        handle.remove()
        by_hand = states[0][0, [len(one.prompt_ids) + position for position in rows.position]] @ weight + 0.5
        torch.testing.assert_close(torch.tensor(rows.score.tolist()), by_hand, atol=1e-4, rtol=1e-4)


def test_a_newline_alone_is_no_step_and_a_token_beyond_the_tokenizer_is_one_like_others() -> None:
    plain = tiny_lens()
    line, dot, word = (int(plain.tokenizer.convert_tokens_to_ids(text)) for text in ("the", ".", "door"))
    newline = torch.arange(len(plain.markers.step_end)) == line
    lens = replace(plain, markers=replace(plain.markers, blank=newline, step_end=plain.markers.step_end | newline))
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1))
    thought = [line, word, dot, line, 10**6, line, line, word]
    written = replace(transcript, output_ids=[*lens.markers.open_ids, *thought, *lens.markers.close_ids, line, word])
    assert _steps(written, lens) == [-1, -1, 0, 0, 1, 1, 1, 2, 2, -1, -1, -1]


def sweep_table(**changed: float) -> pd.DataFrame:
    row = {"model": "reasoning", "probe": "logistic", "split": "dev", "span": "step_end[1]", "layer": 2, "auroc": 0.9, "text_auroc": 0.5}
    rows = [
        row,
        {**row, "span": "last_prompt", "auroc": 0.99},
        {**row, "span": "step_end[5]", "auroc": 1.0, "text_auroc": 1.0},
        {**row, "layer": 1},
        {**row, "auroc": 0.8},
    ]
    return pd.DataFrame(
        [*rows, {**row, "split": "test", "auroc": 1.0}, {**row, "model": "base", "auroc": 1.0}, *([{**row, **changed}] if changed else [])]
    )


def test_the_moment_told_is_inside_the_thought_where_words_tell_nothing() -> None:
    found = wordless(sweep_table(), "reasoning")
    assert found[["span", "layer", "auroc"]].values.tolist() == [["step_end[1]", 1, 0.9], ["step_end[1]", 2, 0.9], ["step_end[1]", 2, 0.8]]
    with pytest.raises(ValueError, match="there is no moment where bag-of-words stays at 0.4"):
        wordless(sweep_table(), "reasoning", at_most=0.4)


def test_a_moment_whose_words_tell_backwards_is_not_wordless() -> None:
    assert wordless(sweep_table(auroc=0.97, text_auroc=0.03), "reasoning").iloc[0].auroc == 0.9
