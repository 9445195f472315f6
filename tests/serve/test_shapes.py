"""Shapes of prompts: every picture that the rules allow fits one, and the cheapest is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.hf.weights import read_model_config
from dig_jax.inputs.images import ImageRules, target_size
from dig_jax.serve.refusal import Refused
from dig_jax.serve.shapes import choose, make_shapes
from tests.tiny_model import ASSETS

CONFIG = read_model_config(ASSETS)
RULES = ImageRules(min_pixels=4096, max_pixels=2**17, patch=8, merge=2)
LADDER = make_shapes(CONFIG, RULES, [], 2)
CELL = CONFIG.vision.cell

sides = st.integers(20, 5000)


def tokens_of(sizes):
    return sum(y * x // CELL**2 for y, x in sizes)


@given(sides, st.floats(1 / 2.3, 2.3), sides, st.floats(1 / 2.3, 2.3), st.integers(1, 2))
def test_a_ladder_holds_every_picture_and_pair_of_usual_sides(a, wide, b, tall, count):
    """Up to a phone's screen, 2.2 to 1, wide beside tall ones too."""
    sizes = [target_size(max(int(n * r), 1), n, RULES) for n, r in ((a, wide), (b, tall))][:count]
    shape = choose(LADDER, sizes, tokens_of(sizes) + 200)
    assert shape.images >= count
    assert all(y <= shape.canvas[0] and x <= shape.canvas[1] for y, x in sizes)
    assert not any(
        other.cost < shape.cost
        for other in LADDER
        if other.images >= count
        and other.prefix >= tokens_of(sizes) + 200
        and all(y <= other.canvas[0] and x <= other.canvas[1] for y, x in sizes)
    )


def test_a_ladder_is_short_and_has_small_shapes_for_small_pictures():
    assert len(LADDER) == 15
    small, large = (choose(LADDER, [size], 100) for size in ((64, 96), (256, 512)))
    assert large.cost > 4 * small.cost
    assert choose(LADDER, [], 100).images == 0
    assert choose(LADDER, [], 2000).prefix == 2048


def test_a_picture_that_fits_nowhere_is_refused_and_scaled_down_it_fits():
    with pytest.raises(Refused, match="pictures of 2048x64 px fit no canvas") as found:
        choose(LADDER, [(64, 2048)], 600)
    assert found.value.status == 413
    assert choose(LADDER, [(16, 512)], 600)
    wider = make_shapes(CONFIG, RULES, [((64, 2048), 1024)], 1)
    assert choose(wider, [(64, 2048)], 600).canvas == (64, 2048)


def test_a_prompt_that_is_too_long_is_refused_and_a_larger_bucket_holds_it():
    few, more = (make_shapes(CONFIG, RULES, [((64, 96), n)], 2) for n in (192, 512))
    with pytest.raises(Refused, match="prompt of 332 tokens is longer than the 224") as found:
        choose(few, [(64, 96)], 300)
    assert found.value.code == "context_length_exceeded"
    assert choose(more, [(64, 96)], 300).prefix == 512


def test_buckets_are_compiled_for_every_number_of_pictures():
    shapes = make_shapes(CONFIG, RULES, [((64, 96), 192)], 4)
    assert sorted(shape.images for shape in shapes) == [0, 1, 2, 4]
    assert {shape.images for shape in make_shapes(CONFIG, RULES, [], 0)} == {0}
    with pytest.raises(ValueError, match="choose a width and a height"):
        make_shapes(CONFIG, RULES, [((60, 96), 192)], 1)
