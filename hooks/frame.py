"""What a chat template writes around the user's words, as token ids; and from it the kind of every token of a sequence.

The template is rendered a few times by the real processor, with sentinel texts and a small picture. What is the same in two renderings
that differ in the text alone is the template's; placeholders are seen as the model gets them. No decoded text is searched.

    lead | glue | image block … image block | instruction | tail | output
    head = the end of lead that stays the same whatever the system prompt, and with pictures

At a border two writers may share a token: a newline of the template merges with a newline of the user. Such a token is the user's.
Control tokens are never shared.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int8
from jinja2 import TemplateError
from PIL import Image as PILImage
from torch import Tensor

from .dialects import Markers, output_kinds, split
from .kinds import Kind
from .processors import Style, messages, render, tokenizer_of, unmergeable
from .records import Prompt

Ids = tuple[int, ...]

_SENTINEL = "\ue000"  # of no template and no vocabulary


@dataclass(frozen=True)
class Frame:
    """A chat template as token ids.

    image_token_id   the placeholder; a picture takes a run of them, perhaps broken by other ids. None for a model without pictures
    lead             everything before the user's content when no system prompt is given
    head             the opening of the user's turn, the same under any system prompt; empty if the template takes none, or writes it
                     into the user's turn as Gemma 3 does: there its words cannot be told from the user's, and are instruction too
    before_image     ids in front of a picture's first placeholder
    after_image      ids between a picture's last placeholder and the text
    tail             everything between the user's text and the output
    glue             the template's space before the text, where the text does not take it into its first token
    text_first       the template writes the text before the pictures
    whole            lead and head are only told from the opening of a system prompt's turn by their last id
    takes_system     it writes a system prompt
    style            how contents have to be handed to it
    fixed            those of its ids that nothing merges with: control tokens
    """

    image_token_id: int | None
    lead: Ids
    head: Ids
    before_image: Ids
    after_image: Ids
    tail: Ids
    glue: Ids = ()
    text_first: bool = False
    whole: bool = False
    takes_system: bool = True
    style: Style = "parts"
    fixed: frozenset[int] = frozenset()

    def opened(self, markers: Markers) -> bool:
        """Whether the template itself writes the opener of the thought, and no closer behind it."""
        return _opened(self.tail, markers)


@functools.lru_cache(maxsize=64)
def _opened(tail: Ids, markers: Markers) -> bool:
    return split(tail, replace(markers, eos_ids=())).status == "unclosed"


def find_frame(processor: Any, image_token_id: int | None, template: Mapping[str, Any]) -> Frame:
    """Learn the frame of a processor's chat template.

    image_token_id   the id that the model fills with picture features; None for a model without pictures
    template         arguments of the chat template, such as {"enable_thinking": False}
    Raises ValueError for a template that writes no placeholder for a picture, or writes it where it cannot be told from the text.
    """
    tokenizer = tokenizer_of(processor)
    one, other = _two_words(tokenizer)
    styles: tuple[Style, ...] = ("text",) if tokenizer is processor else ("parts", "system as text")
    style = next((style for style in styles if _takes(processor, style, one, template)), None)
    picture = PILImage.new("RGB", (64, 64), (128, 128, 128))

    def ids(text: str, pictures: int = 0, system: str | None = None) -> Ids:
        asked = Prompt("frame", text, system=system)
        try:
            written = render(processor, asked, [picture] * pictures, style or styles[0], template)
        except TypeError as error:
            raise ValueError(
                f"the chat template takes text alone, and this model's messages are lists of texts and pictures: {error}. Set "
                "processor.chat_template to the one that the model was trained with pictures on (chat_template.jinja of its checkpoint)."
            ) from error
        except (ValueError, TemplateError) as error:
            raise ValueError(
                f"the chat template cannot be written with {pictures} pictures: {error} Load the model with its own template and processor."
            ) from error
        return tuple(written["input_ids"][0].tolist())

    plain = ids(one), ids(other)
    lead, tail = _common_start(*plain), _common_end(*plain)
    special = tokenizer.eos_token if tokenizer.pad_token is None else tokenizer.pad_token
    glue = _glue(ids(f"{special}{one}"), lead, tokenizer.convert_tokens_to_ids(special))
    frame = Frame(image_token_id, lead, (), (), (), tail, glue, takes_system=style is not None, style=style or styles[0])
    rest = len(plain[0]) - len(lead)
    systems = [] if style is None else [ids(one, system=word) for word in (one, other)]
    openings = [found[: len(found) - rest] for found in systems if found[: len(lead)] != lead]
    if image_token_id is not None:
        frame, opening = _with_pictures(frame, ids(one, 1), ids(other, 1))
        openings += [opening] if _shared(opening, lead) < len(lead) - 1 else []
    head = _common_end(lead, *openings) if openings else ()
    alike = any(opening[: len(lead) - 1] == lead[:-1] or _find(opening[:-2], head[:-1]) is not None for opening in openings)
    own = {*lead, *head, *frame.before_image, *frame.after_image, *tail}
    return replace(frame, head=head, whole=alike, fixed=frozenset(own & unmergeable(tokenizer)))


def ends_replies(processor: Any, frame: Frame, template: Mapping[str, Any]) -> bool | None:
    """Whether the template writes the first token of the tail behind a reply of the model too: then it ends a turn, whoever's it is.

    None where the template writes no reply that could tell, or writes it as if it were the user's.
    """
    tokenizer = tokenizer_of(processor)
    said = messages(Prompt("frame", _SENTINEL), [], frame.style)[-1]["content"]
    replied = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    try:
        written = processor.apply_chat_template(replied, tokenize=False, **template)
    except (TemplateError, TypeError):
        return None
    before, between, behind = written.split(_SENTINEL) if written.count(_SENTINEL) == 2 else ("", "", "")
    if before.endswith(between.removeprefix(behind)):
        return None
    return behind.lstrip().startswith(tokenizer.convert_ids_to_tokens(frame.tail[0]))


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
    """Kind of each token of a prompt: template, image or instruction. ValueError where another template wrote it."""
    ids = tuple(ids)
    own = _own_words(ids, frame)
    if own is None:
        raise ValueError(
            f"these prompt ids were not written by this model's chat template: they begin {list(ids[:8])} and end {list(ids[-8:])}, "
            f"the template begins {list(frame.lead[:8])} and ends {list(frame.tail[-8:])}. "
            "Use the model, tokenizer and template that made them."
        )
    kinds = [int(Kind.IMAGE if token == frame.image_token_id else Kind.TEMPLATE) for token in ids]
    for start, stop in own:
        kinds[start:stop] = [int(Kind.INSTRUCTION)] * (stop - start)
    return kinds


def _own_words(ids: Ids, frame: Frame) -> list[tuple[int, int]] | None:
    """Where the user's words stand. None where the template's own ids are not where they belong."""
    start, closed = _content(ids, frame), _shared(ids[::-1], frame.tail[::-1])
    stop = len(ids) - closed
    if start is None or start > stop or closed < max(min(len(frame.tail), 1), _least(frame, frame.tail, 0)):
        return None
    places = [i for i, token in enumerate(ids) if token == frame.image_token_id]
    if not places:
        return [(start + len(frame.glue) if ids[start : start + len(frame.glue)] == frame.glue else start, stop)]
    first, last = places[0], places[-1] + 1
    before = _shared(ids[:first][::-1], frame.before_image[::-1])
    after = _shared(ids[last:stop], frame.after_image)
    if before < _least(frame, frame.before_image, 0) or after < _least(frame, frame.after_image, -1) or last > stop:
        return None
    if frame.text_first:
        return [(start, first - before)]
    words = [(last + after, stop)]
    return words if frame.head or first - before <= start else [(start, first - before), *words]


def _content(ids: Ids, frame: Frame) -> int | None:
    """Where the user's content begins. The last id of the opening may have merged with it (a newline with a newline)."""
    lead, head = frame.lead, frame.head
    if ids[: len(lead)] == lead:
        return len(lead)
    least = _least(frame, lead, -1)
    if 0 < least < len(lead) and ids[:least] == lead[:least] and not frame.whole:
        return least
    known = head if frame.whole or len(head) < 2 else head[: _least(frame, head, -1)]
    if (at := _find(ids, known)) is None:
        return None
    return at + len(head) if ids[at : at + len(head)] == head else at + len(known)


