"""Scores worked by hand, each with a group that is broken; what is drawn together."""

import numpy as np
import pytest

from dig_jax.benchmarks.aggregate import lacking, scores_of
from dig_jax.benchmarks.catalog import NAMES
from dig_jax.benchmarks.columns import clusters
from dig_jax.scoring.ratios import interval, value
from tests.benchmarks.made import BOX, QUESTIONS, answered, asked, right, table


def values(name, scored):
    return {metric: value(score) for metric, score in scores_of(name, scored).items()}


def assert_scores(name, lines, expected):
    found = values(name, table(lines))
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected)


def test_a_score_of_no_question_is_left_out_and_the_next_is_the_headline():
    """CV-Bench's questions of a house without its three sources."""
    lines = [("q1", "A", "A", {"source": "ours"}), ("q2", "B", "A", {"source": "ours"})]
    found = values("cvbench", table(lines))
    assert next(iter(found.items())) == ("plain", 0.5)
    assert "official" not in found


# --- hand-worked tables --------------------------------------------------------------------------


def test_pope_by_track_and_overall():
    """tp 2 fp 1 fn 1 tn 2 of six questions; "random" asks two more of them, one of them twice.

    Overall counts q1 twice and q5 three times: 9 entries, tp 3 (q1 q1 q2), fp 1 (q4), fn 1 (q3), tn
    4 (q5 q5 q5 q6).
    """
    lines = [
        ("q1", "yes", "Yes", {"track": "adversarial,random"}),
        ("q2", "yes", "yes, there is", {"track": "adversarial"}),
        ("q3", "yes", "No.", {"track": "adversarial"}),
        ("q4", "no", "Yes", {"track": "popular"}),
        ("q5", "no", "No", {"track": "popular,random,random"}),
        ("q6", "no", "No", {"track": "popular"}),
    ]
    assert_scores("pope", lines, {
        "accuracy": 7 / 9, "precision": 3 / 4, "recall": 3 / 4, "f1": 6 / 8, "yes_ratio": 4 / 9,
        "accuracy_adversarial": 2 / 3, "recall_adversarial": 2 / 3, "f1_adversarial": 4 / 5,
        "accuracy_popular": 2 / 3, "f1_popular": 0, "yes_ratio_popular": 1 / 3,
        "accuracy_random": 1, "precision_random": 1, "yes_ratio_random": 1 / 3,
    })  # fmt: skip


def test_the_yes_ratio_is_of_predictions_not_of_labels():
    """lmms-eval says .5 of a model that never says yes."""
    lines = [(n, ("yes", "no")[n % 2], "No", {"track": "random"}) for n in range(4)]
    assert_scores("pope", lines, {"yes_ratio": 0, "accuracy": 0.5, "f1": 0, "precision": 0})


def test_an_unread_answer_is_neither_yes_nor_no():
    """It is wrong whatever the target, and misses a yes."""
    lines = [("q1", "yes", "Maybe", {}), ("q2", "no", "Maybe", {}), ("q3", "yes", "Yes", {})]
    assert_scores("vsr", lines, {
        "accuracy": 1 / 3, "recall": 1 / 2, "precision": 1, "f1": 2 / 3, "yes_ratio": 1 / 3,
    })  # fmt: skip


def test_hallusionbench_by_question_figure_and_question_over_figures():
    """Two figures of one set, two questions about each; one answer is wrong.

    aAcc 3/4. Figure f2 is broken: 1/2. Question b is wrong at f2, a is right at both: 1/2.
    """
    lines = [
        ("1", "yes", "yes", {"set": "s", "figure": "f1", "question": "a"}),
        ("2", "no", "no", {"set": "s", "figure": "f1", "question": "b"}),
        ("3", "yes", "yes", {"set": "s", "figure": "f2", "question": "a"}),
        ("4", "no", "yes", {"set": "s", "figure": "f2", "question": "b"}),
    ]
    expected = {"aAcc": 3 / 4, "fAcc": 1 / 2, "qAcc": 1 / 2, "mean": (3 / 4 + 1 / 2 + 1 / 2) / 3}
    assert_scores("hallusionbench", lines, expected)


def test_mme_adds_accuracy_and_pairs_of_each_category():
    """existence: 3 of 4 right, one of two pairs: 75 + 50. OCR: all: 200. code: none: 0."""
    lines = [
        ("1", "yes", "Yes", {"category": "existence", "pair": "a"}),
        ("2", "no", "No", {"category": "existence", "pair": "a"}),
        ("3", "yes", "Yes", {"category": "existence", "pair": "b"}),
        ("4", "no", "Yes", {"category": "existence", "pair": "b"}),
        ("5", "yes", "**Yes**", {"category": "OCR", "pair": "c"}),
        ("6", "no", "No", {"category": "OCR", "pair": "c"}),
        ("7", "yes", "No", {"category": "code_reasoning", "pair": "d"}),
        ("8", "no", "Not sure", {"category": "code_reasoning", "pair": "d"}),
    ]
    assert_scores("mme", lines, {
        "perception": 325, "cognition": 0, "sum": 325, "existence": 125, "OCR": 200,
        "code_reasoning": 0,
    })  # fmt: skip
    assert "count, position" in lacking("mme", table(lines))[0]


