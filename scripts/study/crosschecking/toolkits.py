"""What a toolkit's own functions make of the answers; run by a Python that can import them.

    PYTHON scripts/study/crosschecking/toolkits.py lmms-eval  answers.jsonl theirs.jsonl
    PYTHON scripts/study/crosschecking/toolkits.py vlmevalkit answers.jsonl theirs.jsonl FILE.py ...

lmms-eval needs to be installed without its dependencies but pandas, pyyaml, requests, pillow,
loguru, numpy, sacrebleu, datasets, evaluate. Its task files run as they are; the packages' own
__init__ files, which bring models and the hub along, are left out. VLMEvalKit's functions are taken
by name out of the files of its repository that are given (matching_util.py, yorn.py, smp/misc.py,
refcoco.py), which need not be importable. No judge is asked: what asks one counts as not read.

Writes {"id", "correct", "value"} a line, then {"task", "scores"} of the toolkit's own sums.
"""

import ast
import importlib.util
import json
import os
import sys
import types
from functools import partial
from pathlib import Path
from types import SimpleNamespace

SHUT = "http://127.0.0.1:9"  # where a judge would be asked, had it not been left out


def lmms_eval() -> dict:
    """task -> (row, text) -> (correct, value), and task -> the sums of its rows."""
    m = _modules()
    tags, sums = [["<think>", "</think>"]], _sums(m)
    return {task: (lambda row, text, read=read: read(row, m.strip(text, tags)), sums[task])
            for task, read in _readers(m).items()}  # fmt: skip