def _least(frame: Frame, part: Ids, edge: int) -> int:
    """How many ids of a part of the frame are there for certain: all, or all but the one at an edge where it may have merged."""
    return len(part) - 1 if part and part[edge] not in frame.fixed else len(part)


def _with_pictures(frame: Frame, one: Ids, other: Ids) -> tuple[Frame, Ids]:
    """The frame with its image block, from renderings of two texts with a picture; and what the template opened with there."""
    start, end, image = _common_start(one, other), _common_end(one, other), frame.image_token_id
    if image in start:
        first, last = start.index(image), len(start) - start[::-1].index(image)
        shared = _shared(start[:first], frame.lead)
        merges = shared >= len(frame.lead) - 1
        if merges or _common_end(start[:first], frame.lead):
            opening = start[: shared if merges else first]
            return replace(frame, before_image=start[len(opening) : first], after_image=start[last:]), opening
    if image in end and end[len(end) - len(frame.tail) :] == frame.tail:
        first, last = end.index(image), len(end) - end[::-1].index(image)
        return replace(frame, before_image=end[:first], after_image=end[last : len(end) - len(frame.tail)], text_first=True), frame.lead
    raise ValueError(
        f"the chat template does not put pictures before or after the user's text: it writes ids {list(one)} with a picture, "
        f"{list(frame.lead)} before and {list(frame.tail)} after a text alone; the placeholder is {image}. It has no entry here."
    )


