"""Answers for toolkits to read: everybody reads the plain ones, and the tables tell who differs."""

import json

from dig_jax.benchmarks.readings import OURS, VLMEVALKIT
from scripts.study.crosscheck import compare, main, meant, ours, read_lines
from scripts.study.crosschecking.answers import TASKS, rows
from scripts.study.crosschecking.toolkits import vlmevalkit

THEIRS = '''
def YOrN_Extraction(output):
    return output


def process_punctuation(text):
    raise NotImplementedError


class RefCOCODataset(Missing):
    """Its bases are not there where only these functions are wanted."""

    other = missing

    @staticmethod
    def _parse_prediction(text) -> Optional[int]:
        return None
'''


def test_plain_answers_are_read_as_meant_by_both_parsers():
    for row in rows(8, 0, plain=True):
        for parser in (OURS, VLMEVALKIT):
            assert ours(row, parser).correct == meant(row), row


def test_answers_repeat_with_their_seed_and_are_right_wrong_and_unclear():
    first = [*rows(60, 1, plain=False)]
    assert first == [*rows(60, 1, plain=False)]
    assert first != [*rows(60, 2, plain=False)]
    assert {row["task"] for row in first} == set(TASKS)
    assert {meant(row) for row in first if row["meant"]} == {True, False}
    assert any(row["meant"] is None for row in first)


def test_every_disagreement_is_counted_and_shown(tmp_path, capsys):
    main(["make", "--out", str(tmp_path), "--count", "30"])
    answers = read_lines(tmp_path / "answers.jsonl")
    scored = [int(ours(row, OURS).correct) for row in answers]
    other = next(n for n, row in enumerate(answers) if row["task"] == "ai2d" and scored[n])
    scored[other] = 0
    theirs = [{"id": row["id"], "correct": right, "value": "what they read"}
              for row, right in zip(answers, scored, strict=True)]  # fmt: skip
    theirs.append({"task": "ai2d", "scores": {"accuracy": 0.25}})
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in theirs))
    capsys.readouterr()
    main(["compare", str(tmp_path / "answers.jsonl"), str(path)])
    said = capsys.readouterr().out
    assert "| ai2d | 30 | 29 |" in said
    assert "| pope | 30 | 30 |" in said
    assert "ai2d 1 |" in said
    assert "| accuracy | " in said
    assert "0.2500" in said
    assert compare(answers, theirs, OURS) in said


def test_functions_of_a_toolkit_are_taken_from_files_that_cannot_be_imported(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(THEIRS)
    read, _ = vlmevalkit([str(path)])[""]
    row = {"kind": "yes_no", "target": "yes", "answer": "no</think> yes"}
    assert read(row, row["answer"])[:2] == (True, "yes")
    row = {"kind": "box", "answer": "[1, 2, 3, 4]"}
    assert read(row, row["answer"])[:2] == (False, None)
