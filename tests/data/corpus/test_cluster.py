"""A Ray cluster makes the same bytes as a local run, also when its processes are killed."""

import importlib.util

import pytest

from dig_jax.data import records
from dig_jax.data.corpus import cluster
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.render.supervise import RenderFailed
from tests.data.test_records import CONFIG, FAKE, SPEC, hashes, quiet

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no ray here")


@pytest.fixture(scope="module")
def ray_cluster():
    """A real one, on this machine, of two cores."""
    with cluster.connected(None, workers=2):
        yield


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return render_split(tmp_path_factory.mktemp("local"), SPEC, CONFIG, 2, quiet, FAKE)


def worker(*switches):
    """A worker program with its misbehaviour on the command line: Ray's own processes do not
    see this one's environment."""
    return ("env", *switches, *FAKE)


@pytest.mark.slow
@needs_ray
def test_the_shards_have_the_bytes_of_a_local_run(ray_cluster, local, tmp_path):
    made = cluster.render_split_on_ray(tmp_path, SPEC, CONFIG, quiet, FAKE)
    assert made["complete"]
    assert hashes(made) == hashes(local)
    assert len(records.open_split(tmp_path / "test")) == 3


@pytest.mark.slow
@needs_ray
def test_a_killed_task_is_started_again(ray_cluster, local, tmp_path):
    """kill -9 of the Ray process that supervises a shard, as if its machine were lost."""
    marker = tmp_path / "killed"
    command = worker(f"FAKE_KILL_PARENT_ONCE=4:{marker}")
    made = cluster.render_split_on_ray(tmp_path / "data", SPEC, CONFIG, quiet, command)
    assert marker.exists()
    assert hashes(made) == hashes(local)


@pytest.mark.slow
@needs_ray
def test_a_shard_that_cannot_be_made_is_named_and_the_rest_kept(ray_cluster, local, tmp_path):
    with pytest.raises(RenderFailed, match=r"1 shards failed:\n  shard 1: .*idx 4"):
        cluster.render_split_on_ray(tmp_path, SPEC, CONFIG, quiet, worker("FAKE_DIE=4"))
    assert len(records.open_split(tmp_path / "test", allow_partial=True)) == 2
    made = cluster.render_split_on_ray(tmp_path, SPEC, CONFIG, quiet, FAKE)
    assert hashes(made) == hashes(local)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"\[cluster\] extra.*--shards"):
        cluster.check_ray()


def test_array_tasks_make_the_bytes_of_one_run(local, tmp_path):
    """--shards 0/2 and 1/2, in either order, as an array scheduler would start them."""
    for index in (1, 0):
        parts = SPEC.shards((index, 2))
        made = render_split(tmp_path, SPEC, CONFIG, 1, quiet, FAKE, parts)
        assert made["complete"] == (index == 0)
    assert hashes(made) == hashes(local)


@pytest.mark.parametrize("part", [(2, 2), (-1, 2)])
def test_a_part_outside_its_array_is_refused(part):
    with pytest.raises(ValueError, match=r"must be 0..1, as array"):
        SPEC.shards(part)
