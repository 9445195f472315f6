"""Anybody's tables as they come: box formats, edges, layouts, pictures in every kind of cell."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.exchange.foreign import Columns
from dig_jax.data.exchange.imports import import_split
from tests.data.exchange.test_imports import PX, natural, picture, records_of, write


def test_rows_without_area_stop_an_import_that_leaves_bad_rows_out(tmp_path):
    """x, y, w, h taken as corners: where w > x and h > y a wrong box came out in silence (M9)."""
    rows = [natural(1, where=[[2, 3, 30, 20]]), natural(1, where=[[40, 30, 20, 10]])]
    path = write(tmp_path / "a.parquet", rows)
    for columns in (PX, dataclasses.replace(PX, format="xyxy")):
        with pytest.raises(ValueError, match=r"row 1: .*other rows may .* --format of xyxy, xywh"):
            import_split([path], tmp_path / "r", "s", columns=columns, skip_bad=True)
    assert not (tmp_path / "r" / "s").exists()
    columns = dataclasses.replace(PX, format="xywh")
    import_split([path], tmp_path / "r", "s", columns=columns, skip_bad=True)
    boxes = [records.decode(one).boxes_px.tolist() for one in records_of(tmp_path / "r" / "s")]
    assert boxes == [[[2, 3, 32, 23]], [[40, 30, 60, 40]]]


def test_corners_taken_as_widths_stop_too_and_a_side_of_nothing_only_until_it_is_said(tmp_path):
    corners = write(tmp_path / "a.parquet", [natural(1, where=[[50, 30, 70, 50]])])
    for format_ in ("xywh", "cxcywh"):
        columns = dataclasses.replace(PX, format=format_)
        with pytest.raises(ValueError, match="would fit as --format xyxy"):
            import_split([corners], tmp_path / "r", "s", columns=columns, skip_bad=True)
    flat = write(tmp_path / "b.parquet", [natural(1), natural(1, where=[[5, 5, 5, 9]])])
    with pytest.raises(ValueError, match="say --format xyxy with --skip-bad"):
        import_split([flat], tmp_path / "r", "s", columns=PX, skip_bad=True)
    said = dataclasses.replace(PX, format="xyxy")  # what the message advises
    made = import_split([flat], tmp_path / "r", "s", columns=said, skip_bad=True)
    assert made["dropped"] == {"box_without_area": 1}


def test_every_format_gives_the_same_box(tmp_path):
    for format_, box in (
        ("xyxy", [10, 20, 30, 26]), ("xywh", [10, 20, 20, 6]), ("cxcywh", [20, 23, 20, 6]),
    ):  # fmt: skip
        path = write(tmp_path / f"{format_}.parquet", [natural(1, where=[box])])
        columns = dataclasses.replace(PX, format=format_)
        import_split([path], tmp_path, format_, columns=columns)
        (record,) = records_of(tmp_path / format_)
        assert records.decode(record).boxes_px.tolist() == [[10, 20, 30, 26]]


def test_boxes_over_the_edge_by_up_to_a_pixel_are_cut_and_counted(tmp_path, capsys):
    """As float boxes of resized pictures are; farther out only where --clip says so (M14)."""
    rows = [natural(1, where=[[70.2, 50.0, 80.6, 60.99]]), natural(1, where=[[0, 0, 80, 60]])]
    path = write(tmp_path / "a.parquet", rows)
    made = import_split([path], tmp_path / "r", "s", columns=PX)
    assert made["clipped_boxes"] == 1
    first, second = (records.decode(r).boxes_px.tolist() for r in records_of(tmp_path / "r/s"))
    assert (first, second) == ([[70, 50, 80, 60]], [[0, 0, 80, 60]])
    unit = [[b / s for b, s in zip(box, (80, 60) * 2, strict=True)]
            for box in rows[0]["where"]]  # fmt: skip
    path = write(tmp_path / "u.parquet", [natural(1, where=unit)])
    columns = dataclasses.replace(PX, frame="unit")
    assert import_split([path], tmp_path / "u", "s", columns=columns)["clipped_boxes"] == 1
    far = write(tmp_path / "far.parquet", [natural(1, where=[[70, -9, 95, 60]])])
    argv = ["import", str(far), "--root", str(tmp_path / "f"), "--split", "s"]
    argv += ["--image-a", "before", "--image-b", "after", "--boxes", "where", "--frame", "px"]
    assert verbs.main(argv) == 1
    assert "by 15 px" in capsys.readouterr().err
    assert verbs.main([*argv, "--clip"]) == 0
    assert "1 boxes cut at their picture's edge" in capsys.readouterr().out
    (record,) = records_of(tmp_path / "f" / "s")
    assert records.decode(record).boxes_px.tolist() == [[70, 0, 80, 60]]


OBJECTS = {
    "lists": {"bbox": [[10, 20, 20, 6], [0, 0, 5, 5]], "category": ["cup", "fork"]},
    "structures": [
        {"bbox": [10, 20, 20, 6], "category": "cup"},
        {"bbox": [0, 0, 5, 5], "category": "fork"},
    ],
    "box": [{"box": [10, 20, 20, 6], "label": "cup"}, {"box": [0, 0, 5, 5], "label": "fork"}],
    "json": '{"bbox": [[10, 20, 20, 6], [0, 0, 5, 5]], "category": ["cup", "fork"]}',
}


@pytest.mark.parametrize("layout", OBJECTS)
def test_the_hubs_objects_are_imported_with_their_categories(layout, tmp_path):
    """They were refused with a bare key for a reason (M15)."""
    row = {"before": picture(0), "after": picture(1), "objects": OBJECTS[layout]}
    path = write(tmp_path / "a.parquet", [row])
    columns = Columns(("before", "after"), "objects", "px", None, "xywh")
    import_split([path], tmp_path, "s", columns=columns)
    (meta,) = map(records.decode_meta, records_of(tmp_path / "s"))
    assert meta["differences"] == [
        {"box": [10, 20, 30, 26], "type": "cup"},
        {"box": [0, 0, 5, 5], "type": "fork"},
    ]


def test_numbered_categories_and_corner_keys_are_kept_and_unknown_keys_named(tmp_path):
    numbered = {"bbox": [[10, 20, 30, 26]], "category": [7]}
    corners = '[{"score": 1, "label": "x", "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}]'
    for split, objects, wanted in (
        ("n", numbered, {"box": [10, 20, 30, 26], "type": "7"}),
        ("c", corners, {"box": [1, 2, 3, 4], "type": "x"}),
        ("e", {"bbox": [], "category": []}, None),
    ):
        row = {"images": [picture(0), picture(1)], "objects": objects}
        path = write(tmp_path / f"{split}.parquet", [row])
        columns = Columns(("images",), "objects", "px")
        import_split([path], tmp_path, split, columns=columns)
        (meta,) = map(records.decode_meta, records_of(tmp_path / split))
        assert meta["differences"] == ([wanted] if wanted else [])
    row = {"images": [picture(0), picture(1)], "objects": [{"rect": [1, 2, 3, 4], "n": 1}]}
    path = write(tmp_path / "k.parquet", [row])
    with pytest.raises(ValueError, match="its keys are rect, n, none of bbox_2d, bbox, box"):
        import_split([path], tmp_path, "k", columns=Columns(("images",), "objects", "px"))


def test_pictures_of_more_than_8_bits_are_refused_by_rule(tmp_path):
    """16-bit grey came out all white and floats all black, with true boxes (M8)."""
    grey = np.linspace(300, 4095, 60 * 80).reshape(60, 80)
    rows = [natural(1) for _ in range(3)]
    for row, array, kind in (
        (rows[1], grey.astype(np.uint16), "PNG"), (rows[2], (grey / 4095).astype("f4"), "TIFF"),
    ):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(array).save(file, kind)
        row["after"] = {"bytes": file.getvalue(), "path": None}
    path = write(tmp_path / "a.parquet", rows)
    with pytest.raises(ValueError, match=r"row 1: .*300..4095 .* scale them to 0..255"):
        import_split([path], tmp_path / "r", "s", columns=PX)
    made = import_split([path], tmp_path / "r", "s", columns=PX, skip_bad=True)
    assert made["dropped"] == {"deep_picture": 2}


def test_a_png_with_a_large_text_is_imported(tmp_path):
    """Pillow stops at such texts, without file and row, whatever --skip-bad says (M11)."""
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 2_000_000, zip=True)
    heavy = picture(7, pnginfo=info)
    path = write(tmp_path / "a.parquet", [natural(1, after=heavy)])
    import_split([path], tmp_path, "s", columns=PX)
    (record,) = records_of(tmp_path / "s")
    own = np.array(Image.open(io.BytesIO(picture(7)["bytes"])))
    np.testing.assert_array_equal(records.decode(record).image_b, own)


def test_pictures_may_be_paths_base64_data_urls_numbers_or_pixels(tmp_path):
    """A path of somebody else's machine by its name, beside the parquet file (M13)."""
    (tmp_path / "in").mkdir()
    bytes_ = picture(5)["bytes"]
    (tmp_path / "in" / "five.png").write_bytes(bytes_)
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "six.png").write_bytes(bytes_)
    text = base64.b64encode(bytes_).decode()
    pixels = np.array(Image.open(io.BytesIO(bytes_)))
    cells = {
        "name": "five.png",
        "path": "sub/six.png",
        "foreign": "/home/somebody/data/five.png",
        "struct": {"bytes": None, "path": "/home/somebody/data/five.png"},
        "base64": text,
        "url": f"data:image/png;base64,{text}",
        "one": ["five.png"],
        "numbers": list(bytes_),
        "pixels": pixels.tolist(),
    }
    for split, cell in cells.items():
        path = write(tmp_path / "in" / f"{split}.parquet", [natural(1, after=cell)])
        import_split([path], tmp_path, split, columns=PX)
        (record,) = records_of(tmp_path / split)
        np.testing.assert_array_equal(records.decode(record).image_b, pixels)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("https://example.org/a.png", "names no file in"),
        ("x" * 5000, "cannot be read|names no file"),
        ([[0.5, 0.25], [0.0, 1.0]], "rows of pixels 0..255"),
        ([300, 2], "bytes 0..255"),
    ],
)
def test_one_size_gives_the_first_rows_own_reason(cell, reason, tmp_path):
    path = write(tmp_path / "a.parquet", [natural(1, before=cell, after=cell)])
    with pytest.raises(ValueError, match=rf"a\.parquet row 0: .*({reason})"):
        import_split([path], tmp_path / "r", "s", columns=PX)