def _modules() -> SimpleNamespace:
    """lmms-eval's task files, without the packages' own `__init__`, which bring torch along."""
    os.environ["OPENAI_API_URL"] = SHUT
    spec = importlib.util.find_spec("lmms_eval")
    base = Path(next(iter(spec.submodule_search_locations)))
    for name in ("lmms_eval", "lmms_eval.tasks", "lmms_eval.api", "lmms_eval.filters"):
        package = types.ModuleType(name)
        package.__path__ = [str(base.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    sys.modules["lmms_eval.api.model"] = types.SimpleNamespace(lmms=object)  # needs torch

    def utils(task: str, file: str = "utils"):
        return importlib.import_module(f"lmms_eval.tasks.{task}.{file}")

    m = SimpleNamespace()
    m.strip = importlib.import_module("lmms_eval.api.reasoning").strip_reasoning_tags
    m.pope, m.mme, m.vstar, m.mmvp = map(utils, ("pope", "mme", "vstar_bench", "mmvp"))
    m.cv, m.sqa, m.star, m.ai2d = map(utils, ("cv_bench", "scienceqa", "mmstar", "ai2d"))
    m.ground, m.hr = utils("refcoco_grounding"), utils("hrbench")
    m.mmbench = utils("mmbench", "en_utils")
    m.exact = importlib.import_module("lmms_eval.api.metrics").exact_match_hf_evaluate
    return m


def _readers(m: SimpleNamespace) -> dict:
    """task -> (row, text) -> (correct, value, what its sums take)."""
    return {
        "pope": _of(m.pope, "pope_process_results", "pope_accuracy", _words, "score", "prediction"),
        "mme": _of(m.mme, "mme_process_results", "mme_perception_score", _words, "score", ""),
        "vstar": _of(m.vstar, "vstar_process_results", "vstar_overall_acc", lambda row: {
            "label": row["target"], "category": row["groups"]["category"], "question_id": row["id"],
            "text": "?"}, "score", "prediction"),
        "mmvp": _of(m.mmvp, "mmvp_process_results", "mmvp_accuracy", lambda row: {
            "Index": _number(row) + 1, "Correct Answer": f"({row['target'].lower()})"},
            "is_correct", "pred_letter"),
        "cvbench": _of(m.cv, "cv_bench_process_results", "cv_bench_acc", lambda row: {
            "answer": f"({row['target']})", "idx": 0, "type": "", "task": "",
            "source": row["groups"]["source"]}, "is_correct", "pred_parsed"),
        "mmstar": _of(m.star, "mmstar_process_results", "average", lambda row: {
            "answer": row["target"], "index": 0, "category": row["groups"]["category"],
            "l2_category": row["groups"]["subcategory"]}, "score", ""),
        "scienceqa": partial(_of_scienceqa, m), "mmbench": partial(_of_mmbench, m),
        "hrbench8k": partial(_of_hrbench, m),
        "ai2d": partial(_of_ai2d, m), "refcoco_val": partial(_of_refcoco, m),
    }  # fmt: skip


def _sums(m: SimpleNamespace) -> dict:
    """task -> score -> its sum."""
    return {
        "pope": {"accuracy": m.pope.pope_aggregate_accuracy, "f1": m.pope.pope_aggregate_f1_score,
                 "precision": m.pope.pope_aggregate_precision,
                 "recall": m.pope.pope_aggregate_recall,
                 "yes_ratio": m.pope.pope_aggregate_yes_ratio},
        "mme": {"perception": m.mme.mme_aggregate_results},
        "vstar": {"accuracy": lambda found: m.vstar.vstar_aggregate_results(found) / 100},
        "mmvp": {"pairs": m.mmvp.mmvp_aggregate_pair_results,
                 "questions": m.mmvp.mmvp_aggregate_results},
        "cvbench": {"plain": m.cv.cv_bench_aggregate_results,
                    "official": m.cv.cv_bench_default_aggregate_results},
        "mmstar": {"macro": m.star.mmstar_aggregate_results},
        "scienceqa": {"accuracy": _mean}, "ai2d": {"accuracy": _mean},
        "mmbench": {"circular":
                    lambda found: m.mmbench.mmbench_evaluator.eval_result(found, "static")[0]},
        "hrbench8k": {"accuracy": lambda found: m.hr.hrbench_aggregate_results(found, None)},
        "refcoco_val": {"accuracy": m.ground.refcoco_grounding_acc05,
                        "mean_iou": m.ground.refcoco_grounding_iou},
    }  # fmt: skip


def _choices(row: dict) -> dict:
    return dict(zip("ABCD", row["options"], strict=False))


def _number(row: dict) -> int:
    return int(row["id"].split()[-1])


def _as_mmbench(row: dict, text: str) -> dict:
    place = int(row["groups"]["question"]) + 1_000_000 * int(row["groups"]["cycle"])
    return {"index": place, "question": "?", "answer": row["target"], "prediction": text,
            "hint": "nan", "source": "", "split": "dev", "category": row["groups"]["category"],
            "L2-category": "one", "E": "nan", **_choices(row)}  # fmt: skip


def _of_mmbench(m, row: dict, text: str):
    import pandas

    item = _as_mmbench(row, text)
    frame = pandas.DataFrame([item])
    right = m.mmbench.mmbench_evaluator.eval_sub_data(
        frame, {item["index"]: item["answer"]}, static_only=True
    )
    return right, None, item


def _of_hrbench(m, row: dict, text: str):
    value = m.hr.hrbench_evaluator.can_infer(text, _choices(row)) or None
    cycle = row["groups"]["cycle"]
    return value == row["target"], value, {"gpt_score": float(value == row["target"]),
                                           "cycle_category": cycle}  # fmt: skip


def _of_ai2d(m, row: dict, text: str):
    value = m.ai2d.MultiChoiceRegexFilter().apply([[text]], [row])[0]
    score = m.exact([value], [row["target"]], ignore_case=True, ignore_punctuation=True)
    return float(score["exact_match"]), value, float(score["exact_match"])


def _of_refcoco(m, row: dict, text: str):
    image = SimpleNamespace(size=tuple(row["size"]))
    doc = {"bbox": row["box_px"], "image": image, "answer": "it"}
    found = m.ground.refcoco_grounding_process_result(doc, [text])["refcoco_grounding_ACC@0.5"]
    return m.ground.refcoco_grounding_acc05([found]), found["pred_boxes"], found


def _of(module, name: str, metric: str, doc, correct: str, value: str):
    def read(row: dict, text: str):
        found = getattr(module, name)(doc(row), [text])[metric]
        return found[correct], found.get(value), found

    return read


def _of_scienceqa(m, row: dict, text: str):
    doc = {"choices": row["options"], "answer": "ABCD".index(row["target"])}
    right = m.sqa.sqa_process_results(doc, [text])["exact_match"]
    return right, None, right


def _mean(found: list) -> float:
    return sum(found) / len(found)


def _words(row):
    return {"question_id": row["groups"]["pair"], "answer": row["target"],
            "category": row["groups"]["category"]}  # fmt: skip


NAMES = ("_VERBOSE_ANSWER_RE", "can_infer_option", "can_infer_text", "can_infer",
         "process_punctuation", "YOrN_Extraction", "RefCOCODataset")  # fmt: skip
STATIC = ("_parse_prediction", "_to_absolute", "_compute_iou")


def vlmevalkit(files: list[str]) -> dict:
    """The same of VLMEvalKit's functions; it has no sums that need no frame of a file."""
    import copy
    import re
    import string
    from typing import Optional

    import numpy

    space = {"cp": copy, "copy": copy, "os": os, "re": re, "string": string, "np": numpy,
             "Optional": Optional, "__name__": "vlmevalkit"}  # fmt: skip
    for file in files:
        for node in ast.parse(Path(file).read_text()).body:
            names = [getattr(node, "name", "")]
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if not set(names) & set(NAMES):
                continue
            if isinstance(node, ast.ClassDef):
                node.bases, keep = [], STATIC
                node.body = [each for each in node.body if getattr(each, "name", "") in keep]
            exec(compile(ast.Module([node], []), file, "exec"), space)
    boxes = space["RefCOCODataset"]

    def split(row: dict) -> str:
        return row["answer"].rsplit("</think>", 1)[-1].strip()  # its SPLIT_THINK

    def words(row: dict, text: str):
        value = space["YOrN_Extraction"](text).lower()
        return value == row["target"], value, None

    def letters(row: dict, text: str):
        value = space["can_infer"](text, dict(zip("ABCD", row["options"], strict=False))) or None
        return value == row["target"], value, None

    def box(row: dict, text: str):
        found = boxes._parse_prediction(text)
        if found is None:
            return False, None, None
        x, y, w, h = row["box_px"]
        mine = boxes._to_absolute(found, *row["size"])
        return boxes._compute_iou(mine, [x, y, x + w, y + h]) >= 0.5, found.tolist(), None

    kinds = {"yes_no": words, "letter": letters, "box": box}
    return {"": (lambda row, text: kinds[row["kind"]](row, split(row)), {})}


def main(toolkit: str, answers: str, out: str, *files: str) -> None:
    readers = vlmevalkit([*files]) if files else lmms_eval()
    rows = [json.loads(line) for line in Path(answers).read_text().splitlines()]
    lines, found = [], {}
    for row in rows:
        read, _ = readers.get(row["task"]) or readers[""]
        correct, value, part = read(row, row["answer"])
        lines.append({"id": row["id"], "correct": int(correct), "value": value})
        found.setdefault(row["task"], []).append(part)
    for task, parts in found.items():
        _, sums = readers.get(task) or readers[""]
        scores = {metric: float(total(parts)) for metric, total in sums.items()}
        lines.append({"task": task, "scores": scores})
    Path(out).write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
