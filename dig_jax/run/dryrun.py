"""A few real steps on a cut of the model: does this run start, and what does it look like?

The loop, data, prompt, mesh and reward are the run's own; of the model only the first blocks are
read. Nothing is left behind: what a run writes goes to a temporary folder. Such a model answers
nonsense, so its rewards say nothing; that they are computed does.
"""

import re
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace

import jax

from dig_jax.common.commandline import WIDTH, clear_errors
from dig_jax.common.typed import require
from dig_jax.config import Config, LogConfig
from dig_jax.hf.weights import read_model_config
from dig_jax.run.runlog import read_rows
from dig_jax.run.samples import ROWS
from dig_jax.run.session import Session, open_session

BLOCKS = 2  # text and vision blocks that are kept
SHOWN = 600  # characters of an answer
PARTS = ("format", "f1", "iou", "precision", "recall", "count_ok", "n_pred")  # come first
UNSHOWN = ("reward", "true_positives", "empty")  # follow from the others, or stand elsewhere


def dry_run(cfg: Config, steps: int, train: Callable[[Session, int], None]) -> None:
    """Trains for `steps` steps by `train(session, steps)` and prints what went in and came out.

    Ends the program with a message where the configuration, the checkpoint folder or the data
    are wrong.
    """
    with tempfile.TemporaryDirectory(prefix="dig_jax_dry_run_") as folder:
        with clear_errors():
            ok = 1 <= steps < cfg.steps
            rule = f"is not between 1 and steps={cfg.steps}, the whole run"
            fewer = min(2, cfg.steps - 1)
            remedy = f"use {fewer}" if fewer else "leave it out: one step is the whole run"
            require(ok, "--dry-run", steps, rule, remedy)
            session = open_session(dry_config(cfg, folder), blocks=BLOCKS)
        tell(f"{described(session)}\n\nprompt:\n{indented(prompt_text(session))}\n")
        train(session, steps)
        tell("\n".join(["", *map(answer_text, read_rows(folder, name=ROWS)), ""]))
        tell(f"dry run: {verdict(read_rows(folder, kind='train'))}")


def dry_config(cfg: Config, folder: str) -> Config:
    """The run's configuration but for what it would leave behind, and its validations."""
    return replace(
        cfg,
        run_dir=folder,
        data=replace(cfg.data, cache="none"),
        eval=replace(cfg.eval, every=0),
        checkpoint=replace(cfg.checkpoint, every=cfg.steps, root=""),
        log=LogConfig(samples_every=1, samples=1),
    )


def described(session: Session) -> str:
    """What is run: the cut and the sizes of a step."""
    cfg, cut = session.cfg, session.model
    whole = read_model_config(cfg.model.source)
    head = (
        f"dry run of {cfg.model.source}, cut to {cut.text.layers} of {whole.text.layers} text and "
        f"{cut.vision.depth} of {whole.vision.depth} vision blocks\n"
    )
    if cfg.learner == "sft":
        pairs = cfg.pairs_per_step if cfg.sft.pairs_weight else 0
        return f"{head}a step has {pairs} pairs and {cfg.sft.questions_per_step} questions"
    return (
        f"{head}a step has {cfg.pairs_per_step} pairs x {cfg.rollout.group} answers of up to "
        f"{cfg.rollout.max_tokens} tokens; a cut model answers nonsense"
    )


def prompt_text(session: Session) -> str:
    """The prompt as the model reads it, each run of image tokens as one with its number."""
    tokenizer = session.processor.tokenizer
    text = tokenizer.decode(session.prompt.tokens[0, : session.prompt.length[0]])
    pad = re.escape(tokenizer.convert_ids_to_tokens(session.model.image_token))
    return re.sub(f"({pad})+", lambda run: f"{run[1]} x {run[0].count(run[1])}", text)


def answer_text(row: Mapping) -> str:
    """A row of samples.jsonl for a reader: an answer, its boxes, its rewards by part."""
    text = row["text"]
    more = f" ... ({len(text)} characters)" if len(text) > SHOWN else ""
    names = dict.fromkeys((*PARTS, *row["scores"]))
    parts = (f"{name} {row['scores'][name]:.3g}" for name in names if name not in UNSHOWN)
    group = ", ".join(f"{reward:.3g}" for reward in row["group_rewards"])
    boxes = [
        f"{_corners(box)} IoU {iou:.2f}"
        for box, iou in zip(row["pred"], row["match_iou"], strict=True)
    ]
    lines = {
        "answer": text[:SHOWN].strip() + more or "(empty)",
        "form": row["verdict"],
        "boxes": "; ".join(boxes) or "none",
        "truth": "; ".join(map(_corners, row["true"])) or "none",
        "reward": f"{row['scores']['reward']:.3g} of the group's {group}",
        "parts": ", ".join(parts),
    }
    head = f"step {row['step'] + 1}, pair {row['pair_id']} of {row['bucket']}:"
    return "\n".join([head, *(indented(f"{name:<8}{line}", 8) for name, line in lines.items())])


def verdict(rows: list[dict]) -> str:
    """The last line, of the rows of metrics.jsonl."""
    compiled, times = sum(row["time/compile"] for row in rows), [row["time/step"] for row in rows]
    return (
        f"{len(rows)} steps, {compiled:.0f} s of them compiling, {sum(times[-1:]):.1f} s the last "
        f"one, every number finite, nothing kept: fine"
    )


def indented(text: str, hang: int = 0) -> str:
    """Text two characters to the right, wrapped; all but its first line `hang` characters more."""
    lines, more = [], " " * (2 + hang)
    for line in text.splitlines():
        first = more if lines else "  "
        lines += textwrap.wrap(
            line, WIDTH, initial_indent=first, subsequent_indent=more, break_on_hyphens=False
        ) or [""]
    return "\n".join(lines)


def tell(text: str) -> None:
    """Prints on the first process alone."""
    if jax.process_index() == 0:
        print(text, flush=True)


def _corners(box: list[float]) -> str:
    return f"({', '.join(f'{side:.2f}' for side in box)})"
