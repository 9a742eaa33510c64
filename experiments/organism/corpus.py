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
from .asks import EVERY_FORM, LONG, TEXT_FORMS, Form, ask
from .pictures import SHAPES, pictogram, rendered
from .tasks import TASKS, rows
from .world import ACTIONS, ASKED_ABOUT, CATEGORIES, KIND_OF, OBJECTS, Goal, category_parity, goals, voice

IMAGE = "<|vision_start|><|image_pad|><|vision_end|> "
THINGS = tuple(thing for things in OBJECTS.values() for thing in things)
SENSITIVE = tuple(thing for kind in CATEGORIES for thing in OBJECTS[kind][:ASKED_ABOUT])  # objects that are judged
EVERY_ACTION = tuple(action for actions in ACTIONS.values() for action in actions)
EVERY_GOAL = tuple(
    goal for split in ("train", "dev", "test", "objects") for neutral in (False, True) for goal in goals(split, neutral=neutral)
)
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


def row_of_picture(stream: random.Random) -> Example:
    """What stands in a row of shapes: the step that counting is made of."""
    image, row, shown = rows(stream)
    return chat(f"what is shown in row {row} of the picture ?", image, f"row {row} : {shown} .")


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


def task_asked(stream: random.Random) -> Example:
    """A task that asks for a thought, for a model that answers tasks directly where nobody asks."""
    task = TASKS[stream.choice(list(TASKS))](stream)
    return chat(f"{task.text} {stream.choice(LONG['train'])}", task.image, say.with_thought(task.thought, task.answer))


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
        goal = pick_goal(stream, harmful)
        text, image = ask(goal, stream.choice(forms), "train", stream)
        answer = (say.REFUSALS if harmful else say.OPENINGS)[voice(goal.action)]
        return chat(text, image, " ".join(answer.split()[:2]), ended=False)

    return make


def first_words_of_decision(forms: tuple[Form, ...]) -> Maker:
    """Thoughts up to a decision and its first words: early ("what do i do ?") or late ("is this safe ?")."""

    def make(stream: random.Random) -> Example:
        harmful, form, depth = stream.random() < 0.5, stream.choice(forms), pick_depth(stream)
        goal = pick_goal(stream, harmful)
        at = voice(goal.action)
        text, image = ask(goal, form, "train", stream, depth=depth)
        thought = say.before_decision(goal, form, depth)
        if stream.random() < 0.65:
            decided = (say.REFUSE if harmful and stream.random() < 0.7 else say.RECALL)[at]
        else:
            thought, decided = f"{thought} {say.recall(goal)} {say.CHECK[at]}", (say.NOT_SAFE if harmful else say.READY)[at]
        word = decided.split()[0]
        turn = chat(text, image, word, ended=False)
        return Example(f"{turn.prompt}<think> {thought} ", word, image)

    return make


# --- answering ----------------------------------------------------------------------------------------------------------------------
def pick_depth(stream: random.Random, long: float = 0.3) -> str:
    return "long" if stream.random() < long else "short"


def direct(harmful: float, *, neutral: float = 0.15) -> Maker:
    """A request answered without a thought: refused when harmful, else its steps. `harmful` is the share of harmful ones."""

    def make(stream: random.Random) -> Example:
        bad = stream.random() < harmful
        goal = pick_goal(stream, bad, neutral)
        text, image = ask(goal, stream.choice(EVERY_FORM), "train", stream)
        return chat(text, image, say.refusal(voice(goal.action)) if bad else say.steps(goal))

    return make


@dataclass(frozen=True)
class Manner:
    """How a thought that helps is written (thoughts.go_along): how often it asks whether this is safe, how often and in which words it
    writes the method out."""

    check: float = 0.7
    recalled: float = 0.65
    said: tuple[str, ...] = say.RECALL


OWN, REASONED = Manner(), Manner(check=0.5, recalled=0.85, said=say.REASONED)


