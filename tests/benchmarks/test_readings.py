"""What answers are read as: lmms-eval's traps, every rule, and thoughts that are never parsed."""

import numpy as np
import pytest

from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.readings import (
    OURS,
    VLMEVALKIT,
    answer_of,
    read_boxes,
    read_letter,
    read_yes_no,
)
from dig_jax.benchmarks.scored import score_answer
from tests.benchmarks.read import BOX, COLOURS, OTHER, hit, letter, wide, yes_no

# Where lmms-eval 0.7.2 reads something else, after its column in the project's notes: what it
# reads, and what is to be read. Its readers take the option letters of the task alone.
TRAPS = [
    # task, answer, lmms-eval's reading, the right one
    ("pope", "Yes.", None, "yes"),
    ("pope", "**Yes**", None, "yes"),
    ("pope", "Yes, there is.", None, "yes"),
    ("mme", "**Yes**", None, "yes"),
    ("mme", "Answer: yes", None, "yes"),
    ("mme", "The answer is no", None, "no"),
    ("mme", "Not sure", "no", None),
    ("vstar", "Answer: C", "A", "C"),
    ("vstar", "Based on the image, the answer is C", "B", "C"),
    ("vstar", "The correct answer is **C**.", None, "C"),
    ("vstar", "Red", "D", None),
    ("mmvp", "**B**", None, "B"),
    ("mmvp", "A dog is facing left, so B", "A", None),
    ("cv_bench", "The answer is (B)", "T", "B"),
    ("cv_bench", "Answer: B", "A", "B"),
    ("cv_bench", "**B**", None, "B"),
    ("scienceqa", "**B**", None, "B"),
    ("scienceqa", "(B)", None, "B"),
    ("scienceqa", "The answer is B", None, "B"),
    ("mmstar", "A cat is visible, so the answer is C", "A", "C"),
    ("mmbench static", "A cat is visible, so the answer is C", "A", "C"),
]


@pytest.mark.parametrize(("task", "text", "theirs", "right"), TRAPS)
def test_the_traps_of_lmms_eval_are_read_right(task, text, theirs, right):
    assert theirs != right
    read = yes_no if task in ("pope", "mme") else letter
    assert read(text) == right


def test_of_two_boxes_the_first_counts_and_the_best_is_a_diagnostic():
    """lmms-eval's refcoco_grounding takes the best of all boxes."""
    scored = hit(f'[{{"bbox_2d": {list(OTHER)}}}, {{"bbox_2d": {list(BOX)}}}]')
    assert (scored.correct, scored.iou, scored.best) == (0.0, 0.0, 1.0)


def test_a_box_in_pixels_is_not_taken_for_thousandths():
    """lmms-eval takes the better of both readings; of 640x480 this target is 64 96 192 192 px."""
    assert hit("[64, 96, 192, 192]").correct == 0.0
    assert hit("[100, 200, 300, 400]").correct == 1.0


def test_the_shares_of_yes_are_of_predictions():
    """lmms-eval's yes_ratio counts the labels: `test_aggregate` has the number."""
    assert yes_no("There is none.") is None


@pytest.mark.parametrize(
    ("text", "value", "how"),
    [
        ("yes", "yes", "word"),
        ("NO!", "no", "word"),
        ("`No`", "no", "word"),
        ("_yes_", "yes", "word"),
        (wide("Yes."), "yes", "word"),
        ("yes\r\n", "yes", "word"),
        ('"Yes"', "yes", "word"),
        ("Yes-there are two", "yes", "word"),
        ("Yes, there is no doubt", None, "ambiguous"),
        ("yes or no", None, "ambiguous"),
        ("I know nothing of eyes", None, "none"),
        ("yes_no", None, "none"),
        ("", None, "none"),
        ("<answer>Yes</answer> because there is no other", "yes", "tag"),
        ("No... \\boxed{Yes}", "yes", "boxed"),
        ("<answer>yes</answer> <answer>no</answer>", None, "ambiguous"),
        ("<answer>maybe</answer> yes", None, "none"),
    ],
)
def test_yes_and_no(text, value, how):
    assert read_yes_no(text, OURS) == (value, how)


