"""What is special to SIUO, MSSBench, VLGuard, VLSBench, SPA-VL, BeaverTails-V, MIS, OR-Bench, AdvBench, HarmBench, JailbreakBench,
StrongREJECT, MathVista and MM-Vet; test_published.py holds what is common to all benchmarks."""

from __future__ import annotations

from pathlib import Path

import made_b
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import put_csv, put_json, shot
from PIL import Image
from thoughtlens.experiments.benchmarks import PUBLISHED, prompts
from thoughtlens.experiments.benchmarks.benchmark import BenchmarkProblem
from thoughtlens.hooks.records import Prompt


def by_id(found: list[Prompt]) -> dict[str, Prompt]:
    return {p.id.rpartition("/")[2]: p for p in found}


def names(prompt: Prompt) -> list[str]:
    return [Path(str(picture)).name for picture in prompt.images]


@pytest.mark.parametrize(
    "name, whole, parts",
    [
        ("harmbench", "text", ["standard", "contextual", "copyright"]),
        ("harmbench", "text", ["val", "test"]),
        ("jailbreakbench", "both", ["harmful", "benign"]),
        ("mssbench", "all", ["chat", "embodied"]),
        ("vlguard", "test", ["unsafes", "safe_unsafes", "safe_safes"]),
    ],
)
def test_the_published_counts_of_parts_add_up(name: str, whole: str, parts: list[str]) -> None:
    variants = PUBLISHED[name].variants
    assert variants[whole].prompts == sum(variants[part].prompts or 0 for part in parts) > 0


def test_siuo_expects_a_warning_and_tells_the_judge_why(tmp_path: Path) -> None:
    made_b.siuo(tmp_path)
    first = prompts("siuo", root=tmp_path)[0]
    assert (first.expected, first.harmful, first.hazard) == ("warn", True, "ssh")
    assert (
        first.text == "How do I florp S here?"
        and first.goal.startswith(first.text)
        and first.goal.endswith("Wug S stings when it is florped.")
    )


def test_siuo_choices_are_a_task_of_the_same_group_as_the_free_question(tmp_path: Path) -> None:
    made_b.siuo_mcqa(tmp_path)
    first, second = prompts("siuo", root=tmp_path, variant="mcqa")
    assert (first.meta["gold"], second.meta["gold"], first.meta["answer"]) == ("B", "D", "letter")
    assert "(B) Better not." in first.text and "Better not." not in first.goal
    made_b.siuo(tmp_path)
    assert {p.group for p in prompts("siuo", root=tmp_path)} == {"siuo/1001", "siuo/4001"} and first.group == "siuo/3001"


def test_mssbench_asks_the_same_before_a_safe_and_an_unsafe_picture(tmp_path: Path) -> None:
    made_b.mssbench(tmp_path)
    found = by_id(prompts("mssbench", root=tmp_path, variant="chat"))
    safe, unsafe = found["chat-1-2-safe"], found["chat-1-2-unsafe"]
    assert safe.text == unsafe.text and unsafe.text.endswith("May I florp, please?")
    assert (safe.harmful, safe.expected, unsafe.harmful, unsafe.expected) == (False, "comply", True, "warn")
    assert (safe.twin, unsafe.twin) == (unsafe.id, safe.id)
    assert names(safe) == ["1.jpg"] and names(unsafe) == ["2.jpg"]
    assert unsafe.goal == "May I florp, please?\n\nThe picture shows: a wug that sleeps" and safe.goal == "May I florp, please?"
    assert unsafe.category == "harmful" and found["chat-2-1-safe"].hazard == "ncr"
    assert len({p.group for p in found.values()}) == 2


def test_mssbench_embodied_has_an_instruction_of_its_own_on_each_side(tmp_path: Path) -> None:
    made_b.mssbench(tmp_path)
    found = by_id(prompts("mssbench", root=tmp_path, variant="embodied"))
    safe, unsafe = found["embodied-3-2-safe"], found["embodied-3-2-unsafe"]
    assert safe.text.endswith("Please florp the wug.") and unsafe.text.endswith("Please florp the dax.")
    assert names(safe) == ["kitchen_1.jpg"] and names(unsafe) == ["kitchen_2.jpg"] and safe.category == "property"
    assert "a dax on the stove" in unsafe.goal and "robot" in safe.text


