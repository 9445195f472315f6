"""What a question asks for: read from its words, its options and its answer."""

import numpy as np
import pytest

from dig_jax.benchmarks import prompts
from dig_jax.benchmarks.question import Question
from dig_jax.learner.cells import BINS, THINGS, UNKNOWN
from dig_jax.lessons.asked import labels_of, stack_asked
from scripts.make import base

NO = UNKNOWN
COLORS = ("red", "blue", "green", "brown")


def question(kind, prompt, target, options=()):
    return Question("1", prompt, (), kind, target, options)


def told(*given):
    words, meant, bins = labels_of(question(*given))
    return [words.tolist(), meant.tolist(), bins.tolist()]


@pytest.mark.parametrize("prompt", prompts.PROMPTS)
def test_an_expression_tells_its_thing_and_where_it_is(prompt):
    """Sphere, blue, metal, large: numbers in the order of THINGS; a box in bins of 1 / BINS."""
    asked = prompts.locate("leftmost large blue metal sphere", prompt)
    looks = [1, 2, 1, 1]
    bins = [0, BINS // 4, BINS // 2, BINS - 1]
    assert told("box", asked, (0.0, 250.0, 500.0, 1000.0)) == [looks, looks, bins]


def test_a_thing_that_is_there_is_as_its_words_say_and_of_none_nothing_is_known():
    asked = prompts.yes_no("Is there a red cube in the image?")
    words = [0, 1, NO, NO]
    assert told("yes_no", asked, "yes") == [words, words, [NO] * 4]
    assert told("yes_no", asked, "no") == [words, [NO] * 4, [NO] * 4]


def test_a_look_that_is_asked_for_is_one_of_the_thing_and_its_options_are_no_words():
    asked = prompts.choice("What is the color of the rubber cube?", COLORS)
    words, meant = [0, NO, 0, NO], [0, 3, 0, NO]
    assert told("letter", asked, "C", COLORS) == [words, meant, [NO] * 4]


def test_of_two_things_of_a_kind_the_kind_is_not_told():
    asked = prompts.statement("The red cube is left of the blue cube.")
    assert labels_of(question("yes_no", asked, "no"))[0].tolist() == [0, NO, NO, NO]
    names = ("cube", "metal cylinder")
    asked = prompts.choice("Which is closer, the cube or the metal cylinder?", names)
    assert told("letter", asked, "A", names)[:2] == [[NO, NO, 1, NO], [NO] * 4]


def test_words_in_plural_and_at_a_quote_are_words_and_parts_of_others_are_not():
    assert labels_of(question("letter", "How many spheres?", "A", ("1",)))[0].tolist()[0] == 1
    assert labels_of(question("yes_no", 'Is "cubed reddish" true?', "no"))[0].tolist() == [NO] * 4


def test_rows_are_stacked_as_the_loss_reads_them():
    asked = stack_asked([question("yes_no", "Is there a cone?", "no")] * 3)
    assert all(leaf.shape == (3, 4) for leaf in vars(asked).values())
    assert all(leaf.dtype == np.int32 for leaf in vars(asked).values())


def test_an_untrained_start_pairs_every_look_of_a_cell_with_the_one_that_is_asked():
    codes = base.label_codes()
    assert len(codes.shown) == len(codes.asked) == sum(THINGS.values())
    both = {*codes.shown.tolist(), *codes.asked.tolist()}
    assert len(both) == 2 * len(codes.shown)
    assert both < {*codes.rows.tolist()}
