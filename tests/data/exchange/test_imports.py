"""What was exported comes back byte for byte; anybody's pairs are checked and can be trained on."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dig_jax.config import Config, CurriculumConfig, DataConfig, EvalConfig, Stage
from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.exchange.export import export
from dig_jax.data.exchange.foreign import Columns
from dig_jax.data.exchange.imports import find_files, import_split
from dig_jax.data.feed import checks, pipeline
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from dig_jax.inputs.images import resize
from tests import FAKE_WORKER

FAKE = FAKE_WORKER
SPEC = SplitSpec(Draw("mixed", 0, 0, 3), pairs=7, shard_pairs=3)
LOOK = SceneConfig(width=64, height=48)
PX = Columns(("before", "after"), "where", "px", None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    render_split(root, SPEC, LOOK, 2, lambda *_: None, FAKE)
    return root


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "pairs"
    export(root, out, shard_bytes=20_000)
    assert len(list((out / "data").iterdir())) > 1
    return out


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records_of(folder):
    return [one for shard in records.open_split(folder) for one in records.read_shard(shard)]


def picture(seed, size=(80, 60), kind="PNG", mode="RGB", **options):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": f"{seed}.{kind.lower()}"}


def natural(number, size=(80, 60), **columns):
    """A row like somebody's: two pictures, boxes in pixels of their own size."""
    width, height = size
    box = [width // 4, height // 4, width // 2, height // 2]
    kind = "JPEG" if number % 2 else "PNG"
    pictures = {"before": picture(2 * number, size, kind), "after": picture(2 * number + 1, size)}
    return pictures | {"where": [box][: number % 3], "what": ["moved"][: number % 3]} | columns


def write(path, rows):
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


SIZES = [(80, 60), (100, 50), (60, 80), (64, 48), (128, 96)]


@pytest.fixture
def natural_file(tmp_path):
    rows = [natural(i, SIZES[i % len(SIZES)]) for i in range(10)]
    return write(tmp_path / "theirs.parquet", rows)


def test_our_export_comes_back_as_the_same_files(root, out, tmp_path):
    import_split([out], tmp_path, "mixed")
    assert files_of(tmp_path / "mixed") == files_of(root / "mixed")
    # and rendering goes on from there
    made = render_split(tmp_path, SPEC, LOOK, 2, lambda *_: None, ("no-such-program",))
    assert made["complete"]


def test_under_another_name_the_records_are_the_same(root, out, tmp_path):
    files = find_files([out], "mixed")
    made = import_split(files, tmp_path, "theirs")
    assert records_of(tmp_path / "theirs") == records_of(root / "mixed")
    assert (made["renderer"], made["pairs"]) == ("import", 7)
    original = json.loads((root / "mixed" / "manifest.json").read_text())
    assert made["request"]["from"] == original["request"]
    for name in ("k", "types", "things", "label_width_px"):
        assert made[name] == original[name]


def test_part_of_an_export_keeps_whole_records(root, out, tmp_path):
    second = sorted((out / "data").iterdir())[1]
    ids = pq.read_table(second)["pair_id"].to_pylist()
    import_split([second], tmp_path, "mixed")
    first = int(ids[0].rpartition("-")[2])
    assert records_of(tmp_path / "mixed") == records_of(root / "mixed")[first : first + len(ids)]
    made = import_split([out], tmp_path / "few", "mixed", limit=4)
    assert records_of(tmp_path / "few" / "mixed") == records_of(root / "mixed")[:4]
    assert made["renderer"] == "import"


def test_without_its_masks_an_export_is_an_import(root, tmp_path):
    export(root, tmp_path / "out", masks=False)
    made = import_split([tmp_path / "out"], tmp_path / "back", "mixed")
    assert made["renderer"] == "import"
    for got, want in zip(records_of(tmp_path / "back/mixed"), records_of(root / "mixed"),
                         strict=True):  # fmt: skip
        got, want = records.decode(got), records.decode(want)
        assert got.mask_a is got.mask_b is None
        np.testing.assert_array_equal(got.image_b, want.image_b)
        assert got.meta == want.meta


def test_masks_of_another_export_are_refused(root, out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    masks = sorted((tmp_path / "out" / "masks").iterdir())
    masks[0].write_bytes(masks[1].read_bytes())
    (tmp_path / "out" / "SHA256SUMS").unlink()  # it would tell before
    with pytest.raises(ValueError, match="not of one export"):
        import_split([tmp_path / "out"], tmp_path / "back", "mixed")
    assert not (tmp_path / "back").exists()
    shutil.rmtree(tmp_path / "out" / "masks")  # as advised
    import_split([tmp_path / "out"], tmp_path / "back", "mixed")


def test_natural_pairs_are_resized_with_their_boxes(natural_file, tmp_path):
    columns = dataclasses.replace(PX, types="what")
    import_split([natural_file], tmp_path, "natural", columns=columns, size=(64, 48))
    rows = pq.read_table(natural_file).to_pylist()
    decoded = [records.decode(one) for one in records_of(tmp_path / "natural")]
    for number, (pair, row) in enumerate(zip(decoded, rows, strict=True)):
        width, height = SIZES[number % len(SIZES)]
        for got, name in ((pair.image_a, "before"), (pair.image_b, "after")):
            own = np.array(Image.open(io.BytesIO(row[name]["bytes"])).convert("RGB"))
            np.testing.assert_array_equal(got, resize(own, (48, 64)))
        assert pair.mask_a is None
        meta = pair.meta
        assert meta["original_size"] == [[width, height]] * 2
        assert (meta["width"], meta["height"], meta["k"]) == (64, 48, len(row["where"]))
        assert (meta["split"], meta["idx"], meta["source"]) == ("natural", number, "import")
        assert meta["origin"] == {"file": "theirs.parquet", "row": number}
        for difference, box in zip(meta["differences"], row["where"], strict=True):
            exact = np.array(box) * np.tile([64 / width, 48 / height], 2)
            assert np.abs(np.array(difference["box"]) - exact).max() <= 0.5
            assert difference["type"] == "moved"


def config(root, *stages):
    return Config(
        steps=4,
        pairs_per_step=4,
        data=DataConfig(
            root=str(root), image_width=64, image_height=48,
            buckets=("mixed", "natural"), eval_split="held",
        ),
        curriculum=CurriculumConfig(stages=stages),
        eval=EvalConfig(pairs=4, batch=2),
    )  # fmt: skip


def test_training_mixes_imported_and_rendered_pairs(root, natural_file, tmp_path):
    shutil.copytree(root / "mixed", tmp_path / "r" / "mixed")
    for split in ("natural", "held"):
        import_split([natural_file], tmp_path / "r", split, columns=PX, size=(64, 48))
    cfg = config(
        tmp_path / "r", Stage(2, {"natural": 1.0}), Stage(4, {"mixed": 0.5, "natural": 0.5})
    )
    assert checks.check_data(cfg) == {"mixed": 7, "natural": 10, "held": 10}
    batches = list(pipeline.train_pairs(cfg, 0))
    assert [sorted(batch.bucket.tolist()) for batch in batches] == [
        [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1],
    ]  # fmt: skip
    imported = [records.decode(one) for one in records_of(tmp_path / "r" / "natural")]
    for batch in batches:
        assert batch.images.shape == (4, 2, 48, 64, 3)
        for row in np.flatnonzero(batch.bucket == 1):
            pair = imported[batch.pair_id[row]]
            np.testing.assert_array_equal(batch.images[row], [pair.image_a, pair.image_b])
            boxes = batch.truth.boxes[row][batch.truth.valid[row]]
            np.testing.assert_allclose(boxes * [64, 48, 64, 48], pair.boxes_px, atol=1e-4)
    assert len(pipeline.eval_pairs(cfg)) == 2


def test_an_import_can_be_exported_and_comes_back(natural_file, tmp_path):
    import_split([natural_file], tmp_path / "r", "natural", columns=PX, size=(64, 48))
    facts = export(tmp_path / "r", tmp_path / "out", formats=["parquet", "coco"])
    assert facts[0].types == {"unknown": 6}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: unknown" in card
    assert "somebody else's" in card
    assert "subtracting" not in card
    import_split([tmp_path / "out"], tmp_path / "back", "natural")
    assert files_of(tmp_path / "back" / "natural") == files_of(tmp_path / "r" / "natural")


@pytest.mark.parametrize("frame", ["px", "unit", "qwen"])
def test_every_frame_gives_the_same_boxes(frame, tmp_path):
    scale = {"px": [1, 1], "unit": [1 / 80, 1 / 60], "qwen": [12.5, 1000 / 60]}[frame]
    boxes = (np.array([[8, 6, 40, 30], [0, 0, 80, 60]]) * np.tile(scale, 2)).clip(0, 1000)
    rows = [{"images": [picture(0), picture(1)], "boxes": boxes.tolist()}]
    path = write(tmp_path / "a.parquet", rows)
    import_split([path], tmp_path, "s", columns=Columns(("images",), "boxes", frame))
    (record,) = records_of(tmp_path / "s")
    assert records.decode(record).boxes_px.tolist() == [[8, 6, 40, 30], [0, 0, 80, 60]]


def test_answers_in_json_are_read_with_their_labels(tmp_path):
    answer = '[{"bbox_2d": [100, 100, 500, 500], "label": "cup"}, {"bbox_2d": [0, 0, 9, 1000]}]'
    rows = [{"images": [picture(0), picture(1)], "answer": text} for text in (answer, "[]")]
    import_split([write(tmp_path / "a.parquet", rows)], tmp_path, "s")
    first, second = map(records.decode_meta, records_of(tmp_path / "s"))
    assert first["differences"] == [
        {"box": [8, 6, 40, 30], "type": "cup"},
        {"box": [0, 0, 1, 60], "type": None},
    ]
    assert second["differences"] == []


def test_several_sizes_without_a_size_are_refused_with_one_that_works(natural_file, tmp_path):
    with pytest.raises(
        ValueError, match=r"5 sizes: .*80x60 \(4\).* add --size (\d+x\d+)"
    ) as caught:
        import_split([natural_file], tmp_path, "s", columns=PX)
    size = str(caught.value).partition("--size ")[2].split()[0]
    argv = [str(natural_file), "--root", str(tmp_path), "--split", "s", "--size", size]
    argv += ["--image-a", "before", "--image-b", "after", "--boxes", "where", "--frame", "px"]
    assert verbs.main(["import", *argv]) == 0
    assert len(records_of(tmp_path / "s")) == 10


def test_pictures_of_one_size_stay_as_they_are(tmp_path):
    rows = [natural(i) for i in range(3)]
    made = import_split([write(tmp_path / "a.parquet", rows)], tmp_path, "s", columns=PX)
    assert made["settings"] == {"width": 80, "height": 60}
    for record, row in zip(records_of(tmp_path / "s"), rows, strict=True):
        own = np.array(Image.open(io.BytesIO(row["after"]["bytes"])))
        np.testing.assert_array_equal(records.decode(record).image_b, own)


def test_photographs_are_turned_upright_and_any_mode_becomes_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = picture(1, (60, 80), "JPEG", exif=exif)
    rows = [
        natural(0, before=turned),
        natural(1, before=picture(3, mode="L"), after=picture(4, mode="RGBA")),
        natural(2, before=picture(5, mode="P")),
    ]
    import_split([write(tmp_path / "a.parquet", rows)], tmp_path, "s", columns=PX)
    pairs = [records.decode(one) for one in records_of(tmp_path / "s")]
    assert {p.image_a.shape for p in pairs} == {p.image_b.shape for p in pairs} == {(60, 80, 3)}
    own = np.array(Image.open(io.BytesIO(turned["bytes"])))
    np.testing.assert_array_equal(pairs[0].image_a, np.rot90(own, -1))


BAD = {
    "outside": (
        {"where": [[0, 0, 82, 60]]},
        r"box \[0.*82.* is outside 0..80 x 0..60, .* by 2 px.* --frame .*--clip",
    ),
    "negative": ({"where": [[-1.5, 0, 8, 6]]}, "is outside .* by 1.5 px"),
    "wholly outside": ({"where": [[80, 0, 80.9, 6]]}, "is outside"),
    "flat": ({"where": [[5, 5, 5, 9]]}, "has no area"),
    "corners swapped": (
        {"where": [[9, 9, 5, 5]]},
        r"has no area as xyxy .* would fit as --format xywh",
    ),
    "three numbers": ({"where": [[1, 2, 3]]}, r"no list of boxes \(a box is four"),
    "nan": ({"where": [[1.0, 2.0, float("nan"), 4.0]]}, "four finite numbers"),
    "null": ({"where": None}, "empty list for an identical pair"),
    "too many": ({"where": [[0, 0, 9, 9]] * 9}, r"9 boxes, more than --max-boxes=8; raise it"),
    "vanishes": ({"where": [[10, 10, 10.4, 30]]}, "thinner than a pixel at --size 80x60"),
    "two sizes": ({"after": picture(1, (81, 60))}, r"80x60 and 81x60 with boxes in px"),
    "no bytes": (
        {"after": {"bytes": None, "path": "gone.png"}},
        "gone.png.* put the file there",
    ),
    "null picture": ({"after": None}, "a picture is None"),
    "not a picture": ({"after": {"bytes": b"GIF?", "path": None}}, "cannot be read"),
    "torn picture": (
        {"after": {"bytes": picture(1)["bytes"][:9000], "path": None}},
        r"cannot be read .*; replace it",
    ),
    "types": ({"what": ["a", "b", "c"]}, "is not one text per box"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_with_its_rule_and_remedy(name, tmp_path):
    change, message = BAD[name]
    path = write(tmp_path / "a.parquet", [natural(1), natural(4), natural(1, **change)])
    columns = dataclasses.replace(PX, types="what")
    with pytest.raises(ValueError, match=rf"a\.parquet row 2: .*{message}"):
        import_split([path], tmp_path / "r", "s", columns=columns, size=(80, 60))
    assert not (tmp_path / "r").exists()
    write(path, [natural(1), natural(4)])  # corrected or left out, as the messages say
    import_split([path], tmp_path / "r", "s", columns=columns, size=(80, 60))


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path):
    rows = [natural(1) for _ in range(130)]
    for number in (0, 70):
        rows[number] = natural(1, where=[[0, 0, 999, 9]])
    rows[5] = natural(1, after={"bytes": b"x", "path": None})
    path = write(tmp_path / "a.parquet", rows)
    made = import_split([path], tmp_path / "r", "s", columns=PX, skip_bad=True)
    assert made["dropped"] == {"box_outside": 2, "unreadable": 1}
    assert made["pairs"] == len(records_of(tmp_path / "r" / "s")) == 127
    assert made["shard_count"] == 2
    metas = [records.decode_meta(one) for one in records_of(tmp_path / "r" / "s")]
    assert [meta["idx"] for meta in metas] == list(range(127))
    with pytest.raises(ValueError, match="no row is a pair"):
        import_split([write(path, rows[:1])], tmp_path / "q", "s", columns=PX, skip_bad=True)


def test_a_list_of_three_pictures_is_no_pair(tmp_path):
    rows = [{"images": [picture(0)] * 3, "answer": "[]"}]
    path = write(tmp_path / "a.parquet", rows)
    with pytest.raises(ValueError, match=r"row 0: images holds 3 pictures; a pair has two"):
        import_split([path], tmp_path / "r", "s", size=(8, 8))
    write(path, [{"images": [picture(0)] * 2, "answer": "[]"}])
    import_split([path], tmp_path / "r", "s", size=(64, 48))


def test_wrong_requests_name_the_remedy(natural_file, tmp_path, capsys):
    def fails(argv, message):
        assert verbs.main(["import", *argv, "--root", str(tmp_path / "r")]) == 1
        assert message in capsys.readouterr().err

    file, pixels = str(natural_file), ["--boxes", "where", "--frame", "px"]
    fails([file, "--split", "s"], "has no column 'images'; it has before, after, where, what")
    fails([file, "--split", "s", "--boxes", "where"], "--frame")
    fails([file, "--split", "s", "--boxes", "where", "--frame", "pixels"], "px, unit, qwen")
    fails([file, "--split", "s", "--image-a", "before", *pixels], "name both columns")
    fails([file, "--split", "../s", "--size", "64x48"], "no plain folder name")
    fails([file, "--split", "s", "--size", "64"], "write 480x320")
    with pytest.raises(SystemExit):
        verbs.main(["import", file, "--root", str(tmp_path / "r"), "--split", "s", "--limit", "0"])
    assert "argument --limit: '0' is not a whole number from 1" in capsys.readouterr().err
    fails([f"{file}.gone", "--split", "s"], "does not exist")
    fails([__file__, "--split", "s"], "is not a parquet file")
    both = ["--image-a", "before", "--image-b", "after"]
    fails([file, "--split", "s", "--images", "before", *both, *pixels], "name one way")
    assert not (tmp_path / "r").exists()
    followed = [file, "--split", "s", *both, *pixels, "--size", "480x320"]
    assert verbs.main(["import", *followed, "--root", str(tmp_path / "r")]) == 0


def test_an_existing_split_is_never_touched(root, natural_file, tmp_path):
    before = files_of(root / "mixed")
    with pytest.raises(FileExistsError, match="choose another"):
        import_split([natural_file], root, "mixed", columns=PX, size=(64, 48))
    assert files_of(root / "mixed") == before
    for split in ("mixed", "another"):  # in another root, under another name
        import_split([natural_file], tmp_path, split, columns=PX, size=(64, 48))


def test_a_folder_with_several_data_sets_asks_which(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write(tmp_path / "hub" / "data" / f"{name}.parquet", [natural(1)])
    with pytest.raises(FileNotFoundError, match="holds parquet files of test, train"):
        find_files([tmp_path / "hub"], "natural")
    found = find_files([tmp_path / "hub"], "train")
    assert [path.name[:11] for path in found] == ["train-00000", "train-00001"]