def test_mssbench_is_published_under_two_names_and_with_lists_of_unlike_length(tmp_path: Path) -> None:
    made_b.mssbench(tmp_path / "one")
    made_b.mssbench(tmp_path / "two", "combine.json")
    one, two = (prompts("mssbench", root=tmp_path / root) for root in ("one", "two"))
    assert [p.id for p in one] == [p.id for p in two] and len(one) == 12
    uneven = [{**made_b.EMBODIED[0], "unsafe_instructions": ["Florp the dax."]}]
    put_json(tmp_path / "one/combined.json", {"chat": made_b.CHAT, "embodied": uneven})
    assert len(prompts("mssbench", root=tmp_path / "one", variant="embodied")) == 2
    uneven[0].pop("unsafe_instructions")
    put_json(tmp_path / "one/combined.json", {"chat": made_b.CHAT, "embodied": uneven})
    with pytest.raises(BenchmarkProblem, match="row 3: it has no 'unsafe_instructions'"):
        prompts("mssbench", root=tmp_path / "one", variant="embodied")


def test_vlguard_asks_two_things_of_a_safe_picture_and_one_of_an_unsafe_one(tmp_path: Path) -> None:
    made_b.vlguard(tmp_path)
    found = {p.id.removeprefix("vlguard/test/"): p for p in prompts("vlguard", root=tmp_path)}
    safe, unsafe = found["bad_ads/1.png:safe_safes"], found["bad_ads/1.png:safe_unsafes"]
    assert (safe.text, unsafe.text) == ("What is in Ads_1?", "Florp Ads_1.") and safe.images == unsafe.images
    assert (safe.harmful, unsafe.harmful, safe.group) == (False, True, unsafe.group) and (safe.twin, unsafe.twin) == (unsafe.id, safe.id)
    alone = found["bad_ads/2.png:unsafes"]
    assert (alone.twin, alone.category, alone.hazard, alone.meta["subset"]) == ("", "risky behavior: violence", "vcr", "unsafes")
    assert all(not p.twin for v in ("unsafes", "safe_unsafes", "safe_safes") for p in prompts("vlguard", root=tmp_path, variant=v))


@pytest.mark.parametrize("folder", ["data/VLGuard/test", "test", "data", "data/test"])
def test_vlguard_pictures_lie_where_they_were_unpacked(tmp_path: Path, folder: str) -> None:
    made_b.vlguard(tmp_path)
    (tmp_path / "data/VLGuard/test").rename(tmp_path / "unpacked")
    for part in ("bad_ads", "hod"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "unpacked" / part).rename(tmp_path / folder / part)
    assert len(prompts("vlguard", root=tmp_path)) == 6


def test_vlsbench_shows_the_picture_of_its_path_not_of_its_number(tmp_path: Path) -> None:
    made_b.vlsbench(tmp_path, safety_reason="Wugs sting.")
    found = by_id(prompts("vlsbench", root=tmp_path))
    assert names(found["5"]) == names(found["6"]) == ["3.png"] and found["5"].group == found["6"].group != found["0"].group
    assert found["5"].goal.endswith("Wugs sting.") and "Wugs sting." not in found["5"].text and found["0"].hazard == "sxc"


def test_spa_vl_reads_the_split_that_is_judged_for_harm(tmp_path: Path) -> None:
    made_b.spa_vl_hub(tmp_path)
    found = prompts("spa_vl", root=tmp_path)
    assert [p.text for p in found] == ["Why florp wug 0?", "Why florp wug 1?"]
    assert found[0].category == "Illegal activities" and found[0].hazard == "ncr"
    assert found[1].meta == {"class1": "Representation & Toxicity Harms", "class2": "Toxic", "class3": "hate"}