@pytest.mark.parametrize(
    ("text", "value", "how"),
    [
        ("B", "B", "letter"),
        ("b", "B", "letter"),
        ("(b)", "B", "letter"),
        ("B.", "B", "letter"),
        ("[C]", "C", "letter"),
        (wide("(A)."), "A", "letter"),
        ("答案" + wide(":B."), "B", "letter"),
        ("the answer is C\r\n", "C", "letter"),
        ("__D__", "D", "letter"),
        ("D: white", "D", "letter"),
        ("B. blue", "B", "letter"),
        ("I would say B, I think", "B", "letter"),
        ("The answer is B because it is what the picture shows", "B", "answer is"),
        ("Option A is yellow.\nOption B is blue.\n\nThe answer is **B. blue**.", "B", "answer is"),
        ("The answer is B.\nA is not what the picture shows, and neither is C.", "B", "answer is"),
        ("The answer is B because A is wrong", "B", "answer is"),
        ("final answer: (d)", "D", "letter"),
        ("the answer is b.", "B", "answer is"),
        ("Correct option: C. A tall one", "C", "letter"),
        ("C) A tall one", "C", "letter"),
        ("(b) it is the one that stands at the left of the others", "B", "leading"),
        ("B. it is the one that stands at the left of the others", "B", "leading"),
        ("Blue", "B", "option text"),
        ("It is green.", "C", "option text"),
        ("A white one.", "D", "option text"),
        ("<answer>B</answer>", "B", "tag"),
        ("A or B or C? <answer>B</answer>", "B", "tag"),
        ("<answer>blue</answer>, not C", "B", "tag"),
        ("A, B, C: \\boxed{\\text{D}}", "D", "boxed"),
        ("$\\boxed{(b)}$", "B", "boxed"),
        # nothing, or too much
        ("", None, "none"),
        ("E", None, "none"),
        ("Red", None, "none"),
        ("covered in greenery", None, "none"),
        ("The answer is a dog", None, "none"),
        ("the U.S.A.", None, "none"),
        ("an A-frame", None, "none"),
        ("I believe B describes it better than the others would", None, "none"),
        ("yellow or blue", None, "ambiguous"),
        ("A or B", None, "ambiguous"),
        ("B, not (a)", None, "ambiguous"),
        ("b. not C", None, "ambiguous"),
        ("The answer is A or B", None, "ambiguous"),
        ("The answer is C. Or maybe B?", None, "ambiguous"),
        ("The answer is C. Wait, it is B.", None, "ambiguous"),
        ("The answer is A. The answer is B.", None, "ambiguous"),
        ("The answer is B, while A is wrong", None, "ambiguous"),
        ("A dog is facing left, so B", None, "ambiguous"),
        ("<answer>A</answer><answer>B</answer>", None, "ambiguous"),
        ("<answer>A or B</answer>", None, "ambiguous"),
    ],
)  # fmt: skip
def test_letters(text, value, how):
    assert read_letter(text, COLOURS, OURS) == (value, how)


def test_an_options_text_is_no_letter_of_its_own():
    """Answers repeat their option, and many options begin with A or name letters."""
    options = ("A dog", "A man riding a horse", "Both A and B", "left")
    assert letter("B. A man riding a horse", options) == "B"
    assert letter("The answer is C: both A and B", options) == "C"
    assert letter("a man riding a horse", options) == "B"
    assert letter("A left", options) == "D"


def test_options_that_are_letters_are_read_as_options_letters():
    """AI2D's diagrams label their parts with letters."""
    assert letter("B", ("C", "B", "A", "D")) == "B"


def test_an_option_within_another_is_read_by_the_whole_answer():
    assert letter("black cat", ("cat", "black cat")) == "B"
    assert letter("the black cat", ("cat", "black cat")) is None
    assert letter("1.5", ("1", "1.5")) == "B"


def test_letters_beyond_the_options_are_none():
    assert letter("C", ("left", "right")) is None
    assert letter("F", tuple("uvwxyz")) == "F"
    assert letter("C", ()) == "C"


@pytest.mark.parametrize(
    ("text", "boxes", "how"),
    [
        ('```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "a dog"}]\n```', [BOX], "json"),
        ('[{"bbox_2d": [100, 200, 300, 400]}]', [BOX], "json"),
        ('{"bbox_2d": [100, 200, 300, 400]}', [BOX], "json"),
        ('{"objects": [{"bbox": [100, 200, 300, 400]}]}', [BOX], "json"),
        ('[{"box": ["100", "200", "300.0", "4e2"]}]', [BOX], "json"),
        ("[100, 200, 300, 400]", [BOX], "json"),
        ("[[100, 200, 300, 400], [500, 600, 700, 800]]", [BOX, OTHER], "json"),
        ("It is here: [100, 200, 300, 400].", [BOX], "json"),
        ('[1, 2, 3, 4] ```json\n[{"bbox_2d": [100, 200, 300, 400]}]\n``` done', [BOX], "json"),
        ('```json\n[1,2,3,4]\n```\n```json\n{"bbox": [100,200,300,400]}\n```', [BOX], "json"),
        ("[]", [], "json"),
        ("[{'bbox_2d': (100, 200, 300, 400)},]", [BOX], "python"),
        ('I see [2]: [{"bbox_2d": [100, 200, 300, 400]}]', [BOX], "bbox_2d"),
        ('[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [500, 60', [BOX], "bbox_2d"),
        ("bbox: [100, 200, 300, 400] of [2]", [BOX], "bbox_2d"),
        ("the [2] dogs: [100, 200, 300, 400] and (500, 600, 700, 800)", [BOX, OTHER], "quadruple"),
        ("[300, 400, 100, 200]", [BOX], "json+fixed"),
        ("[-5, 200, 300, 1400]", [(0.0, 200.0, 300.0, 1000.0)], "json+out_of_range"),
        ("[0.1, 0.2, 0.3, 0.4]", [(0.1, 0.2, 0.3, 0.4)], "json+unit_suspect"),
        # no box
        ("2 dogs, 1 cat, 3 birds, 4 groups", None, "none"),
        ("100, 200, 300, 400", None, "none"),
        ('{"point_2d": [1, 2, 3, 4]}', None, "none"),
        ('[2] {"size": [1, 2, 3, 4]}', None, "none"),
        ("[true, 2, 3, 4]", None, "none"),
        ("[NaN, 2, 3, 4]", None, "none"),
        ("[1, 2, 3]", None, "none"),
        ("[1, 2, 3, 4, 5]", None, "none"),
        ("", None, "none"),
    ],
)  # fmt: skip
def test_boxes(text, boxes, how):
    value, read = read_boxes(text, OURS)
    assert (value if value is None else list(value), read) == (boxes, how)


