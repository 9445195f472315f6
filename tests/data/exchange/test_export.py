"""An export opens elsewhere as it is, tells the truth about its boxes, and is whole or absent."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from dig_jax.boxes import boxes_text, unit_from_px
from dig_jax.config import PromptConfig
from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.exchange import easyr1_reward, example, export
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from dig_jax.reward.parse import parse
from tests import FAKE_WORKER

FAKE = FAKE_WORKER
SPLITS = {"mixed": (1, 3, 7), "test_same": (0, 0, 3)}
FORMATS = ["parquet", "jsonl", "coco"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, (low, high, pairs) in SPLITS.items():
        spec = SplitSpec(Draw(split, 0, low, high), pairs, shard_pairs=3)
        render_split(root, spec, SceneConfig(width=64, height=48), 2, lambda *_: None, FAKE)
    return root


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "pairs"
    export.export(root, out, formats=FORMATS)
    return out


def record_fields(root, split):
    shards = records.open_split(root / split)
    return [example.unpack(r) for shard in shards for r in records.read_shard(shard)]


def pixels(png):
    return np.array(Image.open(io.BytesIO(png)))


def table(out, split, folder="data"):
    rows = []
    for path in sorted((out / folder).glob(f"{split}-*.parquet")):
        rows += pyarrow.parquet.read_table(path).to_pylist()
    return rows


def test_datasets_opens_the_folder_with_pictures(root, out, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path))
    assert {name: len(rows) for name, rows in loaded.items()} == {"mixed": 7, "test_same": 3}
    for row, fields in zip(loaded["mixed"], record_fields(root, "mixed"), strict=True):
        for image, name in zip(row["images"], ("image_a", "image_b"), strict=True):
            np.testing.assert_array_equal(np.array(image), pixels(fields[name]))
        assert row["prompt"] == [{"role": "user", "content": PromptConfig().question}]
    masks = datasets.load_dataset(str(out), "masks", split="mixed", cache_dir=str(tmp_path))
    for row, fields in zip(masks, record_fields(root, "mixed"), strict=True):
        np.testing.assert_array_equal(np.array(row["mask_b"]), pixels(fields["mask_b"]))


def test_datasets_opens_one_file_as_easyr1_does(out, tmp_path):
    """By its path alone, as the split "train": then only the file's own metadata speaks."""
    datasets = pytest.importorskip("datasets")
    file = next((out / "data").glob("mixed-*.parquet"))
    rows = datasets.load_dataset(
        "parquet", data_files=str(file), split="train", cache_dir=str(tmp_path)
    )
    assert [image.size for image in rows[0]["images"]] == [(64, 48)] * 2
    assert rows[0]["problem"].count("<image>") == len(rows[0]["images"])


def test_pictures_and_meta_are_the_records_bytes(root, out):
    for split in SPLITS:
        rows, masks = table(out, split), table(out, split, "masks")
        for row, ids, fields in zip(rows, masks, record_fields(root, split), strict=True):
            assert [image["bytes"] for image in row["images"]] == [
                fields["image_a"],
                fields["image_b"],
            ]
            assert row["meta"] == fields["meta"]
            assert [ids[f"mask_{side}"]["bytes"] for side in "ab"] == [
                fields["mask_a"],
                fields["mask_b"],
            ]
            assert ids["pair_id"] == row["pair_id"]


def test_answers_are_what_the_cold_start_teaches(root, out):
    for split in SPLITS:
        for row in table(out, split):
            differences = json.loads(row["meta"])["differences"]
            assert row["boxes_px"] == [d["box"] for d in differences]
            assert row["types"] == [d["type"] for d in differences]
            assert (row["k"], row["width"], row["height"]) == (len(differences), 64, 48)
            boxes = unit_from_px(np.array(row["boxes_px"]).reshape(-1, 4), 64, 48)
            assert row["answer"] == boxes_text(boxes)
            assert parse(row["answer"]).ok
    assert {row["answer"] for row in table(out, "test_same")} == {"[]"}


