"""The card of an exported data set: what is in it, how its labels were made, what it cannot show.

A card states what manifests and records say. What none of them says is said to be missing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import dig_jax
from dig_jax.data.exchange.example import LABEL, MASKS, PAIRS, Example
from dig_jax.data.exchange.parquet import yaml_features

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


@dataclass
class SplitFacts:
    """What was counted of one split while it was written, and its manifest."""

    name: str
    manifest: dict
    pairs: int = 0
    sizes: Counter = field(default_factory=Counter)
    k: Counter = field(default_factory=Counter)
    types: Counter = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)  # parquet files, from the export's folder

    def count(self, example: Example) -> None:
        self.pairs += 1
        self.sizes[f"{example.width}x{example.height}"] += 1
        self.k[len(example.types)] += 1
        self.types.update(kind or "unknown" for kind in example.types)

    @property
    def is_import(self) -> bool:
        return self.manifest.get("renderer") == "import"


def card_text(
    splits: list[SplitFacts], *, formats: list[str], masks: bool, license_name: str, question: str
) -> str:
    """README.md of an export: front matter, then contents, use, labels, making, limits."""
    title = "Difference pairs: " + ", ".join(f"`{facts.name}`" for facts in splits)
    rendered = [facts for facts in splits if not facts.is_import]
    parts = [
        _front_matter(splits, formats, masks, license_name),
        f"# {title}",
        "Two nearly identical pictures per example; the answer is one box around every difference. "
        f"Exported by dig_jax {dig_jax.__version__}.",
        "## Contents",
        _contents(splits),
        "## Columns and frames",
        _columns(formats, masks),
        "## Use",
        _use(splits, formats, question),
        "## Labels",
        *([_rendered_labels()] if rendered else []),
        *([_imported_labels()] if len(rendered) < len(splits) else []),
        "## Made by",
        "\n".join(f"- `{facts.name}`: {_made_by(facts.manifest)}" for facts in splits),
        "## Limits",
        _limits(bool(rendered)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(splits, formats, masks, license_name) -> str:
    pairs = sum(facts.pairs for facts in splits)
    size = next((name for bound, name in _SIZES if pairs < bound), "n>1M")
    lines = [f"license: {license_name}", f"size_categories:\n- {size}"]
    lines.append("task_categories:\n- object-detection\n- image-text-to-text")
    tags = ["difference-grounding", "image-pairs", "dig_jax"]
    tags += [] if any(facts.is_import for facts in splits) else ["synthetic"]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    if "parquet" in formats:
        tables = {"default": ("data", PAIRS)} | ({"masks": ("masks", MASKS)} if masks else {})
        lines.append("configs:")
        for name, (folder, _) in tables.items():
            default = ["  default: true"] if name == "default" else []
            lines += [f"- config_name: {name}", *default, "  data_files:"]
            for facts in splits:
                pattern = f"{folder}/{facts.name}-*.parquet"
                lines += [f"  - split: {facts.name}", f"    path: {pattern}"]
        lines.append("dataset_info:")
        for name, (_, columns) in tables.items():
            lines += [f"- config_name: {name}", "  features:", *yaml_features(columns, "  ")]
    return "\n".join(["---", *lines, "---"])


def _contents(splits: list[SplitFacts]) -> str:
    rows = [
        f"| `{facts.name}` | {facts.pairs} | {_histogram(facts.sizes)} | {_histogram(facts.k)} | "
        f"{_histogram(facts.types)} | {facts.manifest.get('renderer', 'not recorded')} |"
        for facts in splits
    ]
    head = "| split | pairs | size (px) | differences per pair | types of differences | renderer |"
    text = "A histogram is `value: count`; pairs with 0 differences are identical pictures."
    return "\n".join([head, "|---|---|---|---|---|---|", *rows]) + f"\n\n{text}"


def _histogram(counts: Counter) -> str:
    return ", ".join(f"{value}: {count}" for value, count in sorted(counts.items())) or "none"


_QWEN = "integers 0..1000, thousandths of the image's sides (Qwen3-VL's frame)"
_PX = "half-open pixels, x1 and y1 just outside the box"


def _columns(formats: list[str], masks: bool) -> str:
    lines = ["All boxes are x0 y0 x1 y1 from the top left corner unless said otherwise."]
    if "parquet" in formats:
        lines.append(
            "| column of `data/` | what it holds |\n|---|---|\n"
            "| `images` | image A and image B, the records' PNG bytes |\n"
            "| `problem` | the question after one `<image>` per picture (EasyR1) |\n"
            '| `prompt` | the question as a conversation: `[{"role": "user", "content": ...}]` '
            "(TRL) |\n"
            f'| `answer` | JSON list of `{{"bbox_2d": [x0, y0, x1, y1]}}`: {_QWEN}; `[]` for an '
            "identical pair |\n"
            f"| `boxes_px` | the same boxes: {_PX} |\n"
            "| `types` | type of each difference, in the order of the boxes; null where unknown |\n"
            "| `pair_id`, `k`, `width`, `height` | name, number of differences, size in pixels |\n"
            "| `meta` | the record's whole JSON: scenes, boxes on each picture (`box_a`, `box_b`), "
            "their full extent (`amodal_a`, `amodal_b`) and certificates; all boxes in it are "
            f"{_PX} |"
        )
    if "parquet" in formats and masks:
        lines.append(
            "`masks/` (configuration `masks`) holds `mask_a` and `mask_b` in the same order: one "
            "grey byte per pixel, the id of the thing seen there, 0 the ground. They are a table "
            "of their own because trainers carry every column along: EasyR1 would turn a batch of "
            "masks into arrays of Python objects."
        )
    if "jsonl" in formats:
        lines.append(
            "`jsonl/SPLIT.jsonl`: VLM-R1's lines, `image` relative to this folder. Boxes in the "
            f'answer are {_QWEN}, each with `"label": "{LABEL}"`; VLM-R1\'s Qwen2.5-VL expects '
            "absolute pixels instead: multiply by `width` and `height` over 1000."
        )
    if "coco" in formats:
        lines.append(
            "`coco/SPLIT.json`: one COCO image per picture, so two per pair, that share `pair_id` "
            "and tell their `side`. `bbox` is [x, y, width, height] in pixels of that picture: "
            "where the changed thing is visible in it; a thing that was added has none in picture "
            "A. A category is a type of difference. `difference` counts within the pair."
        )
    return "\n\n".join(lines)


def _use(splits: list[SplitFacts], formats: list[str], question: str) -> str:
    parts = [f"The question is\n\n    {question}"]
    if "parquet" in formats:
        held_out = ("test", "heldout", "dev")
        shown = next((f for f in splits if not f.name.startswith(held_out)), splits[0])
        parts += _use_parquet(shown)
    if "jsonl" in formats:
        parts.append(
            "VLM-R1: `--data_file_paths THIS_FOLDER/jsonl/SPLIT.jsonl --image_folders THIS_FOLDER`."
        )
    return "\n\n".join(parts)


def _use_parquet(shown: SplitFacts) -> list[str]:
    return [
        "```python\nfrom datasets import load_dataset\n\n"
        f'pairs = load_dataset("THIS_FOLDER", split="{shown.name}")\n'
        'pairs[0]["images"]  # two PIL pictures\n```',
        "EasyR1 takes one file (`export --shard-mb` sets how large one may be):\n\n```\n"
        f"data.train_files=THIS_FOLDER/{shown.files[0]}\n"
        "data.prompt_key=problem data.answer_key=answer data.image_key=images\n"
        "data.format_prompt=null worker.rollout.limit_images=2\n"
        "worker.reward.reward_function=THIS_FOLDER/easyr1_reward.py:compute_score\n```\n\n"
        'For a Thinking model add `worker.reward.reward_function_kwargs={"think": "prefilled"}`. '
        "EasyR1's default `min_pixels` (262144) enlarges smaller pictures; the boxes are relative "
        "and stay right.",
        "TRL reads `prompt` and `images`; `trl_reward` of `easyr1_reward.py`, given to "
        "`GRPOTrainer(reward_funcs=...)`, reads the column `answer`.",
        "dig_jax reads it back with `python -m dig_jax.data import THIS_FOLDER --root data "
        f"--split {shown.name}`; with `masks/` the shards come back byte for byte. "
        "`sha256sum -c SHA256SUMS` compares every file with what was written.",
    ]


def _rendered_labels() -> str:
    return (
        "Rendered splits: a scene is drawn, one or more of its things change in colour, material, "
        "size or shape, or are added or removed, and both versions are rendered together with a "
        "picture of object ids. A label is the tight box of the pixels in which the changed thing "
        "is visible in picture A or in picture B: the union of its visible boxes. It is the same "
        "for both pictures and does not change when they are swapped. Shadows and reflections of "
        "a changed thing are not labelled, though their pixels differ too; how much differs "
        "outside the labels is measured (`residual` in `meta`), and a pair is rejected where the "
        "largest such blob exceeds a set share of its smallest label's changed pixels. A pair is "
        "also rejected where a label is too small, too hidden or too faint, so very small or "
        "nearly hidden differences do not occur."
    )


def _imported_labels() -> str:
    return (
        "Imported splits: pictures and boxes are somebody else's. Import checked that every box "
        "lies inside the picture and has an area, resized the pictures where asked to (the "
        "original sizes are in `meta`) and rounded boxes to whole pixels; whether they are right "
        "or complete was not checked."
    )


def _made_by(manifest: dict) -> str:
    """Seed, recipe and versions of a split, by its manifest."""
    request, settings = manifest.get("request", {}), manifest.get("settings", {})
    draw = request.get("draw", {})
    parts = [f"{name} {value}" for name, value in draw.items() if name != "split"]
    parts += [f"{name}: {value}" for name, value in request.items() if name == "files"]
    shown = ("width", "height", "samples")
    parts += [f"{name} {settings[name]}" for name in shown if name in settings]
    parts.append(f"look {manifest['look']}" if manifest.get("look") else "")
    versions = manifest.get("versions", {})
    parts += [f"{n} {', '.join(v) if isinstance(v, list) else v}" for n, v in versions.items()]
    return "; ".join(part for part in parts if part) or "its manifest does not say"


def _limits(rendered: bool) -> str:
    lines = []
    if rendered:
        lines += [
            "Synthetic scenes of a few simple solids on a plain ground, from one generator. They "
            "say nothing about photographs, and held-out splits are fresh draws of the same "
            "recipe (see `combos`), not another domain.",
            "Where `noise` is shared and `camera_jitter_b` is 0, both pictures have one camera and "
            "one noise seed: what differs is the changed thing and the light it throws on the "
            "rest, so subtracting the pictures finds many boxes without any recognition. Compare "
            "a score with that baseline (`python -m dig_jax.data stats`) before calling it "
            "perception; splits with independent noise or a moved camera are there for that.",
        ]
    lines.append("One question, in English; one box per difference, no segmentation.")
    return "\n".join(f"- {line}" for line in lines)