def test_vstar_over_questions_and_over_its_two_categories():
    lines = [(n, "A", "A" if n else "B", {"category": "direct_attributes"}) for n in range(4)]
    lines += [("x", "A", "A", {"category": "relative_position"})]
    assert_scores("vstar", lines, {
        "accuracy": 4 / 5, "accuracy_direct_attributes": 3 / 4, "accuracy_relative_position": 1,
        "macro": 7 / 8,
    })  # fmt: skip


def test_hrbench_means_cycles_and_does_not_ask_for_all_of_them():
    """Question 1 right in 3 of 4 cycles, question 2 in 1: 4 of 8, not 0 of 2."""
    lines = [
        (f"{q}{c}", "A", "A" if (c < 3 if q == 1 else c == 0) else "B",
         {"category": ("", "single", "cross")[q], "cycle": str(c), "question": str(q)})
        for q in (1, 2) for c in range(4)
    ]  # fmt: skip
    assert_scores("hrbench8k", lines, {"accuracy": 1 / 2, "FSP": 3 / 4, "FCP": 1 / 4})


def test_cvbench_weighs_sources_and_not_questions():
    """ADE20K 1 of 2, COCO 1 of 1, Omni3D 0 of 1: 1/2 ((1/2 + 1) / 2 + 0) = 3/8; plain 2 of 4."""
    lines = [
        ("1", "A", "A", {"source": "ADE20K", "category": "Count"}),
        ("2", "A", "B", {"source": "ADE20K", "category": "Relation"}),
        ("3", "A", "(A)", {"source": "COCO", "category": "Count"}),
        ("4", "A", "B", {"source": "Omni3D", "category": "Depth"}),
    ]
    assert_scores("cvbench", lines, {
        "official": 3 / 8, "plain": 1 / 2, "accuracy_ADE20K": 1 / 2, "accuracy_Omni3D": 0,
        "accuracy_Count": 1, "accuracy_Depth": 0,
    })  # fmt: skip