def test_the_right_answer_earns_the_whole_reward(out):
    rows = table(out, "mixed") + table(out, "test_same")
    inputs = [{"response": r["answer"], "ground_truth": r["answer"]} for r in rows]
    assert {score["overall"] for score in easyr1_reward.compute_score(inputs)} == {3.0}


def test_the_reward_file_is_the_packages_own(out):
    assert (out / "easyr1_reward.py").read_bytes() == Path(easyr1_reward.__file__).read_bytes()


def test_jsonl_lines_name_pictures_that_are_there(root, out):
    for split in SPLITS:
        lines = (out / "jsonl" / f"{split}.jsonl").read_text().splitlines()
        rows = zip(map(json.loads, lines), table(out, split), strict=True)
        for line, row in rows:
            pictures = [(out / path).read_bytes() for path in line["image"]]
            assert pictures == [image["bytes"] for image in row["images"]]
            human, gpt = (turn["value"] for turn in line["conversations"])
            assert human.count("<image>") == 2
            boxes = json.loads(re.fullmatch(r"```json\n(.*)\n```", gpt)[1])
            assert [{"bbox_2d": box["bbox_2d"]} for box in boxes] == json.loads(row["answer"])


def test_coco_boxes_are_where_the_thing_is_seen_in_each_picture(root, out):
    coco = json.loads((out / "coco" / "mixed.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    kinds = {category["id"]: category["name"] for category in coco["categories"]}
    assert len(images) == len(coco["images"]) == 14
    assert len({one["id"] for one in coco["annotations"]}) == len(coco["annotations"])
    found = {}
    for one in coco["annotations"]:
        image = images[one["image_id"]]
        x, y, w, h = one["bbox"]
        place = one["pair_id"], one["difference"], image["side"]
        found[place] = [x, y, x + w, y + h], kinds[one["category_id"]]
        assert (out / image["file_name"]).is_file()
        assert image["pair_id"] == one["pair_id"]
        assert 0 < one["area"] <= w * h
    want = {}
    for row in table(out, "mixed"):
        for number, difference in enumerate(json.loads(row["meta"])["differences"]):
            for side in "ab":
                if box := difference[f"box_{side}"]:
                    want[row["pair_id"], number, side] = box, difference["type"]
    assert found == want
    assert any(kind == "add" for _, kind in want.values())
    assert json.loads((out / "coco" / "test_same.json").read_text())["annotations"] == []


def test_files_are_bounded_and_pairs_and_masks_cut_alike(root, tmp_path):
    facts = export.export(root, tmp_path / "x", splits=["mixed"], shard_bytes=20_000)
    names = {folder: sorted(p.name for p in (tmp_path / "x" / folder).iterdir())
             for folder in ("data", "masks")}  # fmt: skip
    assert (
        names["data"]
        == names["masks"]
        == [f"mixed-{i:05d}-of-{len(names['data']):05d}.parquet" for i in range(len(names["data"]))]
    )
    assert len(names["data"]) > 1
    assert facts[0].files == [f"data/{name}" for name in names["data"]]
    for name in names["data"]:
        ids = [
            pyarrow.parquet.read_table(tmp_path / "x" / folder / name)["pair_id"].to_pylist()
            for folder in ("data", "masks")
        ]
        assert ids[0] == ids[1]
        assert (tmp_path / "x" / "data" / name).stat().st_size < 70_000
    assert [row["pair_id"] for row in table(tmp_path / "x", "mixed")] == [
        f"mixed-{i:06d}" for i in range(7)
    ]


def test_equal_exports_are_equal_to_the_byte(root, out, tmp_path):
    export.export(root, tmp_path / "x", formats=FORMATS)
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "x") for p in (tmp_path / "x").rglob("*")
                           if p.is_file())  # fmt: skip
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / "x" / file).read_bytes(), file


def test_without_masks_the_card_offers_none(root, tmp_path):
    export.export(root, tmp_path / "x", masks=False)
    front = yaml.safe_load((tmp_path / "x" / "README.md").read_text().split("---")[1])
    assert [config["config_name"] for config in front["configs"]] == ["default"]
    assert not (tmp_path / "x" / "masks").exists()


