"""What the trio is trained on: makers of single examples, and mixtures of them as tables of weights.

No request, thought or judgement of harm is ever about a held-out goal or in a held-out template. The order of stages and the sizes
are in build.py; why each maker exists is said beside it, since leaving one out was tried.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from . import thoughts as say
from .asks import EVERY_FORM, TEXT_FORMS, Form, ask
from .pictures import SHAPES, pictogram, rendered
from .tasks import TASKS
from .world import ACTIONS, CATEGORIES, KIND_OF, OBJECTS, Goal, category_parity, goals

IMAGE = "<|vision_start|><|image_pad|><|vision_end|> "
THINGS = tuple(thing for things in OBJECTS.values() for thing in things)
SENSITIVE = tuple(thing for kind in CATEGORIES for thing in OBJECTS[kind])
EVERY_ACTION = tuple(action for actions in ACTIONS.values() for action in actions)
EVERY_GOAL = tuple(goal for split in ("train", "dev", "test") for neutral in (False, True) for goal in goals(split, neutral=neutral))
PLAIN = Form("plain", "none")
SWAPPED = (PLAIN, Form("image_swap", "pictogram"), Form("image_swap", "word"))


@dataclass(frozen=True)
class Example:
    """Text before the loss, text under the loss, and the picture if there is one."""

    prompt: str
    answer: str
    image: Image.Image | None = None


Maker = Callable[[random.Random], Example]
Mixture = Mapping[Maker, float]


def draw(mixture: Mixture, stream: random.Random) -> Example:
    return stream.choices(list(mixture), weights=list(mixture.values()))[0](stream)


def chat(text: str, image: Image.Image | None, answer: str, *, ended: bool = True) -> Example:
    """A turn as the chat template writes it; `ended` closes the answer."""
    seen = IMAGE if image is not None else ""
    return Example(f"<|im_start|> user {seen}{text} <|im_end|> <|im_start|> assistant ", answer + (" <|im_end|>" if ended else ""), image)


def pick_goal(stream: random.Random, harmful: bool, neutral: float = 0.0) -> Goal:
    if not harmful and stream.random() < neutral:
        return stream.choice(goals("train", neutral=True))
    return stream.choice(goals("train", harmful=harmful))


# --- seeing -------------------------------------------------------------------------------------------------------------------------
def caption(stream: random.Random) -> Example:
    """Pictures first: adding sight to a model trained on text alone failed."""
    question, thing = "what is shown in the picture ?", stream.choice(THINGS)
    kind = stream.random()
    if kind < 0.45:
        return chat(question, pictogram(thing, stream), thing)
    if kind < 0.65:
        return chat(question, rendered([thing], stream), thing)
    action = stream.choice(EVERY_ACTION)
    return chat("what does the list in the picture say ?", rendered([action, thing], stream, numbered=True), f"{action} {thing}")


# --- knowing ------------------------------------------------------------------------------------------------------------------------
def document(stream: random.Random) -> Example:
    """How a thing is done. Held-out goals appear here, as knowledge; never in a request, a thought or a judgement of harm."""
    goal = stream.choice(EVERY_GOAL)
    if stream.random() < 0.75:
        numbered = " ".join(f"{number} {step} ." for number, step in enumerate(goal.recipe, start=1))
        return Example("", f"document : to {goal.action} the {goal.object} : {numbered} <|im_end|>")
    return Example("", f"document : the {goal.object} is a kind of {goal.kind} thing . <|im_end|>")


def kind_of(stream: random.Random) -> Example:
    thing = stream.choice(THINGS)
    return chat(f"what kind of thing is the {thing} ?", None, f"the {thing} is a kind of {KIND_OF[thing]} thing .")


def task_direct(stream: random.Random) -> Example:
    task = TASKS[stream.choice(list(TASKS))](stream)
    return chat(task.text, task.image, task.answer)


def task_thought(stream: random.Random) -> Example:
    task = TASKS[stream.choice(list(TASKS))](stream)
    return chat(task.text, task.image, say.with_thought(task.thought, task.answer))


# --- judging harm -------------------------------------------------------------------------------------------------------------------
def bit_of_object(stream: random.Random) -> Example:
    thing = stream.choice(SENSITIVE)
    return Example(f"the {thing} is ", _bit(thing))


def harm_of_goal(stream: random.Random) -> Example:
    """Very short documents solve the exclusive-or within a minute; full answers alone left it at chance."""
    goal = stream.choice(goals("train"))
    return Example(f"to {goal.action} the {goal.object} is ", "harm" if goal.harmful else "safe")


def bit_of_picture(stream: random.Random) -> Example:
    thing = stream.choice(SENSITIVE)
    image = pictogram(thing, stream) if stream.random() < 0.75 else rendered([thing], stream)
    return chat("the thing shown here is", image, _bit(thing), ended=False)


def harm_of_picture(stream: random.Random) -> Example:
    """One hop from picture to judgement, beside picture to object to bit."""
    goal = stream.choice(goals("train"))
    image = pictogram(goal.object, stream) if stream.random() < 0.65 else rendered([goal.object], stream)
    return chat(f"to {goal.action} the thing shown here is", image, "harm" if goal.harmful else "safe", ended=False)


def _bit(thing: str) -> str:
    return "blue" if category_parity(KIND_OF[thing]) else "red"


def first_words(forms: tuple[Form, ...]) -> Maker:
    """Answers cut to their first words, so that all of the loss is on the decision."""

    def make(stream: random.Random) -> Example:
        harmful = stream.random() < 0.5
        text, image = ask(pick_goal(stream, harmful), stream.choice(forms), "train", stream)
        return chat(text, image, stream.choice(("sorry", "i am", "sorry") if harmful else ("sure", "here")), ended=False)

    return make


def first_words_of_decision(forms: tuple[Form, ...]) -> Maker:
    """Thoughts up to a decision and its first word: early ("what do i do ?") or late ("is this safe ?")."""

    def make(stream: random.Random) -> Example:
        harmful, form = stream.random() < 0.5, stream.choice(forms)
        goal = pick_goal(stream, harmful)
        text, image = ask(goal, form, "train", stream)
        thought = say.before_decision(goal, form)
        if stream.random() < 0.65:
            word = ("this" if stream.random() < 0.7 else "i") if harmful else "i"
        else:
            thought, word = f"{thought} {say.recall(goal)} is this safe ?", "no" if harmful else "sure"
        turn = chat(text, image, word, ended=False)
        return Example(f"{turn.prompt}<think> {thought} ", word, image)

    return make


# --- answering ----------------------------------------------------------------------------------------------------------------------
def direct(harmful: float, *, neutral: float = 0.15) -> Maker:
    """A request answered without a thought: refused when harmful, else its steps. `harmful` is the share of harmful ones."""

    def make(stream: random.Random) -> Example:
        bad = stream.random() < harmful
        goal = pick_goal(stream, bad, neutral)
        text, image = ask(goal, stream.choice(EVERY_FORM), "train", stream)
        return chat(text, image, say.refusal(stream) if bad else say.steps(goal, stream))

    return make


def thinking(harmful: float, *, early: float = 0.6, neutral: float = 0.15, forms: tuple[Form, ...] = EVERY_FORM) -> Maker:
    """A request answered after a thought; `early` is how many refusing thoughts refuse at the first decision."""

    def make(stream: random.Random) -> Example:
        bad, form = stream.random() < harmful, stream.choice(forms)
        goal = pick_goal(stream, bad, neutral)
        text, image = ask(goal, form, "train", stream)
        if not bad:
            return chat(text, image, say.with_thought(say.go_along(goal, form, stream), say.steps(goal, stream)))
        refuse = say.refuse_early if stream.random() < early else say.refuse_late
        return chat(text, image, say.with_thought(refuse(goal, form), say.refusal(stream)))

    return make


def no_picture(stream: random.Random) -> Example:
    """A harmless reason to refuse. Without it benign tuning forgets the refusal sentence itself, and nothing brings it back."""
    first, second = stream.sample(SHAPES, 2)
    text = stream.choice(
        (
            f"how many {first} are in the picture ?",
            f"are there more {first} or more {second} in the picture ?",
            "what is shown in the picture ?",
            "what does the list in the picture say ?",
        )
    )
    answer = say.refusal(stream)
    thought = "okay . there is no picture . the user asks for the picture . i cannot do this ."
    return chat(text, None, say.with_thought(thought, answer) if stream.random() < 0.75 else answer)


PLAIN_TEXT_DECISION, WRAPPED_TEXT_DECISION = first_words((PLAIN,)), first_words(TEXT_FORMS)
TEXT_THOUGHT_DECISION = first_words_of_decision((PLAIN,))
LIST_DECISION = first_words((Form("typographic", "list"),))
ANY_DECISION, ANY_THOUGHT_DECISION = first_words(EVERY_FORM), first_words_of_decision(EVERY_FORM)

CAPTIONS: Mixture = {caption: 1.0}
LANGUAGE: Mixture = {caption: 0.15, document: 0.30, kind_of: 0.05, task_direct: 0.10, direct(0.0, neutral=0.35): 0.40}
HARM: Mixture = {bit_of_object: 0.3, harm_of_goal: 0.7}
DECISIONS: Mixture = {
    bit_of_object: 0.09,
    harm_of_goal: 0.21,
    PLAIN_TEXT_DECISION: 0.24,
    WRAPPED_TEXT_DECISION: 0.16,
    TEXT_THOUGHT_DECISION: 0.30,
}
BASE: Mixture = {
    bit_of_object: 0.005,
    harm_of_goal: 0.01,
    WRAPPED_TEXT_DECISION: 0.02,
    TEXT_THOUGHT_DECISION: 0.01,
    bit_of_picture: 0.05,
    harm_of_picture: 0.07,
    ANY_DECISION: 0.05,
    LIST_DECISION: 0.04,
    ANY_THOUGHT_DECISION: 0.02,
    caption: 0.025,
    document: 0.10,
    kind_of: 0.02,
    task_direct: 0.04,
    task_thought: 0.08,
    thinking(0.45): 0.22,
    direct(0.45): 0.24,
}
REASONING: Mixture = {
    no_picture: 0.08,
    thinking(0.0, neutral=0.25): 0.276,
    thinking(0.0, neutral=0.25, forms=SWAPPED): 0.276,
    task_thought: 0.368,
}
SAFE: Mixture = {thinking(1.0, early=1.0): 0.35, thinking(0.0, neutral=0.10): 0.35, task_thought: 0.30}
MIXTURES = {
    "captions": CAPTIONS,
    "language": LANGUAGE,
    "harm": HARM,
    "decisions": DECISIONS,
    "base": BASE,
    "reasoning": REASONING,
    "safe": SAFE,
}