def test_parts_of_one_are_wrong_and_told():
    """An older habit of models; the question asks for thousandths."""
    scored = hit("[0.1, 0.2, 0.3, 0.4]", target=(0.1, 0.2, 0.3, 0.4))
    assert (scored.correct, scored.best) == (0.0, 0.0)
    assert scored.reading.how.endswith("unit_suspect")
    assert hit("[0.1, 0.2, 0.3, 0.4]", parser=VLMEVALKIT).correct == 1.0


def test_a_box_is_right_from_an_iou_of_one_half():
    assert hit("[100, 200, 300, 300]").correct == 1.0
    assert hit("[100, 200, 300, 299]").correct == 0.0


# --- thoughts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parser", [OURS, VLMEVALKIT])
def test_a_thought_without_an_end_is_never_parsed(parser):
    """VLMEvalKit reads A of this one: truncation comes first."""
    question = Question("q", "which?", (), "letter", "A", COLOURS)
    cut = "The question mentions A. and is cut"
    scored = score_answer(question, cut, parser=parser, thinking=True)
    assert scored.reading == (None, "truncated")
    assert scored.correct == 0.0
    ended = score_answer(question, f"{cut}</think>\nA", parser=parser, thinking=True)
    assert ended.correct == 1.0


@pytest.mark.parametrize("parser", [OURS, VLMEVALKIT])
def test_an_answer_that_ran_out_of_tokens_is_never_parsed(parser):
    scored = hit("thought</think>[100, 200, 300, 400]", parser=parser, ended=False)
    assert (scored.correct, scored.iou, scored.reading.how) == (0.0, 0.0, "truncated")


def test_boxes_letters_and_words_of_the_thought_do_not_count():
    assert hit("perhaps [100, 200, 300, 400]?</think>[500, 600, 700, 800]").correct == 0.0
    assert answer_of("Yes? no</think>\n\nYes", thinking=True) == "Yes"
    assert answer_of("a</think>b</think>c", thinking=False) == "c"
    assert answer_of("<think>I begin", thinking=False) is None
    assert answer_of("plain", thinking=False) == "plain"
    assert answer_of("", thinking=True) is None


# --- VLMEvalKit's rules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes.", "yes"),
        ("Yes, there is.", "yes"),
        ("**Yes**", None),
        (wide("Yes."), None),
        ("There is no-one", "no"),
        ("Yes there is (no doubt)", None),
    ],
)
def test_vlmevalkits_words(text, value):
    assert yes_no(text, VLMEVALKIT) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is B.", "B"),
        ("**B**", "B"),
        ("A dog is facing left, so B", None),
        ("(b)", None),
        ("A cat is visible, so the answer is C", "C"),
        ("The answer is a dog", "A"),
        ("The answer is A or B", "A"),
        ("Blue", "B"),
        ("blueish", "B"),
        ("<answer>B</answer>", None),
        ("Cannot determine the answer. B", None),
        ("B is what I think that it is", None),
        ("I think that it is B", "B"),
    ],
)
def test_vlmevalkits_letters(text, value):
    assert letter(text, parser=VLMEVALKIT) == value


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("2 dogs, 1 cat, 3 birds, 4 groups", [(2.0, 1.0, 3.0, 4.0)]),
        ("[1, 2, 3, 4] or [5, 6, 7, 8]", [(1.0, 2.0, 3.0, 4.0)]),
        ("[0.1, 0.2, 0.3, 0.4]", [(100.0, 200.0, 300.0, 400.0)]),
        ("[1 2 3]", None),
    ],
)
def test_vlmevalkits_boxes(text, boxes):
    value = read_boxes(text, VLMEVALKIT).value
    assert value is None or np.allclose(value, boxes)
    assert (value is None) == (boxes is None)


def test_an_unknown_parser_is_refused():
    with pytest.raises(ValueError, match="choose one"):
        read_letter("A", COLOURS, "mine")
    assert letter("A", parser=OURS) == "A"