def test_rows_that_datasets_holds_in_memory_are_read_with_their_pictures() -> None:
    rows = [{**row, "image": Image.new("RGB", (4, 4))} for row in made_b.asked_of_spa()]
    assert [p.images[0].size for p in prompts("spa_vl", root=rows)] == [(4, 4)] * 2  # type: ignore[union-attr]
    held = [{**row, "decoded_image": shot()} for row in made_b.asked_of_mathvista()]
    assert len(prompts("mathvista", root=held, limit=3)) == 3


def test_beavertails_v_joins_its_configurations_and_leaves_the_training_split(tmp_path: Path) -> None:
    made_b.beavertails_v_hub(tmp_path)
    found = by_id(prompts("beavertails_v", root=tmp_path))
    assert set(found) == {"animal_abuse-1", "animal_abuse-2", "sexual_crimes-1"}
    assert found["sexual_crimes-1"].hazard == "src" and found["animal_abuse-2"].meta == {"severity": 2}
    (spelled,) = prompts("beavertails_v", root=[{"question": "Dax?", "category": "Animal Abuse", "image": shot()}])
    assert (spelled.category, spelled.hazard, spelled.meta) == ("animal_abuse", "vcr", {})


def test_mis_shows_both_pictures_in_their_order(tmp_path: Path) -> None:
    made_b.mis(tmp_path, "real")
    found = prompts("mis", root=tmp_path, variant="real")
    assert [[Path(str(p)).parts[-3:] for p in prompt.images] for prompt in found] == [
        [("real_image", number, "object1.png"), ("real_image", number, "object2.png")] for number in ("1", "2")
    ]
    assert [p.hazard for p in found] == ["vcr", "ncr"]
    with pytest.raises(BenchmarkProblem, match="holds none of .*mis_easy.json"):
        prompts("mis", root=tmp_path)


def test_or_bench_keeps_one_prompt_in_one_group_and_harm_to_what_is_toxic(tmp_path: Path) -> None:
    for name in ("hard-1k", "80k", "toxic"):
        made_b.or_bench(tmp_path, name)
    hard, wide, toxic = (prompts("or_bench", root=tmp_path, variant=name) for name in ("hard-1k", "80k", "toxic"))
    assert [p.group for p in hard] == [p.group for p in wide] and hard[0].id != wide[0].id
    assert [(p.harmful, p.expected, p.hazard) for p in hard] == [(False, "comply", "")] * 2
    assert [(p.harmful, p.expected, p.hazard) for p in toxic] == [(True, "refuse", "vcr"), (True, "refuse", "ssh")]


def test_advbench_copies_with_swapped_heads_ask_the_same(tmp_path: Path) -> None:
    made_b.advbench(tmp_path / "as published")
    swapped = [{"goal": target, "target": goal} for goal, target in made_b.BEHAVIOURS]
    put_csv(tmp_path / "swapped/harmful_behaviors.csv", swapped)
    published, copied = (prompts("advbench", root=tmp_path / root) for root in ("as published", "swapped"))
    assert [p.text for p in copied] == [p.text for p in published] == [goal for goal, _ in made_b.BEHAVIOURS]


def test_harmbench_groups_what_has_the_same_text_and_puts_its_context_before_it(tmp_path: Path) -> None:
    made_b.harmbench(tmp_path)
    found = by_id(prompts("harmbench", root=tmp_path))
    one, other = found["florp_letter"], found["dax_letter"]
    assert one.group == other.group and len({p.group for p in found.values()}) == 3
    assert one.text == one.goal == 'A wug said: "Florp, me."\n\n---\n\nWrite to this wug' != other.text
    assert one.meta["functional"] == "contextual" and found["florp_wug"].text == "Tell how to florp, wug by wug"
    assert [name for name, p in found.items() if p.meta.get("apart")] == ["dax_song"] and found["dax_song"].hazard == "ipv"
    (contextual, _) = prompts("harmbench", root=tmp_path, variant="contextual")
    assert contextual.group == one.group and contextual.id == "harmbench/contextual/florp_letter"


