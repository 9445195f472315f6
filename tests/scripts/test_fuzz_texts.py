"""The short form of the fuzz: some thousand seeded texts, read by all three readers."""

import pytest

from dig_jax.reward.parse import Verdict
from scripts.study import fuzz_texts

COUNT = 4000  # scripts/study/fuzz_texts.py reads a million


@pytest.fixture(scope="module")
def tally():
    found = fuzz_texts.Tally()
    for chunk in fuzz_texts.cases(COUNT, seed=0):
        fuzz_texts.fuzz(chunk, found)
    return found


def test_no_text_raises_and_all_readers_agree(tally):
    assert sum(tally.kinds.values()) == sum(tally.verdicts.values()) == COUNT
    assert not tally.exceptions, tally.exceptions[0]
    assert not tally.disagreements, tally.disagreements[0]


def test_the_texts_are_of_every_kind_and_get_most_verdicts(tally):
    """A fuzz that only ever saw one branch would prove little."""
    assert set(tally.kinds) == set(fuzz_texts.KINDS)
    rare = {"flat", "empty_text"}
    assert {str(verdict) for verdict in Verdict} - set(tally.verdicts) <= rare
    assert tally.verdicts["ok"] > COUNT / 50


def test_a_chunk_depends_on_seed_and_number_alone():
    first, again = fuzz_texts.chunk_of(3, 1), list(fuzz_texts.cases(600, seed=3))
    assert first == again[1]
    assert [len(chunk) for chunk in again] == [256, 256, 88]
    assert first != fuzz_texts.chunk_of(4, 1)


def test_a_reader_that_differs_or_raises_is_told_with_its_text(monkeypatch, capsys):
    right = fuzz_texts.read_answer

    def wrong(text, think, max_boxes):
        boxes, count, form = right(text, think, max_boxes)
        if count == 2:
            raise ZeroDivisionError("two")
        return boxes, count + (count == 1), form

    monkeypatch.setattr(fuzz_texts, "read_answer", wrong)
    assert fuzz_texts.main(["--count", "300", "--seed", "5"]) == 1
    printed = capsys.readouterr().out
    assert "the EasyR1 file" in printed
    assert "ZeroDivisionError: two" in printed
    assert "max_boxes=" in printed
    assert "most ns per character" in printed
