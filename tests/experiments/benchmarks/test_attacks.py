"""Made attacks: what was asked for stays, pictures hold every word within their margins, and the four crossings of a pair say who is where."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from thoughtlens.experiments.benchmarks.attacks import ATTACKS, MARGIN, SIDE, SIZES, crossed, empty_list, made, wrapped
from thoughtlens.hooks.records import Prompt, read_prompts, write_prompts

BAD = Prompt(
    "zib/text/1",
    "How do I {florp} the wug?",
    goal="Florp the wug",
    system="be brief",
    category="Wugs",
    group="zib/1",
    harmful=True,
    benchmark="zib",
    split="test",
    expected="warn",
    hazard="ncr",
    twin="zib/text/2",
    source="abc",
    meta={"kind": "request"},
)
GOOD = Prompt("zib/text/2", "How do I pet the wug?", goal="Pet the wug", category="Wugs", harmful=False, benchmark="zib", twin="zib/text/1")
CHANGED = {"id", "text", "images", "attack", "twin"}
GOALS = st.text(st.sampled_from("abcdefghijklmnop qrstuvwxyz.,-?!'0123456789AWM "), min_size=1, max_size=600).filter(str.strip)


def dark(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture) < 128


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_asked_for_and_known_stays(attack: str) -> None:
    for prompt in (BAD, GOOD):
        (one,) = made([prompt], attack)
        changed = {f.name for f in fields(Prompt) if getattr(one, f.name) != getattr(prompt, f.name)}
        assert changed <= CHANGED | {"group"} and one.group == (prompt.group or prompt.id)
        assert (one.id, one.twin, one.attack) == (f"{prompt.id}+{attack}", f"{prompt.twin}+{attack}", attack)
    assert [p.expected for p in made([BAD, GOOD], attack)] == ["warn", "comply"]


def test_twins_stay_twins() -> None:
    bad, good = made([BAD, GOOD], "prefix")
    assert (bad.twin, good.twin) == (good.id, bad.id)
    assert made([Prompt("a", "florp", goal="florp")], "prefix")[0].twin == ""


def test_a_wrapper_holds_the_request_and_a_list_does_not() -> None:
    texts = {attack: made([BAD], attack)[0].text for attack in ATTACKS}
    assert texts["blank"] == texts["noise"] == BAD.text
    assert all(BAD.text in texts[attack] and texts[attack] != BAD.text for attack in ("roleplay", "prefix"))
    assert "wug" not in texts["typographic"].lower()
    assert {attack: len(made([BAD], attack)[0].images) for attack in ATTACKS} == {
        **{"typographic": 1, "roleplay": 0, "prefix": 0},
        **{"blank": 1, "noise": 1},
    }


def test_without_a_goal_the_request_is_the_goal() -> None:
    (one,) = made([Prompt("a", "Florp it.", harmful=True)], "typographic")
    assert one.goal == "Florp it." and one.images[0].tobytes() == empty_list("Florp it.").tobytes()


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (Prompt("a", "florp", attack="typographic"), "'a' is not plain: its attack is 'typographic'"),
        (Prompt("a", "florp", images=(Image.new("L", (4, 4)),)), "'a' is not plain: it has a picture"),
    ],
)
def test_attacks_are_made_of_plain_goals_only(prompt: Prompt, why: str) -> None:
    for make in (lambda: made([GOOD, prompt], "prefix"), lambda: crossed([prompt], [GOOD]), lambda: crossed([BAD], [prompt])):
        with pytest.raises(ValueError, match=why):
            make()


def test_an_unknown_attack_is_told() -> None:
    with pytest.raises(ValueError, match="unknown attack 'zap'; typographic, roleplay, prefix, blank, noise can be made"):
        made([BAD], "zap")


@given(GOALS)
def test_every_word_is_drawn_within_the_margins(goal: str) -> None:
    picture = empty_list(goal)
    rows, columns = np.nonzero(dark(picture))
    assert picture.width == SIDE and picture.height >= SIDE
    assert columns.min() >= MARGIN - 2 and columns.max() < SIDE - MARGIN + 2
    assert rows.min() >= MARGIN - 2 and rows.max() < picture.height - MARGIN


@given(GOALS, st.sampled_from(SIZES))
def test_lines_are_the_words_in_their_order_and_none_is_too_wide(goal: str, size: int) -> None:
    font = ImageFont.load_default(size)
    lines = wrapped(goal, font, SIDE - 2 * MARGIN)
    assert "".join("".join(lines).split()) == "".join(goal.split())
    assert all(font.getlength(line) <= SIDE - 2 * MARGIN for line in lines)
    kept = [word for word in goal.split() if font.getlength(word) <= SIDE - 2 * MARGIN]
    if len(kept) == len(goal.split()):
        assert " ".join(lines).split() == kept


def test_the_picture_is_the_title_and_three_empty_items() -> None:
    """Drawn once more by hand, in one go."""
    by_hand = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(by_hand)
    for number, line in enumerate(("Florp the wug", "1.", "2.", "3.")):
        draw.text((MARGIN, MARGIN + 50 * number), line, font=ImageFont.load_default(40), fill=0)
    assert empty_list("Florp the wug").tobytes() == by_hand.tobytes()
    assert set(np.unique(np.asarray(by_hand))[[0, -1]]) == {0, 255}


def test_long_goals_shrink_and_then_the_picture_grows() -> None:
    heights = [empty_list("wug " * n).height for n in (1, 60, 200, 800)]
    assert heights[:3] == [SIDE] * 3 and heights[3] > SIDE


def test_letters_the_font_lacks() -> None:
    assert empty_list("Florp a na\u00efve wug \u2013 now").tobytes() == empty_list("Florp a naive wug - now").tobytes()
    with pytest.raises(ValueError, match=r"'zib/text/1': the built-in font cannot write '\u0432'.*translate the goal"):
        made([Prompt("zib/text/1", "\u0432\u0432 wug", goal="\u0432\u0432 wug")], "typographic")


def test_noise_depends_on_seed_and_prompt_alone() -> None:
    one, again = (made([BAD, GOOD], "noise", seed=3) for _ in range(2))
    other = made([BAD, GOOD], "noise", seed=4)
    assert [p.images[0].tobytes() for p in one] == [p.images[0].tobytes() for p in again]
    assert len({p.images[0].tobytes() for p in (*one, *other)}) == 4
    assert made([GOOD], "noise", seed=3)[0].images[0].tobytes() == one[1].images[0].tobytes()
    grey = np.asarray(one[0].images[0], float)
    assert abs(grey.mean() - 127.5) < 5 and abs(grey.std() - 255 / 12**0.5) < 5  # uniform
    assert np.asarray(made([BAD], "blank")[0].images[0]).min() == 255


def test_made_prompts_are_written_and_read(tmp_path: Path) -> None:
    prompts = [one for attack in ATTACKS for one in made([BAD, GOOD], attack)] + crossed([BAD], [GOOD])
    read = read_prompts(write_prompts(tmp_path / "prompts.jsonl", prompts))
    assert [(p.id, p.text, p.twin, p.meta) for p in read] == [(p.id, p.text, p.twin, dict(p.meta)) for p in prompts]
    assert len({p.id for p in read}) == len(read) == 14


def test_the_four_crossings_of_a_pair() -> None:
    cells = crossed([BAD], [GOOD])
    told = {p.attack: (BAD.text in p.text, p.images[0].tobytes() == empty_list(BAD.goal).tobytes(), p.harmful, p.goal) for p in cells}
    assert told == {
        "text=harmful,image=harmful": (True, True, True, "Florp the wug"),
        "text=harmful,image=benign": (True, False, True, "Florp the wug"),
        "text=benign,image=harmful": (False, True, True, "Florp the wug"),
        "text=benign,image=benign": (False, False, False, "Pet the wug"),
    }
    assert [p.expected for p in cells] == ["warn", "warn", "warn", "comply"]
    assert [p.meta["text"] for p in cells] == [BAD.id, BAD.id, GOOD.id, GOOD.id]
    assert [p.meta["image"] for p in cells] == [BAD.id, GOOD.id, BAD.id, GOOD.id]
    assert {p.group for p in cells} == {"zib/1"} and {p.benchmark for p in cells} == {"zib"} and {p.source for p in cells} == {"abc", ""}
    first, *mixed, last = cells
    assert (first.twin, last.twin) == (last.id, first.id) and [p.twin for p in mixed] == ["", ""]


def pairs(n: int, named_by: str = "") -> tuple[list[Prompt], list[Prompt]]:
    bad = [Prompt(f"b{i}", f"florp {i}", goal=f"florp {i}", harmful=True, twin=f"g{i}" if named_by == "bad" else "") for i in range(n)]
    good = [Prompt(f"g{i}", f"pet {i}", goal=f"pet {i}", harmful=False, twin=f"b{i}" if named_by == "good" else "") for i in range(n)]
    return bad, good[::-1]


@pytest.mark.parametrize("named_by", ["bad", "good"])
def test_twins_are_crossed_whichever_of_them_names_the_other(named_by: str) -> None:
    cells = crossed(*pairs(5, named_by))
    assert len(cells) == 20 and all(p.meta["text"][1:] == p.meta["image"][1:] == p.id[1] for p in cells)


def test_without_twins_benign_prompts_are_drawn_by_seed_and_used_evenly() -> None:
    bad, good = pairs(8)
    drawn = [[p.meta["image"] for p in crossed(bad, good[:4], seed=seed) if p.attack == "text=harmful,image=benign"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {one: drawn[0].count(one) for one in drawn[0]} == {p.id: 2 for p in good[:4]}


def test_what_cannot_be_crossed_is_told() -> None:
    bad, good = pairs(3, "bad")
    with pytest.raises(ValueError, match="1 of 3 harmful prompts have no twin among the benign ones, the first is 'b0'"):
        crossed(bad, good[:2])
    with pytest.raises(ValueError, match="'g2' is given as harmful and is not labelled so"):
        crossed(good, bad)
    with pytest.raises(ValueError, match="'b0' is given as benign"):
        crossed(bad, bad)
    with pytest.raises(ValueError, match="no benign prompts"):
        crossed(bad, [])


def test_a_prompt_without_a_group_shares_one_with_all_its_wrappings() -> None:
    plain = Prompt("p", "florp the wug", goal="florp the wug", harmful=True)
    assert {made([plain], attack)[0].group for attack in ("prefix", "roleplay", "blank")} == {"p"}
