"""Results are paired by question, and what is of two protocols is refused by name."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dig_jax.benchmark.__main__ import main
from dig_jax.benchmark.folders import find_results, short_names
from dig_jax.benchmark.pairing import PROTOCOL, compare_all
from dig_jax.scoring.paired import mcnemar
from tests.benchmark.results import (
    box_questions,
    edit,
    letter_questions,
    pair_questions,
    write,
    yes_no_questions,
)

LETTERS = letter_questions(40)
FIRST = [1] * 20 + [0] * 20
SECOND = [1] * 18 + [0] * 2 + [1] * 9 + [0] * 11  # 9 gained, 2 lost


@pytest.fixture
def sides(tmp_path):
    """Two folders with one benchmark each."""
    write(tmp_path / "a", "vstar", LETTERS, FIRST)
    write(tmp_path / "b", "vstar", LETTERS, SECOND)
    return tmp_path / "a", tmp_path / "b"


def compared(*places, **options):
    found = [find_results(place) for place in places]
    return compare_all(*found, **({"resamples": 100, "seed": 0} | options))


def one_compared(*places, **options):
    (found,) = compared(*places, **options)
    return found


def test_a_comparison_worked_by_hand(sides):
    found = one_compared(*sides)
    assert (found.first, found.second, found.scale) == (0.5, 27 / 40, 1.0)
    assert found.difference[0] == pytest.approx(7 / 40)
    assert found.gained == tuple(f"v{i}" for i in range(20, 29))
    assert found.lost == ("v18", "v19")
    assert (found.test, found.p) == ("McNemar", mcnemar(9, 2))
    assert found.p == 2 * (1 + 11 + 55) / 2**11
    assert found.verdict == "inside noise"
    assert found.words.startswith("inside noise: 40 questions could show")


def test_equal_results_do_not_differ(sides):
    found = one_compared(sides[0], sides[0])
    assert (found.difference, found.p, found.p_holm) == ((0.0, 0.0, 0.0), 1.0, 1.0)
    assert found.gained == found.lost == ()
    assert found.verdict == "inside noise"


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=8))
def test_swapping_the_results_negates_the_difference(tmp_path, pairs):
    for name, right in zip("ab", zip(*pairs, strict=True), strict=True):
        write(tmp_path / name, "mmvp", pair_questions(8), right)
    one = one_compared(tmp_path / "a", tmp_path / "b")
    other = one_compared(tmp_path / "b", tmp_path / "a")
    assert other.difference == pytest.approx(
        (-one.difference[0], *[-v for v in one.difference[:0:-1]])
    )
    assert (other.p, other.gained, other.lost) == (one.p, one.lost, one.gained)


def test_what_is_right_together_is_swapped_together(tmp_path):
    """MMVP: of 20 questions 10 pairs; 6 pairs are gained, none lost: p is 2 / 2^6."""
    questions = pair_questions(20)
    write(tmp_path / "a", "mmvp", questions, [1, 0] * 10)
    write(tmp_path / "b", "mmvp", questions, [1, 1] * 6 + [1, 0] * 4)
    found = one_compared(tmp_path / "a", tmp_path / "b")
    assert (found.metric, found.first, found.second) == ("pairs", 0.0, 0.6)
    assert (found.clusters, found.questions, found.p) == (10, 20, 2 / 64)
    assert found.verdict == "better"


def test_questions_of_one_picture_are_no_independent_evidence(tmp_path):
    """VSR: 6 flips in 3 pictures are 3 observations: p is 2 / 2^3, not 2 / 2^6."""
    questions = yes_no_questions(20)
    write(tmp_path / "a", "vsr", questions, [0] * 6 + [1] * 14)
    write(tmp_path / "b", "vsr", questions, [1] * 20)
    found = one_compared(tmp_path / "a", tmp_path / "b")
    assert (found.test, found.p) == ("exact permutation", 2 / 8)
    assert "20 questions in 10 groups" in found.words


def test_samples_of_a_question_are_averaged(tmp_path):
    """Half right beats wrong and loses to right; one question stays one question."""
    write(tmp_path / "a", "vstar", letter_questions(3), [0, 1, 1])
    write(tmp_path / "b", "vstar", letter_questions(3), [(0, 1), (1, 0), (1, 1)])
    found = one_compared(tmp_path / "a", tmp_path / "b")
    assert (found.first, found.second) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (found.gained, found.lost) == (("v0",), ("v1",))
    assert (found.questions, found.clusters, found.p) == (3, 3, 1.0)


def test_p_is_corrected_for_the_number_of_benchmarks(tmp_path):
    """RefCOCO's 6 gained, none lost: p is 2 / 2^6 alone, twice that beside V*'s."""
    for name, gained in (("a", 0), ("b", 6)):
        write(tmp_path / name, "vstar", LETTERS, FIRST)
        write(tmp_path / name, "refcoco_val", box_questions(30), [1] * gained + [0] * (30 - gained))
    stars, boxes = compared(tmp_path / "a", tmp_path / "b")
    assert (stars.p_holm, boxes.p, boxes.p_holm) == (1.0, 2 / 64, 4 / 64)
    assert boxes.verdict == "inside noise"
    assert "among 2 benchmarks (alone p is below 0.05)" in boxes.words
    alone = one_compared(tmp_path / "a" / "refcoco_val", tmp_path / "b" / "refcoco_val")
    assert (alone.p_holm, alone.verdict) == (2 / 64, "better")


def test_a_gain_of_three_points_on_v_star_is_called_noise(tmp_path):
    """191 questions of which 24 flip, 15 of them upwards: +3.1 points; 7 or more could be shown."""
    questions = letter_questions(191)
    write(tmp_path / "a", "vstar", questions, [0] * 15 + [1] * 9 + [1] * 130 + [0] * 37)
    write(tmp_path / "b", "vstar", questions, [1] * 15 + [0] * 9 + [1] * 130 + [0] * 37)
    found = one_compared(tmp_path / "a", tmp_path / "b")
    assert found.difference[0] == pytest.approx(6 / 191)
    assert found.verdict == "inside noise"
    assert 0.06 < found.could_show < 0.08
    assert "191 questions could show 7.1 or more" in found.words


OTHER = {"thinking": True, "max_tokens": 64, "min_pixels": 3136, "max_pixels": 99}


@pytest.mark.parametrize("field", PROTOCOL)
def test_two_protocols_are_refused_by_name_and_compared_anyway(sides, field):
    path = sides[1] / "vstar" / "result.json"
    mine, other = find_results(sides[0])["vstar"].body["protocol"][field], OTHER.get(field, "other")
    edit(path, **{field: other})
    with pytest.raises(
        ValueError, match=r"are of two protocols .*; or compare them --anyway"
    ) as told:
        compared(*sides)
    assert f"{field}: {other!r} and {mine!r}" in str(told.value)
    assert str(path) in str(told.value)
    assert PROTOCOL[field] in str(told.value)
    found = one_compared(*sides, anyway=True)
    assert f"another {field}: {mine!r} in the first, {other!r} in the second" in found.notes
    edit(path, **{field: mine})  # as the remedy says: one setting in both
    assert one_compared(*sides).notes == ()


def test_what_is_compared_may_differ(sides):
    edit(sides[1] / "vstar" / "result.json", source="tuned", seed=7, commit="abc", samples=1)
    assert one_compared(*sides).notes == ()


def test_what_neither_side_tells_is_no_difference_but_what_one_tells_is(sides):
    """Answers of anybody come without a protocol."""
    unknown = {"decoding": None, "prompt": None, "data_digest": None}
    edit(sides[0] / "vstar" / "result.json", **unknown)
    with pytest.raises(ValueError, match="decoding: 'greedy' and None"):
        compared(*sides)
    edit(sides[1] / "vstar" / "result.json", **unknown)
    assert one_compared(*sides).questions == 40


def test_of_one_picture_nothing_is_known_and_the_table_says_so(tmp_path, capsys):
    """12 questions about it: 25.0 -> 50.0 was told with the interval [+25.0, +25.0]."""
    questions = [replace(q, groups={"picture": "p"}) for q in yes_no_questions(12)]
    write(tmp_path / "a", "vsr", questions, [1] * 3 + [0] * 9)
    write(tmp_path / "b", "vsr", questions, [1] * 6 + [0] * 6)
    body = find_results(tmp_path / "a")["vsr"].body
    assert body["scores"]["accuracy"] == pytest.approx([0.25, 0.00625, 0.98125])
    told = "all questions share a picture, a pair or a set: of others nothing is known"
    assert any(each.startswith(told) for each in body["warnings"])
    found = one_compared(tmp_path / "a", tmp_path / "b")
    assert found.difference == pytest.approx((0.25, 0.25 - 0.975 * 1.25, 0.25 + 0.975 * 0.75))
    assert (found.p, found.verdict, found.could_show) == (1.0, "inside noise", None)
    assert any(each.startswith(told) for each in found.notes)
    words = " ".join(run(capsys, tmp_path / "a", tmp_path / "b")[1].out.split())
    assert "12 questions in 1 group could show no difference at all" in words
    assert told in words


def test_a_side_that_was_scored_without_the_pictures_may_be_compared(sides):
    edit(sides[0] / "vstar" / "result.json", pictures_digest=None)
    assert one_compared(*sides).notes == ()


def test_shared_questions_of_the_same_data_are_compared_and_said(sides):
    write(sides[1], "vstar", LETTERS[:30], SECOND[:30])
    found = one_compared(*sides)
    assert found.questions == 30
    assert found.first == pytest.approx(20 / 30)
    assert "only the 30 questions that both sides have: 40 and 30 were scored" in found.notes


def test_other_questions_are_refused_where_no_digest_vouches_for_them(sides):
    edit(sides[0] / "vstar" / "result.json", data_digest=None)
    write(sides[1], "vstar", LETTERS[:30], SECOND[:30], data_digest=None)
    with pytest.raises(ValueError, match=r"have 30 and 40 questions, 'v30' in one of them alone"):
        compared(*sides)
    assert one_compared(*sides, anyway=True).questions == 30
    write(sides[1], "vstar", LETTERS, SECOND, data_digest=None)  # the same questions in both
    assert one_compared(*sides).questions == 40


def test_results_without_a_common_question_are_never_compared(sides):
    write(sides[1], "vstar", letter_questions(80)[40:], FIRST)
    with pytest.raises(ValueError, match="share no question; name two results of the same ones"):
        compared(*sides, anyway=True)
    write(sides[1], "vstar", LETTERS, SECOND)
    assert one_compared(*sides, anyway=True).questions == 40


def test_two_targets_of_one_question_are_refused(sides):
    questions = letter_questions(41)[1:]  # the letters are another's
    renamed = [type(q)(**(vars(q) | {"id": f"v{i}"})) for i, q in enumerate(questions)]
    write(sides[1], "vstar", renamed, SECOND)
    with pytest.raises(ValueError, match=r"two targets for question 'v0': 'B' and 'A' \(40 such"):
        compared(*sides)
    assert (
        "40 questions have another target in the second" in one_compared(*sides, anyway=True).notes
    )
    write(sides[1], "vstar", LETTERS, SECOND)  # scored from one root
    assert one_compared(*sides).notes == ()


def test_results_of_other_benchmarks_are_not_compared(sides):
    shelf = sides[1].parent / "c"
    write(shelf, "refcoco_val", box_questions(4), [1, 0, 1, 0])
    with pytest.raises(
        ValueError, match="first has vstar; the second has refcoco_val; name results"
    ):
        compared(sides[0], shelf)
    write(shelf, "vstar", LETTERS, SECOND)
    assert one_compared(sides[0], shelf).benchmark == "vstar"


def test_cut_off_answers_are_told(tmp_path):
    texts = {f"v{i}": "no letter here" for i in range(8)}
    write(tmp_path / "a", "vstar", LETTERS, FIRST)
    write(tmp_path / "b", "vstar", LETTERS, SECOND, texts=texts)
    assert (
        "20% of the answers of the second are unreadable"
        in one_compared(tmp_path / "a", tmp_path / "b").notes
    )


def test_a_file_its_folder_and_the_folder_above_are_one_place(sides):
    folder = sides[0]
    for place in (folder, folder / "vstar", folder / "vstar" / "result.json"):
        assert list(find_results(place)) == ["vstar"]


def test_results_stand_in_the_catalogs_order(tmp_path):
    for name in ("refcoco_val", "vstar", "mmvp"):
        questions = {"refcoco_val": box_questions, "vstar": letter_questions}.get(
            name, pair_questions
        )
        write(tmp_path, name, questions(4), [1, 0, 1, 0])
    assert list(find_results(tmp_path)) == ["vstar", "mmvp", "refcoco_val"]


def test_a_folder_without_results_is_named(tmp_path, sides):
    with pytest.raises(ValueError, match=r"none does not exist; name what `benchmark run --out`"):
        find_results(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no result.json and no \*/result.json; name what"):
        find_results(tmp_path / "empty")
    assert find_results(sides[0])


def test_one_benchmark_twice_in_a_folder_is_refused(sides):
    first = sides[0] / "vstar" / "result.json"
    copy = sides[0] / "vstar-again" / "result.json"
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="both score vstar; name one of them, or move the other"):
        find_results(sides[0])
    copy.rename(sides[0].parent / "moved.json")
    assert list(find_results(sides[0])) == ["vstar"]


def test_a_changed_result_is_refused(sides):
    path = sides[0] / "vstar" / "result.json"
    path.write_text(path.read_text().replace('"correct": 1.0', '"correct": 0.0', 1))
    with pytest.raises(ValueError, match="was changed"):
        find_results(sides[0])


def test_names_are_as_long_as_it_takes_to_tell_them_apart(tmp_path):
    assert short_names([tmp_path / "x" / "a", tmp_path / "x" / "b"]) == ["a", "b"]
    assert short_names([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]


def run(capsys, *args):
    status = main(["compare", *map(str, args), "--resamples", "200"])
    return status, capsys.readouterr()


def test_the_table_says_in_words_what_its_numbers_say(sides, capsys):
    write(sides[0].parent / "c", "vstar", LETTERS, [1] * 40)
    status, told = run(capsys, *sides, sides[0].parent / "c")
    assert status == 0
    words = " ".join(told.out.split())
    assert "vstar 40 50.0 67.5 +17.5 [" in words
    assert "+9 -2 .065 .065" in words
    assert "accuracy, McNemar: inside noise: 40 questions could show" in words
    assert "C \N{MINUS SIGN} A [95 %]" in words
    assert "+20 -0 <.001 <.001" in words
    assert "accuracy, McNemar: better: more than noise" in words
    assert "one run's 95 % half-width at a typical level: ±5.1" in words
    assert max(map(len, told.out.splitlines())) <= 100


def test_all_of_it_is_written_as_json(sides, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert run(capsys, *sides, "--json", out)[0] == 0
    body = json.loads(out.read_text())
    (other,) = body["others"]
    (found,) = other["benchmarks"]
    assert (body["first"], other["folder"]) == (str(sides[0]), str(sides[1]))
    assert found["difference"][0] == pytest.approx(7 / 40)
    assert found["gained"] == [f"v{i}" for i in range(20, 29)]
    assert (body["resamples"], body["seed"], found["p"]) == (200, 0, mcnemar(9, 2))


def test_a_difference_that_nothing_could_show_is_null_in_json(tmp_path, capsys):
    for name in "ab":
        write(tmp_path / name, "vstar", letter_questions(4), [1, 0, 1, 0])
    out = tmp_path / "out.json"
    status, told = run(capsys, tmp_path / "a", tmp_path / "b", "--json", out)
    assert status == 0
    assert "4 questions could show no difference at all" in told.out
    assert json.loads(out.read_text())["others"][0]["benchmarks"][0]["could_show"] is None


def test_one_result_is_not_a_comparison(sides, capsys):
    status, told = run(capsys, sides[0])
    assert status == 1
    assert "is one; name two or more" in told.err
    assert run(capsys, *sides)[0] == 0


def test_a_refusal_ends_with_its_message_alone(sides, capsys):
    edit(sides[1] / "vstar" / "result.json", decoding="sampled")
    status, told = run(capsys, *sides)
    assert (status, told.out) == (1, "")
    assert told.err.startswith("compare: ")
    assert len(told.err.splitlines()) == 1
    assert run(capsys, *sides, "--anyway")[0] == 0


def test_a_headline_that_counts_nothing_gives_way_to_a_score_that_does(tmp_path):
    """CV-Bench's official score wants three sources; a set of other pictures has its plain one."""
    for name, right in (("a", FIRST), ("b", SECOND)):
        write(tmp_path / name, "cvbench", LETTERS, right)
    found = one_compared(tmp_path / "a", tmp_path / "b")
    assert (found.metric, found.first, found.second) == ("plain", 0.5, 27 / 40)


def test_of_a_part_of_a_benchmark_nothing_was_published(sides, capsys):
    """Nor of other questions in its format."""
    assert "half-width" in run(capsys, *sides)[1].out
    for side in sides:
        edit(side / "vstar" / "result.json", expected_rows=191)
    assert "half-width" not in run(capsys, *sides)[1].out