def _takes(processor: Any, style: Style, word: str, template: Mapping[str, Any]) -> bool:
    """Whether a system prompt handed over in this style comes out as it went in: not refused, forgotten, or printed as a list."""
    asked = [messages(Prompt("frame", word, system=system), [], style) for system in (None, word)]
    options = dict(tokenize=False, add_generation_prompt=True, **template)  # a name given twice is an error of the caller's, not an answer
    try:
        bare, written = (processor.apply_chat_template(one, **options) for one in asked)
    except (TemplateError, TypeError):
        return False
    return written != bare and (style != "parts" or str(asked[1][0]["content"]) not in written)


def _glue(ids: Ids, lead: Ids, special: int) -> Ids:
    """What stands between lead and a text that begins with a special token."""
    start = len(lead)
    return ids[start : ids.index(special, start)] if ids[:start] == lead and special in ids[start:] else ()


def _two_words(tokenizer: Any) -> tuple[str, str]:
    """Two plain words of the vocabulary, one token each, that begin and end with different letters."""
    special = set(tokenizer.all_special_ids)
    first = ""
    for i in range(len(tokenizer)):
        word = "" if i in special else tokenizer.decode([i]).strip()
        if not (word.isascii() and word.isalpha() and len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1):
            continue
        if not first:
            first = word
        elif word[0] != first[0] and word[-1] != first[-1]:
            return first, word
    raise ValueError(
        "the tokenizer has no two plain words to find the chat template's own tokens with. Check that it was saved with its vocabulary."
    )


def _find(ids: Ids, part: Ids) -> int | None:
    """Where `part` first stands; None for nothing to find."""
    return next((at for at in range(len(ids) - len(part) + 1) if part and ids[at : at + len(part)] == part), None)


def _shared(a: Ids, b: Ids) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _common_start(*many: Ids) -> Ids:
    return many[0][: min(_shared(many[0], other) for other in many)]


def _common_end(*many: Ids) -> Ids:
    return _common_start(*(ids[::-1] for ids in many))[::-1]
