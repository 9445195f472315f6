"""RefCOCO's boxes mean the same whatever they are written in, and are refused where they cannot."""

import json
import shutil

import pytest

from dig_jax.benchmarks.questions import read_questions
from scripts.make.benchmark_files import lines, parquet, picture, put, tsv
from tests.benchmarks.test_readers import FILES, HUB

IMAGE = picture(1, (200, 100))
PX, UNIT, WANTED = [20, 10, 120, 60], [0.1, 0.1, 0.6, 0.6], (100, 100, 600, 600)


def listed(root, row, name="refcoco_val"):
    """A list like VLM-R1's with one row, and its picture."""
    put(root / "refcoco/images/a.jpg", IMAGE)
    row = {"image": "a.jpg", "problem": "Where is it? It describes: a cat."} | row
    lines(root / "refcoco" / f"{name}.json", [row], whole=True)
    return root


def target(root, name="refcoco_val"):
    (question,) = read_questions(root, name)[0]
    return question.target


@pytest.mark.parametrize(
    "row",
    [
        {"solution": PX},
        {"solution": json.dumps(PX)},
        {"solution": PX, "width": 200, "height": 100, "image": "a.jpg"},
        {"solution": [40, 20, 240, 120], "width": 400, "height": 200},  # stored goes first
        {"normalized_solution": UNIT},
        {"normalized_solution": [1000 * v for v in UNIT]},
        {"solution": PX, "normalized_solution": [1, 2, 3, 4]},
    ],
)
def test_a_list_of_vlm_r1_or_perception_r1(tmp_path, row):
    assert target(listed(tmp_path, row)) == pytest.approx(WANTED)


def test_without_the_picture_its_shares_are_enough_to_score(tmp_path):
    root = listed(tmp_path, {"solution": PX, "normalized_solution": [99, 101, 600, 600]})
    shutil.rmtree(root / "refcoco/images")
    (question,) = read_questions(root, "refcoco_val", pictures=False)[0]
    assert question.target == pytest.approx((99, 101, 600, 600))
    listed(tmp_path, {"solution": PX})
    shutil.rmtree(root / "refcoco/images")
    with pytest.raises(FileNotFoundError, match="row 1: there is no picture"):
        read_questions(root, "refcoco_val", pictures=False)


@pytest.mark.parametrize(
    "row",
    [
        {"answer": json.dumps(UNIT)},
        {"answer": json.dumps(PX), "width": 200, "height": 100},
        {"answer": json.dumps(PX)},
        {"answer": "", "bbox_x1": 20, "bbox_y1": 10, "bbox_x2": 120, "bbox_y2": 60.0}
        | {"width": 200, "height": 100},
    ],
)
def test_a_row_of_vlmevalkits_file(tmp_path, row):
    row |= {"index": 7, "image": IMAGE, "category": "RefCOCO_val", "question": "a cat"}
    tsv(tmp_path / "refcoco/RefCOCO.tsv", [row], " ".join(row))
    (question,) = read_questions(tmp_path, "refcoco_val")[0]
    assert question.target == pytest.approx(WANTED)
    assert question.id == "7"
    assert '"a cat"' in question.prompt


@pytest.mark.parametrize("form", ["corners", "extents"])
def test_a_row_per_expression_may_have_corners_or_extents(tmp_path, form):
    """Which of the two the numbers of all rows say; one row of 200 x 100 px decides here."""
    boxes = [PX, [90, 40, 190, 90]]
    if form == "extents":
        boxes = [[x, y, a - x, b - y] for x, y, a, b in [*boxes, [150, 10, 190, 90]]]
    rows = [{"question": f"cat {n}", "bbox": json.dumps(box), "image": IMAGE,
             "image_size": [200, 100]} for n, box in enumerate(boxes)]  # fmt: skip
    parquet(tmp_path / "refcoco/data/val-00000-of-00001.parquet", rows, question="string",
            bbox="string", image="image", image_size=["int64"])  # fmt: skip
    questions, warnings = read_questions(tmp_path, "refcoco_val")
    assert questions[0].target == pytest.approx(WANTED)
    assert questions[1].target == pytest.approx((450, 400, 950, 900))
    assert not any("by their numbers" in text for text in warnings)


def test_boxes_that_could_be_either_are_told(tmp_path):
    row = {"question": "cat", "bbox": json.dumps(PX), "image": IMAGE}
    parquet(tmp_path / "refcoco/data/val-00000-of-00001.parquet", [row], question="string",
            bbox="string", image="image")  # fmt: skip
    questions, warnings = read_questions(tmp_path, "refcoco_val")
    assert questions[0].target == pytest.approx(WANTED)
    assert "the boxes could be both of x0 y0 x1 y1 and x y width height" in warnings[0]


def test_a_box_may_leave_its_picture_by_less_than_a_hundredth(tmp_path):
    """COCO's do; the target stays as it is written."""
    assert target(listed(tmp_path, {"solution": [0, 0, 200.6, 100]})) == (0, 0, 1003, 1000)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"solution": [20, 10, 230, 60]}, "leaves 0..1000 of its picture, or has no area"),
        ({"solution": [20, 10, 20, 60]}, "leaves 0..1000 of its picture, or has no area"),
        ({"solution": [20, 10, 120]}, "is no box of four numbers"),
        ({"solution": "somewhere"}, "is no list"),
        ({}, "no column bbox"),
        ({"solution": PX, "problem": "Where is the cat?"}, "tells no expression behind"),
        ({"solution": PX, "width": 0, "height": 100}, "are no size of a picture"),
        ({"solution": PX, "width": "wide", "height": 100}, "is no number"),
    ],
)
def test_a_box_or_expression_that_cannot_be_is_named(tmp_path, row, rule):
    with pytest.raises(ValueError, match=rule) as told:
        target(listed(tmp_path, row))
    assert "refcoco_val.json row 1" in str(told.value)


def test_an_object_without_a_sentence_is_named(tmp_path):
    row = {"answer": ["a cat", ""], "bbox": PX, "image": IMAGE, "question_id": "1"}
    parquet(tmp_path / "refcoco/data/val-00000-of-00001.parquet", [row], answer=["string"],
            bbox=["float32"], image="image", question_id="string")  # fmt: skip
    with pytest.raises(ValueError, match=r"row 1: answer=.* holds an empty sentence"):
        read_questions(tmp_path, "refcoco_val")


def test_a_folder_of_one_data_set_is_not_taken_for_another(tmp_path):
    shutil.copytree(HUB / "refcoco", tmp_path / "refcoco")
    assert read_questions(tmp_path, "refcoco_testa")[0]
    for name in ("refcocoplus_val", "refcocoplus_testa", "refcocog_val"):
        with pytest.raises(FileNotFoundError):
            read_questions(tmp_path, name)
    shutil.copytree(FILES / "refcocoplus", tmp_path / "refcoco", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("*.parquet"))  # fmt: skip
    assert read_questions(tmp_path, "refcocoplus_testa")[0]  # VLM-R1's lists lie in one folder


def test_a_number_of_rows_that_is_not_the_standards_is_told_with_its_reason():
    for name, reason in (("refcoco_val", "lmms-lab's val has 8,811 objects"),
                         ("refcocoplus_val", "VLM-R1 evaluates a sample of 2,000")):  # fmt: skip
        warning = read_questions(HUB, name)[1][-1]
        assert " has 6 rows where the standard has 10" in warning
        assert reason in warning
