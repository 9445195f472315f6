"""One record in the shapes that other trainers read.

Pictures stay the record's own PNG bytes. Every box column's frame is in its name: `boxes_px`
half-open pixels, `answer` and `bbox_2d` the integers 0..1000 that Qwen3-VL reads and writes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dig_jax.boxes import qwen_from_unit, unit_from_px
from dig_jax.data import records

# Columns of the two tables: a name is a scalar type, [x] a list of x, {..} a structure.
PAIRS = {
    "images": ["image"],
    "problem": "string",
    "answer": "string",
    "prompt": [{"role": "string", "content": "string"}],
    "pair_id": "string",
    "k": "int32",
    "width": "int32",
    "height": "int32",
    "boxes_px": [["int32"]],
    "types": ["string"],
    "meta": "string",
}
MASKS = {"pair_id": "string", "mask_a": "image", "mask_b": "image"}
LABEL = "difference"  # of every box where a format wants labels
_FIELDS = ("image_a", "image_b", "mask_a", "mask_b", "meta")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Example:
    """A record, taken apart without decoding a picture."""

    pair_id: str
    fields: dict  # image_a, image_b and, where known, mask_a, mask_b: PNG bytes; meta: JSON text
    meta: dict
    width: int  # px, of both images
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def boxes_px(self) -> list[list[int]]:
        return [[round(v) for v in d["box"]] for d in self.meta["differences"]]

    @property
    def types(self) -> list[str | None]:
        return [d.get("type") for d in self.meta["differences"]]

    @property
    def boxes_qwen(self) -> list[list[int]]:
        """The boxes as the policy is taught to write them."""
        boxes = [d["box"] for d in self.meta["differences"]]
        return [qwen_from_unit(unit_from_px(b, self.width, self.height)).tolist() for b in boxes]

    @property
    def answer(self) -> str:
        """The right answer: "[]" for an identical pair."""
        return json.dumps([{"bbox_2d": box} for box in self.boxes_qwen])


def unpack(record: bytes) -> dict:
    """The named fields of a record; raises ValueError where `pack` would not give it back."""
    try:
        fields = records.unpack(record)
        whole = set(fields) <= set(_FIELDS) and pack(fields) == record
    except Exception as error:  # msgpack has several exception types
        raise ValueError(f"not a pair record ({type(error).__name__}: {error})") from error
    if not whole:
        raise ValueError(
            f"a record with the fields {', '.join(map(str, fields))} cannot be given back byte by "
            f"byte; this version knows {', '.join(_FIELDS)} in this order"
        )
    return fields


def pack(fields: dict) -> bytes:
    """The record with these fields; absent and None masks are left out."""
    ordered = {name: fields[name] for name in _FIELDS if fields.get(name) is not None}
    return records.pack(ordered)


def read_example(record: bytes, split: str, index: int) -> Example:
    """A record by its place in its split; raises ValueError where its parts contradict."""
    fields = unpack(record)
    meta = json.loads(fields["meta"])
    sizes = {name: png_size(fields[name]) for name in ("image_a", "image_b")}
    told = meta.get("width"), meta.get("height")
    wrong = {size for size in sizes.values() if size != told} if None not in told else set()
    if len(set(sizes.values())) > 1 or wrong:
        raise ValueError(
            f"image_a is {sizes['image_a']} px, image_b {sizes['image_b']}, meta says {told}; both "
            "pictures of a pair have one size: make the shard again"
        )
    return Example(f"{split}-{index:06d}", fields, meta, *sizes["image_a"])


def png_size(png: bytes) -> tuple[int, int]:
    """(width, height) of a PNG by its header."""
    if png[:8] != _PNG or png[12:16] != b"IHDR":
        raise ValueError(f"{png[:8]!r}... is no PNG; make the shard again")
    return struct.unpack(">II", png[16:24])


def table_row(example: Example, question: str) -> dict:
    """A row of PAIRS: `problem` for EasyR1, `prompt` for TRL, `images` and `answer` for both.

    TRL puts one image placeholder per image before a prompt that is plain text; a list of
    content parts would come back from Arrow with a null under every key a part lacks.
    """
    return {
        "images": [_image(example, name) for name in ("image_a", "image_b")],
        "problem": "<image><image>" + question,
        "answer": example.answer,
        "prompt": [{"role": "user", "content": question}],
        "pair_id": example.pair_id,
        "k": len(example.boxes_px),
        "width": example.width,
        "height": example.height,
        "boxes_px": example.boxes_px,
        "types": example.types,
        "meta": example.fields["meta"],
    }


def mask_row(example: Example) -> dict:
    """A row of MASKS; None where nobody knows a mask."""
    masks = {name: _image(example, name) for name in ("mask_a", "mask_b")}
    return {"pair_id": example.pair_id, **masks}


def row_bytes(row: dict) -> int:
    """About how many bytes a row of either table takes."""
    images = [*row.get("images", []), row.get("mask_a"), row.get("mask_b")]
    return sum(len(image["bytes"]) for image in images if image) + len(row.get("meta", "")) + 500


def _image(example: Example, name: str) -> dict | None:
    png = example.fields.get(name)
    return png and {"bytes": png, "path": f"{example.pair_id}_{name}.png"}


def picture_paths(example: Example, split: str) -> dict[str, str]:
    """Side -> the picture's path inside an export."""
    return {side: f"images/{split}/{example.pair_id}_{side}.png" for side in "ab"}


def jsonl_line(example: Example, split: str, question: str) -> dict:
    """A line as VLM-R1 reads them; the answer is fenced and labelled, as its box rewards want."""
    boxes = [{"bbox_2d": box, "label": LABEL} for box in example.boxes_qwen]
    asked = f'{question} Give every box the label "{LABEL}".'
    return {
        "id": example.pair_id,
        "image": list(picture_paths(example, split).values()),
        "conversations": [
            {"from": "human", "value": "<image><image>" + asked},
            {"from": "gpt", "value": f"```json\n{json.dumps(boxes)}\n```"},
        ],
        "width": example.width,
        "height": example.height,
    }


def coco_images(example: Example, split: str, first_id: int) -> list[dict]:
    """Two COCO images, A and B, that share a pair_id."""
    return [
        {
            "id": first_id + number,
            "file_name": path,
            "width": example.width,
            "height": example.height,
            "pair_id": example.pair_id,
            "side": side,
        }
        for number, (side, path) in enumerate(picture_paths(example, split).items())
    ]


def coco_annotations(example: Example, first_image_id: int) -> Iterator[dict]:
    """An annotation wherever a changed thing is visible, without id and category_id.

    Its `type` names the category. Where nobody knows the box on each picture (imported pairs),
    the pair's box stands on both.
    """
    for index, difference in enumerate(example.meta["differences"]):
        known = "box_a" in difference
        for number, side in enumerate("ab"):
            box = difference[f"box_{side}"] if known else difference["box"]
            if box is None:  # added or removed: not in this picture
                continue
            x0, y0, x1, y1 = map(float, box)
            yield {
                "image_id": first_image_id + number,
                "type": difference.get("type") or LABEL,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": difference.get(f"visible_px_{side}") or (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "pair_id": example.pair_id,
                "difference": index,
            }
