"""The model card of an exported checkpoint, from what its run wrote down.

A card states what a file says. What no file says is said to be missing, never guessed.
"""

import json
import re
from pathlib import Path

from dig_jax.config import Config, config_hash
from dig_jax.data.feed.fetch import copy_of
from dig_jax.hf.files import local_companions
from dig_jax.run.checkpoint import latest_step, root_of
from dig_jax.run.manifest import check_number, number_of, read_manifest
from dig_jax.scoring.metrics import METRICS
from dig_jax.scoring.table import NAMES, markdown, read_evaluation

SEED_MISSING = "no manifest here, so pairs, seed and recipe are unknown"
_RELEASED = re.compile(r"Qwen3-VL-(2B|4B|8B|32B)-(Instruct|Thinking)")


def card_text(cfg: Config, step: int, *, source: str, dtype: str) -> str:
    """README.md of an export: front matter, then base, use, data, training, scores, limits.

    cfg      of the run; its run_dir and data.root are read where they exist, of a bucket's pairs
             the copy on this machine
    source   the folder the run started from
    dtype    of the exported weights
    """
    base = base_model(source)
    parts = [
        _front_matter(base, license_of(source), cfg.learner),
        f"# {cfg.name}, step {step}",
        f"A Qwen3-VL that {_purpose(cfg)}, trained by {_LEARNERS[cfg.learner]} with dig_jax "
        f"from {f'`{base}`' if base else 'the folder'} `{source}`. Weights in {dtype}.",
        "## Use",
        _use(cfg),
        "## Data",
        _data(cfg),
        "## Training",
        _training(cfg),
        "## Scores",
        _scores(cfg, step),
        "## Made by",
        _made_by(Path(cfg.run_dir) / "manifest.json", cfg),
        "## Limits",
        _limits(cfg),
    ]
    return "\n\n".join(parts) + "\n"


_LEARNERS = {"grpo": "GRPO", "sft": "supervised learning"}


def _purpose(cfg: Config) -> str:
    asked = cfg.learner == "sft" and cfg.sft.questions_per_step
    questions = "answers questions about pictures" if asked else ""
    pairs = "boxes the differences between two images" if _learns_pairs(cfg) else ""
    return " and ".join(filter(None, (pairs, questions)))


def _learns_pairs(cfg: Config) -> bool:
    return cfg.learner == "grpo" or cfg.sft.pairs_weight > 0


def base_model(source: str) -> str | None:
    """The hub name of a source folder, where its path shows one; else None."""
    cached = re.search(r"models--([\w.-]+?)--([\w.-]+)", source)
    if cached:
        return "/".join(cached.groups())
    name = source.rstrip("/").rpartition("/")[2]
    return f"Qwen/{name}" if _RELEASED.fullmatch(name) else None


def license_of(source: str) -> str | None:
    """What the front matter of the source's own card says, None if there is none."""
    card = local_companions(source) / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head.group(1), re.MULTILINE) if head else None
    return found.group(1) if found else None


def _front_matter(base: str | None, license_name: str | None, learner: str) -> str:
    lines = ["library_name: transformers", "pipeline_tag: image-text-to-text"]
    if base:
        lines.append(f"base_model: {base}")
    if license_name:
        lines.append(f"license: {license_name}")
    lines += [
        "tags:",
        *(f"- {tag}" for tag in ("qwen3_vl", "difference-grounding", learner, "jax")),
    ]
    return "\n".join(["---", *lines, "---"])


def _use(cfg: Config) -> str:
    vision_id = ", each after its number (add_vision_id)" if cfg.prompt.add_vision_id else ""
    return (
        f"Two images of {cfg.data.image_width}x{cfg.data.image_height} px{vision_id}, then the "
        f"question it was trained to answer:\n\n    {cfg.prompt.question}\n\n"
        f"It answers with a JSON list of `bbox_2d` boxes; coordinates are integers in thousandths "
        f"of the image's sides."
    )


def _data(cfg: Config) -> str:
    asked = cfg.learner == "sft" and cfg.sft.questions_per_step
    questions = f"Questions of `{cfg.sft.questions_root}`: {cfg.sft.questions}." if asked else ""
    return "\n\n".join(filter(None, (_pairs(cfg) if _learns_pairs(cfg) else "", questions)))


def _pairs(cfg: Config) -> str:
    names = {name: "training" for name in cfg.data.buckets} | {cfg.data.eval_split: "held out"}
    lines = [
        f"- `{name}` ({use}): {_split(copy_of(cfg.data.root, name))}" for name, use in names.items()
    ]
    return f"Rendered pairs of `{cfg.data.root}`:\n\n" + "\n".join(lines)


