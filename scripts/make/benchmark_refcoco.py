"""RefCOCO's eight splits in the five forms that they come in; see `benchmark_rows`."""

import json
from pathlib import Path

from scripts.make.benchmark_files import lines, parquet, picture, put, tsv

SPLITS = (
    ("refcoco", "val"), ("refcoco", "testA"), ("refcoco", "testB"), ("refcocoplus", "val"),
    ("refcocoplus", "testA"), ("refcocoplus", "testB"), ("refcocog", "val"), ("refcocog", "test"),
)  # fmt: skip
LABELS = {"refcoco": "RefCOCO", "refcocoplus": "RefCOCO+", "refcocog": "RefCOCOg"}
LISTS = {"refcoco": "refcoco", "refcocoplus": "refcocop", "refcocog": "refcocog"}
ASKED = "Please provide the bounding box coordinate of the region this sentence describes: "
SIZES = ((64, 48), (40, 50))


def refcoco(out: Path) -> None:
    """Every split: hub/ lmms-lab's and tsv/ VLMEvalKit's; files/ others, a split or two of each."""
    kit = []
    for number, (base, split) in enumerate(SPLITS):
        objects = _objects(number)
        _lmms(out / f"hub/{base}/data/{split}-00000-of-00001.parquet", objects)
        said = [(row, text) for row in objects for text in row["sentences"]]
        for row, text in said:
            unit = [row["px"][k] / row["size"][k % 2] for k in range(4)]
            kit.append({"index": len(kit), "image": row["image"], "answer": json.dumps(unit),
                        "question": f"{ASKED}<ref>{text}</ref>",
                        "category": f"{LABELS[base]} {split}"})  # fmt: skip
        if split == "val":
            _kangheng(out / f"files/{base}/data/val-00000-of-00001.parquet", said)
        else:
            _lists(out / "files" / base, LISTS[base], split, said)
    tsv(out / "tsv/refcoco/RefCOCO.tsv", kit, "index image question answer category")


def _objects(number: int) -> list[dict]:
    """Two pictures with two things each, and one or two sentences for each of these."""
    objects = []
    for scene, (width, height) in enumerate(SIZES):
        seed = 130 + 2 * number + scene
        for place in range(2):
            x, y = 3 + place * width // 2, 5.5 + place
            wide, high = width / 3 + number / 2, height / 2 - place
            sentences = [f"the {word} thing of scene {seed}" for word in ("left", "right")[place:]]
            objects.append({
                "image": picture(seed, (width, height)), "sentences": sentences,
                "size": (width, height), "xywh": [x, y, wide, high],
                "px": [x, y, x + wide, y + high], "name": f"COCO_train2014_{seed:012d}.jpg",
            })  # fmt: skip
    return objects


def _lmms(path: Path, objects: list[dict]) -> None:
    rows = [
        {"question_id": str(400 + n), "image": row["image"], "answer": row["sentences"],
         "question": "Please describe the thing in the box.", "segmentation": row["xywh"],
         "bbox": row["xywh"], "iscrowd": 0, "file_name": row["name"]}
        for n, row in enumerate(objects)
    ]  # fmt: skip
    text, numbers = "string", ["float32"]
    parquet(path, rows, question_id=text, image="image", question=text, answer=[text],
            segmentation=numbers, bbox=numbers, iscrowd="int8", file_name=text)  # fmt: skip


def _kangheng(path: Path, said: list[tuple[dict, str]]) -> None:
    rows = [
        {"question": text, "bbox": json.dumps(row["px"]), "image": row["image"],
         "image_size": list(row["size"])}
        for row, text in said
    ]  # fmt: skip
    parquet(path, rows, question="string", bbox="string", image="image", image_size=["int64"])


def _lists(folder: Path, name: str, split: str, said: list[tuple[dict, str]]) -> None:
    """VLM-R1's list, or Perception-R1's with normalised boxes too, for testB."""
    rows = []
    for row, text in said:
        put(folder / "images/train2014" / row["name"], row["image"])
        made = {"image": f"coco/train2014/{row['name']}", "problem": f"{ASKED}{text}.",
                "solution": row["px"]}  # fmt: skip
        if split == "testB":
            unit = [round(1000 * row["px"][k] / row["size"][k % 2]) for k in range(4)]
            rows.append(made | {"normalized_solution": unit})
        else:
            rows.append(made | {"normal_caption": text, "dataset": name})
    ending = "jsonl" if split == "test" else "json"
    lines(folder / f"{name}_{split}.{ending}", rows, whole=ending == "json")
