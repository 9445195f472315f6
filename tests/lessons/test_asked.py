"""What a question asks for: read from its words, its options, its answer and its picture."""

import numpy as np
import pytest

from dig_jax.benchmarks import prompts
from dig_jax.benchmarks.question import Question
from dig_jax.learner.asked import SPOTS
from dig_jax.learner.cells import BINS, GAPS, THINGS, UNKNOWN, places_of
from dig_jax.lessons.asked import labels_of, stack_asked
from dig_jax.lessons.shown import Thing
from scripts.make import base

NO = UNKNOWN
NOTHING, NOWHERE = [NO] * 4, [NO] * 4
COLORS = ("red", "blue", "green", "brown")
# shape, color, material, size: as THINGS. A red rubber cube on the left, behind a blue metal sphere
CUBE = Thing(np.array([0, 1, 0, 0]), np.float32([0.1, 0.2, 0.3, 0.4]))
SPHERE = Thing(np.array([1, 2, 1, 1]), np.float32([0.6, 0.5, 0.9, 0.8]))


def pieces(prompt):
    """Words with the blanks before them, and what ends the turn."""
    return [*np.char.add(" ", prompt.split(" ")).tolist(), "<end>"]


def asked(kind, prompt, target, options=(), things=()):
    return labels_of(Question("1", prompt, (), kind, target, options), pieces(prompt), things)


def at_end(*given, **more):
    found = asked(*given, **more)
    return [values[0].tolist() for values in (found.words[:, :4], found.meant, found.bins)]


def spots(prompt, found):
    """{word: (looks that are said, those of the thing, its place)} of all but the end."""
    return {
        pieces(prompt)[found.places[n]].strip(): (
            found.words[n, :4].tolist(),
            found.meant[n].tolist(),
            int(found.named[n]),
        )
        for n in range(1, SPOTS)
        if found.places[n]
    }