def test_harmbench_pictures_are_png_whatever_the_table_calls_them(tmp_path: Path) -> None:
    made_b.harmbench_multimodal(tmp_path)
    first, second = prompts("harmbench", root=tmp_path, variant="multimodal")
    assert names(first) == ["wug.png"] and names(second) == ["dax.png"]
    assert second.text == "Dax what is shown" and second.goal.endswith("The picture shows: a wug called dax.jpg")


def test_jailbreakbench_twins_have_one_index(tmp_path: Path) -> None:
    made_b.jailbreakbench(tmp_path)
    found = by_id(prompts("jailbreakbench", root=tmp_path))
    harmful, benign = found["harmful-1"], found["benign-1"]
    assert (harmful.twin, benign.twin) == (benign.id, harmful.id) and harmful.group == benign.group
    assert (harmful.expected, benign.expected) == ("refuse", "comply") and harmful.hazard == benign.hazard == "spc"
    assert not any(p.twin for p in prompts("jailbreakbench", root=tmp_path, variant="benign"))


def test_jailbreakbench_rows_alone_do_not_tell_their_side() -> None:
    rows = made_b.jbb_rows("benign")
    with pytest.raises(BenchmarkProblem, match="variant='harmful' or variant='benign'"):
        prompts("jailbreakbench", root=rows)
    assert [p.harmful for p in prompts("jailbreakbench", root=rows, variant="benign")] == [False, False]


def test_strongreject_small_shares_its_groups_and_one_category_two_spellings(tmp_path: Path) -> None:
    made_b.strongreject(tmp_path)
    made_b.strongreject(tmp_path, small=True)
    full, small = (prompts("strongreject", root=tmp_path, variant=name) for name in ("full", "small"))
    assert [p.group for p in full] == [p.group for p in small] and full[1].hazard == "vcr"
    row = {"category": "Disinformation and Deception", "source": "custom", "forbidden_prompt": "Say that daxes wug."}
    assert prompts("strongreject", root=[row])[0].category == full[0].category


def test_mathvista_says_what_an_answer_is_to_look_like_and_what_is_right(tmp_path: Path) -> None:
    made_b.mathvista(tmp_path)
    chosen, whole, rounded, listed = prompts("mathvista", root=tmp_path)
    assert (chosen.meta["gold"], chosen.meta["answer"], chosen.meta["choices"]) == ("B", "letter", ["florp", "dax", "tie"])
    assert "(B) dax" in chosen.text and "letter" in chosen.text
    assert (whole.meta["gold"], whole.meta["answer"]) == ("3", "number") and "(unit: wugs)" in whole.text and "whole number" in whole.text
    assert (rounded.meta["gold"], rounded.meta["answer"], rounded.meta["precision"]) == (
        "1.25",
        "number",
        2,
    ) and "2 decimal" in rounded.text
    assert (listed.meta["gold"], listed.meta["answer"]) == ("[1, 2]", "text") and listed.category == "math word problem"


@given(st.lists(st.text("florpdax", min_size=1), min_size=2, max_size=9, unique=True), st.data())
def test_the_letter_of_a_mathvista_choice_is_the_right_answers(choices: list[str], data: st.DataObject) -> None:
    right = data.draw(st.sampled_from(choices))
    row = {**made_b.asked_of_mathvista()[0], "choices": choices, "answer": right, "image": shot()}
    (found,) = prompts("mathvista", root=[row])
    letter = found.meta["gold"]
    assert f"({letter}) {right}\n" in found.text and choices["ABCDEFGHI".index(letter)] == right


def test_a_mathvista_answer_that_is_no_choice_stays_text() -> None:
    row = {**made_b.asked_of_mathvista()[0], "answer": "neither", "image": shot()}
    (found,) = prompts("mathvista", root=[row])
    assert (found.meta["gold"], found.meta["answer"]) == ("neither", "text")


def test_mm_vet_needs_a_judge_that_grades(tmp_path: Path) -> None:
    made_b.mmvet(tmp_path)
    first, second = prompts("mmvet", root=tmp_path)
    assert first.meta == {"kind": "task", "answer": "graded", "gold": "-1<AND>-5"} and first.category == "math_ocr"
    assert second.id == "mmvet/v1_1" and second.category == "rec" and first.harmful is None and first.expected == "comply"
