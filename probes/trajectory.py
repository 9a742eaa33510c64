"""The `trajectory` table: a probe's readout at every token of thought and answer, and where the thought names a word.

What is read out of it: timing.py says when a thought gives itself away, delay.py how long detection takes once something was named.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import pandas as pd

from ..hooks.dialects import output_kinds, split
from ..hooks.kinds import Kind
from ..hooks.model import LensModel
from ..hooks.records import Transcript
from ..hooks.store import Store
from .dataset import group_names
from .probe import Probe

KINDS = {"last_prompt": "template", "thought": "thought", "thought_last": "marker", "answer": "answer"}


def trajectory(store: Store, transcripts: Sequence[Transcript], probe: Probe, lens: LensModel) -> pd.DataFrame:
    """A row per token of thought and answer, and for last_prompt and thought_last where they were captured, all with pool "every".

    Columns model, condition, split, prompt_id, group, harmful (the prompt's label), position, kind, token, step, boundary, score.
    position   of the output token, from 0; -1 is the last token of the prompt
    kind       thought | answer; marker for thought_last, the token that closes the thought; template for last_prompt
    step       sentences of the thought finished before the token; -1 in the answer, missing at the prompt and the marker
    boundary   the token ends a sentence: it is the span step_end[step]
    """
    spans = [span for span in KINDS if (store.index["span"] == span).any()]
    if "thought" not in spans:
        there = ", ".join(sorted(store.index["span"].unique()))
        raise ValueError(f"the store has no span 'thought', only {there}. Capture Select({probe.site!r}, ('thought', 'answer'), 'every')")
    hidden, index = store.rows({"span": spans}, sites=[probe.site])
    if pooled := index[index["pool"] != "every"].to_dict("records"):
        span, pool = pooled[0]["span"], pooled[0]["pool"]
        raise ValueError(f"{span!r} was pooled ({pool}), and a trajectory has single tokens. Capture it with pool='every'")
    by_id = {t.id: t for t in transcripts}
    if missing := sorted(set(index["prompt_id"]) - set(by_id)):
        raise ValueError(f"{len(missing)} prompts of the store have no transcript here, the first is {missing[0]!r}; pass all of them")
    prompts = index["prompt_id"].unique().tolist()
    steps = {prompt: _steps(by_id[prompt], lens) for prompt in prompts}
    words = {prompt: lens.tokenizer.convert_ids_to_tokens([*by_id[prompt].prompt_ids, *by_id[prompt].output_ids]) for prompt in prompts}
    rows = []
    for row, group, score in zip(index.to_dict("records"), group_names(index, "group"), probe.readout(hidden[:, 0]).tolist(), strict=True):
        at, kind = row["start"] - len(by_id[row["prompt_id"]].prompt_ids), KINDS[row["span"]]
        step, boundary = steps[row["prompt_id"]][at] if kind in ("thought", "answer") else (None, False)
        rows.append(
            {
                **{name: row[name] for name in ("model", "condition", "split", "prompt_id")},
                **{"group": group, "harmful": row["harmful"], "position": at, "kind": kind},
                **{"token": words[row["prompt_id"]][row["start"]], "step": step, "boundary": boundary, "score": score},
            }
        )
    return pd.DataFrame(rows).astype({"step": "Int64"}).sort_values(["prompt_id", "position"], ignore_index=True)


def named(transcripts: Sequence[Transcript], words: Mapping[str, str], lens: LensModel) -> dict[str, int | None]:
    """prompt id -> position of the output token that completes the first mention of the prompt's word in its thought; None: no mention.

    words   prompt id -> a word or phrase, such as the object of the request; prompts without one are left out
    A mention is a whole word, in upper or lower case: "lock" is not in "clock". A word may be several tokens.
    """
    found = {}
    for transcript in transcripts:
        if transcript.id in words:
            start, stop = split(transcript.output_ids, lens.markers, lens.opened).thought
            found[transcript.id] = _mention(transcript.output_ids[start:stop], start, words[transcript.id], lens)
    if missing := sorted(set(words) - set(found)):
        raise ValueError(f"{len(missing)} prompts of `words` have no transcript here, the first is {missing[0]!r}; pass all of them")
    return found


def _mention(thought: Sequence[int], start: int, word: str, lens: LensModel) -> int | None:
    def text(tokens: int) -> str:
        return str(lens.tokenizer.decode(thought[:tokens], clean_up_tokenization_spaces=False))

    mention = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text(len(thought)), re.IGNORECASE)
    if mention is None:
        return None
    return start - 1 + bisect_left(range(len(thought) + 1), mention.end(), key=lambda tokens: len(text(tokens)))


def _steps(transcript: Transcript, lens: LensModel) -> list[tuple[int, bool]]:
    """For every output token the number of thought sentences finished before it, -1 outside the thought, and whether it finishes one."""
    ids = transcript.output_ids
    parts = split(ids, lens.markers, lens.opened)
    kinds = output_kinds(parts, len(ids))
    thought = [at for at in range(*parts.thought) if kinds[at] == Kind.THOUGHT]  # headings inside the thought end no step
    ended = {at for at, end in zip(thought, lens.markers.ends(ids[at] for at in thought), strict=True) if end}
    steps, number = [(-1, False)] * len(ids), 0
    for at in range(*parts.thought):
        steps[at] = number, at in ended
        number += at in ended
    return steps
