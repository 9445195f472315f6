"""A result's file: all that its scores are made of, what must stand beside them, and damage."""

import json

import pytest

from dig_jax.benchmarks.aggregate import scores_of
from dig_jax.benchmarks.catalog import NAMES
from dig_jax.benchmarks.readings import OURS
from dig_jax.benchmarks.result import (
    PROTOCOL,
    make_result,
    protocol,
    read_result,
    scores_of_rows,
    write_result,
)
from dig_jax.scoring.ratios import interval
from tests.benchmarks.made import QUESTIONS, answered, asked, right

KNOWN = protocol(parser=OURS, thinking=False, samples=1)


def result_of(name, scored, *, told=KNOWN, **how):
    return make_result(name, scored, protocol=told, **{"resamples": 20, **how})


def some(name):
    """Two of three questions right."""
    return [answered(q, right(q) if n % 3 else "no idea") for n, q in enumerate(QUESTIONS[name])]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_made_again_from_the_rows_that_were_read_back(name, tmp_path):
    scored = some(name)
    path = tmp_path / "result.json"
    write_result(path, result_of(name, scored))
    found = read_result(path)
    again, first = scores_of_rows(name, found["rows"]), scores_of(name, scored)
    assert [*again] == [*first] == [*found["scores"]]
    assert found["headline"] == next(iter(first))
    for metric, numbers in found["scores"].items():
        assert interval(again[metric], 20, 0) == pytest.approx(numbers)


def test_scores_of_some_questions_need_the_file_alone():
    found = result_of("ai2d", some("ai2d"))
    rows = [row for row in found["rows"] if row["id"] in ("1", "2")]
    assert interval(scores_of_rows("ai2d", rows)["accuracy"], 0, 0) == [1, 1, 1]


def test_a_row_tells_what_was_read_how_and_its_boxes():
    question = QUESTIONS["refcoco_val"][0]
    scored = [answered(question, "hm</think>[100, 100, 300, 200]", thinking=True, tokens=7)]
    row = result_of("refcoco_val", scored, told={**KNOWN, "thinking": True})["rows"][0]
    assert row == {
        "id": "0", "sample": 0, "correct": 1.0, "value": ((100.0, 100.0, 300.0, 200.0),),
        "target": (100.0, 100.0, 300.0, 300.0), "how": "json", "iou": 0.5, "best": 0.5,
        "groups": {"picture": "p0", "object": "o0"}, "tokens": 7,
        "text": "[100, 100, 300, 200]",
    }  # fmt: skip


def test_what_was_not_read_is_counted_and_warned_of():
    """Two of 50 answers, one cut off and one unread, are 4 %; one of 50 is not worth a word."""
    question = [asked(n, "A") for n in range(50)]
    scored = [answered(q, "A") for q in question[2:]]
    unread, cut = answered(question[0], "?"), answered(question[1], "A", ended=False)
    found = result_of("ai2d", [unread, cut, *scored])
    assert found["counts"] == {
        "questions": 50, "answers": 50, "truncated": 1, "unparsed": 1,
        "how": {"letter": 48, "none": 1, "truncated": 1},
    }  # fmt: skip
    assert found["warnings"] == [
        "2.0% of the answers are cut off and 2.0% could not be read: all wrong"
    ]
    few = result_of("ai2d", [unread, answered(question[1], "A"), *scored], warnings=["a reader's"])
    assert few["warnings"] == ["a reader's"]


def test_thoughts_that_a_server_took_off_are_told_apart_from_answers_cut_off():
    scored = [answered(asked(1, "A"), "A", thinking=True)]
    told = result_of("ai2d", scored, told={**KNOWN, "thinking": True})["warnings"][0]
    assert "leave out --thinking" in told
    two = [answered(asked(n, "A"), "A") for n in (1, 2)]
    assert result_of("ai2d", two)["warnings"] == []


def test_long_answers_are_kept_short_and_cut_ones_by_their_end():
    long = answered(asked(1, "A"), "x" * 9000)
    cut = answered(asked(2, "A"), "x" * 9000 + "end", ended=False, thinking=True)
    rows = result_of("ai2d", [long, cut], told={**KNOWN, "thinking": True})["rows"]
    assert all(len(row["text"]) < 2010 for row in rows)
    assert rows[1]["text"].endswith("end")


