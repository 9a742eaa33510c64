"""What a chat template writes around the user's words, as token ids; and from it the kind of every token of a sequence.

The template is rendered a few times with sentinel texts. What is the same in two renderings that differ in the text alone is the
template's; what a picture adds is an image block. No decoded text is searched.

    lead | image block … image block | instruction | tail | output
    head = the end of lead that stays the same whatever the system prompt
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int8
from jinja2 import TemplateError
from torch import Tensor

from .dialects import Markers, output_kinds, split
from .kinds import Kind

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Frame:
    """A chat template as token ids.

    image_token_id   the placeholder; a picture takes a run of them
    lead             everything before the user's content when no system prompt is given
    head             the opening of the user's turn, the same under any system prompt; empty if the template takes none
    before_image     ids in front of a picture's placeholders
    after_image      ids behind them
    tail             everything between the user's text and the output
    """

    image_token_id: int
    lead: Ids
    head: Ids
    before_image: Ids
    after_image: Ids
    tail: Ids

    def opened(self, markers: Markers) -> bool:
        """Whether the template itself writes the opener of the thought."""
        parts = split(self.tail, _without_end(markers))
        return parts.status == "unclosed"


def find_frame(render: Callable[[str, int, str | None], Sequence[int]], words: tuple[str, str], image_token_id: int) -> Frame:
    """Learn a frame.

    render   (text, number of pictures, system prompt or None) -> token ids, one placeholder a picture
    words    two texts whose first tokens differ and whose last tokens differ
    """
    one, other = words
    plain = tuple(render(one, 0, None)), tuple(render(other, 0, None))
    lead, tail = _common_start(*plain), _common_end(*plain)
    pictured = tuple(render(one, 1, None)), tuple(render(other, 1, None))
    start = _common_start(*pictured)
    block = start[len(lead) :]
    if start[: len(lead)] != lead or block.count(image_token_id) != 1:
        raise ValueError(
            f"the chat template does not put a picture between the opening of the user's turn and the text: "
            f"ids {list(start)} with a picture, {list(lead)} without. Such a template has no entry here yet."
        )
    at = block.index(image_token_id)
    try:
        systems = [tuple(render(one, 0, system)) for system in words]
    except TemplateError:
        head: Ids = ()
    else:
        keep = len(plain[0]) - len(lead)
        head = _common_end(*(ids[: len(ids) - keep] for ids in systems), lead)
    return Frame(image_token_id, lead, head, block[:at], block[at + 1 :], tail)


def token_kinds(ids: Sequence[int], prompt_length: int, frame: Frame, markers: Markers) -> Int8[Tensor, " n"]:
    """Kind of each token of one sequence without padding.

    ids             prompt followed by output
    prompt_length   how many of them are the prompt
    Raises ValueError when the prompt was not written by this frame's chat template.
    """
    kinds = prompt_kinds(ids[:prompt_length], frame)
    output = ids[prompt_length:]
    kinds += output_kinds(split(output, markers, frame.opened(markers)), len(output))
    return torch.tensor(kinds, dtype=torch.int8)


def prompt_kinds(ids: Sequence[int], frame: Frame) -> list[int]:
    """Kind of each token of a prompt: template, image or instruction."""
    ids = tuple(ids)
    start = _content(ids, frame)
    stop = len(ids) - _shared(ids[::-1], frame.tail[::-1])
    if start is None or len(ids) - stop < len(frame.tail) - 1 or start > stop:
        raise ValueError(
            f"these prompt ids were not written by this model's chat template: they begin {list(ids[:8])} and end {list(ids[-8:])}, "
            f"the template begins {list(frame.lead[:8])} and ends {list(frame.tail[-8:])}. "
            "Use the model, tokenizer and template that made them."
        )
    kinds = [int(Kind.TEMPLATE)] * start
    before, after = len(frame.before_image), len(frame.after_image)
    while ids[start : start + before] == frame.before_image and ids[start + before : start + before + 1] == (frame.image_token_id,):
        kinds += [int(Kind.TEMPLATE)] * before
        while ids[len(kinds)] == frame.image_token_id:
            kinds.append(int(Kind.IMAGE))
        kinds += [int(Kind.TEMPLATE)] * after
        start = len(kinds)
    kinds += [int(Kind.IMAGE if token == frame.image_token_id else Kind.INSTRUCTION) for token in ids[start:stop]]
    return kinds + [int(Kind.TEMPLATE)] * (len(ids) - stop)


def _content(ids: Ids, frame: Frame) -> int | None:
    """Where the user's content begins. The last id of the opening may have merged with the text (a newline with a newline)."""
    for slack in (0, 1):
        lead, head = frame.lead[: len(frame.lead) - slack], frame.head[: len(frame.head) - slack]
        if ids[: len(lead)] == lead and (slack == 0 or lead):
            return len(lead)
        if head:
            for at in range(len(ids) - len(head) + 1):
                if ids[at : at + len(head)] == head:
                    return at + len(head)
    return None


def _without_end(markers: Markers) -> Markers:
    return Markers(markers.dialect, markers.opens, markers.closes, markers.step_end, ())


def _shared(a: Ids, b: Ids) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _common_start(*many: Ids) -> Ids:
    return many[0][: min(_shared(many[0], other) for other in many)]


def _common_end(*many: Ids) -> Ids:
    return _common_start(*(ids[::-1] for ids in many))[::-1]
