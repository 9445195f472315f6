"""Texts as tokens come: what all at once would give, thoughts apart, stops never given out."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.inputs.prompt import decode_answers, load_processor
from dig_jax.serve.texts import Writing
from tests.tiny_model import ASSETS

EOS = 744


@cache
def processor():
    return load_processor(ASSETS, rows=700)


def written(ids, *texts, thinking=False):
    """(thought, words, writing), put together from what each token gives."""
    writing = Writing(processor(), (EOS,), texts, thinking=thinking)
    pieces = [writing.take(token) for token in ids] + [writing.finish()]
    return *map("".join, zip(*pieces, strict=True)), writing


def ids_of(text):
    return processor().tokenizer(text, add_special_tokens=False)["input_ids"]


@given(st.lists(st.integers(0, 650).filter(lambda n: n != EOS), max_size=40))
def test_pieces_together_are_the_whole_text(ids):
    """Special tokens, ids that the tokenizer lacks and torn letters included."""
    whole = decode_answers(processor(), np.array(ids), np.array(len(ids)), stops=(EOS,))
    thought, words, _ = written(ids)
    if not whole.lstrip().startswith("<think>"):
        assert (thought, words) == ("", whole)


@given(st.text(alphabet="ab <>/think\n\u00e9\U0001f600", max_size=60))
def test_any_text_comes_back(text):
    thought, words, _ = written(ids_of(text))
    if not text.lstrip().startswith("<think>"):
        assert (thought, words) == ("", text)


@pytest.mark.parametrize(
    ("text", "thinking", "thought", "words"),
    [
        ("\nHm. \n</think>\n\n[1, 2]\n", True, "Hm.", "[1, 2]\n"),
        ("<think>\nHm.\n</think>\n\n[]", False, "Hm.", "[]"),
        ("Hm, cut off \n", True, "Hm, cut off", ""),
        ("</think>[]", True, "", "[]"),
        ("a < b </thin", True, "a < b </thin", ""),
        ("No thought <think>here</think>", False, "", "No thought <think>here</think>"),
        ("<thin", False, "", "<thin"),
        ("", False, "", ""),
    ],
)
def test_thoughts_are_kept_apart(text, thinking, thought, words):
    assert written(ids_of(text), thinking=thinking)[:2] == (thought, words)


@given(st.text(alphabet="abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4)))
def test_what_stands_before_the_first_stop_text_is_given(text, stops):
    _, words, writing = written(ids_of(text), *stops)
    assert not any(stop in words for stop in stops)
    assert text.startswith(words)
    assert writing.stopped == any(stop in text for stop in stops)
    assert writing.stopped or words == text


def test_a_stop_text_in_a_thought_is_thought():
    thought, words, writing = written(ids_of("a. b.</think>c. d"), ".", thinking=True)
    assert (thought, words, writing.stopped) == ("a. b.", "c", True)
