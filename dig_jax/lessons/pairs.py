"""Difference pairs as rows of a lesson: drawn by the curriculum, augmented, labelled."""

from collections.abc import Sequence

import numpy as np

from dig_jax.boxes import boxes_text, reading_order, unit_from_px
from dig_jax.config import Config
from dig_jax.data import records
from dig_jax.data.feed.checks import drawn_splits
from dig_jax.data.feed.curriculum import index_table
from dig_jax.data.feed.source import PairSource
from dig_jax.inputs.images import Size, resize
from dig_jax.inputs.prompt import Processor, PromptInputs, repeat_prompt
from dig_jax.learner.sft import Lesson
from dig_jax.lessons import answers, cells
from dig_jax.lessons.augment import Labelled, augment

_DRAW = 0  # of this file's random numbers, beside those of questions


class PairLessons:
    """The pairs of every step as rows: a function of the step and of the rows that are wanted.

    prompt  the one row that all pairs share
    size    (height, width) at which pictures reach the model
    cell    px: side of a cell of the model

    Opening it checks the splits as `PairSource` does.
    """

    def __init__(
        self, cfg: Config, processor: Processor, prompt: PromptInputs, size: Size, cell: int
    ):
        self._cfg, self._processor, self._prompt, self._size = cfg, processor, prompt, size
        self._grid = size[0] // cell, size[1] // cell
        self._labels = bool(cfg.sft.changed_weight or cfg.sft.things_weight)
        self._opening = answers.opening(processor, prompt.row(0))
        names = drawn_splits(cfg)
        self._sources = {
            name: PairSource(cfg.data, name, size, cache=cfg.data.cache) for name in names
        }
        self._table = index_table(cfg, {name: len(s) for name, s in self._sources.items()})

    def rows(self, step: int, which: Sequence[int]) -> Lesson:
        """Rows `which` of a step's B, in that order."""
        found = [self._row(step * self._cfg.pairs_per_step + row) for row in which]
        cfg, length = self._cfg, self._cfg.rollout.max_tokens
        return Lesson(
            prompt=repeat_prompt(self._prompt, len(found)),
            images=np.stack([pair.images for pair, _, _ in found]),
            tokens=answers.padded([ids for _, ids, _ in found], length, np.int32),
            weight=answers.padded(
                [answers.token_weights(self._processor, ids, cfg.sft) for _, ids, _ in found],
                length,
                np.float32,
            ),
            cells=cells.stack_cells([labels for _, _, labels in found]) if self._labels else None,
        )

    def _row(self, draw: int) -> tuple[Labelled, list[int], tuple[np.ndarray, ...]]:
        """(pair, ids of its answer, labels of its cells) of a draw of the run."""
        bucket = self._cfg.data.buckets[self._table.bucket[draw]]
        index = int(self._table.offset[draw])
        pair = self._labelled(self._sources[bucket], index)
        if self._cfg.sft.augment:
            pair = augment(pair, np.random.default_rng([self._cfg.seed, _DRAW, draw]))
        text, where = self._opening + boxes_text(pair.boxes), f"pair {index} of {bucket}"
        ids = answers.answer_ids(self._processor, text, self._cfg.rollout.max_tokens, where)
        if not self._labels:
            return pair, ids, ()
        return pair, ids, (*cells.difference_labels(pair.boxes, self._grid), *self._things(pair))

    def _labelled(self, source: PairSource, index: int) -> Labelled:
        if not self._cfg.sft.things_weight:
            row = source[index]
            return Labelled(row.images, reading_order(row.boxes_unit))
        record = source.record(index, masks=True)
        images = np.stack([resize(i, self._size) for i in (record.image_a, record.image_b)])
        height, width = record.image_a.shape[:2]
        boxes = unit_from_px(record.boxes_px, width, height).reshape(-1, 4)
        return Labelled(images, reading_order(boxes), *_known(record))

    def _things(self, pair: Labelled) -> tuple[np.ndarray, ...]:
        if not pair.masks:
            return cells.unknown_things(self._grid)
        things, bins, core = cells.thing_labels(pair.masks[0], pair.things[0], self._grid)
        if pair.recolored:
            things[:, 1] = cells.UNKNOWN
        return things, bins, core


def _known(pair: records.Pair) -> tuple[tuple[np.ndarray, ...], tuple[list[dict], ...]]:
    """Masks and things of both pictures; () where the pair was imported, or masks are not read."""
    if pair.mask_a is None or pair.mask_b is None or "camera" not in pair.meta:
        return (), ()
    return (pair.mask_a, pair.mask_b), (pair.meta["a"], pair.meta["b"])
