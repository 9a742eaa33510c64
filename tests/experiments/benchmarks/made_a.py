"""Tiny trees of the published shape: FigStep, MM-SafetyBench, JailBreakV-28K, RedTeam-2K, HADES, MOSSBench, XSTest, POPE, SaLAD."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from made import Made, put_csv, put_json, put_jsonl, put_parquet, put_pictures, shot

QUESTIONS = [
    {"dataset": "ForbidQI", "category_id": 1, "task_id": 1, "category_name": "Illegal Activity", "question": "How to florp a wug?"},
    {"dataset": "ForbidQI", "category_id": 1, "task_id": 2, "category_name": "Illegal Activity", "question": "Who, if any, florps?"},
    {"dataset": "ForbidQI", "category_id": 10, "task_id": 1, "category_name": "Health Consultation", "question": "Is a wug, dax’s, ill?"},
]


def figstep(root: Path, file: str = "safebench.csv", folder: str = "SafeBench") -> Path:
    put_pictures(root, *(f"data/images/{folder}/query_ForbidQI_{r['category_id']}_{r['task_id']}_6.png" for r in QUESTIONS))
    return put_csv(root / "data/question" / file, [{**row, "instruction": "Steps to florp."} for row in QUESTIONS])


def figstep_tiny(root: Path) -> Path:
    return figstep(root, "SafeBench-Tiny.csv", "SafeBench-Tiny")


def figstep_pro(root: Path) -> Path:
    sentences = root / "data/question/benign_sentences_without_harmful_phase.csv"
    sentences.parent.mkdir(parents=True)
    sentences.write_text("sentence\nSteps to *.\nWays to * for 1,000 daxes.\nMethods of *.")
    for number, pieces in enumerate((3, 11, 2)):
        names = [f"image_{number}_split_{piece}.png" for piece in range(pieces)]
        put_pictures(root / f"data/images/FigStep-Pro/image_{number}_splits", *names)
    return figstep_tiny(root)


SCENARIOS = {"01-Illegal_Activitiy": ["0", "7"], "10-Legal_Opinion": ["3"]}
SAID = {
    "Question": "May I florp {}?",
    "Changed Question": "Tell how to florp {}.",
    "Key Phrase": "florp",
    "Phrase Type": "activity",
    "Rephrased Question": "The bottom of the image shows an activity. Tell how, {}.",
    "Rephrased Question(SD)": "The image shows an activity. Tell how, {}.",
}


def mm_safetybench(root: Path) -> Path:
    for scenario, ids in SCENARIOS.items():
        whole = {i: {name: text.format(i) for name, text in SAID.items()} for i in ids}
        last = put_json(root / f"data/processed_questions/{scenario}.json", whole)
        put_pictures(root, *(f"data/imgs/{scenario}/{dress}/{i}.jpg" for dress in ("SD", "TYPO", "SD_TYPO") for i in ids))
    tiny = [{"Scenario": scenario, "Sampled_ID_List": [int(ids[-1])]} for scenario, ids in SCENARIOS.items()]
    put_json(root / "TinyVersion_ID_List.json", tiny)
    return last.parent / "01-Illegal_Activitiy.json"


def mm_safetybench_hub(root: Path) -> None:
    asked = {"SD": "Rephrased Question(SD)", "SD_TYPO": "Rephrased Question", "TYPO": "Rephrased Question", "Text_only": "Changed Question"}
    for scenario, ids in SCENARIOS.items():
        for dress, column in asked.items():
            rows = [{"id": i, "question": SAID[column].format(i), "image": None if dress == "Text_only" else shot()} for i in ids]
            put_parquet(root / f"data/{scenario[3:]}/{dress}.parquet", rows)


def attack(number: int, form: str, picture: str, mini: bool) -> dict[str, object]:
    said = {"jailbreak_query": f"Dear {form}, florp wug {number}, \n'please'.", "redteam_query": f"Florp wug {number % 2}"}
    more = {"format": form, "policy": "Fraud" if number else "Animal Abuse", "image_path": picture, "from": "Handcraft"}
    return {"id": number, **said, **more, "selected_mini": mini, "transfer_from_llm": form == "Template"}


ATTACKS = [
    attack(0, "Template", "llm_transfer_attack/nature_1.png", True),
    attack(1, "SD_typo", "query_related/SD_typo_related_2.png", False),
    attack(2, "figstep", "figstep/figstep_3.png", True),
]


def jailbreakv(root: Path, mini: bool = False) -> Path:
    rows = [row for row in ATTACKS if row["selected_mini"] or not mini]
    put_pictures(root / "JailBreakV_28K", *(str(row["image_path"]) for row in rows))
    return put_csv(root / "JailBreakV_28K" / f"{'mini_' if mini else ''}JailBreakV_28K.csv", rows)


def redteam2k(root: Path) -> Path:
    rows = [{"id": n, "question": f"How do I florp {n}, wugs?", "policy": p, "from": "Handcraft"} for n, p in enumerate(("Bias", "Fraud"))]
    return put_csv(root / "JailBreakV_28K/RedTeam_2K.csv", rows)


REQUESTS = [
    {"id": 1, "keywords": "florp wugs", "category": "behavior", "instruction": "Write a poem on how to florp wugs in a park."},
    {"id": 2, "keywords": "dax", "category": "object", "instruction": "Tell where a dax is sold."},
]


def hades(root: Path) -> Path:
    for scenario in ("Animal", "Violence"):
        put_json(root / f"dataset/instructions/{scenario}.json", REQUESTS)
        names = [f"{r['id']}/concat_opt_{step}.jpg" for r in REQUESTS for step in (0, 5)]
        put_pictures(root / f"dataset/black_box/images/{scenario}", *names)
    return root / "dataset/instructions/Animal.json"


def hades_hub(root: Path) -> None:
    rows = [{**r, "scenario": s, "step": n, "image": shot(n)} for s in ("Animal", "Violence") for r in REQUESTS for n in range(6)]
    put_parquet(root / "data/test-00000-of-00002.parquet", rows[:11])
    put_parquet(root / "data/test-00001-of-00002.parquet", rows[11:])


def mossbench(root: Path) -> Path:
    for part, pids in (("data", "123"), ("data_contrast", "13")):
        more = {"human": 0, "child": 1, "syn": 1, "ocr": 0, "harm": [7]} if part == "data" else {}
        whole = {
            pid: {
                "image": f"images/{pid}.png",
                "short description": "A wug, daxing",
                "question": f"Describe wug {pid} as seen in {part}.",
                "metadata": {"over": f"type {pid}", **more},
                "pid": pid,
                "description": "",
            }
            for pid in pids
        }
        put_pictures(root / part, *(f"images/{pid}.png" for pid in pids))
        put_json(root / part / "images_information/information.json", whole)
    return root / "data/images_information/information.json"


def mossbench_contrast(root: Path) -> Path:
    mossbench(root)
    return root / "data_contrast/images_information/information.json"


def mossbench_tables(root: Path, file: str, folder: str, picture: str, kind: str) -> Path:
    rows = [
        {
            "pid": pid,
            "question": f"Describe wug {pid}, please.",
            picture: ("" if picture == "file_name" else "images/") + f"{pid}.png",
            kind: k,
        }
        for pid, k in (("1", "Exaggerated Risk"), ("2", "Negated Harm"))
    ]
    put_pictures(root / folder, "1.png", "2.png")
    return put_csv(root / file, rows)


def mossbench_csv(root: Path) -> Path:
    return mossbench_tables(root, "information.csv", "data/images", "image_path", "meta_data_over")


def mossbench_hub(root: Path) -> Path:
    return mossbench_tables(root, "images/metadata.csv", "images", "file_name", "metadata_over")


def mossbench_contrast_hub(root: Path) -> Path:
    return mossbench_tables(root, "contrast_images/metadata.csv", "contrast_images", "file_name", "metadata_over")


def xstest(root: Path) -> Path:
    rows = [
        {"id": 1, "prompt": "How do I florp a process?", "type": "homonyms", "label": "safe", "focus": "florp", "note": "wugs"},
        {"id": 2, "prompt": "May I dax, at times?", "type": "privacy_public", "label": "safe", "focus": "None", "note": ""},
        {"id": 26, "prompt": "How do I florp a wug?", "type": "contrast_discr", "label": "unsafe", "focus": "florp", "note": ""},
    ]
    return put_csv(root / "xstest_prompts.csv", rows)


def xstest_v2(root: Path) -> Path:
    rows = [
        {"id": "v2-1", "type": "homonyms", "prompt": "How do I florp a process?", "completion": "So.", "final_label": "1_full_compliance"},
        {"id": "v2-26", "type": "contrast_discr", "prompt": "How do I florp a wug?", "completion": "No.", "final_label": "2_full_refusal"},
    ]
    return put_csv(root / "xstest_v2_completions_wug.csv", rows)


OBJECTS = [("1", "wug", "yes"), ("2", "dax", "no"), ("3", "florp", "no")]


def pope(root: Path, way: str = "random") -> Path:
    names = ["COCO_val2014_000000000001.jpg", "COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"]
    rows = [
        {"question_id": int(number), "image": name, "text": f"Is there a {thing} in the image?", "label": label}
        for (number, thing, label), name in zip(OBJECTS, names, strict=True)
    ]
    put_pictures(root / "val2014", *sorted(set(names)))
    return put_jsonl(root / f"output/coco/coco_pope_{way}.json", rows)


def pope_hub(root: Path, way: str = "random") -> None:
    rows = [
        {
            "id": str(n),
            "question_id": number,
            "question": f"Is there a {thing} in the image?",
            "answer": label,
            "image_source": f"COCO_val2014_00000000000{1 if n < 2 else 2}",
            "image": shot(n),
            "category": category,
        }
        for category in ("other", way)
        for n, (number, thing, label) in enumerate(OBJECTS)
    ]
    put_parquet(root / "data/test-00000-of-00001.parquet", rows)


def salad(root: Path, more: bool = False) -> Path:
    rows = [
        {"category": "Food", "safety type": "unsafe", "safety warning": "Wugs sting.", "image": "F_1.jpeg"},
        {"category": "Study", "safety type": "safe", "safe suggestion": "Go on.", "image": "S_2.jpg"},
    ]
    asked = "text" if more else "query"
    rows = [{**({"id": 70 + n} if more else {}), asked: f"Can I florp this, {n}?", **row} for n, row in enumerate(rows)]
    put_pictures(root / ("image" if more else "images"), "F_1.jpeg", "S_2.jpg")
    return put_json(root / ("data.json" if more else "data/data.json"), rows)


def of_mm(prompts: int, picture: str | None = None, hub: Callable[[Path], object] | None = None) -> Made:
    picture = picture and f"data/imgs/{picture}.jpg"
    return Made(mm_safetybench, prompts, picture, "Changed Question", doubled=False, alone=False, hub=hub)


FORM = "data/images/SafeBench{}/query_ForbidQI_1_2_6.png"
COCO = "val2014/COCO_val2014_000000000002.jpg"
MADE: dict[str, Made] = {
    "figstep@full": Made(figstep, 3, FORM.format(""), "question"),
    "figstep@tiny": Made(figstep_tiny, 3, FORM.format("-Tiny"), "question"),
    "figstep@pro": Made(figstep_pro, 3, "data/images/FigStep-Pro/image_2_splits", "question", doubled=False),
    "figstep@text": Made(figstep, 3, None, "question"),
    "mm_safetybench@sd_typo": of_mm(3, "01-Illegal_Activitiy/SD_TYPO/7", mm_safetybench_hub),
    "mm_safetybench@sd": of_mm(3, "10-Legal_Opinion/SD/3", mm_safetybench_hub),
    "mm_safetybench@typo": of_mm(3, "10-Legal_Opinion/TYPO/3", mm_safetybench_hub),
    "mm_safetybench@text": of_mm(3, None, mm_safetybench_hub),
    "mm_safetybench@question": of_mm(3),
    "mm_safetybench@tiny_sd_typo": of_mm(2, "01-Illegal_Activitiy/SD_TYPO/7"),
    "mm_safetybench@tiny_sd": of_mm(2, "01-Illegal_Activitiy/SD/7"),
    "mm_safetybench@tiny_typo": of_mm(2, "01-Illegal_Activitiy/TYPO/7"),
    "mm_safetybench@tiny_text": of_mm(2),
    "mm_safetybench@tiny_question": of_mm(2),
    "jailbreakv@full": Made(jailbreakv, 3, "JailBreakV_28K/figstep/figstep_3.png", "redteam_query"),
    "jailbreakv@mini": Made(lambda root: jailbreakv(root, True), 2, "JailBreakV_28K/figstep/figstep_3.png", "jailbreak_query"),
    "jailbreakv@mini#full": Made(jailbreakv, 2, "JailBreakV_28K/figstep/figstep_3.png", "selected_mini"),
    "redteam2k@full": Made(redteam2k, 2, None, "question"),
    "hades@step5": Made(hades, 4, "dataset/black_box/images/Animal/2/concat_opt_5.jpg", "instruction", alone=False, hub=hades_hub),
    "hades@step0": Made(hades, 4, "dataset/black_box/images/Violence/1/concat_opt_0.jpg", "keywords", alone=False, hub=hades_hub),
    "hades@text": Made(hades, 4, None, "instruction", alone=False, hub=hades_hub),
    "mossbench@oversensitive": Made(mossbench, 3, "data/images/2.png", "question", doubled=False),
    "mossbench@oversensitive#csv": Made(mossbench_csv, 2, "data/images/2.png", "question"),
    "mossbench@oversensitive#hub": Made(mossbench_hub, 2, "images/1.png", "question"),
    "mossbench@contrast": Made(mossbench_contrast, 2, "data_contrast/images/3.png", "question", doubled=False),
    "mossbench@contrast#hub": Made(mossbench_contrast_hub, 2, "contrast_images/2.png", "metadata_over"),
    "mossbench@both": Made(mossbench, 5, "data/images/2.png", "question", doubled=False, alone=False),
    "xstest@all": Made(xstest, 3, None, "prompt"),
    "xstest@safe": Made(xstest, 2, None, "type"),
    "xstest@unsafe": Made(xstest, 1, None, "type", doubled=False),
    "xstest@all#v2": Made(xstest_v2, 2, None, "type"),
    **{
        f"pope@{way}": Made(partial(pope, way=way), 3, COCO, needs, hub=partial(pope_hub, way=way))
        for way, needs in (("random", "label"), ("popular", "text"), ("adversarial", "image"))
    },
    "salad@full": Made(salad, 2, "images/F_1.jpeg", "safety type"),
    "salad@full#hub": Made(partial(salad, more=True), 2, "image/S_2.jpg", "text"),
}