def _split(folder: Path) -> str:
    """Pairs, seed and recipe of a split, by its manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        return SEED_MISSING
    manifest = json.loads(path.read_text())
    request, settings = manifest.get("request", {}), manifest.get("settings", {})
    request = request.get("draw", request)  # older splits have it flat
    low, high = request.get("k_low"), request.get("k_high")
    parts = [f"{manifest.get('pairs')} pairs, seed {request.get('seed')}"]
    parts.append(f"{low} differences" if low == high else f"{low} to {high} differences")
    shown = [name for name in ("width", "height", "samples") if name in settings]
    parts += [f"{name} {settings[name]}" for name in shown]
    if "types" in manifest:
        kinds = ", ".join(f"{name} {count}" for name, count in manifest["types"].items())
        parts.append(f"kinds: {kinds}")
    if not manifest.get("complete", True):
        parts.append("incomplete when this card was made")
    return "; ".join(parts)


def _training(cfg: Config) -> str:
    optim = cfg.optim
    stages = "; ".join(
        f"until step {stage.until} "
        + ", ".join(f"{name} {share:g}" for name, share in stage.weights.items())
        for stage in cfg.curriculum.stages
    )
    facts = _learning(cfg) | {
        "rate": f"{optim.rate:g}, {optim.schedule} after {optim.warmup} steps of warm-up",
        "frozen": ", ".join(optim.freeze) or "nothing",
        "curriculum": stages if _learns_pairs(cfg) else "",
        "precision": f"float32 weights, {cfg.model.compute_dtype} matmuls",
    }
    facts = {name: value for name, value in facts.items() if value}
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _learning(cfg: Config) -> dict[str, str]:
    """What the learner is set to, by name."""
    if cfg.learner == "sft":
        pairs = cfg.pairs_per_step if _learns_pairs(cfg) else 0
        rows = f"{pairs} pairs and {cfg.sft.questions_per_step} questions each"
        weights = ("changed_weight", "things_weight")
        dense = ", ".join(f"{name} {getattr(cfg.sft, name):g}" for name in weights)
        return {
            "steps": f"{cfg.steps} planned, {rows}, seed {cfg.seed}",
            "loss": f"cross-entropy on true answers; labels of cells: {dense}",
        }
    reward, rollout = cfg.reward, cfg.rollout
    return {
        "steps": f"{cfg.steps} planned, {cfg.pairs_per_step} pairs each, seed {cfg.seed}",
        "rollout": f"{rollout.group} answers a pair, at most {rollout.max_tokens} tokens, "
        f"temperature {rollout.temperature:g}",
        "reward": f"{reward.w_format:g} format + {reward.w_f1:g} F1@{reward.iou_threshold:g} + "
        f"{reward.w_iou:g} mean IoU, Hungarian matching",
        "KL": f"{cfg.grpo.kl_coef:g} to the {cfg.curriculum.reference} reference",
    }


def _scores(cfg: Config, step: int) -> str:
    """A table with intervals of the evaluations there are, and under which protocol each."""
    paths = sorted(Path(cfg.run_dir).glob("eval_*.json"))
    found = {path.stem.removeprefix("eval_"): read_evaluation(path) for path in paths}
    run = number_of(cfg.run_dir)
    for path, evaluation in zip(paths, found.values(), strict=True):
        check_number(path, evaluation, run, "delete it, and evaluate again")
    missing = [NAMES[name] for name in NAMES if name not in found]
    notes = [f"Not evaluated, or not in the run folder: {', '.join(missing)}."] if missing else []
    if not found:
        return notes[0]
    newest = latest_step(root_of(cfg))
    if step != newest:
        notes.append(
            f"These evaluations do not record their step; the newest checkpoint is "
            f"{newest}, this export is of {step}."
        )
    order = [name for name in NAMES if name in found]
    order += [name for name in found if name not in NAMES]
    rows = [[NAMES.get(name, name), *map(_cell, _summary(found[name]))] for name in order]
    protocols = [f"- {NAMES.get(name, name)}: {_protocol(found[name])}" for name in order]
    text = ["Means over pairs with 95 % bootstrap intervals.", markdown([_heading(found), *rows])]
    return "\n\n".join([*text, "Protocol:\n\n" + "\n".join(protocols), *notes])


def _heading(found: dict[str, dict]) -> list[str]:
    thresholds = {evaluation["protocol"].get("iou_threshold") for evaluation in found.values()}
    if len(thresholds) > 1 or None in thresholds:  # then the protocols below tell them apart
        return ["", *(label.partition("@")[0] for label in METRICS.values())]
    return ["", *(label.format(threshold=min(thresholds)) for label in METRICS.values())]


def _summary(evaluation: dict) -> list:
    return [evaluation["summary"].get(metric) for metric in METRICS]


def _cell(value: list[float] | None) -> str:
    return "missing" if value is None else "{:.3f} [{:.3f}, {:.3f}]".format(*value)


def _protocol(evaluation: dict) -> str:
    facts = evaluation["protocol"].items()
    return ", ".join(f"{name} {value}" for name, value in facts if name != "question")


def _made_by(path: Path, cfg: Config) -> str:
    lines = [f"- configuration: {config_hash(cfg)}, whole in `dig_jax.json`"]
    if not path.is_file():
        return "\n".join([*lines, "- commit and versions: no manifest.json in the run folder"])
    start = (read_manifest(path.parent).get("starts") or [{}])[-1]
    versions = ", ".join(f"{name} {value}" for name, value in start.get("versions", {}).items())
    facts = {name: start.get(name) for name in ("commit", "time", "device", "devices", "platform")}
    facts["versions"] = versions or None
    lines += [f"- {k}: {'not recorded' if v is None else v}" for k, v in facts.items()]
    return "\n".join(lines)


def _limits(cfg: Config) -> str:
    return (
        f"Trained and scored on synthetic renders of one generator; nothing here was measured on "
        f"photographs, on other image sizes or on other questions. Training pads to at most "
        f"{cfg.data.max_boxes} true boxes, and answers beyond {cfg.reward.max_boxes} boxes count "
        f"as malformed. Held-out scenes are fresh draws of the same recipe, not another domain."
    )
