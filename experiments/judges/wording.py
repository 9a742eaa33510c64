"""Verdict words of a language model: where it writes one, and how likely it was to write the other.

    log P(word) = log Σ_w Π_k P(w_k | prompt, what was written before the verdict, w_1 … w_{k-1})

over the ways w in which the tokenizer writes the word at the start of a verdict. First tokens are read off the logits of the step at which
the verdict began; the others of a way of several tokens are forced, in a forward pass. Line ends before a verdict are the model's own.

Shapes: `b` rows, padded on the left, `p` tokens, `v` vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...hooks.files import short

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Ask:
    """A question that is answered with a word. label: what is written before it, in lower case; empty: the word comes first."""

    label: str
    yes: tuple[str, ...]
    no: tuple[str, ...]


@dataclass(frozen=True)
class Answered:
    """The log-odds of yes against no; None where neither was written, and then `why`."""

    margin: float | None
    why: str = ""


@dataclass(frozen=True, eq=False)
class Reader:
    """A model that answers questions in words.

    render   the token ids of its prompt for a goal and a text
    asks     the questions, in the order in which it answers them
    ways     the ways its tokenizer writes the words of a question
    """

    model: Any
    tokenizer: Any
    render: Callable[[str, str], list[int]]
    asks: tuple[Ask, ...]
    ways: Mapping[tuple[str, ...], Sequence[Ids]]

    @property
    def longest(self) -> int:
        """Tokens enough for all labels, all words, and a few blanks before each."""
        labels = len(self.tokenizer(" ".join(ask.label for ask in self.asks), add_special_tokens=False).input_ids)
        return 2 * labels + sum(4 + max(len(way) for words in (ask.yes, ask.no) for way in self.ways[words]) for ask in self.asks)


def spelled(tokenizer: Any, words: Sequence[str]) -> list[Ids]:
    """How a tokenizer writes words where a verdict begins: behind nothing or a line's end, with a blank or without.

    ValueError where it has none.
    """
    texts = [*words, *(f" {word}" for word in words)]
    before = {text: tokenizer(text, add_special_tokens=False).input_ids for text in ("", "\n", ":")}
    found: set[Ids] = set()
    for text in texts:
        for name in ("", "\n"):
            head, whole = before[name], tokenizer(name + text, add_special_tokens=False).input_ids
            ids = tuple(whole[len(head) :])
            shown = decoded(tokenizer, [*before[":"], *ids]).removeprefix(decoded(tokenizer, before[":"]))
            if whole[: len(head)] == head and shown in texts and tokenizer.unk_token_id not in ids:
                found.add(ids)
    if not found:
        raise ValueError(f"the tokenizer cannot write the verdict {words[0]!r}, so this model does not give it. Pass another kind=.")
    return sorted(found)


def answers(reader: Reader, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[dict[str, Answered]]:
    """What is said of each goal and text, by the label of the question."""
    prompts = [reader.render(*pair) for pair in pairs]
    limit = reader.model.config.get_text_config().max_position_embeddings - reader.longest
    order = sorted((i for i, ids in enumerate(prompts) if len(ids) <= limit), key=lambda i: len(prompts[i]))
    found: dict[int, dict[str, Answered]] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found |= zip(rows, _batch(reader, [prompts[i] for i in rows]), strict=True)
    for i in set(range(len(pairs))) - set(order):
        why = f"there are {len(prompts[i]):,} tokens to read, and the model reads {limit:,}"
        found[i] = {ask.label: Answered(None, why) for ask in reader.asks}
    return [found[i] for i in range(len(pairs))]


@torch.inference_mode()
def _batch(reader: Reader, prompts: Sequence[list[int]]) -> list[dict[str, Answered]]:
    """Let the model write, find where each verdict begins, and score both words there."""
    ids, mask = padded(prompts, pad_of(reader.tokenizer), reader.model.device)
    out = reader.model.generate(
        ids, attention_mask=mask, max_new_tokens=reader.longest, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    ends = reader.model.generation_config.eos_token_id
    written = [until(row, [ends] if isinstance(ends, int) else ends or []) for row in out.sequences[:, ids.shape[1] :].tolist()]
    found: list[dict[str, Answered]] = [{} for _ in prompts]
    places: list[tuple[int, Ask, int]] = []
    for row, wrote in enumerate(written):
        for ask in reader.asks:
            at = place_of(reader.tokenizer, wrote, ask.label)
            if at is None or not begins(decoded(reader.tokenizer, wrote[at:]), (*ask.yes, *ask.no)):
                text = short(decoded(reader.tokenizer, wrote), 100)
                found[row][ask.label] = Answered(None, f"it wrote neither {ask.yes[0]} nor {ask.no[0]}: {text}")
            else:
                places.append((row, ask, at))
    every = [(row, ask, at, way) for row, ask, at in places for words in (ask.yes, ask.no) for way in reader.ways[words]]
    longer = [([*prompts[row], *written[row][:at]], way) for row, _, at, way in every if len(way) > 1]
    rest = iter([one for start in range(0, len(longer), len(prompts)) for one in forced(reader, longer[start : start + len(prompts)])])
    of_way = {
        (row, ask.label, way): float(out.logits[at][row].float().log_softmax(-1)[way[0]]) + (next(rest) if len(way) > 1 else 0.0)
        for row, ask, at, way in every
    }
    for row, ask, _ in places:
        yes, no = (torch.tensor([of_way[row, ask.label, way] for way in reader.ways[words]]) for words in (ask.yes, ask.no))
        found[row][ask.label] = Answered(float(yes.logsumexp(0) - no.logsumexp(0)))
    return found


def forced(reader: Reader, rows: Sequence[tuple[list[int], Ids]]) -> list[float]:
    """log P of the second and later tokens of each way, behind what stands before it and its first."""
    ids, mask = padded([[*before, *way] for before, way in rows], pad_of(reader.tokenizer), reader.model.device)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    keep = max(len(way) for _, way in rows)
    logits = reader.model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=keep).logits.float().log_softmax(-1)
    return [sum(float(logits[row, -len(way) + k - 1, token]) for k, token in enumerate(way) if k) for row, (_, way) in enumerate(rows)]


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Int[Tensor, "b p"], Int[Tensor, "b p"]]:
    """Rows of one length, padded on the left, and their mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def place_of(tokenizer: Any, written: Sequence[int], label: str) -> int | None:
    """The first token behind a label that is no line's end: the verdict, or the blank before it, which some tokenizers make part of it.

    None where the label was not written, or nothing behind it.
    """
    start = next((i for i in range(len(written) + 1) if label in decoded(tokenizer, written[:i]).lower()), len(written))
    return next((i for i in range(start, len(written)) if decoded(tokenizer, written[i : i + 1]).strip("\r\n\t")), None)


def begins(text: str, words: Sequence[str]) -> bool:
    """Whether a text begins with one of some words, whole."""
    return re.match(rf"\s*(?:{'|'.join(map(re.escape, words))})(?![^\W_])", text) is not None


def until(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """What stands before the first end token."""
    return list(ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))])


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pad_of(tokenizer: Any) -> int:
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
