"""`stats` counts what is there, finds scenes that occur twice, and scores the baseline."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dig_jax.common.sealed import sealed
from dig_jax.data import records
from dig_jax.data.__main__ import main
from dig_jax.data.corpus.on_disk import open_splits
from dig_jax.data.inspect import stats_text
from dig_jax.data.inspect.stats import chi_square_p, corpus_stats, overlap
from dig_jax.data.inspect.survey import fingerprints
from dig_jax.data.scene.scene import plan_from_json, plan_to_json
from tests.corpora import LOOK, paint_split, plain_pair, stored_records, write_split


def quiet(done, total, note):
    pass


def figures(root, names=None, workers=1):
    return corpus_stats(open_splits(root, names), workers, quiet)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    paint_split(root, "mixed", 10, k_low=1, k_high=3, combos="seen")
    paint_split(root, "test_same", 3, k_low=0, k_high=0)
    return root


@pytest.fixture(scope="module")
def painted_stats(painted):
    return figures(painted)


@pytest.fixture
def copy(painted, tmp_path):
    shutil.copytree(painted, tmp_path / "copy")
    return tmp_path / "copy"


def test_counts_are_those_of_the_records(painted, painted_stats):
    metas = [records.decode_meta(record) for record in stored_records(painted, "mixed")]
    split = painted_stats["splits"]["mixed"]
    ks, kinds = Counter(m["k"] for m in metas), Counter()
    changed, shown = Counter(), Counter()
    for plan in map(plan_from_json, metas):
        kinds.update(change.type for change in plan.changes)
        shown.update(thing.combo for thing in (*plan.a, *plan.b))
        before, after = ({t.id: t.combo for t in things} for things in (plan.a, plan.b))
        changed.update(before.get(i, after.get(i)) for i in plan.changed_ids)
    assert split["pairs"] == 10
    assert split["k"]["counts"] == {str(k): ks[k] for k in (1, 2, 3)}
    assert split["types"]["counts"] == {kind: kinds[kind] for kind in LOOK.types}
    assert split["combos_changed"] == changed
    assert split["combos_shown"] == shown
    assert sum(split["things"].values()) == 20


def test_columns_describe_every_label(painted, painted_stats):
    metas = [records.decode_meta(record) for record in stored_records(painted, "mixed")]
    boxes = [d["box"] for m in metas for d in m["differences"]]
    short = [min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
    column = painted_stats["splits"]["mixed"]["columns"]["short_side_px"]
    assert column["quantiles"]["0"] == min(short)
    assert column["quantiles"]["0.5"] == np.median(short)
    assert sum(column["histogram"]) == column["count"] == len(short)


def test_dropped_scenes_are_shares_of_all_that_were_tried(painted, painted_stats):
    manifest = json.loads((painted / "mixed" / "manifest.json").read_text())
    dropped = painted_stats["splits"]["mixed"]["dropped"]
    tried = 10 + sum(manifest["dropped"].values())
    expected = {name: [n, round(n / tried, 4)] for name, n in manifest["dropped"].items()}
    assert dropped == expected


def test_chi_square_is_that_of_the_textbook():
    assert chi_square_p([20, 20, 20]) == 1.0
    assert chi_square_p([44, 56]) == pytest.approx(0.2301, abs=1e-4)
    assert chi_square_p([90, 10, 20]) < 1e-6
    assert chi_square_p([5]) is None
    assert chi_square_p([0, 0]) is None


def test_a_value_that_could_not_be_drawn_gets_no_p(copy):
    path = copy / "mixed" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["request"]["draw"]["k_high"] = 2
    path.write_text(json.dumps(sealed(manifest)))
    k = figures(copy, "mixed")["splits"]["mixed"]["k"]
    assert k["p"] is None
    assert set(k["counts"]) == {"1", "2", "3"}


def test_painted_splits_share_nothing(painted_stats):
    assert painted_stats["overlap"] == {"between": {}, "within": {}, "examples": []}
    assert painted_stats["faults"] == []


def test_a_split_copied_under_another_name_is_found(copy, capsys):
    shutil.copytree(copy / "mixed", copy / "test_mixed")
    assert main(["stats", "--root", str(copy), "--workers", "1"]) == 1
    assert "FAULT: 10 pairs are in both of mixed & test_mixed" in capsys.readouterr().out


def test_a_repeated_record_is_found(tmp_path):
    first, second = plain_pair((5, 5, 20, 20)), plain_pair((9, 9, 30, 30), seed=1)
    write_split(tmp_path, "single", [first, second, first])
    found = figures(tmp_path)["overlap"]
    assert found["within"] == {"single": 1}
    assert found["examples"] == ["single 2 is single 0"]


def test_the_same_scene_is_found_behind_other_pictures_and_when_swapped(painted):
    one, other = (records.decode(r) for r in stored_records(painted, "mixed")[:2])
    plan = plan_from_json(one.meta)
    again = dataclasses.replace(
        one, image_a=one.image_b + 1, meta={**one.meta, **plan_to_json(plan.swapped())}
    )
    assert set(fingerprints(one)) & set(fingerprints(again))
    assert not set(fingerprints(one)) & set(fingerprints(other))


def test_moving_one_thing_makes_another_scene(painted):
    one = records.decode(stored_records(painted, "mixed")[0])
    meta = json.loads(json.dumps(one.meta))
    meta["a"][0]["xy"][0] += 1e-9
    pictures, scene = fingerprints(one)
    assert fingerprints(dataclasses.replace(one, meta=meta))[0] == pictures
    assert fingerprints(dataclasses.replace(one, meta=meta))[1] != scene


def test_overlap_names_both_splits_and_counts_each_pair_once():
    keys = {"a": [(0, ("x",)), (1, ("y", "z"))], "b": [(7, ("z", "x")), (8, ("q",))]}
    found = overlap(keys)
    assert found["between"] == {"a & b": 1}
    assert found["examples"] == ["b 7 is a 1"]


def test_a_seen_split_that_shows_a_held_out_thing_is_a_fault(copy):
    path = copy / "mixed" / "manifest.json"
    manifest = json.loads(path.read_text())
    shown = figures(copy, "mixed")["splits"]["mixed"]["combos_shown"]
    combo = max(shown, key=shown.get)
    manifest["settings"]["held_out"].append(combo)
    path.write_text(json.dumps(sealed(manifest)))
    faults = figures(copy, "mixed")["faults"]
    assert faults == [f"mixed shows {shown[combo]} things that are held out"]


def test_the_baseline_is_scored_per_pair_and_pooled(tmp_path):
    """One pair found exactly; in the other two labels are one region; the third is identical."""
    touching = plain_pair((10, 10, 20, 30), (20, 10, 30, 30), seed=1)
    pairs = [plain_pair((5, 5, 20, 20)), touching, plain_pair(seed=2)]
    write_split(tmp_path, "test", pairs)
    split = figures(tmp_path)["splits"]["test"]
    half, strict = split["baseline"]["0.5"], split["baseline"]["0.75"]
    assert half["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3, abs=1e-4)  # the region overlaps by .5
    assert half["pooled_f1"] == pytest.approx(2 * 2 / (2 + 3), abs=1e-4)
    assert half["exact"] == pytest.approx(2 / 3, abs=1e-4)
    assert half["recall_by_type"] == {"add": pytest.approx(2 / 3, abs=1e-4)}
    assert strict["f1"] == pytest.approx((1 + 0 + 1) / 3, abs=1e-4)
    assert strict["pooled_f1"] == pytest.approx(2 * 1 / (2 + 3), abs=1e-4)


def test_imported_pairs_have_the_figures_that_their_boxes_give(tmp_path, capsys):
    nameless = plain_pair((5, 5, 20, 21), type=None)
    write_split(tmp_path, "elsewhere", [nameless, plain_pair((2, 2, 30, 40), seed=1)])
    assert main(["stats", "--root", str(tmp_path), "--workers", "1"]) == 0
    split = json.loads((tmp_path / "stats.json").read_text())["splits"]["elsewhere"]
    assert split["types"]["counts"] == {"add": 1, "unknown": 1}
    assert set(split["columns"]) == {"short_side_px", "long_side_px"}
    assert split["draw"] is split["dropped"] is split["core_s_per_pair"] is None
    text = capsys.readouterr().out
    assert "imported" in text
    assert "color x shape" not in text


def test_figures_do_not_depend_on_the_number_of_processes(painted, painted_stats):
    again = figures(painted, workers=2)
    assert json.dumps(again) == json.dumps(painted_stats)


def test_the_file_holds_all_figures_and_repeats_byte_for_byte(painted, painted_stats, tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file in files:
        args = ["stats", "--root", str(painted), "--workers", "1", "--json", str(file)]
        assert main(args) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert json.loads(files[0].read_text()) == json.loads(json.dumps(painted_stats))


def test_some_splits_alone_do_not_overwrite_the_figures_of_all(copy):
    args = ["stats", "--root", str(copy), "--splits", "mixed", "--workers", "1"]
    assert main(args) == 0
    assert not (copy / "stats.json").exists()


@pytest.mark.parametrize("name", ["mixed", "test_same"])
def test_the_text_names_every_split_and_fits_a_terminal(painted_stats, name):
    text = stats_text.text(painted_stats)
    assert name in text
    assert "color x shape" in text
    assert max(map(len, text.splitlines())) <= 110


def test_bars_show_any_count_but_zero():
    assert stats_text.bars([0, 1, 1000]) == " ▁█"
    assert stats_text.bars([0, 0]) == "  "


@pytest.mark.parametrize(
    ("where", "names", "message"),
    [
        ("", "mixd", "use mixed, test_same"),
        ("", "mixed,mixed", "is repeated"),
        ("mixed", None, "it is a split itself"),
        ("nowhere", None, "dig_jax.data make --preset tiny"),
    ],
)
def test_wrong_requests_say_what_to_do(painted, where, names, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        open_splits(painted / where, names)
    advised = re.search(r"use --root (\S+)", str(caught.value))
    root = Path(advised[1]) if advised else painted
    open_splits(root, "mixed" if names else None)


def test_a_damaged_record_is_named(tmp_path):
    write_split(tmp_path, "single", [plain_pair((5, 5, 20, 20)), b"nonsense"])
    with pytest.raises(ValueError, match="record 1"):
        figures(tmp_path)
