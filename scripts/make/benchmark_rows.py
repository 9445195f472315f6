"""Write a few rows of every benchmark in the schemas of its real files: the readers' fixtures.

    python -m scripts.make.benchmark_rows --out tests/benchmarks/fixtures

hub/    parquet of the hub: pictures as the structures that `datasets` decodes
tsv/    VLMEvalKit's TSV: base64, or the index of the row that has the picture
files/  what else there is: V*'s and VSR's lists, MMVP's Questions.csv, POPE's three tracks,
        VLM-R1's and Perception-R1's lists of RefCOCO, Kangheng's row per expression

Columns are those of the data sets; texts and pictures are ours. `dig_jax.benchmarks` reads each
folder as a root.
"""

import argparse
import base64
import csv
import shutil
from pathlib import Path

from dig_jax.common.commandline import path_of
from scripts.make.benchmark_files import lines, parquet, picture, put, tsv
from scripts.make.benchmark_refcoco import refcoco

TRACKS = ("adversarial", "popular", "random")
CLOSING = "\nAnswer with the option's letter from the given choices directly."
HINT = "Hint: Please answer the question and provide the correct option letter at the end.\n"


def pope(out: Path) -> None:
    unique = []
    for scene, (there, *absent) in enumerate((("cube", "cone", "ball", "lamp"),
                                              ("mug", "fork", "shoe", "vase"))):  # fmt: skip
        common = {"image": picture(scene), "image_source": f"scene_{scene}"}
        single = zip(absent, TRACKS, strict=True)
        asked = [(there, "yes", TRACKS), *((a, "no", (t,)) for a, t in single)]
        for thing, answer, tracks in asked:
            question = f"Is there a {thing} in the image?"
            unique.append(common | {"question": question, "answer": answer, "tracks": tracks})
    names = dict.fromkeys("id question_id question answer image_source category".split(), "string")
    rows = []
    for track in TRACKS:
        mine = [row for row in unique if track in row["tracks"]]
        mine = [
            row | {"id": str(len(rows) + n), "question_id": str(n + 1), "category": track}
            for n, row in enumerate(mine)
        ]
        parquet(out / f"files/pope/Full/{track}-00000-of-00001.parquet", mine, image="image",
                **names)  # fmt: skip
        rows += mine
    parquet(out / "hub/pope/data/test-00000-of-00001.parquet", rows, image="image", **names)
    kit = [
        {"index": n, "image": row["image"], "question": row["question"],
         "answer": row["answer"].title(), "category": ",".join(row["tracks"])}
        for n, row in enumerate(unique)
    ]  # fmt: skip
    tsv(out / "tsv/pope/POPE.tsv", kit, "index image question answer category")


def hallusionbench(out: Path) -> None:
    rows = []
    for category, subcategory, figures in (("VD", "illusion", 2), ("VS", "chart", 2)):
        for figure in range(figures):
            for question in range(2):
                truth = (figure + question) % 2
                rows.append({
                    "category": category, "subcategory": subcategory, "visual_input": "1",
                    "set_id": "0", "figure_id": str(figure), "question_id": str(question),
                    "question": f"Is bar {question} longer than the other, as the text says?",
                    "gt_answer": str(truth), "gt_answer_details": "Ours.",
                    "filename": f"./{subcategory}/0_{figure}.png",
                    "image": picture(10 + figure + len(subcategory)),
                    "index": f"img_{category}_{subcategory}_0_{figure}_{question}",
                    "answer": "Yes" if truth else "No", "l2-category": subcategory,
                })  # fmt: skip
    names = "category subcategory visual_input set_id figure_id question_id question gt_answer " \
            "gt_answer_details filename"  # fmt: skip
    columns = dict.fromkeys(names.split(), "string")
    folder = out / "hub/hallusionbench/data"
    parquet(folder / "image-00000-of-00001.parquet", rows, **columns, image="image")
    bare = rows[0] | {"visual_input": "0", "image": None, "figure_id": "9", "filename": None}
    parquet(folder / "non_image-00000-of-00001.parquet", [bare], **columns)
    bare |= {"index": "img_VD_illusion_0_9_0", "image": ""}
    tsv(out / "tsv/hallusionbench/HallusionBench.tsv", [*rows, bare],
        "index image question answer category l2-category")  # fmt: skip