def test_the_card_tells_counts_frames_and_limits_and_no_path_of_this_machine(root, out):
    text = (out / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["size_categories"] == ["n<1K"]
    splits = {entry["split"]: entry["path"] for entry in front["configs"][0]["data_files"]}
    for split, (low, _, pairs) in SPLITS.items():
        assert list(out.glob(splits[split]))
        assert f"| `{split}` | {pairs} | 64x48: {pairs} | {low}: " in text
    for fact in ("union of its visible boxes", "Shadows", "0..1000", "subtracting", "seed 0"):
        assert fact in text
    assert str(root) not in text
    assert str(out) not in text
    data = b"".join(path.read_bytes() for path in (out / "data").iterdir())
    assert str(root).encode() not in data


def test_a_failed_export_leaves_what_was_there(root, tmp_path, monkeypatch):
    export.export(root, tmp_path / "x", splits=["test_same"])
    before = (tmp_path / "x" / "README.md").read_bytes()

    def torn(record, split, index):
        if index == 2:
            raise ValueError("meta says otherwise")
        return example.Example("a", example.unpack(record), {"differences": []}, 64, 48)

    monkeypatch.setattr(example, "read_example", torn)
    with pytest.raises(ValueError, match=r"arrayrecord record 2: meta says otherwise"):
        export.export(root, tmp_path / "x", formats=FORMATS, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "README.md").read_bytes() == before


def test_it_replaces_an_earlier_export_only_when_told_and_nothing_else_ever(root, tmp_path):
    export.export(root, tmp_path / "x", splits=["mixed"])
    with pytest.raises(FileExistsError, match="--overwrite"):
        export.export(root, tmp_path / "x")
    export.export(root, tmp_path / "x", splits=["test_same"], overwrite=True)
    assert not list((tmp_path / "x" / "data").glob("mixed*"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="no earlier export"):
        export.export(root, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()
    export.export(root, tmp_path / "another")


def test_wrong_requests_name_the_remedy(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds mixed, test_same"):
        export.export(root, tmp_path / "x", splits=["missing"])
    with pytest.raises(FileNotFoundError, match="holds no split"):
        export.export(tmp_path, tmp_path / "x")
    with pytest.raises(ValueError, match="parquet,jsonl,coco"):
        export.export(root, tmp_path / "x", formats=["csv"])
    with pytest.raises(ValueError, match="is empty; use parquet,jsonl,coco"):
        export.export(root, tmp_path / "x", formats=[])
    with pytest.raises(ValueError, match="--shard-mb=0 is not positive; use 500"):
        export.export(root, tmp_path / "x", shard_bytes=0)
    named = {"formats": ["parquet", "jsonl", "coco"], "shard_bytes": 500 * 10**6}
    export.export(root, tmp_path / "followed", splits=["mixed"], **named)
    (tmp_path / "my-pairs").symlink_to(root / "mixed")
    with pytest.raises(ValueError, match="for example my_pairs"):
        export.export(tmp_path, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_record_that_could_not_come_back_is_refused():
    fields = {"image_a": b"1", "image_b": b"2", "depth": b"3", "meta": "{}"}
    with pytest.raises(ValueError, match="cannot be given back"):
        example.unpack(records.pack(fields))


def test_a_missing_pyarrow_names_the_extra(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status = verbs.main(["export", "--root", str(root), "--out", str(tmp_path / "x")])
    assert status == 1
    assert "pip install -e '.[parquet]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_verb_exports_what_it_is_told(root, tmp_path, capsys):
    argv = ["--root", str(root), "--out", str(tmp_path / "x"), "--splits", "mixed"]
    assert verbs.main(["export", *argv, "--formats", "jsonl", "--license", "mit"]) == 0
    assert "mixed, 7 pairs" in capsys.readouterr().out
    assert "license: mit" in (tmp_path / "x" / "README.md").read_text()
    assert not (tmp_path / "x" / "data").exists()
