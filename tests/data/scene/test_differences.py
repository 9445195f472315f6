"""The planner applies exactly the differences asked for, evenly and reproducibly."""

from collections import Counter

import numpy as np
import pytest

from dig_jax.data.render.produce import plan_pair
from dig_jax.data.scene.differences import changes_between, draw_task
from dig_jax.data.scene.draws import Draw
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import TYPES
from dig_jax.data.scene.visibility import View, cast, foresee

CONFIG = SceneConfig()


def first_accepted(idx, k_low=1, k_high=4, split="test", seed=0):
    draw = Draw(split, seed, k_low, k_high)
    plan = plan_pair(CONFIG, draw, idx).plan
    return draw_task(CONFIG, draw, idx), plan, foresee(plan, CONFIG.width, CONFIG.height)


@pytest.fixture(scope="module")
def plans():
    return [first_accepted(idx) for idx in range(60)]


def test_types_and_counts_are_uniform():
    """Chi-square over 5000 indices; the bounds are the 99.9 % points for 5 and 3 degrees."""
    tasks = [draw_task(CONFIG, Draw("test", 0, 1, 4), idx) for idx in range(5000)]
    types = Counter(kind for task in tasks for kind in task)
    counts = Counter(len(task) for task in tasks)
    assert set(types) == set(TYPES)
    assert _chi_square(types.values()) < 20.5
    assert _chi_square(counts.values()) < 16.3


def test_asked_is_applied(plans):
    """Accepted scenes carry the drawn types whatever the number of retries (no thinning)."""
    for types, plan, _ in plans:
        assert sorted(c.type for c in plan.changes) == sorted(types)
        assert len(set(plan.changed_ids)) == len(types)


def test_at_least_two_things_are_equal_in_both_images(plans):
    for _, plan, _ in plans:
        assert len(set(plan.a) & set(plan.b)) >= 2


def test_changes_are_one_attribute_of_one_thing(plans):
    for _, plan, _ in plans:
        before, after = ({t.id: t for t in side} for side in (plan.a, plan.b))
        for change in plan.changes:
            old, new = before.get(change.id), after.get(change.id)
            if change.type == "add":
                assert old is None
                assert change.after == new.name
            elif change.type == "remove":
                assert new is None
                assert change.before == old.name
            else:
                names = ("shape", "material", "color", "size")
                differing = [n for n in names if getattr(old, n) != getattr(new, n)]
                assert differing == [change.type]
                assert old.xy == new.xy


def test_things_keep_their_distance_across_both_images(plans):
    """An added thing must be clear of the removed ones too, or the two read as a replacement."""
    for _, plan, _ in plans:
        things = [*plan.a, *plan.b]
        for one in things:
            for two in things:
                if one.id != two.id:
                    apart = np.hypot(one.xy[0] - two.xy[0], one.xy[1] - two.xy[1])
                    assert apart >= one.radius + two.radius + CONFIG.gap - 1e-9


def test_same_index_same_plan_other_index_or_split_another(plans):
    _, plan, _ = plans[5]
    assert first_accepted(5)[1] == plan
    others = [first_accepted(6)[1], first_accepted(5, split="dev")[1], first_accepted(5, seed=1)[1]]
    assert all(other.camera != plan.camera for other in others)


def test_things_are_wide_enough_to_be_seen(plans):
    shortest = CONFIG.min_side_px * CONFIG.width / 128
    for _, plan, forecast in plans:
        for change in plan.changes:
            seen = (forecast.mask_a == change.id) | (forecast.mask_b == change.id)
            assert min(np.ptp(axis) + 1 for axis in np.nonzero(seen)) >= shortest


def test_caster_agrees_with_projection_of_the_outline():
    """A sphere's cast mask is as wide as the projection of its visible rim, to a pixel."""
    _, plan, _ = first_accepted(1)
    view = View(plan.camera, CONFIG.width, CONFIG.height)
    thing = next(t for t in [*plan.a, *plan.b])
    ball = type(thing)(**{**vars(thing), "shape": "sphere", "xy": (0.0, 0.0)})
    columns = np.flatnonzero(np.isfinite(cast(view, ball)).any(0))
    center = np.array([0.0, 0.0, ball.radius])
    distance = np.linalg.norm(center - view.origin)
    reach = ball.radius / np.sqrt(1 - (ball.radius / distance) ** 2)
    rim = view.project(center + np.array([-1, 1])[:, None] * reach * view.right)
    assert abs(columns[0] - rim[0, 0]) <= 1
    assert abs(columns[-1] + 1 - rim[1, 0]) <= 1


def test_foreseen_masks_are_those_of_the_plan(plans):
    for _, plan, forecast in plans[:10]:
        again = foresee(plan, CONFIG.width, CONFIG.height)
        np.testing.assert_array_equal(again.mask_a, forecast.mask_a)
        np.testing.assert_array_equal(again.mask_b, forecast.mask_b)
        assert set(np.unique(again.mask_b)) - {0} == {t.id for t in plan.b}


def test_changes_between_is_the_inverse_of_applying_them(plans):
    for _, plan, _ in plans:
        assert changes_between(plan.a, plan.b) == plan.changes


def planned(count=40, **draw):
    return [plan_pair(CONFIG, Draw("test", 0, **draw), idx).plan for idx in range(count)]


def combos_of(things):
    return {thing.combo for thing in things}


def test_seen_never_shows_a_held_out_combination():
    for plan in planned(k_low=1, k_high=4, combos="seen"):
        assert not combos_of([*plan.a, *plan.b]) & set(CONFIG.held_out)


def test_novel_shows_one_on_every_changed_thing_and_on_no_other():
    for plan in planned(k_low=1, k_high=4, combos="novel"):
        for thing in plan.a:
            assert (thing.combo in CONFIG.held_out) == (thing.id in plan.changed_ids)
        added = [t for t in plan.b if t.id not in {a.id for a in plan.a}]
        assert combos_of(added) <= set(CONFIG.held_out)


def test_held_out_combinations_leave_every_color_and_shape_to_be_seen():
    seen = CONFIG.allowed("seen")
    assert {combo.split()[0] for combo in seen} == set(CONFIG.colors)
    assert {combo.split()[1] for combo in seen} == set(CONFIG.shapes)
    assert len(CONFIG.allowed("novel")) + len(seen) == len(CONFIG.allowed("all"))


def test_no_difference_means_the_same_things_under_the_same_light():
    for plan in planned(k_low=0, k_high=0):
        assert plan.a == plan.b
        assert plan.changes == ()
        assert plan.shot("a") == plan.shot("b")


def test_independent_noise_changes_only_the_seed_of_b():
    (plan,) = planned(count=1, noise="independent")
    assert not plan.is_aligned
    assert plan.shot("b").seed != plan.shot("a").seed == plan.shot("twin").seed
    assert plan.shot("b").camera == plan.shot("a").camera
    assert plan.shot("twin").things == plan.shot("b").things == plan.b


def test_a_jittered_camera_moves_b_and_no_more_than_asked():
    for plan in planned(camera_jitter_b=0.1):
        moved = np.subtract(plan.shot("b").camera.location, plan.camera.location)
        assert 0 < np.abs(moved).max() <= 0.1
        assert plan.shot("twin").camera == plan.camera
        with pytest.raises(ValueError, match="only aligned pairs swap"):
            plan.swapped()


def test_an_aligned_pair_has_one_camera_and_one_noise(plans):
    for _, plan, _ in plans:
        assert plan.is_aligned
        assert plan.shot("b") == plan.shot("twin")


def _chi_square(counts):
    counts = np.array(list(counts), float)
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