def mme(out: Path) -> None:
    rows = []
    for n, category in enumerate(("existence", "count", "code_reasoning", "text_translation")):
        for place in range(2):
            name = f"{category}/{place:04d}.png"
            for answer in ("Yes", "No"):
                thing = f"{place + (answer == 'No')} things"
                rows.append({
                    "question_id": name, "image_path": name, "index": len(rows),
                    "image": picture(20 + 2 * n + place), "category": category, "answer": answer,
                    "question": f"Does the picture show {thing}? Please answer yes or no.",
                })  # fmt: skip
    text = "string"
    parquet(out / "hub/mme/data/test-00000-of-00001.parquet", rows, question_id=text,
            image="image", question=text, answer=text, category=text)  # fmt: skip
    tsv(out / "tsv/mme/MME.tsv", rows, "index image_path image question answer category")


def vsr(out: Path) -> None:
    rows = []
    for n, (relation, label) in enumerate((("left of", 1), ("behind", 0), ("left of", 0))):
        name = f"{n // 2:012d}.jpg"
        put(out / "files/vsr/images" / name, picture(30 + n // 2))
        rows.append({
            "image": name, "image_link": f"train2017/{name}", "label": label, "relation": relation,
            "caption": f"The cube is {relation} the cone.", "annotator_id": 0,
            "vote_true_validator_id": [1, 2] if n else "[1, 2]", "vote_false_validator_id": [],
        })  # fmt: skip
    lines(out / "files/vsr/test.jsonl", rows)
    kit = [
        {"index": n, "image": picture(30 + n // 2), "answer": ("No", "Yes")[row["label"]],
         "question": f'Is the following statement about the image true? "{row["caption"]}" '
                     "Please answer yes or no."}
        for n, row in enumerate(rows)
    ]  # fmt: skip
    tsv(out / "tsv/vsr/vsr_zeroshot_dataset_yn_strict.tsv", kit, "index image question answer")


def vstar(out: Path) -> None:
    rows, kit = [], []
    for category in ("direct_attributes", "relative_position"):
        for place in range(2):
            seed = 40 + place + 2 * (category[0] == "r")
            stem, texts = f"Of which colour is thing {place}?", ("red", "blue", "green", "grey")
            texts = texts if category[0] == "d" else ("left", "right")
            asked = "\n".join(f"({'ABCD'[n]}) {text}" for n, text in enumerate(texts))
            name, label = f"{category}/sa_{place}.png", "AB"[place]
            put(out / "files/vstar" / name, picture(seed))
            row = {"text": f"{stem}\n{asked}{CLOSING}", "category": category, "label": label,
                   "question_id": str(place), "path": name, "image": picture(seed)}  # fmt: skip
            rows.append(row)
            kit.append({"index": len(kit), "image": row["image"], "question": stem,
                        **dict(zip("ABCD", texts, strict=False)), "answer": label,
                        "category": category})  # fmt: skip
    text = "string"
    parquet(out / "hub/vstar/data/test-00000-of-00001.parquet", rows, image="image", text=text,
            category=text, label=text, question_id=text)  # fmt: skip
    names = ("text", "category", "label", "question_id")
    listed = [{"image": row["path"]} | {name: row[name] for name in names} for row in rows]
    lines(out / "files/vstar/test_questions.jsonl", listed)
    tsv(out / "tsv/vstar/VStarBench.tsv", kit, "index image question A B C D answer category")


def hrbench(out: Path) -> None:
    for size, seed in (("4k", 50), ("8k", 60)):
        rows = []
        for cycle in range(4):
            for n, category in enumerate(("single", "cross")):
                turned = [("red", "blue", "green", "grey")[(k + cycle) % 4] for k in range(4)]
                coded = base64.b64encode(picture(seed + n)).decode()
                rows.append({
                    "index": len(rows), "question": f"Of which colour is sign {n}?",
                    "answer": "ABCD"[-cycle % 4], "category": category, "cycle_category": cycle,
                    "image": coded, **dict(zip("ABCD", turned, strict=True)),
                })  # fmt: skip
        names = dict.fromkeys("question answer category A B C D".split(), "string")
        parquet(out / f"hub/hrbench{size}/hr_bench_{size}.parquet", rows, index="int64", **names,
                cycle_category="int64", image="string")  # fmt: skip
        split = f"hrbench_version_split/hrbench_{size}-00000-of-00001.parquet"
        parquet(out / "files/hrbench" / split, rows, index="int64", **names,
                cycle_category="int64", image="string")  # fmt: skip
        tsv(out / f"tsv/hrbench/hr_bench_{size}.tsv", rows,
            "index question answer category A B C D cycle_category image")  # fmt: skip


def cvbench(out: Path) -> None:
    kinds = {"2D": (("Count", "ADE20K"), ("Relation", "COCO")), "3D": (("Depth", "Omni3D"),)}
    for kind, tasks in kinds.items():
        rows = []
        for n, (task, source) in enumerate(tasks * 2):
            choices = ["1", "2", "3", "4"] if task == "Count" else ["above", "below"]
            letter, stem = "AB"[n % 2], f"{task} of thing {n}?"
            asked = " ".join(f"({'ABCD'[k]}) {text}" for k, text in enumerate(choices))
            rows.append({
                "idx": n, "index": n, "type": kind, "split": kind, "task": task, "question": stem,
                "image": picture(70 + n + int(kind[0])), "choices": choices, "source": source,
                "answer": f"({letter})", "filename": f"img/{kind}/{n}.png",
                "prompt": f"{stem} Select from the following choices.\n{asked}",
                **dict(zip("ABCD", choices, strict=False)),
            })  # fmt: skip
        names = dict.fromkeys("answer prompt filename source".split(), "string")
        text = "string"
        parquet(out / f"hub/cvbench/test_{kind.lower()}.parquet", rows, idx="int64", type=text,
                task=text, image="image", question=text, choices=[text], **names)  # fmt: skip
        kit = [row | {"answer": row["answer"].strip("()")} for row in rows]
        tsv(out / f"tsv/cvbench/CV-Bench-{kind}.tsv", kit,
            "index image question prompt A B C D answer task source split")  # fmt: skip


def mmvp(out: Path) -> None:
    rows = []
    for n in range(4):
        rows.append({
            "Index": n + 1, "index": n + 1, "Question": f"Is door {n // 2} open?",
            "question": f"Is door {n // 2} open?", "Options": "(a) Open (b) Closed",
            "Correct Answer": f"({'ab'[n % 2]})", "A": "Open", "B": "Closed",
            "answer": "AB"[n % 2], "image": picture(80 + n),
        })  # fmt: skip
        put(out / "files/mmvp/MMVP Images" / f"{n + 1}.jpg", rows[-1]["image"])
    parquet(out / "hub/mmvp/data/train-00000-of-00001.parquet", rows, Index="int64",
            Question="string", Options="string", **{"Correct Answer": "string"},
            image="image")  # fmt: skip
    tsv(out / "tsv/mmvp/MMVP.tsv", rows, "index image question A B answer")
    names = ["Index", "Question", "Options", "Correct Answer"]
    with (out / "files/mmvp/Questions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


def mmbench(out: Path) -> None:
    rows = []
    texts = {0: ("north", "south", "east"), 1: ("yes", "no"), 241: ("one", "two", "three", "four")}
    for index, options in texts.items():
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            cells = dict.fromkeys("ABCD") | dict(zip("ABCD", turned, strict=False))
            rows.append(cells | {
                "index": index + 1_000_000 * turn, "question": f"Where does arrow {index} point?",
                "hint": 'It is a "map"\nof ours.' if index else None, "source": "ours",
                "answer": "ABCD"[-turn % len(options)], "category": f"kind_{index % 2}",
                "L2-category": "ours", "l2-category": "ours", "comment": None, "split": "dev",
                "image": picture(90 + index), "kit": index if turn else picture(90 + index),
            })  # fmt: skip
    hub = "question hint answer A B C D category source L2-category comment split"
    missing = [row | {k: "nan" for k in ("hint", "D") if row[k] is None} for row in rows]
    parquet(out / "hub/mmbench/en/dev-00000-of-00001.parquet", missing, index="int64",
            image="image", **dict.fromkeys(hub.split(), "string"))  # fmt: skip
    kit = [row | {"image": row["kit"]} for row in reversed(rows)]  # the picture comes later
    names = "index question hint A B C D answer category image source l2-category comment split"
    tsv(out / "tsv/mmbench/MMBench_DEV_EN.tsv", kit, names)
    tsv(out / "tsv/mmbench/MMBench_DEV_EN_V11.tsv", kit[-3:], names)  # one question's orders
    v11 = [row | {"index": str(row["index"])} for row in missing[:3]]  # a text in some revisions
    parquet(out / "hub/mmbench_v11/data/dev-00000-of-00001.parquet", v11, index="string",
            image="image", **dict.fromkeys(hub.split(), "string"))  # fmt: skip


def mmstar(out: Path) -> None:
    rows = []
    for n in range(4):
        stem, texts = f"How many things are in scene {n}?", ("1", "2", "3", "more than 3")
        asked = "".join(f"\n({'ABCD'[k]}) {text}" for k, text in enumerate(texts))
        whole = f"{HINT}Question: {stem}\nChoices:{asked}"
        if n % 2:
            asked = ", ".join(f"{'ABCD'[k]}: {text}" for k, text in enumerate(texts))
            whole = f"{stem}\nOptions: {asked}"
        rows.append({
            "index": n, "question": whole, "stem": stem, "answer": "ABCD"[n], "image": picture(n),
            "category": f"part {n // 2}", "l2_category": f"small part {n}",
            "meta_info": {"source": "ours", "split": "val", "image_path": f"images/{n}.jpg"},
            **dict(zip("ABCD", texts, strict=True)),
        })  # fmt: skip
    text = "string"
    parquet(out / "hub/mmstar/mmstar.parquet", rows, index="int64", question=text, image="image",
            answer=text, category=text, l2_category=text,
            meta_info=dict(source=text, split=text, image_path=text))  # fmt: skip
    kit = [row | {"question": row["stem"]} for row in rows]
    tsv(out / "tsv/mmstar/MMStar.tsv", kit,
        "index question A B C D answer category l2_category image")  # fmt: skip


def scienceqa(out: Path) -> None:
    rows = []
    for n in range(3):
        choices = ["solid", "liquid", "gas"][: n + 2]
        rows.append({
            "index": n, "image": picture(110 + n), "question": f"Which is sample {n}?",
            "choices": choices, "answer": n % 2, "hint": "A sample lies in a bowl." if n else "",
            "task": "closed choice", "grade": "grade2", "subject": "natural science",
            "topic": "physics", "category": "natural science", "skill": "ours",
            "lecture": "Not asked.", "solution": "Ours.", "letter": "AB"[n % 2],
            **dict(zip("ABC", choices, strict=False)),
        })  # fmt: skip
    names = "hint task grade subject topic category skill lecture solution".split()
    columns = dict(image="image", question="string", choices=["string"], answer="int8")
    columns |= dict.fromkeys(names, "string")
    folder = out / "hub/scienceqa"
    parquet(folder / "ScienceQA-IMG/test-00000-of-00001-f0e7.parquet", rows, **columns)
    parquet(folder / "ScienceQA-FULL/test-00000-of-00001.parquet", rows[:1], **columns)
    kit = [row | {"answer": row["letter"]} for row in rows]
    tsv(out / "tsv/scienceqa/ScienceQA_TEST.tsv", kit,
        "index image question hint A B C answer category")  # fmt: skip


def ai2d(out: Path) -> None:
    rows = []
    for n in range(3):
        options = [f"stage {letter}" for letter in "PQRS"]
        rows.append({
            "index": n, "question": f"What follows on stage {n}?", "options": options,
            "answer": str(n), "letter": "ABC"[n], "image": picture(120 + n // 2),
            **dict(zip("ABCD", options, strict=True)),
        })  # fmt: skip
    parquet(out / "hub/ai2d/data/test-00000-of-00001.parquet", rows, question="string",
            options=["string"], answer="string", image="image")  # fmt: skip
    kit = [row | {"answer": row["letter"]} for row in rows]
    for name in ("AI2D_TEST", "AI2D_TEST_NO_MASK"):
        tsv(out / f"tsv/ai2d/{name}.tsv", kit, "index image question A B C D answer")


MAKERS = (pope, hallusionbench, mme, vsr, vstar, hrbench, cvbench, mmvp, mmbench, mmstar, scienceqa,
          ai2d, refcoco)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path_of, required=True, help="folder to make anew")
    out = parser.parse_args(argv).out
    for folder in ("hub", "tsv", "files"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for make in MAKERS:
        make(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