def test_mmvp_counts_pairs_and_questions():
    lines = [(n, "A", "A" if n != 3 else "B", {"pair": str(n // 2)}) for n in range(4)]
    assert_scores("mmvp", lines, {"pairs": 1 / 2, "questions": 3 / 4})


def test_mmbench_counts_a_question_that_is_right_in_all_its_orders():
    """One of three questions is wrong in one of four orders; one has a single order."""
    lines = [(n, "A", "A" if n != 5 else "B", {"question": str(n // 4), "l2": "x"})
             for n in range(9)]  # fmt: skip
    assert_scores("mmbench", lines, {"circular": 2 / 3, "plain": 8 / 9, "circular_x": 2 / 3})


def test_mmstar_over_rows_categories_and_subcategories():
    """Category a: 2 of 3 (subcategory p 1 of 2, q 1 of 1); b: 0 of 1. Macro (1/2 + 1 + 0) / 3."""
    lines = [
        ("1", "A", "A", {"category": "a", "subcategory": "p"}),
        ("2", "A", "B", {"category": "a", "subcategory": "p"}),
        ("3", "A", "A", {"category": "a", "subcategory": "q"}),
        ("4", "A", "B", {"category": "b", "subcategory": "p"}),
    ]
    assert_scores("mmstar", lines, {
        "accuracy": 1 / 2, "accuracy_a": 2 / 3, "accuracy_b": 0, "macro": 1 / 2,
    })  # fmt: skip


@pytest.mark.parametrize("name", ["scienceqa", "ai2d"])
def test_plain_accuracy(name):
    lines = [(n, "A", "The answer is A." if n else "B", {}) for n in range(4)]
    assert_scores(name, lines, {"accuracy": 3 / 4})


def test_refcoco_by_the_first_box_the_best_and_the_mean_iou():
    """Target 200x200. First box half of it: IoU .5, a hit; then a miss whose second box is right;
    then nothing: accuracy 1/3, best 2/3, mean IoU (.5 + 0 + 0) / 3."""
    lines = [
        ("1", BOX, "[100, 100, 300, 200]", {}),
        ("2", BOX, "[[500, 500, 600, 600], [100, 100, 300, 300]]", {}),
        ("3", BOX, "There is none: []", {}),
    ]
    expected = {"accuracy": 1 / 3, "best_box": 2 / 3, "mean_iou": 1 / 6}
    assert_scores("refcoco_val", lines, expected)


# --- every benchmark -----------------------------------------------------------------------------

PERFECT = {"mme": {"perception": 2000, "cognition": 800, "sum": 2800}}


@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_has_all_and_silence_nothing(name):
    questions = QUESTIONS[name]
    best = values(name, [answered(q, right(q)) for q in questions])
    none = values(name, [answered(q, "") for q in questions])
    for metric, most in PERFECT.get(name, dict.fromkeys(best, 1)).items():
        if not metric.startswith("yes_ratio"):
            assert best[metric] == pytest.approx(most), metric
        assert none[metric] == 0, metric


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_answers_does_not_matter(name):
    questions = QUESTIONS[name]
    rng = np.random.default_rng(0)
    scored = [answered(q, right(q) if rng.random() < 0.6 else "") for q in questions]
    mixed = [scored[at] for at in rng.permutation(len(scored))]
    first, second = scores_of(name, scored), scores_of(name, mixed)
    assert [*first] == [*second]
    for metric in first:
        assert interval(first[metric], 50, 0) == pytest.approx(interval(second[metric], 50, 0))


@pytest.mark.parametrize("name", NAMES)
def test_answering_twice_the_same_changes_nothing(name):
    questions = QUESTIONS[name]
    texts = [right(q) if n % 3 else "" for n, q in enumerate(questions)]
    once = [answered(q, text) for q, text in zip(questions, texts, strict=True)]
    twice = [answered(q, text, s) for s in (0, 1) for q, text in zip(questions, texts, strict=True)]
    first, second = scores_of(name, once), scores_of(name, twice)
    for metric in first:
        assert interval(second[metric], 50, 0) == pytest.approx(interval(first[metric], 50, 0))


def test_samples_of_a_pair_are_judged_sample_by_sample():
    """Sample 0 has the first right, sample 1 the second: half of the questions, no pair."""
    one, two = asked("1", "A", pair="p"), asked("2", "A", pair="p")
    scored = [answered(one, "A", 0), answered(one, "B", 1), answered(two, "B", 0)]
    scored += [answered(two, "A", 1)]
    assert values("mmvp", scored) == {"pairs": 0, "questions": 0.5}


def test_questions_weigh_the_same_however_often_they_were_answered():
    scored = [answered(asked("1", "A"), "A", s) for s in range(3)] + [
        answered(asked("2", "A"), "B")
    ]
    assert values("ai2d", scored) == {"accuracy": 0.5}


def test_a_name_without_a_rule_is_refused():
    with pytest.raises(ValueError, match="use one of ai2d"):
        scores_of("mmmu", table([("1", "A", "A", {})]))
    assert values("ai2d", table([("1", "A", "A", {})])) == {"accuracy": 1}


# --- clusters ------------------------------------------------------------------------------------


def test_sources_of_which_none_is_there_are_in_no_score():
    """CV-Bench's form with scenes of our own was warned of ADE20K, COCO and Omni3D."""
    ours = table([("a", "A", "A", {"source": "dig_jax", "category": "Count"})])
    assert "official" not in scores_of("cvbench", ours)
    assert lacking("cvbench", ours) == []
    some = table([("a", "A", "A", {"source": "COCO", "category": "Count"})])
    assert lacking("cvbench", some) == ["no question of source ADE20K, Omni3D: they count as 0"]


def test_what_shares_a_picture_or_a_group_is_one_cluster_also_by_way_of_others():
    lines = [
        ("a", "A", "A", {"picture": "1", "pair": "x"}),
        ("b", "A", "A", {"picture": "2", "pair": "x"}),
        ("c", "A", "A", {"picture": "2", "pair": "y"}),
        ("d", "A", "A", {"picture": "3", "pair": "z", "category": "same"}),
        ("e", "A", "A", {"picture": "4", "category": "same"}),
    ]
    assert clusters(table(lines)) == {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2}


def test_two_sides_of_the_same_questions_have_the_same_clusters():
    """A paired comparison draws by number."""
    questions = QUESTIONS["refcoco_val"]
    first = [answered(q, right(q)) for q in questions]
    second = [answered(q, "", s) for s in (0, 1) for q in reversed(questions)]
    assert clusters(first) == clusters(second)
    assert clusters(first) == {str(n): n // 6 for n in range(9)}


def test_pictures_with_many_questions_widen_the_interval():
    """50 pictures, 10 questions each that stand or fall together: as wide as of 50 questions."""
    lines = [(f"{p}.{q}", "yes", ("Yes", "No")[p % 2], {"picture": str(p)})
             for p in range(50) for q in range(10)]  # fmt: skip
    _, low, high = interval(scores_of("vsr", table(lines))["accuracy"], 1000, 0)
    assert 0.2 < high - low < 0.35  # theory: 2 * 1.96 * sqrt(.25 / 50) = .277; of 500 alone .088
