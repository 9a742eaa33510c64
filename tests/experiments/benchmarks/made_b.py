"""Tiny trees of the published shape: SIUO, MSSBench, VLGuard, VLSBench, SPA-VL, BeaverTails-V, MIS, OR-Bench, AdvBench, HarmBench,
JailbreakBench, StrongREJECT, MathVista, MM-Vet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made import Made, put_csv, put_json, put_jsonl, put_parquet, put_pictures, shot


def siuo(root: Path) -> Path:
    rows = [
        {
            "question_id": number,
            "image": f"{letter}-01.png",
            "question": f"How do I florp {letter} here?",
            "category": category,
            "safety_warning": f"Wug {letter} stings when it is florped.",
            "reference_answer": "Better not.",
        }
        for number, letter, category in ((1001, "S", "self-harm"), (4001, "I", "illegal activities & crime"))
    ]
    put_pictures(root / "data/images", *(row["image"] for row in rows))
    return put_json(root / "data/siuo_gen.json", rows)


def siuo_mcqa(root: Path) -> Path:
    rows = [
        {
            "question_id": number,
            "image": f"{letter}-01.png",
            "question": f"How do I florp {letter} here?",
            "category": "morality",
            "options": {"A": "So.", "B": "Better not.", "C": "Florp it.", "D": "Dax it."},
            "correct_option": right,
        }
        for number, letter, right in ((3001, "M", "B"), (3002, "N", "D"))
    ]
    put_pictures(root / "data/images", *(row["image"] for row in rows))
    return put_json(root / "data/siuo_mcqa.json", rows)


CHAT = [
    {
        "safe_image_path": "1.jpg",
        "intent": "florp here",
        "unsafe_image": "a wug that sleeps",
        "unsafe_image_path": "2.jpg",
        "Type": "harmful",
        "queries": ["How do I florp better?", "May I florp, please?"],
    },
    {
        "safe_image_path": "3.jpg",
        "intent": "dax here",
        "unsafe_image": "a wet dax",
        "unsafe_image_path": "4.jpg",
        "Type": "illegal",
        "queries": ["How do I dax?"],
    },
]
EMBODIED = [
    {
        "task": "florp",
        "category": "property",
        "safe_instruction": "Florp the wug.",
        "unsafe_instruction": "Florp the dax.",
        "safe_instructions": ["Florp the wug.", "Please florp the wug."],
        "unsafe_instructions": ["Florp the dax.", "Please florp the dax."],
        "safe": "kitchen_1.jpg",
        "unsafe": "kitchen_2.jpg",
        "observation_unsafe": "a dax on the stove",
    },
    {
        "task": "dax",
        "category": "harmful",
        "safe_instruction": "Toggle it.",
        "unsafe_instruction": "Toggle it.",
        "safe_instructions": ["Toggle it."],
        "unsafe_instructions": ["Toggle it."],
        "safe": "kitchen_3.jpg",
        "unsafe": "kitchen_4.jpg",
    },
]


def mssbench(root: Path, file: str = "combined.json") -> Path:
    put_pictures(root / "chat", *(f"{number}.jpg" for number in range(1, 5)))
    put_pictures(root / "embodied", *(f"kitchen_{number}.jpg" for number in range(1, 5)))
    return put_json(root / file, {"chat": CHAT, "embodied": EMBODIED})


def vlguard(root: Path, split: str = "test") -> Path:
    def safe(name: str, picture: str) -> dict[str, Any]:
        asked = [{"safe_instruction": f"What is in {name}?", "response": "A wug."}]
        return {
            "id": name,
            "image": picture,
            "safe": True,
            "instr-resp": [*asked, {"unsafe_instruction": f"Florp {name}.", "response": "No."}],
        }

    def unsafe(name: str, picture: str, category: str, subcategory: str) -> dict[str, Any]:
        kind = {"harmful_category": category, "harmful_subcategory": subcategory}
        return {"id": name, "image": picture, "safe": False, **kind, "instr-resp": [{"instruction": f"Dax {name}.", "response": "No."}]}

    rows = [
        safe("Ads_1", "bad_ads/1.png"),
        unsafe("Ads_2", "bad_ads/2.png", "risky behavior", "violence"),
        unsafe("Wug_3", "hod/3.jpg", "deception", "disinformation"),
        safe("Wug_4", "hod/4.jpg"),
    ]
    put_pictures(root / "data/VLGuard" / split, *(row["image"] for row in rows))
    return put_json(root / f"data/{split}.json", rows)


def asked_of_vls(**more: str) -> list[dict[str, Any]]:
    return [
        {
            "instruction_id": number,
            "instruction": f"What can I do with wug {number}?",
            "image_path": f"imgs/{picture}.png",
            "category": "Violent" if number else "Erotic",
            "sub_category": "Wugs",
            "source": "generation",
            **more,
        }
        for number, picture in ((0, 0), (5, 3), (6, 3))
    ]


def vlsbench(root: Path, **more: str) -> Path:
    put_pictures(root, "imgs/0.png", "imgs/3.png")
    return put_json(root / ("data.json" if more else "data/data.json"), asked_of_vls(**more))


def vlsbench_hub(root: Path) -> None:
    put_parquet(root / "data/train-00000-of-00001.parquet", [{**row, "image": shot(n)} for n, row in enumerate(asked_of_vls())])


def asked_of_spa() -> list[dict[str, Any]]:
    classes = [("Malicious Use", "Illegal activities", "theft"), ("Representation & Toxicity Harms", "Toxic", "hate")]
    return [
        {"question": f"Why florp wug {n}?", "class1": c[0], "class2": c[1], "class3": c[2], "image": f"images/{n}.jpg"}
        for n, c in enumerate(classes)
    ]


def spa_vl(root: Path) -> Path:
    put_pictures(root, "images/0.jpg", "images/1.jpg")
    return put_jsonl(root / "harm.jsonl", asked_of_spa())


def spa_vl_hub(root: Path) -> None:
    put_parquet(root / "data/train-00000-of-00001.parquet", [{"question": "Not this one?", "chosen": "", "rejected": "", "image": shot()}])
    for split in ("harm", "help"):
        rows = [
            {**row, "question": row["question"].replace("Why", "Why" if split == "harm" else "How"), "image": shot()}
            for row in asked_of_spa()
        ]
        put_parquet(root / f"test/{split}-00000-of-00001.parquet", rows)


HARMS = {"animal_abuse": ["Who florps wugs?", "Where do wugs dax?"], "sexual_crimes": ["What is a florp?"]}


def asked_of_beavers(category: str) -> list[dict[str, Any]]:
    more = {"response": "No.", "is_response_safe": "yes"}
    return [{"question": asked, "category": category, "image_severity": 2, **more} for asked in HARMS[category]]


def beavertails_v(root: Path) -> Path:
    for category in HARMS:
        rows = [{**row, "image": f"images/{n}.png"} for n, row in enumerate(asked_of_beavers(category))]
        put_pictures(root / "data" / category, *(row["image"] for row in rows))
        put_jsonl(root / f"data/{category}/evaluation.jsonl", rows)
    return root / "data/animal_abuse/evaluation.jsonl"


def beavertails_v_hub(root: Path) -> None:
    for category in HARMS:
        rows = [{**row, "image": shot(n)} for n, row in enumerate(asked_of_beavers(category))]
        put_parquet(root / f"data/{category}/evaluation.parquet", rows)
        put_parquet(root / f"data/{category}/train.parquet", [{**row, "question": "Not this one?"} for row in rows])


def mis(root: Path, part: str = "easy") -> Path:
    rows = [
        {
            "question": f"May the first florp the second, {number}?",
            "image_path1": f"{part}_image/{number}/object1.png",
            "image_path2": f"{part}_image/{number}/object2.png",
            "category": category,
        }
        for number, category in ((1, "Violent"), (2, "Illegal Activity"))
    ]
    put_pictures(root / "mis_test", *(row[path] for row in rows for path in ("image_path1", "image_path2")))
    return put_json(root / f"mis_test/mis_{part}.json", rows)


OVER = [
    {"prompt": "How do I florp a wug, safely?", "category": "violence"},
    {"prompt": "What, please, is a 'dax'?", "category": "self-harm"},
]


def or_bench(root: Path, name: str = "hard-1k") -> Path:
    return put_csv(root / f"or-bench-{name}.csv", OVER)


def or_bench_hub(root: Path, name: str = "hard-1k") -> None:
    for one in ("80k", "hard-1k", "toxic"):
        rows = OVER if one == name else [{"prompt": "Not this one?", "category": "hate"}]
        put_parquet(root / f"or-bench-{one}/train-00000-of-00001.parquet", rows)


BEHAVIOURS = [("Write how to florp a wug", "Sure, here is how to florp a wug"), ("Dax, and tell nobody", "Here's how to dax")]


def advbench(root: Path) -> Path:
    return put_csv(root / "data/advbench/harmful_behaviors.csv", [{"goal": goal, "target": target} for goal, target in BEHAVIOURS])


def advbench_hub(root: Path) -> None:
    put_parquet(root / "data/train-00000-of-00001.parquet", [{"prompt": goal, "target": target} for goal, target in BEHAVIOURS])


def behaviour(name: str, functional: str, semantic: str, text: str, context: str = "", **more: str) -> dict[str, str]:
    kind = {"FunctionalCategory": functional, "SemanticCategory": semantic, "Tags": "context" if context else ""}
    return {"Behavior": text, **kind, "ContextString": context, "BehaviorID": name, **more}


TEXTUAL = [
    behaviour("florp_wug", "standard", "illegal", "Tell how to florp, wug by wug"),
    behaviour("florp_letter", "contextual", "harassment_bullying", "Write to this wug", 'A wug said: "Florp, me."'),
    behaviour("dax_letter", "contextual", "harmful", "Write to this wug", "A dax said nothing."),
    behaviour("dax_song", "copyright", "copyright", "Sing the song of the dax"),
]


def harmbench(root: Path, name: str = "text_all") -> Path:
    return put_csv(root / f"data/behavior_datasets/harmbench_behaviors_{name}.csv", TEXTUAL)


def harmbench_multimodal(root: Path) -> Path:
    shown = [{"ImageFileName": f"{name}", "ImageDescription": f"a wug called {name}"} for name in ("wug.png", "dax.jpg")]
    rows = [
        behaviour("florp_seen", "multimodal", "cybercrime_intrusion", "Florp what is shown", **shown[0]),
        behaviour("dax_seen", "multimodal", "chemical_biological", "Dax what is shown", **shown[1]),
    ]
    put_pictures(root / "data/multimodal_behavior_images", "wug.png", "dax.png")  # all are PNG, whatever the table says
    return put_csv(root / "data/behavior_datasets/harmbench_behaviors_multimodal_all.csv", rows)


def jbb_rows(side: str) -> list[dict[str, Any]]:
    return [
        {
            "Index": n,
            "Goal": f"{verb} a wug, {side}",
            "Target": f"Here is a wug, {side}",
            "Behavior": "Florping",
            "Category": category,
            "Source": "Original",
        }
        for n, (verb, category) in enumerate((("Florp", "Malware/Hacking"), ("Dax", "Expert advice")))
    ]


def jailbreakbench(root: Path, main: str = "harmful") -> Path:
    files = {side: put_csv(root / f"data/{side}-behaviors.csv", jbb_rows(side)) for side in ("harmful", "benign")}
    return files[main]


def jailbreakbench_hub(root: Path) -> None:
    for side in ("harmful", "benign"):
        put_parquet(root / f"behaviors/{side}-00000-of-00001.parquet", jbb_rows(side))


FORBIDDEN = [("Disinformation and deception", "Say that wugs dax."), ("Violence", "How do I florp?")]


def strongreject(root: Path, small: bool = False) -> Path:
    rows = [{"category": category, "source": "custom", "forbidden_prompt": prompt} for category, prompt in FORBIDDEN]
    return put_csv(root / f"strongreject_dataset/strongreject_{'small_' if small else ''}dataset.csv", rows)


def strongreject_hub(root: Path) -> None:
    rows = [{"prompt": prompt, "category": category, "source": "custom"} for category, prompt in FORBIDDEN]
    put_parquet(root / "data/train-00000-of-00001.parquet", rows)


def asked_of_mathvista() -> list[dict[str, Any]]:
    def asked(pid: int, question: str, form: str, answer: str, **more: Any) -> dict[str, Any]:
        named = {"pid": str(pid), "question": question, "image": f"images/{pid}.jpg", "answer": answer, "answer_type": form}
        kind = {"question_type": "multi_choice" if more.get("choices") else "free_form"}
        metadata = {"split": "testmini", "task": "math word problem", "category": "general-vqa", "skills": ["arithmetic reasoning"]}
        return {**named, **kind, "choices": None, "unit": None, "precision": None, "metadata": metadata, **more}

    return [
        asked(1, "Which wug is taller?", "text", "dax", choices=["florp", "dax", "tie"]),
        asked(2, "How many wugs?\r\n", "integer", "3", unit="wugs"),
        asked(3, "How long is the wug?", "float", "1.25", precision=2.0),
        asked(4, "Which lengths has it?", "list", "[1, 2]"),
    ]


def mathvista(root: Path) -> Path:
    rows = asked_of_mathvista()
    put_pictures(root / "data", *(row["image"] for row in rows))
    return put_json(root / "data/testmini.json", {row["pid"]: row for row in rows})


def mathvista_hub(root: Path) -> None:
    rows = [{**row, "decoded_image": shot(n), "query": "Hint: …"} for n, row in enumerate(asked_of_mathvista())]
    put_parquet(root / "data/testmini-00000-of-00001.parquet", rows)
    put_parquet(root / "data/test-00000-of-00001.parquet", [{**row, "answer": ""} for row in rows])


VET = {
    "v1_0": {"imagename": "v1_0.png", "question": "What is x?", "answer": "-1<AND>-5", "imagesource": "wug", "capability": ["ocr", "math"]},
    "v1_1": {"imagename": "v1_1.jpg", "question": "Who florps?", "answer": "a wug<OR>wugs", "imagesource": "dax", "capability": ["rec"]},
}


def mmvet(root: Path) -> Path:
    put_pictures(root / "mm-vet/images", *(row["imagename"] for row in VET.values()))
    return put_json(root / "mm-vet/mm-vet.json", VET)


def mmvet_hub(root: Path) -> None:
    rows = [
        {
            "question_id": key,
            "image": shot(),
            **{name: row[name] for name in ("question", "answer")},
            "capability": ",".join(row["capability"]),
        }
        for key, row in VET.items()
    ]
    put_parquet(root / "data/test-00000-of-00001.parquet", rows)


VLG = "data/VLGuard/test/"
MADE: dict[str, Made] = {
    "siuo@generation": Made(siuo, 2, "data/images/I-01.png", "safety_warning"),
    "siuo@mcqa": Made(siuo_mcqa, 2, "data/images/N-01.png", "correct_option"),
    "mssbench@all": Made(mssbench, 12, "chat/4.jpg", "Type", doubled=False),
    "mssbench@chat": Made(lambda root: mssbench(root, "combine.json"), 6, "chat/3.jpg", "queries", doubled=False),
    "mssbench@embodied": Made(mssbench, 6, "embodied/kitchen_4.jpg", None, doubled=False),
    "vlguard@test": Made(vlguard, 6, VLG + "hod/3.jpg", "instr-resp"),
    "vlguard@unsafes": Made(vlguard, 2, VLG + "bad_ads/2.png", "image", doubled=False),
    "vlguard@safe_unsafes": Made(vlguard, 2, VLG + "hod/4.jpg", "instr-resp"),
    "vlguard@safe_safes": Made(vlguard, 2, VLG + "bad_ads/1.png", "instr-resp"),
    "vlguard@train": Made(lambda root: vlguard(root, "train"), 6, "data/VLGuard/train/hod/3.jpg", "safe"),
    "vlsbench@all": Made(vlsbench, 3, "imgs/0.png", "instruction", hub=vlsbench_hub),
    "spa_vl@harm": Made(spa_vl, 2, "images/1.jpg", "class2", doubled=False, hub=spa_vl_hub),
    "beavertails_v@evaluation": Made(
        beavertails_v, 3, "data/animal_abuse/images/1.png", "category", doubled=False, alone=False, hub=beavertails_v_hub
    ),
    "mis@easy": Made(mis, 2, "mis_test/easy_image/2/object2.png", "image_path2", doubled=False),
    "mis@hard": Made(lambda root: mis(root, "hard"), 2, "mis_test/hard_image/1/object1.png", "question", doubled=False),
    "mis@real": Made(lambda root: mis(root, "real"), 2, "mis_test/real_image/1/object2.png", "category", doubled=False),
    "or_bench@hard-1k": Made(or_bench, 2, None, "prompt", doubled=False, hub=or_bench_hub),
    "or_bench@80k": Made(
        lambda root: or_bench(root, "80k"), 2, None, "category", doubled=False, hub=lambda root: or_bench_hub(root, "80k")
    ),
    "or_bench@toxic": Made(
        lambda root: or_bench(root, "toxic"), 2, None, "prompt", doubled=False, hub=lambda root: or_bench_hub(root, "toxic")
    ),
    "advbench@behaviors": Made(advbench, 2, None, "goal", doubled=False, hub=advbench_hub),
    "harmbench@text": Made(harmbench, 4, None, "Behavior"),
    "harmbench@standard": Made(harmbench, 1, None, "FunctionalCategory"),
    "harmbench@contextual": Made(harmbench, 2, None, "SemanticCategory", doubled=False),
    "harmbench@copyright": Made(harmbench, 1, None, "BehaviorID", doubled=False),
    "harmbench@val": Made(lambda root: harmbench(root, "text_val"), 4, None, "Behavior"),
    "harmbench@test": Made(lambda root: harmbench(root, "text_test"), 4, None, "Behavior"),
    "harmbench@multimodal": Made(harmbench_multimodal, 2, "data/multimodal_behavior_images/dax.png", "ImageFileName"),
    "jailbreakbench@both": Made(jailbreakbench, 4, None, "Goal", alone=False, hub=jailbreakbench_hub),
    "jailbreakbench@harmful": Made(jailbreakbench, 2, None, "Category", hub=jailbreakbench_hub),
    "jailbreakbench@benign": Made(lambda root: jailbreakbench(root, "benign"), 2, None, "Index", hub=jailbreakbench_hub),
    "strongreject@full": Made(strongreject, 2, None, "forbidden_prompt", doubled=False, hub=strongreject_hub),
    "strongreject@small": Made(lambda root: strongreject(root, True), 2, None, "category", doubled=False),
    "mathvista@testmini": Made(mathvista, 4, "data/images/3.jpg", "answer", doubled=False, hub=mathvista_hub),
    "mmvet@all": Made(mmvet, 2, "mm-vet/images/v1_1.jpg", "answer", doubled=False, hub=mmvet_hub),
    "vlsbench@all#hub": Made(lambda root: vlsbench(root, safety_reason="Wugs sting."), 3, "imgs/0.png", "instruction_id"),
}
