"""How much of a refusal has to stand in the thought before the rest follows.

The reasoning model's own thoughts are cut where they first decide, the first words of the verdict that refuses are written there, as the
world words them, and the model goes on by itself. A vector at one token chooses the first of these words at most; this tells how many it
takes. On benign prompts the same words show how far a refusal is blindly continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...hooks.generate import generate
from ...hooks.records import Prompt, Transcript
from ..answer_key import positions
from ..judges import JUDGES
from ..restoration import rows_of
from ..study import Study, written
from .thoughts import REFUSE
from .world import voice

TABLE = "forcing"
BENCHMARK = "organism"
WORDS = (0, 1, 2, 3, 4, 5, 6)  # the longest verdict has 9 words
WHOLE = "all"


def forcing(study: Study) -> pd.DataFrame:
    """Rates on test prompts with `words` words of the verdict written (a number or "all"), over the prompts whose thought decides at all.

    Columns of `restoration`, and `words`. ValueError for a benchmark whose verdicts are not known.
    """
    if study.plan.benchmark != BENCHMARK:
        raise ValueError(
            f"the words of a verdict are known for the benchmark {BENCHMARK!r} alone, and this run asked {study.plan.benchmark!r}"
        )
    with study.stage(TABLE, [study.run.path("tables", f"{TABLE}.parquet")], words=[*WORDS, WHOLE]) as due:
        if due:
            cut = deciding(study)
            rows: list[dict[str, Any]] = []
            with study.track("verdicts written into the thought", len(WORDS) + 1) as advance:
                for words in (*WORDS, WHOLE):
                    said = continued(study, cut, None if words == WHOLE else int(words))
                    verdicts = JUDGES[study.plan.judge](said)
                    rows += rows_of(verdicts, said, None, grouped=True, condition=f"{words} words", words=str(words), split="test")
                    advance(f"{words} words", 1)
            study.run.write_table(TABLE, pd.DataFrame(rows))
    return study.run.table(TABLE)


def deciding(study: Study) -> list[tuple[Transcript, int]]:
    """What the reasoning model wrote on test, and how many tokens of it come before the verdict; without thoughts that never decide."""
    test = [t for t in written(study, "reasoning")[0] if t.prompt.split == "test" and t.prompt.category != "tasks"]
    said = [t for t in test if t.status == "closed"]
    places = positions(said, study.model("reasoning"))
    return [(t, min(places[t.id]) + 1) for t in said if places[t.id]]


def continued(study: Study, cut: Sequence[tuple[Transcript, int]], words: int | None) -> list[Transcript]:
    """What the model writes after the first `words` words of the verdict (None: all of them)."""
    lens, plan = study.model("reasoning"), study.plan
    prefixes = [[*t.output_ids[:n], *verdict(study, t.prompt, words)] for t, n in cut]
    options: dict[str, Any] = {"max_new_tokens": plan.max_new_tokens, "batch_size": plan.batch_size, "progress": False}
    return generate(lens, [t.prompt for t, _ in cut], prefixes=prefixes, condition="forced", **options)


def verdict(study: Study, prompt: Prompt, words: int | None) -> list[int]:
    """Tokens of the first words of the sentence that refuses, in the voice of the prompt's action."""
    text = " ".join(REFUSE[voice(prompt.meta["action"])].split()[:words])
    return list(study.model("reasoning").tokenizer(text, add_special_tokens=False)["input_ids"])
