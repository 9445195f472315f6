"""What messages of the data engine advise is done, and then works."""

import dataclasses
import io
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dig_jax.common import sealed
from dig_jax.config import DataConfig
from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.corpus.feasible import check_feasible
from dig_jax.data.corpus.on_disk import open_splits
from dig_jax.data.exchange import example
from dig_jax.data.feed.source import PairSource
from dig_jax.data.inspect import stats
from dig_jax.data.inspect.baseline import pixel_difference
from dig_jax.data.inspect.survey import survey_shard
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import plan_from_json

LOOK = ("look.renderer=numpy", "look.width=64", "look.height=48")
SIZE = {"image_width": 64, "image_height": 48}


def render(root, split="dual", k=2, pairs=2, verb="render"):
    words = ["--root", str(root), "--split", split, "--pairs", str(pairs), "--k", str(k)]
    settings = [word for one in LOOK for word in ("--set", one)]
    return verbs.main([verb, *words, "--workers", "1", *settings])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two pairs with two differences each."""
    root = tmp_path_factory.mktemp("made")
    assert render(root) == 0
    return root


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


def first_shard(root):
    (path,) = (root / "dual").glob("*.arrayrecord")
    return path


def test_another_request_goes_to_another_root_or_the_folder_is_deleted(copy, tmp_path, capsys):
    with pytest.raises((SystemExit, FileExistsError)) as caught:
        raise SystemExit(render(copy, k=1)) if render(copy, k=1) else AssertionError
    said = str(caught.value) + "".join(capsys.readouterr())
    folder = re.search(r"choose another --root or delete (\S+)", said)[1]
    assert render(tmp_path / "other", k=1) == 0
    shutil.rmtree(folder)
    assert render(copy, k=1) == 0


@pytest.mark.slow
def test_an_empty_root_is_filled_by_the_command_that_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no splits; make some with") as caught:
        open_splits(tmp_path, None)
    words = re.search(r"`python -m dig_jax.data (.*)`", str(caught.value))[1].split()
    settings = [word for one in LOOK for word in ("--set", one)]
    assert verbs.main([*words, "--pairs", "1", "--workers", "1", *settings]) == 0
    assert len(open_splits(tmp_path, None)) > 3


def test_a_split_with_more_differences_than_boxes_is_read_with_more(copy):
    """As its manifest tells them: the first pair, which is looked at, need not be the worst."""
    path = copy / "dual" / records.MANIFEST
    told = {**records.read_manifest(path.parent), "k": {"2": 1, "5": 1}}
    path.write_text(json.dumps(sealed.sealed(told)))
    cfg = DataConfig(root=str(copy), buckets=("dual",), max_boxes=4, **SIZE)
    with pytest.raises(ValueError, match=r"5 differences, more than data.max_boxes=4; raise"):
        PairSource(cfg, "dual")
    assert len(PairSource(dataclasses.replace(cfg, max_boxes=5), "dual")) == 2


def test_a_record_of_another_program_comes_back_with_the_fields_that_are_known(made):
    record = records.read_record(first_shard(made), 0)
    fields = example.unpack(record)
    strange = records.pack({**fields, "depth": b"x"})
    with pytest.raises(ValueError, match=r"this version knows .* in this order") as caught:
        example.unpack(strange)
    known = re.search(r"knows (.*) in this order", str(caught.value))[1].split(", ")
    assert example.pack({name: fields[name] for name in known if name in fields}) == record


@pytest.mark.parametrize("damage", ["another size", "no picture"])
def test_a_shard_whose_pictures_contradict_is_made_again(copy, damage):
    path = first_shard(copy)
    fields = records.unpack(records.read_record(path, 0))
    if damage == "no picture":
        fields["image_b"] = b"GIF89a not a png"
    else:
        wide = io.BytesIO()
        Image.new("RGB", (80, 48)).save(wide, "PNG")
        fields["image_b"] = wide.getvalue()
    with pytest.raises(ValueError, match="make the shard again"):
        example.read_example(example.pack(fields), "dual", 0)
    path.unlink()
    assert render(copy) == 0
    assert example.read_example(records.read_record(path, 0), "dual", 0).size == (64, 48)


def test_a_record_that_no_figure_can_be_made_of_is_named_by_verify(copy, capsys):
    path, good = first_shard(copy), records.read_shard(first_shard(copy))
    facts = {n: v for n, v in records.read_sidecar(path).items() if n not in ("file", "sha256")}
    fields = records.unpack(good[1])
    meta = json.loads(fields["meta"])
    del meta["differences"][0]["box"]
    records.write_shard(path, [good[0], records.pack({**fields, "meta": json.dumps(meta)})], facts)
    with pytest.raises(ValueError, match=r"record 1: .*; check it with `.*`") as caught:
        survey_shard(path, 0)
    verb = re.search(r"`python -m dig_jax.data (\w+)`", str(caught.value))[1]
    assert verbs.main([verb, "--root", str(copy), "--workers", "1", "--sample", "0"]) == 1
    assert path.name in "".join(capsys.readouterr())


def test_figures_of_some_splits_are_written_where_a_file_is_named(made, tmp_path, capsys):
    assert verbs.main(["stats", "--root", str(made), "--splits", "dual", "--workers", "1"]) == 0
    assert "name the file with --json FILE" in capsys.readouterr().out
    words = ["--splits", "dual", "--workers", "1", "--json", str(tmp_path / "figures.json")]
    assert verbs.main(["stats", "--root", str(made), *words]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())


def test_no_workers_are_refused_and_one_is_enough(made, tmp_path):
    args = SimpleNamespace(root=made, splits="dual", json=tmp_path / "out.json", workers=0)
    with pytest.raises(ValueError, match="--workers=0 is below 1; use one per core"):
        stats.run(args, "stats")
    args.workers = 1
    assert stats.run(args, "stats") == 0


def test_pictures_of_one_size_are_compared():
    one = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(ValueError, match=r"give two uint8 .* images of one size"):
        pixel_difference(one, one[:, :60])
    assert len(pixel_difference(one, one)) == 0


def test_a_shard_with_fewer_records_than_told_is_made_again(copy):
    path, manifest = first_shard(copy), copy / "dual" / records.MANIFEST
    told = records.read_manifest(path.parent)
    told["shards"][0]["count"] += 1
    manifest.write_text(json.dumps(sealed.sealed(told)))
    with pytest.raises(ValueError, match=r"\(a file that was never closed holds 0\); delete (\S+)"):
        records.open_split(path.parent, verify=False)
    path.unlink()
    assert render(copy) == 0
    assert records.open_split(path.parent) == [path]


def test_a_plan_of_another_version_is_rendered_again(copy):
    meta = records.decode_meta(records.read_record(first_shard(copy), 0))
    with pytest.raises(ValueError, match=r"this version reads .*; render it again"):
        plan_from_json({**meta, "schema": 0})
    shutil.rmtree(copy / "dual")
    assert render(copy) == 0
    meta = records.decode_meta(records.read_record(first_shard(copy), 0))
    assert len(plan_from_json(meta).changes) == 2


def test_a_look_that_nothing_near_mends_gives_way_to_a_presets():
    spec = SplitSpec(Draw("dual", k_low=2, k_high=2), 64)
    hopeless = SceneConfig(half_width=0.5, gap=3.0)
    with pytest.raises(ValueError, match="no single setting near by helps: start from a preset's"):
        check_feasible(hopeless, spec)
    check_feasible(SceneConfig(), spec)