@pytest.mark.parametrize("prompt", prompts.PROMPTS)
def test_an_expression_tells_its_thing_and_where_it_is(prompt):
    """Sphere, blue, metal, large: numbers in the order of THINGS; a box in bins of 1 / BINS."""
    text = prompts.locate("leftmost large blue metal sphere", prompt)
    looks = [1, 2, 1, 1]
    bins = [0, BINS // 4, BINS // 2, BINS - 1]
    assert at_end("box", text, (0.0, 250.0, 500.0, 1000.0)) == [looks, looks, bins]


def test_a_thing_that_is_there_is_as_its_words_say_and_of_none_nothing_is_known():
    text = prompts.yes_no("Is there a red cube in the image?")
    words = [0, 1, NO, NO]
    assert at_end("yes_no", text, "yes") == [words, words, NOWHERE]
    assert at_end("yes_no", text, "no") == [words, NOTHING, NOWHERE]


def test_the_picture_tells_the_rest_of_the_one_thing_that_words_mean():
    text = prompts.yes_no("Is there a red cube in the image?")
    bins = (CUBE.box * BINS).astype(int).tolist()
    told = at_end("yes_no", text, "yes", things=(CUBE, SPHERE))
    assert told == [[0, 1, NO, NO], CUBE.looks.tolist(), bins]
    # of two that fit none is meant
    assert at_end("yes_no", text, "yes", things=(CUBE, CUBE))[1:] == [[0, 1, NO, NO], NOWHERE]


def test_a_look_that_is_asked_for_is_one_of_the_thing_and_its_options_are_no_words():
    text = prompts.choice("What is the color of the rubber cube?", COLORS)
    words, meant = [0, NO, 0, NO], [0, 3, 0, NO]
    assert at_end("letter", text, "C", COLORS) == [words, meant, NOWHERE]


def test_of_two_things_of_a_kind_the_kind_is_not_told_at_the_end():
    text = prompts.statement("The red cube is left of the blue cube.")
    assert at_end("yes_no", text, "no")[0] == [0, NO, NO, NO]
    names = ("cube", "metal cylinder")
    text = prompts.choice("Which is closer, the cube or the metal cylinder?", names)
    assert at_end("letter", text, "A", names)[:2] == [[NO, NO, 1, NO], NOTHING]


def test_every_thing_that_a_question_names_is_told_by_its_last_word():
    text = prompts.statement("The red cube is left of the large metal object.")
    found = asked("yes_no", text, "yes", things=(CUBE, SPHERE))
    assert spots(text, found) == {
        "cube": ([0, 1, NO, NO], CUBE.looks.tolist(), 0),
        'object."': ([NO, NO, 1, 1], SPHERE.looks.tolist(), 1),
    }


CVBENCH = "{} Select from the following choices.\n(A) {}\n(B) {}\n(C) {}\n(D) {}"


@pytest.mark.parametrize(
    "text",
    [
        prompts.choice("What is the color of the cube?", COLORS),
        CVBENCH.format("What is the color of the cube?", *COLORS),
    ],
)
def test_every_option_is_told_by_its_last_word_with_its_place_among_them(text):
    found = asked("letter", text, "A", COLORS, things=(CUBE, SPHERE))
    assert found.named.tolist() == [NO, 0, NO, NO, NO, NO, NO, NO]  # the cube, then four options
    assert found.letter.tolist() == [NO, NO, 0, 1, 2, 3, NO, NO]
    assert found.words[2:6, 1].tolist() == [1, 2, 3, 4]
    assert [pieces(text)[n].split("\n")[0].strip() for n in found.places[2:6]] == list(COLORS)


def told(*given, **more):
    return asked(*given, **more).told[0].tolist()


def test_how_the_first_thing_lies_to_the_second_is_told_and_small_margins_are_not():
    names = ("cube", "sphere")
    text = prompts.choice("Which is closer, the cube or the sphere?", names)
    assert told("letter", text, "B", names, things=(CUBE, SPHERE)) == [0, 0, NO, 0, 1]
    back = prompts.choice("Which is closer, the sphere or the cube?", names)
    assert told("letter", back, "B", names, things=(CUBE, SPHERE)) == [1, 1, NO, 0, 1]
    level = Thing(SPHERE.looks, np.float32([0.6, 0.1, 0.9, 0.42]))
    assert told("letter", text, "A", names, things=(CUBE, level)) == [0, NO, NO, 0, 1]
    assert told("letter", text, "A", names) == [NO, NO, NO, 0, 1]


def test_what_is_decided_is_what_the_right_option_says():
    text = prompts.choice("Is the cube on the left or right side of the sphere?", ("right", "left"))
    found = asked("letter", text, "B", ("right", "left"))
    assert found.told[0].tolist() == [0, NO, NO, 0, 1]
    assert found.words[3:5, 4].tolist() == [1, 0]
    text = CVBENCH.format("How many cubes are in the image?", *"2431")
    found = asked("letter", text, "C", tuple("2431"))
    assert found.told[0].tolist() == [NO, NO, 2, 0, 1]
    assert found.words[2:6, 6].tolist() == [1, 3, 2, 0]
    text = prompts.choice("Is there a red cube in the image?", ("Yes", "No"))
    found = asked("letter", text, "B", ("Yes", "No"))
    assert found.words[2:4, 7].tolist() == [1, 0]
    assert told("yes_no", prompts.yes_no("Is there a red cube in the image?"), "yes")[3] == 1


def test_an_option_asks_for_the_thing_with_its_look_and_the_right_one_finds_it():
    """So that of options the one is right whose thing is there."""
    text = prompts.choice("What is the color of the rubber cube?", COLORS)
    found = asked("letter", text, "A", COLORS, things=(CUBE, SPHERE))
    assert found.words[2:6, :4].tolist() == [[0, color, 0, NO] for color in (1, 2, 3, 4)]
    assert found.meant[2:6].tolist() == [CUBE.looks.tolist(), NOTHING, NOTHING, NOTHING]
    assert found.told[:6, 3].tolist() == [0, NO, 1, 0, 0, 0]
    assert found.told[:6, 4].tolist() == [1, NO, NO, NO, NO, NO]  # at the end one is wanted


def test_an_option_that_names_a_thing_finds_it_whether_it_is_right_or_not():
    names = ("red cube", "metal sphere")
    text = CVBENCH.format("Which is closer, the red cube or the metal sphere?", *names, "x", "y")
    found = asked("letter", text, "B", (*names, "x", "y"), things=(CUBE, SPHERE))
    assert found.meant[3:5].tolist() == [CUBE.looks.tolist(), SPHERE.looks.tolist()]
    assert found.told[3:5, 3].tolist() == [0, 1]


def test_what_a_statement_claims_is_one_of_its_words_and_its_truth_alone_is_told():
    text = prompts.statement("The cube is in front of the sphere.")
    for truth, target in enumerate(("no", "yes")):
        found = asked("yes_no", text, target, things=(CUBE, SPHERE))
        assert found.words[0, 4:].tolist() == [NO, 1, NO, NO, NO]
        assert found.told[0].tolist() == [NO, NO, NO, truth, 0]


def test_names_and_options_tell_how_many_there_are_where_that_is_asked_and_not_elsewhere():
    """Options, which cannot read the end, count for themselves what they compare with."""
    text = CVBENCH.format("How many cubes are in the image?", *"2431")
    found = asked("letter", text, "C", tuple("2431"), things=(CUBE, SPHERE))
    assert found.number.tolist() == [NO, 2, 2, 2, 2, 2, NO, NO]
    assert found.words[2:6, :4].tolist() == [found.words[1, :4].tolist()] * 4
    assert found.words[2:6, 6].tolist() == [1, 3, 2, 0]
    assert found.told[2:6, 3].tolist() == [0, 0, 1, 0]
    text = prompts.choice("What is the color of the cube?", COLORS)
    assert asked("letter", text, "A", COLORS, things=(CUBE, SPHERE)).number.tolist() == [NO] * SPOTS


def test_words_in_plural_and_at_a_quote_are_words_and_parts_of_others_are_not():
    assert at_end("letter", "How many spheres?", "A", ("1",))[0][0] == 1
    assert at_end("yes_no", 'Is "cubed reddish" true?', "no")[0] == NOTHING


def test_rows_are_stacked_as_the_loss_reads_them():
    both = stack_asked([asked("yes_no", "Is there a cone?", "no")] * 3)
    assert both.places.shape == both.named.shape == both.number.shape == (3, SPOTS)
    assert both.letter.shape == (3, SPOTS)
    assert both.words.shape == (3, SPOTS, 9)
    assert both.meant.shape == both.bins.shape == (3, SPOTS, 4)
    assert both.told.shape == (3, SPOTS, 5)
    assert all(leaf.dtype == np.int32 for leaf in vars(both).values())


def test_an_untrained_start_pairs_every_look_of_a_cell_with_the_one_that_is_asked():
    codes = base.label_codes()
    assert len(codes.shown) == len(codes.asked) == sum(THINGS.values())
    both = {*np.concatenate([codes.shown, codes.asked, codes.wanted, codes.right]).tolist()}
    assert len(both) == 2 * sum(THINGS.values()) + 2
    assert both < {*codes.rows.tolist()}
    assert not {*(94 + places_of(GAPS)).tolist()} & {*codes.rows.tolist()}
