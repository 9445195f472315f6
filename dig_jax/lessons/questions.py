"""Questions of benchmarks with their answers, as rows of a lesson on a few static shapes.

All rows of a step have one shape. An epoch asks every question once, or as often as its benchmark
is told to be, in an order of its own; the last step of a shape in an epoch is filled up with the
first questions of that shape.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dig_jax.benchmarks.picture_cells import size_of
from dig_jax.benchmarks.question import Picture, Question
from dig_jax.benchmarks.questions import read_questions, wanted
from dig_jax.config import Config, PromptConfig
from dig_jax.inputs.buckets import Bucket, on_canvas
from dig_jax.inputs.images import ImageRules, Size, prepare, target_size
from dig_jax.inputs.picture_files import read_picture
from dig_jax.inputs.prompt import Processor, check_ids, prompt_of_ids, render
from dig_jax.inputs.shapes import Shape, fewest, rounded
from dig_jax.learner import asked as labels
from dig_jax.learner.sft import Lesson
from dig_jax.lessons import answers
from dig_jax.lessons.asked import labels_of, stack_asked
from dig_jax.lessons.augment import dimmed
from dig_jax.lessons.shown import read_things, things_of
from dig_jax.model.config import ModelConfig

_DRAW, _ORDER = 1, 2  # of this file's random numbers
_ROOM = 2**31  # bytes of pictures that are kept
_ROUND = 8  # tokens: lengths of prompts and answers are multiples of it


@dataclass(frozen=True)
class Asked:
    """A question as token ids.

    ids     of its prompt, one image token per picture
    sizes   (height, width) of its pictures as the model sees them
    answer  token ids, the end included, and what each of them weighs
    times   in an epoch
    """

    where: str
    times: int
    question: Question
    ids: list[int]
    sizes: list[Size]
    answer: list[int]
    weight: np.ndarray

    def shape(self, cell: int) -> Shape:
        """Rounded up."""
        pictures = sum((y // cell) * (x // cell) - 1 for y, x in self.sizes)
        canvas = tuple(max((s[axis] for s in self.sizes), default=cell) for axis in (0, 1))
        tokens = rounded(len(self.ids) + pictures, _ROUND)
        return Shape(canvas, len(self.sizes), tokens, rounded(len(self.answer), _ROUND))


class QuestionLessons:
    """The questions of every step as rows: a function of the step and of the rows wanted.

    Opening it reads all questions and the sizes of their pictures, and renders every prompt; it
    raises naming the question, or the file, with what is wrong and the remedy.
    """

    def __init__(self, cfg: Config, processor: Processor, model: ModelConfig, rules: ImageRules):
        self._cfg, self._model, self._rules = cfg, model, rules
        self._asked = _read(cfg, processor, model, rules)
        cell = model.vision.cell
        shapes = [asked.shape(cell) for asked in self._asked]
        self.shapes = fewest(Counter(shapes), cfg.sft.shapes, cell)
        which = [next(n for n, s in enumerate(self.shapes) if s.holds(one)) for one in shapes]
        times = np.array([asked.times for asked in self._asked])
        members = (np.flatnonzero(np.equal(which, n)) for n in range(len(self.shapes)))
        self._of_shape = [np.repeat(some, times[some]) for some in members]
        self._kept, self._room = {}, _ROOM
        self._piece = functools.cache(lambda token: processor.tokenizer.decode([token]))
        self._shown = read_things(cfg.sft.questions_root) if cfg.sft.asked_weight else {}
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def __len__(self) -> int:
        return len(self._asked)

    def rows(self, step: int, which: Sequence[int]) -> Lesson:
        """Rows `which` of a step's questions, in that order."""
        epoch, at = divmod(step, len(self.order(0)))
        number, batch = self.order(epoch)[at]
        rows, shape = [self._asked[batch[row]] for row in which], self.shapes[number]
        pictures = [self._pictures(row, step, n) for row, n in zip(rows, which, strict=True)]
        return Lesson(
            prompt=prompt_of_ids(
                self._model,
                [row.ids for row in rows],
                [row.sizes for row in rows],
                names=[row.where for row in rows],
                canvas=shape.canvas,
                tokens=shape.prefix,
                images=shape.images,
            ),
            images=on_canvas(pictures, Bucket(shape.canvas, shape.prefix, shape.images)),
            tokens=answers.padded([row.answer for row in rows], shape.suffix, np.int32),
            weight=answers.padded([row.weight for row in rows], shape.suffix, np.float32),
            asked=stack_asked([self._labels(row) for row in rows])
            if self._cfg.sft.asked_weight
            else None,
        )

    def _order(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """(number of the shape, questions i64[rows of a step]) of every step of an epoch."""
        rng, rows = np.random.default_rng([self._cfg.seed, _ORDER, epoch]), self._rows
        batches = []
        for number, members in enumerate(self._of_shape):
            order = rng.permutation(members)
            filled = np.resize(order, rounded(len(order), rows)).reshape(-1, rows)
            batches += [(number, batch) for batch in filled]
        return [batches[i] for i in rng.permutation(len(batches))]

    @property
    def _rows(self) -> int:
        return self._cfg.sft.questions_per_step

    def _labels(self, asked: Asked) -> labels.Asked:
        """Its dense labels, with places in the prompt as the model reads it."""
        things = things_of(asked.question.pictures, self._shown)
        found = labels_of(asked.question, [self._piece(i) for i in asked.ids], things)
        cell, places = self._model.vision.cell, found.places
        at = np.flatnonzero(np.equal(asked.ids, self._model.image_token))
        for image, (height, width) in zip(at, asked.sizes, strict=True):
            places = places + (found.places > image) * ((height // cell) * (width // cell) - 1)
        return found.replace(places=places)

    def _pictures(self, asked: Asked, step: int, row: int) -> list[np.ndarray]:
        pictures = [
            prepare(read_picture(self._file(picture)), self._rules, asked.where)
            for picture in asked.question.pictures
        ]
        if not self._cfg.sft.augment:
            return pictures
        rng = np.random.default_rng([self._cfg.seed, _DRAW, step * self._rows + row])
        return [dimmed(picture, rng) for picture in pictures]

    def _file(self, picture: Picture) -> bytes:
        """A picture's file, kept while there is room: of a table each is cut out of megabytes."""
        data = self._kept.get(picture.key)
        if data is None:
            data = picture.read()
            if len(data) <= self._room:
                self._kept[picture.key], self._room = data, self._room - len(data)
        return data


def _times(root: str, request: str) -> dict[str, dict[str, int]]:
    """How often an epoch asks each benchmark, and categories of it, by the first word of each.

    "pope*3,cvbench/Count*2,here" -> {"pope": {"": 3}, "cvbench": {"Count": 2, "": 1}, and of all
    others: {"": 1}}
    """
    found: dict[str, dict[str, int]] = {}
    for word in request.split(","):
        what, _, times = word.strip().partition("*")
        what, _, category = map(str.strip, what.partition("/"))
        for name in wanted(root, what):
            found.setdefault(name, {}).setdefault(category, int(times or 1))
    return found


def _questions(root: str, name: str, times: dict[str, int]) -> list[tuple[Question, int]]:
    """Those of a benchmark that an epoch asks, and how often; ValueError where a category is none.

    times  of categories, and of all others as ""
    """
    questions = read_questions(root, name)[0]
    categories = [question.groups.get("category", "") for question in questions]
    if unknown := times.keys() - {"", *categories}:
        known = [f"{name}/{category}" for category in sorted({*categories} - {""})] or [name]
        raise ValueError(
            f"sft.questions={name}/{min(unknown)} is no category of {name}; use {', '.join(known)}"
        )
    often = [times.get(category, times.get("", 0)) for category in categories]
    return [(question, n) for question, n in zip(questions, often, strict=True) if n]


def _read(cfg: Config, processor: Processor, model: ModelConfig, rules: ImageRules) -> list[Asked]:
    found, sizes, root = [], {}, cfg.sft.questions_root
    for name, of_categories in _times(root, cfg.sft.questions).items():
        for question, times in _questions(root, name, of_categories):
            where = f"{name} {question.id}"
            ids = render(PromptConfig(), processor, question.prompt, len(question.pictures))
            check_ids(ids, model.text.vocab, where, processor)
            for picture in question.pictures:
                if picture.key not in sizes:
                    width, height = size_of(picture)
                    sizes[picture.key] = target_size(height, width, rules, where)
            text = answers.opening(processor, ids) + answers.answer_text(question)
            answer = answers.answer_ids(processor, text, cfg.rollout.max_tokens, where)
            weight = answers.token_weights(processor, answer, cfg.sft)
            shown = [sizes[picture.key] for picture in question.pictures]
            found.append(Asked(where, times, question, ids, shown, answer, weight))
    return found