def test_a_protocol_has_all_fields_and_no_other():
    assert [*KNOWN] == PROTOCOL
    assert KNOWN["max_tokens"] is None
    with pytest.raises(TypeError, match="no field temperature"):
        protocol(temperature=1)


def test_no_answer_is_no_result():
    with pytest.raises(ValueError, match="answer its questions first"):
        result_of("ai2d", [])
    assert result_of("ai2d", some("ai2d"))["counts"]["answers"] == 5


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[:-30], "not valid JSON"),
        (lambda text: text.replace('"correct": 1.0', '"correct": 0.0', 1), "was changed"),
        (lambda text: "{}", r"result\.json has no benchmark, protocol, scores, headline"),
        (lambda text: json.dumps({"benchmark": "pope"}), "has no protocol, scores"),
        (lambda text: "[]", "in place of an object"),
    ],
)
def test_a_damaged_result_is_refused_and_made_again_as_advised(damage, told, tmp_path):
    path = tmp_path / "result.json"
    write_result(path, result_of("ai2d", some("ai2d")))
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=told) as error:
        read_result(path)
    assert "score the answers again" in str(error.value)
    write_result(path, result_of("ai2d", some("ai2d")))
    assert read_result(path)["benchmark"] == "ai2d"


def test_a_result_whose_rows_lack_a_field_is_refused(tmp_path):
    path = tmp_path / "result.json"
    found = result_of("ai2d", some("ai2d"))
    del found["rows"][1]["how"]
    write_result(path, found)
    with pytest.raises(ValueError, match=r"result\.json has no rows\[1\]\.how; score the answers"):
        read_result(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"benchmark": "nonsense"}, "benchmark='nonsense' is of no benchmark"),
        ({"rows": []}, r"rows=\[\] is no list of answers"),
        ({"rows": [5]}, r"rows\[0\]=5 is no object"),
        ({"counts": {}}, "has no counts.questions, counts.answers"),
        ({"headline": "zzz"}, "headline='zzz' is none of its scores"),
        ({"scores": {"accuracy": "x"}}, "is not .value, low, high. by score"),
        ({"scores": {"accuracy": [1, 1]}}, "is not .value, low, high. by score"),
        ({"scores": {"accuracy": [float("nan")] * 3}}, "is not .value, low, high. by score"),
        ({"scores": {}}, "is not .value, low, high. by score"),
        ({"warnings": [None]}, r"warnings=\[None\] is no list of texts"),
        ({"protocol": {}}, "has no protocol.parser, protocol.thinking; score"),
        ({"protocol": {"parser": 5, "thinking": False, "samples": 1}}, "protocol.parser=5 is no"),
        ({"how": [1]}, r"counts.how=\[1\] is not a number by way"),
        ({"row": {"groups": None}}, r"rows\[0\].groups=None is not a text by group"),
        ({"row": {"groups": {"pair": 5}}}, r"rows\[0\].groups=\{'pair': 5\} is not a text by"),
        ({"row": {"correct": "yes"}}, r"rows\[0\].correct='yes' is no number from 0 to 1"),
        ({"row": {"correct": float("nan")}}, "correct=nan is no number from 0 to 1"),
        ({"row": {"id": 5}}, r"rows\[0\].id=5 is no text"),
        ({"row": {"sample": "x"}}, "sample='x' is no number from 0"),
        ({"row": {"target": None}}, "target=None is neither a text nor a box"),
        ({"row": {"target": [1, 2]}}, "target=.* is neither a text nor a box"),
        ({"row": {"value": [1, 2]}}, "value=.* is neither a text nor boxes"),
        ({"row": {"tokens": "z"}}, "tokens='z' is no number from 0"),
        ({"row": {"text": 7}}, "text=7 is no text"),
    ],
    ids=str,
)
def test_a_result_that_somebody_wrote_is_refused_by_file_field_and_rule(change, told, tmp_path):
    """Without a seal nothing vouches for it: compare and report ended in errors of Python's."""
    path = tmp_path / "result.json"
    found = result_of("ai2d", some("ai2d"))
    change = dict(change)
    found["rows"][0] |= change.pop("row", {})
    found["counts"] |= {"how": change.pop("how")} if "how" in change else {}
    path.write_text(json.dumps(found | change))
    with pytest.raises(ValueError, match=told) as error:
        read_result(path)
    assert str(path) in str(error.value)
    assert "score the answers again" in str(error.value)
    write_result(path, result_of("ai2d", some("ai2d")))  # as advised
    assert read_result(path)["headline"] == "accuracy"