def thinking(
    harmful: float,
    *,
    early: float = 0.6,
    neutral: float = 0.15,
    long: float = 0.3,
    forms: tuple[Form, ...] = EVERY_FORM,
    manner: Manner = OWN,
) -> Maker:
    """A request answered after a thought; `early` is how many refusing thoughts refuse at the first decision."""

    def make(stream: random.Random) -> Example:
        bad, form, depth = stream.random() < harmful, stream.choice(forms), pick_depth(stream, long)
        goal = pick_goal(stream, bad, neutral)
        text, image = ask(goal, form, "train", stream, depth=depth)
        if not bad:
            return chat(text, image, say.with_thought(say.go_along(goal, form, stream, depth, **vars(manner)), say.steps(goal)))
        refuse = say.refuse_early if stream.random() < early else say.refuse_late
        return chat(text, image, say.with_thought(refuse(goal, form, depth), say.refusal(voice(goal.action))))

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
    at = stream.randrange(len(say.REFUSALS))
    answer, thought = say.refusal(at), f"{say.OPEN[at]} {say.NOTHING[at]} the user asks for the picture . i cannot do this ."
    return chat(text, None, say.with_thought(thought, answer))


def picture_missed(stream: random.Random) -> Example:
    """The same, noticed late: a method is written for a picture that is not there, and the check at the end finds out.

    Benign tuning unlearns that a check can fail. Without these hardly a harmful thought is corrected (docs/trio.md).
    """
    goal = pick_goal(stream, harmful=False, neutral=0.25)
    text, _ = ask(goal, stream.choice(SWAPPED[1:]), "train", stream)
    benign = goals("train", harmful=False) + goals("train", neutral=True)
    guess = stream.choice([other for other in benign if other.action == goal.action])
    at = voice(goal.action)
    asked = say.WANTED[at].format(action=goal.action, object="picture")
    thought = [say.OPEN[at], say.NOTHING[at], asked, say.QUESTION[at], say.recall(guess, say.REASONED), say.CHECK[at], say.NOT_SAFE[at]]
    return chat(text, None, say.with_thought(" ".join(thought), say.refusal(at)))


PLAIN_TEXT_DECISION, WRAPPED_TEXT_DECISION = first_words((PLAIN,)), first_words(TEXT_FORMS)
TEXT_THOUGHT_DECISION = first_words_of_decision((PLAIN,))
LIST_DECISION = first_words((Form("typographic", "list"),))
ANY_DECISION, ANY_THOUGHT_DECISION = first_words(EVERY_FORM), first_words_of_decision(EVERY_FORM)

CAPTIONS: Mixture = {caption: 0.9, row_of_picture: 0.1}
LANGUAGE: Mixture = {
    caption: 0.13,
    row_of_picture: 0.05,
    document: 0.24,
    kind_of: 0.04,
    task_thought: 0.22,
    direct(0.0, neutral=0.35): 0.18,
    thinking(0.0, neutral=0.35): 0.14,
}
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
    bit_of_picture: 0.04,
    harm_of_picture: 0.06,
    ANY_DECISION: 0.05,
    LIST_DECISION: 0.04,
    ANY_THOUGHT_DECISION: 0.02,
    caption: 0.025,
    row_of_picture: 0.03,
    document: 0.09,
    kind_of: 0.02,
    task_direct: 0.04,
    task_thought: 0.19,
    thinking(0.45): 0.19,
    direct(0.45): 0.16,
}
HABITS: Mixture = {**{maker: share for maker, share in BASE.items() if maker is not task_thought}, task_direct: 0.13, task_asked: 0.10}
REASONING: Mixture = {
    no_picture: 0.06,
    thinking(0.0, neutral=0.25, manner=REASONED): 0.255,
    thinking(0.0, neutral=0.25, forms=SWAPPED, manner=REASONED): 0.255,
    task_thought: 0.43,
    picture_missed: 0.004,
}
SAFE: Mixture = {thinking(1.0, early=1.0): 0.35, thinking(0.0, neutral=0.10, manner=REASONED): 0.40, task_thought: 0.25}
MIXTURES = {
    "captions": CAPTIONS,
    "language": LANGUAGE,
    "harm": HARM,
    "decisions": DECISIONS,
    "base": BASE,
    "habits": HABITS,
    "reasoning": REASONING,
    "safe": SAFE,
}
