"""Plans on disk decide what is rendered, and change nothing about it."""

import dataclasses
import json

import pytest

from dig_jax.data.corpus import manifest
from dig_jax.data.corpus.plans import plan_split, read_plans
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.render.produce import Planned, plan_pair, planned_from_json, planned_to_json
from tests.data.test_records import CONFIG, DRAW, FAKE, SPEC, hashes, quiet

IDENTITY = manifest.request_identity(SPEC, CONFIG)


@pytest.fixture
def planned(tmp_path):
    plan_split(tmp_path, SPEC, CONFIG, 1, quiet)
    return tmp_path


def test_plans_survive_json_text():
    plan = plan_pair(CONFIG, DRAW, 3)
    assert planned_from_json(json.loads(json.dumps(planned_to_json(plan)))) == plan


def test_every_index_is_planned_as_it_would_be_when_rendering(planned):
    read = {}
    for shard in range(SPEC.shard_count):
        read |= read_plans(planned / "test", shard, SPEC.shard_count, IDENTITY)
    assert read == {idx: plan_pair(CONFIG, DRAW, idx) for idx in range(SPEC.pairs)}
    assert all(isinstance(one, Planned) for one in read.values())


def test_a_planned_split_has_the_bytes_of_an_unplanned_one(planned, tmp_path_factory):
    with_plans = render_split(planned, SPEC, CONFIG, 1, quiet, FAKE)
    without = render_split(tmp_path_factory.mktemp("bare"), SPEC, CONFIG, 1, quiet, FAKE)
    assert hashes(with_plans) == hashes(without)
    assert with_plans["dropped"] == without["dropped"]


def test_a_split_is_rendered_from_the_scene_in_its_plan_file(planned):
    """The stored floats are the source of truth: another later scene in the file is rendered."""
    path = planned / "test" / "plan-00000-of-00003.jsonl"
    first, *lines = path.read_text().splitlines()
    row = json.loads(lines[0])
    later = plan_pair(CONFIG, DRAW, 0, first=row["plan"]["attempt"] + 1)
    lines[0] = json.dumps({**row, **planned_to_json(later)})
    first = json.dumps({"request": json.loads(first)["request"]})  # as without checksums
    path.write_text("\n".join([first, *lines]) + "\n")
    read = read_plans(planned / "test", 0, SPEC.shard_count, IDENTITY)
    assert read[0].plan == later.plan != plan_pair(CONFIG, DRAW, 0).plan


def test_planning_again_writes_nothing(planned):
    paths = sorted((planned / "test").iterdir())
    before = [path.stat().st_mtime_ns for path in paths]
    plan_split(planned, SPEC, CONFIG, 1, quiet)
    assert [path.stat().st_mtime_ns for path in sorted((planned / "test").iterdir())] == before


def test_plans_of_another_request_are_refused_by_render_and_replaced_by_plan(planned):
    other = dataclasses.replace(SPEC, draw=dataclasses.replace(DRAW, seed=5))
    with pytest.raises(ValueError, match=r"planned by another request.*plan again, or delete"):
        render_split(planned, other, CONFIG, 1, quiet, FAKE)
    plan_split(planned, other, CONFIG, 1, quiet)
    identity = manifest.request_identity(other, CONFIG)
    assert read_plans(planned / "test", 0, SPEC.shard_count, identity)[0].plan.seed == 5


def test_parts_of_an_array_plan_their_own_shards(tmp_path):
    paths = plan_split(tmp_path, SPEC, CONFIG, 1, quiet, SPEC.shards((1, 2)))
    assert [path.name for path in paths] == ["plan-00001-of-00003.jsonl"]


def test_planning_by_several_processes_gives_the_same_files(planned, tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    plan_split(root, SPEC, CONFIG, 2, quiet)
    for path in sorted((planned / "test").glob("plan-*")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        twin = [json.loads(line) for line in (root / "test" / path.name).read_text().splitlines()]
        for row in [*rows, *twin]:
            for name in ("cpu_s", "sha256", "seal"):  # seconds, and what follows from them
                row.pop(name, None)
        assert rows == twin
