"""True answers: what is written, and which of its tokens weighs what."""

import shutil

import numpy as np
import pytest

from dig_jax.benchmarks.question import Question
from dig_jax.boxes import boxes_text, reading_order
from dig_jax.config import PromptConfig, SftConfig
from dig_jax.inputs.prompt import load_processor, render
from dig_jax.learner.cells import GAPS, ROWS, label_rows, places_of
from dig_jax.lessons import answers
from scripts.make.tiny_tokenizer import write_tokenizer
from tests import THINKING

CFG = SftConfig(
    first_digit=3.0, second_digit=1.5, third_digit=0.2, stop=2.0, choice=4.0, scaffold=0.3
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, seed=0)
    return load_processor(folder)


def weighed(processor, text: str) -> list[tuple[str, float]]:
    """(piece of text, weight) of every token."""
    ids = answers.answer_ids(processor, text, 128, "this")
    weight = answers.token_weights(processor, ids, CFG)
    assert weight.shape == (len(ids),)
    texts = [processor.tokenizer.decode([token]) for token in ids]
    return [(text, round(float(w), 3)) for text, w in zip(texts, weight, strict=True)]


def of_boxes(boxes) -> str:
    return boxes_text(np.float32(boxes).reshape(-1, 4))


def asked(kind: str, target) -> Question:
    return Question("1", "?", (), kind, target)


def test_answers_are_written_in_qwens_frame_and_end_with_eos(processor):
    box = [[0.1, 0.25, 0.5, 1.0], [0.0, 0.0, 0.066, 0.5]]
    written = '[{"bbox_2d": [100, 250, 500, 1000]}, {"bbox_2d": [0, 0, 66, 500]}]'
    assert of_boxes(box) == written
    assert "".join(text for text, _ in weighed(processor, written)) == written + "<|im_end|>"
    assert "".join(text for text, _ in weighed(processor, of_boxes([]))) == "[]<|im_end|>"


def test_digits_of_coordinates_weigh_by_their_place(processor):
    """The 2 of bbox_2d is no coordinate; a fourth digit counts as a third."""
    text = of_boxes([[0.123, 0.04, 0.5, 1.0]])
    digits = [(t, w) for t, w in weighed(processor, text) if t.isdigit()]
    assert digits[0] == ("2", 0.3)
    numbers = [("1", 3.0), ("2", 1.5), ("3", 0.2), ("4", 3.0), ("0", 1.5)]
    numbers += [("5", 3.0), ("0", 1.5), ("0", 0.2), ("1", 3.0), ("0", 1.5), ("0", 0.2), ("0", 0.2)]
    assert digits[1:] == numbers


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_another_box_and_the_end_of_the_list_weigh_the_same(processor, count):
    """Else the loss itself would favour short or long answers."""
    pieces = weighed(processor, of_boxes([[0.1, 0.1, 0.2, 0.2]] * count))
    deciding = [text for text, w in pieces if w == CFG.stop]
    assert len(deciding) == max(count, 1)
    assert all(text.startswith("]") for text in deciding[: max(count - 1, 0)])


def test_an_answer_in_words_weighs_as_a_choice_but_for_its_end(processor):
    pieces = weighed(processor, "Yes")
    assert "".join(text for text, _ in pieces[:-1]) == "Yes"
    assert {w for _, w in pieces[:-1]} == {CFG.choice}
    assert pieces[-1] == ("<|im_end|>", 0.3)


def test_all_tokens_weigh_one_unless_told_otherwise(processor):
    """Plain cross-entropy is the default: what a released model is tuned by."""
    for text in (of_boxes([[0.1, 0.25, 0.5, 1.0]]), "No"):
        ids = answers.answer_ids(processor, text, 128, "this")
        np.testing.assert_array_equal(answers.token_weights(processor, ids, SftConfig()), 1)


def test_an_answer_that_does_not_fit_is_an_error(processor):
    with pytest.raises(ValueError, match=r"answer to pair 3 has 20 tokens, more than 19.*max_tok"):
        answers.answer_ids(processor, of_boxes([[0.5] * 4]), 19, "pair 3")
    assert len(answers.answer_ids(processor, of_boxes([[0.5] * 4]), 20, "pair 3")) == 20


def test_a_thought_that_the_template_opens_is_closed_first(processor, tmp_path):
    """Empty, as Qwen writes one that it does without; a plain template asks for none."""
    write_tokenizer(tmp_path, seed=0)
    shutil.copyfile(THINKING, tmp_path / "chat_template.jinja")
    for given, expected in ((processor, ""), (load_processor(tmp_path), "\n</think>\n\n")):
        prompt = render(PromptConfig(), given, "Which?", 1)
        assert answers.opening(given, prompt) == expected
        whole = given.tokenizer.decode(prompt) + expected + "Yes"
        assert whole.count("<think>") == whole.count("</think>")


def test_a_question_is_answered_as_its_benchmark_reads_it():
    assert answers.answer_text(asked("yes_no", "yes")) == "Yes"
    assert answers.answer_text(asked("letter", "B")) == "B"
    box = answers.answer_text(asked("box", (100.0, 0.4, 999.6, 500.0)))
    assert box == '[{"bbox_2d": [100, 0, 1000, 500]}]'


def test_label_rows_are_tokens_that_no_answer_or_question_holds(processor):
    rows, rng = label_rows(SftConfig().first_row), np.random.default_rng(0)
    assert len(rows) == ROWS
    rows = np.delete(rows, places_of(GAPS))
    texts = [of_boxes(rng.random((count, 4))) for count in range(5)]
    texts += ["Yes", "No", "A", "B", "C", "D", "E", "Is there a red cube?\n(A)\tleft, (B) right."]
    for text in texts:
        assert not np.isin(processor.tokenizer(text)["input_ids"], rows).any()


def test_boxes_are_read_from_the_top_then_from_the_left():
    boxes = np.float32([[0.5, 0.2, 1, 1], [0.1, 0.3, 1, 1], [0.2, 0.2, 1, 1]])
    np.testing.assert_array_equal(reading_order(boxes), boxes[[2, 0, 1]])
    assert reading_order(np.zeros((0, 4), np.float32)).shape == (0, 4)
