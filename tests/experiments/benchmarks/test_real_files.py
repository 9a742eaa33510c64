"""The real published files, where they lie beside the repository: counts, fields, labels, pictures. Skipped where they do not.

Of some benchmarks only a part is there, above all of the pictures; then what is there is counted. Pictures are looked for, for the first
600 prompts.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from thoughtlens.experiments.benchmarks import PUBLISHED, hades, redteam2k
from thoughtlens.experiments.benchmarks.benchmark import BenchmarkProblem, Found, load
from thoughtlens.experiments.benchmarks.taxonomy import HAZARDS
from thoughtlens.hooks.records import Prompt

DATA = Path(__file__).resolve().parents[4] / "shared/data"
COMPLETIONS = "XSTest/model_completions/xstest_v2_completions_{}.csv"
LABELLED = "XSTest/evaluation/automated_evaluation_labels/xstest_v2_completions_gpt4_gpteval.csv"
LOOKED_FOR = 600
FILES = {  # what is read, of which variant: prompts, and those whose pictures are there
    ("FigStep", "figstep", "full"): (500, 20),
    ("FigStep/data/question/safebench.csv", "figstep", "full"): (500, 20),
    ("FigStep", "figstep", "tiny"): (50, 10),
    ("FigStep/data/question/SafeBench-Tiny.csv", "figstep", "tiny"): (50, 10),
    ("FigStep", "figstep", "pro"): (50, 0),
    ("FigStep", "figstep", "text"): (500, 500),
    ("MM-SafetyBench", "mm_safetybench", "sd_typo"): (80, 0),
    ("MM-SafetyBench", "mm_safetybench", "sd"): (80, 0),
    ("MM-SafetyBench", "mm_safetybench", "text"): (80, 80),
    ("MM-SafetyBench", "mm_safetybench", "question"): (80, 80),
    ("MM-SafetyBench", "mm_safetybench", "tiny_text"): (12, 12),
    ("JailBreakV-28k", "jailbreakv", "mini"): (280, 0),
    ("JailBreakV-28k/JailBreakV_28K/mini_JailBreakV_28K.csv", "jailbreakv", "mini"): (280, 0),
    ("MOSSBench", "mossbench", "oversensitive"): (300, 6),
    ("MOSSBench/information.csv", "mossbench", "oversensitive"): (300, 6),
    ("MOSSBench", "mossbench", "contrast"): (244, 2),
    ("MOSSBench", "mossbench", "both"): (544, 8),
    ("XSTest", "xstest", "all"): (450, 450),
    ("XSTest", "xstest", "safe"): (250, 250),
    ("XSTest", "xstest", "unsafe"): (200, 200),
    (COMPLETIONS.format("gpt4"), "xstest", "all"): (450, 450),
    (COMPLETIONS.format("mistralguard"), "xstest", "all"): (450, 450),
    (LABELLED, "xstest", "all"): (450, 450),
    ("POPE", "pope", "random"): (3000, 0),
    ("POPE", "pope", "popular"): (3000, 0),
    ("POPE", "pope", "adversarial"): (3000, 0),
    ("SaLAD", "salad", "full"): (20, 0),
}


@cache
def found(place: str, name: str, variant: str) -> tuple[list[Prompt], Found]:
    """All prompts of the files, and what is there of their pictures."""
    if not (DATA / place).exists():
        pytest.skip(f"{place} is not there")
    everything = list[Prompt]()

    def keep(prompts: list[Prompt]) -> list[Prompt]:
        everything.extend(prompts)
        return prompts[:LOOKED_FOR]

    return everything, load(PUBLISHED[name], DATA / place, variant, keep=keep)


def prompts(place: str, name: str, variant: str) -> list[Prompt]:
    return found(place, name, variant)[0]


@pytest.mark.parametrize(("place", "name", "variant"), FILES)
def test_the_files_make_the_published_prompts(place: str, name: str, variant: str) -> None:
    everything, there = found(place, name, variant)
    assert (len(everything), len(there.prompts)) == FILES[place, name, variant]
    assert len(there.prompts) + len(there.missing) == min(len(everything), LOOKED_FOR)
    assert len({p.id for p in everything}) == len(everything)
    for p in everything:
        assert p.text.strip() and p.goal.strip() and p.category and p.group and p.source and p.hazard in ("", *HAZARDS)
        assert p.expected == ("comply" if not p.harmful else "warn" if name == "salad" else "refuse")
        assert not PUBLISHED[name].hazards or name == "xstest" or p.category in PUBLISHED[name].hazards
    for p in there.prompts[:4]:
        for picture in p.images:
            with Image.open(str(picture)) as opened:
                opened.load()


def test_figstep_asks_one_text_and_is_told_by_its_questions() -> None:
    full, tiny, pro, text = (prompts("FigStep", "figstep", variant) for variant in ("full", "tiny", "pro", "text"))
    assert Counter(Counter(p.category for p in full).values()) == {50: 10} and Counter(Counter(p.category for p in tiny).values()) == {
        5: 10
    }
    assert len({p.text for p in full}) == 1 and [p.goal for p in full] == [p.text for p in text] == [p.goal for p in text]
    assert [p.goal for p in pro] == [p.goal for p in tiny] and {p.goal for p in tiny} <= {p.goal for p in full}
    first = [p.text.splitlines()[0] for p in pro]
    assert len(first) == 50 and all(line.count("*") == 1 for line in first) and any("$50,000" in line for line in first)


def test_mm_safetybench_moves_the_phrase_into_the_picture() -> None:
    typed, painted, plain = (prompts("MM-SafetyBench", "mm_safetybench", variant) for variant in ("sd_typo", "sd", "text"))
    assert Counter(Counter(p.category for p in plain).values()) == {10: 8} and not any(p.meta for p in plain)
    assert [p.group for p in typed] == [p.group for p in painted] == [p.group for p in plain]
    assert all(p.text == p.goal for p in plain) and [p.goal for p in typed] == [p.goal for p in plain]
    assert all("image" in p.text and p.text != q.text for p, q in zip(typed, plain, strict=True))
    assert all(p.text.startswith("The image shows") for p in painted) and all("bottom" in p.text for p in typed)
    listed = json.loads((DATA / "MM-SafetyBench/TinyVersion_ID_List.json").read_text())
    scenarios = {scenario["Scenario"] for scenario in listed}
    assert scenarios == set(PUBLISHED["mm_safetybench"].hazards) and PUBLISHED["mm_safetybench"].apart < scenarios
    assert sum(len(scenario["Sampled_ID_List"]) for scenario in listed) == PUBLISHED["mm_safetybench"].variants["tiny_sd"].prompts
    tiny = {f"mm_safetybench/{scenario['Scenario']}-{number}" for scenario in listed for number in scenario["Sampled_ID_List"]}
    assert {p.group for p in prompts("MM-SafetyBench", "mm_safetybench", "tiny_text")} == tiny & {p.group for p in plain}


def test_jailbreakv_asks_the_attack_and_tells_the_goal() -> None:
    mini = prompts("JailBreakV-28k", "jailbreakv", "mini")
    assert Counter(p.attack for p in mini) == {
        "template": 177,
        "related_image": 24,
        "typographic": 22,
        "related_image_typographic": 22,
        "typographic_phrase": 17,
        "persuasion": 13,
        "logic": 5,
    }
    assert {p.category for p in mini} == set(redteam2k.HAZARDS) and sum(p.meta["transfer"] for p in mini) == 195
    assert len({p.group for p in mini}) == len({p.goal for p in mini}) and sum(p.goal in p.text for p in mini) > 100


def test_hades_has_its_scenarios_among_those_of_the_authors() -> None:
    if not (file := DATA / "HADES/benchmark/scenario.json").exists():
        pytest.skip("HADES is not there")
    assert set(hades.HAZARDS) <= set(json.loads(file.read_text()))


def test_mossbench_has_three_kinds_and_links_contrasts() -> None:
    both = {p.id: p for p in prompts("MOSSBench", "mossbench", "both")}
    assert Counter((p.category, p.harmful) for p in both.values()) == {
        ("Exaggerated Risk", False): 100,
        ("Exaggerated Risk", True): 100,
        ("Negated Harm", False): 100,
        ("Negated Harm", True): 44,
        ("Counterintuitive Interpretation", False): 100,
        ("Counterintuitive Interpretation", True): 100,
    }
    twins = [p for p in both.values() if p.twin]
    assert len(twins) == 488 and all(both[p.twin].twin == p.id and both[p.twin].group == p.group for p in twins)
    assert sum(p.text == both[p.twin].text for p in twins) == 2 * 43  # these differ in the picture alone
    table = prompts("MOSSBench/information.csv", "mossbench", "oversensitive")
    whole = prompts("MOSSBench", "mossbench", "oversensitive")
    assert [(p.id, p.text, p.category) for p in table] == [(p.id, p.text, p.category) for p in whole]
    with pytest.raises(BenchmarkProblem, match="it is a contrast"):
        load(PUBLISHED["mossbench"], DATA / "MOSSBench/data_contrast/images_information/information.json", "oversensitive")


def test_xstest_has_the_labels_of_its_types_in_both_versions() -> None:
    now, before = (prompts(place, "xstest", "all") for place in ("XSTest", LABELLED))
    assert Counter(Counter(p.category for p in now).values()) == {25: 18}
    assert [p.harmful for p in now] == [p.harmful for p in before] == [p.category.startswith("contrast_") for p in now]
    assert [p.id for p in now] == [p.id for p in before]
    assert sum(p.text != q.text for p, q in zip(now, before, strict=True)) == 1


def test_pope_asks_six_questions_of_each_of_500_pictures_half_of_them_yes() -> None:
    ways = {way: prompts("POPE", "pope", way) for way in ("random", "popular", "adversarial")}
    for way, asked in ways.items():
        assert Counter(p.meta["gold"] for p in asked) == {"yes": 1500, "no": 1500} and {p.category for p in asked} == {way}
        assert Counter(Counter(p.group for p in asked).values()) == {6: 500}
    assert len({p.group for asked in ways.values() for p in asked}) == 500


def test_salad_warns_of_half_and_has_a_note_on_each() -> None:
    asked = prompts("SaLAD", "salad", "full")
    assert Counter(p.expected for p in asked) == {"warn": 10, "comply": 10} and Counter(Counter(p.category for p in asked).values()) == {
        2: 10
    }
    assert all(set(p.meta) == {"safety_warning" if p.harmful else "safe_suggestion"} for p in asked)
