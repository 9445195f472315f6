"""Rows are functions of the step: of pairs and of questions, whole, cut up, or begun anew."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.benchmarks.questions import read_questions, wanted
from dig_jax.config import SftConfig
from dig_jax.data import records
from dig_jax.data.feed.checks import check_data
from dig_jax.inputs.prompt import decode_answers, load_processor
from dig_jax.learner.cells import UNKNOWN
from dig_jax.lessons import augment
from dig_jax.lessons.feed import StepLessons, stream
from tests.corpora import stored_records
from tests.lessons import schools
from tests.tiny_model import ASSETS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    schools.paint(root)
    return root


@pytest.fixture(scope="module")
def cfg(data, tmp_path_factory):
    asked = schools.ask(tmp_path_factory.mktemp("asked"))
    return schools.config(data, asked, augment=True, things_weight=1.0, changed_weight=1.0)


@pytest.fixture(scope="module")
def makers(cfg):
    return schools.pair_lessons(cfg), schools.question_lessons(cfg)


def equal(one, other) -> bool:
    leaves = jax.tree.leaves(jax.tree.map(lambda a, b: (np.asarray(a) == b).all(), one, other))
    return all(leaves)


def texts(lesson) -> list[str]:
    ended = (lesson.weight > 0).sum(-1)
    return decode_answers(load_processor(ASSETS), lesson.tokens, ended, stops=())


def test_a_resumed_run_learns_from_what_a_straight_one_does(cfg, makers):
    straight = list(stream(StepLessons(cfg, *makers), 2))
    assert len(straight) == cfg.steps
    for first in (0, 3, cfg.steps):
        anew = schools.pair_lessons(cfg), schools.question_lessons(cfg)
        resumed = list(stream(StepLessons(cfg, *anew, first), 1))
        assert len(resumed) == cfg.steps - first
        assert all(equal(a, b) for a, b in zip(resumed, straight[first:], strict=True))
    assert not equal(straight[0].pairs.images, straight[1].pairs.images)


def test_the_shares_of_processes_are_the_whole_batch(cfg, makers):
    for step in (0, 5):
        whole = StepLessons(cfg, *makers)[step]
        parts = [StepLessons(cfg, *makers, 0, ((share,), 2))[step] for share in (0, 1)]
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), *parts)
        assert equal(joined, whole)


def test_pairs_follow_the_curriculum(cfg, makers):
    """One difference in the first stage, then as many of one as of two."""
    counts = [text.count("bbox") for step in range(cfg.steps)
              for text in texts(makers[0].rows(step, range(schools.PAIRS)))]  # fmt: skip
    assert counts[:16] == [1] * 16
    assert sorted(counts[16:]) == [1] * 8 + [2] * 8


def test_an_epoch_asks_every_question_once_and_another_in_another_order(cfg, makers):
    questions = makers[1]
    epochs = [questions.order(epoch) for epoch in (0, 1)]
    total = len(questions)
    assert total > 100
    for order in epochs:
        asked = np.concatenate([batch for _, batch in order])
        assert set(asked) == set(range(total))
        assert len(asked) - total < schools.QUESTIONS * len(questions.shapes)
        assert all(len(batch) == schools.QUESTIONS for _, batch in order)
    first = [np.concatenate([batch for _, batch in order]) for order in epochs]
    assert (first[0] != first[1]).mean() > 0.9


def test_a_benchmark_is_asked_as_often_as_it_is_told(cfg):
    """The first that names it counts: what is left of a suite is asked once."""
    root = cfg.sft.questions_root
    expressions = len(read_questions(root, "refcoco_val")[0])
    alone = schools.question_lessons(cfg, questions="refcoco_val*3", shapes=1)
    asked = np.concatenate([batch for _, batch in alone.order(0)])
    counts = np.bincount(asked, minlength=expressions)
    assert len(alone) == expressions == len(counts)
    assert counts.min() == 3
    assert counts.sum() - 3 * expressions < schools.QUESTIONS
    mixed = schools.question_lessons(cfg, questions="refcoco_val*3, here", shapes=1)
    asked = np.concatenate([batch for _, batch in mixed.order(0)])
    assert len(asked) - (len(mixed) + 2 * expressions) < schools.QUESTIONS


def test_a_category_is_asked_as_often_as_it_is_told_and_alone_where_nothing_else_is_named(cfg):
    """Wherever its word stands; the rest of its benchmark as often as that is told."""
    questions = read_questions(cfg.sft.questions_root, "cvbench")[0]
    is_count = np.array([question.groups["category"] == "Count" for question in questions])
    for request in ("cvbench/Count*5,cvbench*2", "cvbench*2, cvbench/Count*5"):
        lessons = schools.question_lessons(cfg, questions=request, shapes=1)
        asked = np.concatenate([batch for _, batch in lessons.order(0)])
        counts = np.bincount(asked, minlength=len(questions))
        assert np.all(counts >= np.where(is_count, 5, 2))
        assert (counts - np.where(is_count, 5, 2)).sum() < schools.QUESTIONS
    assert len(schools.question_lessons(cfg, questions="cvbench/Count", shapes=1)) == is_count.sum()
    with pytest.raises(ValueError, match=r"Cout is no category of cvbench; use cvbench/Count"):
        schools.question_lessons(cfg, questions="cvbench,cvbench/Cout")
    with pytest.raises(ValueError, match=r"refcoco_val/Count is no category .*; use refcoco_val$"):
        schools.question_lessons(cfg, questions="refcoco_val/Count")


def test_a_category_of_several_words_can_be_named(cfg):
    """VSR's are relations."""
    questions = read_questions(cfg.sft.questions_root, "vsr")[0]
    relation = next(q.groups["category"] for q in questions if " " in q.groups["category"])
    lessons = schools.question_lessons(cfg, questions=f"vsr/{relation}*2", shapes=1)
    assert len(lessons) == sum(q.groups["category"] == relation for q in questions)


def test_refcocos_training_split_is_read_as_its_others_and_is_in_no_suite(cfg, tmp_path):
    """The same table under the name of another split; `here` means what is scored."""
    (source,) = (Path(cfg.sft.questions_root) / "refcoco_val").glob("*.parquet")
    (tmp_path / "refcoco").mkdir()
    shutil.copyfile(source, tmp_path / "refcoco" / "train-00000-of-00001.parquet")
    found = read_questions(tmp_path, "refcoco_train")[0]
    known = read_questions(cfg.sft.questions_root, "refcoco_val")[0]
    assert [q.target for q in found] == [q.target for q in known]
    with pytest.raises(ValueError, match="holds no benchmark"):
        wanted(tmp_path, "here")
    alone = schools.question_lessons(
        dataclasses.replace(cfg, sft=dataclasses.replace(cfg.sft, questions_root=str(tmp_path))),
        questions="refcoco_train",
    )
    assert all(text.startswith('[{"bbox_2d": [') for text in texts(alone.rows(0, range(4))))


def test_rows_hold_the_question_its_pictures_and_its_answer(cfg, makers):
    """Against the benchmarks' readers, for a step of every shape."""
    root = cfg.sft.questions_root
    known = [q for name in wanted(root, "here") for q in read_questions(root, name)[0]]
    tokenizer = load_processor(ASSETS).tokenizer
    seen = set()
    for step in range(len(makers[1].order(0))):
        number, batch = makers[1].order(0)[step]
        if number in seen:
            continue
        seen.add(number)
        lesson = makers[1].rows(step, range(schools.QUESTIONS))
        for row, index in enumerate(batch):
            question, prompt = known[index], lesson.prompt
            text = tokenizer.decode(prompt.row(row))
            assert question.prompt in text
            width = {"yes_no": 1, "letter": 1, "box": 20}[question.kind]
            assert len(texts(lesson)[row].removesuffix("<|im_end|>")) >= width
            assert (prompt.grids[row] > 0).all(-1).sum() == len(question.pictures)
        answers = [text.removesuffix("<|im_end|>") for text in texts(lesson)]
        targets = [known[index].target for index in batch]
        boxes = [target for target in targets if not isinstance(target, str)]
        assert all(a.startswith("[{") for a, t in zip(answers, targets, strict=True) if t in boxes)
        words = [(a, t) for a, t in zip(answers, targets, strict=True) if isinstance(t, str)]
        assert all(a == t.capitalize() for a, t in words)
    assert len(seen) == len(makers[1].shapes)


def test_labels_of_a_question_stand_at_its_end_and_at_the_last_words_of_its_options(cfg):
    """In the prompt as the model reads it, each picture as many tokens as it has cells."""
    labelled = schools.question_lessons(cfg, asked_weight=1.0, questions="vstar")
    tokenizer = load_processor(ASSETS).tokenizer
    lesson, told = labelled.rows(0, range(schools.QUESTIONS)), 0
    for row, question in enumerate(labelled.order(0)[0][1]):
        places, letter = lesson.asked.places[row], lesson.asked.letter[row]
        assert places[0] == lesson.prompt.length[row] - 1
        for place, number in zip(places, letter, strict=True):
            if number != UNKNOWN:
                option = labelled._asked[question].question.options[number]
                piece = tokenizer.decode([lesson.prompt.tokens[row, place]])
                assert option.split()[-1].endswith(piece.strip())
                told += 1
    assert told > schools.QUESTIONS
    assert (lesson.asked.bins[..., 0] != UNKNOWN).any()  # things.jsonl was read


def test_few_shapes_hold_all_questions(cfg):
    one, several = (schools.question_lessons(cfg, shapes=n).shapes for n in (1, 4))
    assert len(one) == 1
    assert 1 < len(several) <= 4
    assert all(one[0].holds(shape) for shape in several)


def test_swapping_and_mirroring_carry_the_labels_along(data):
    """The changed cells of a mirrored pair are the mirrored changed cells; so are its things."""
    cfg = schools.config(data, things_weight=1.0)
    maker = schools.pair_lessons(cfg)
    pair = maker._labelled(maker._sources["dual"], 3)
    flipped = augment.mirrored(pair)
    np.testing.assert_array_equal(flipped.images, pair.images[:, :, ::-1])
    np.testing.assert_array_equal(augment.mirrored(flipped).boxes, pair.boxes)
    rows, cols = schools.SIZE[0] // schools.CELL, schools.SIZE[1] // schools.CELL
    *labels, core = maker._things(pair)
    *others, other_core = maker._things(flipped)
    assert core.sum() == other_core.sum() > 0
    for one, other in zip(labels, others, strict=True):
        kinds, turned = (a.reshape(rows, cols, 4) for a in (one, other))
        known = (kinds[:, ::-1] == UNKNOWN) == (turned == UNKNOWN)
        assert known.all()
    np.testing.assert_array_equal(
        others[0].reshape(rows, cols, 4), labels[0].reshape(rows, cols, 4)[:, ::-1]
    )


def test_recoloured_pictures_are_not_called_by_their_old_colours(data):
    cfg = schools.config(data, things_weight=1.0)
    maker = schools.pair_lessons(cfg)
    pair = maker._labelled(maker._sources["single"], 0)
    things = maker._things(pair)[0]
    assert (things[:, 1] != UNKNOWN).any()
    things = maker._things(dataclasses.replace(pair, recolored=True))[0]
    assert (things[:, 1] == UNKNOWN).all()
    assert (things[:, 0] != UNKNOWN).all()


def test_a_pair_is_shown_as_it_is_unless_augmented(data):
    cfg = schools.config(data)
    lesson = schools.pair_lessons(cfg).rows(0, range(schools.PAIRS))
    stored = [records.decode(record) for record in stored_records(data, "single")]
    known = {np.stack([pair.image_a, pair.image_b]).tobytes() for pair in stored}
    assert {image.tobytes() for image in lesson.images} <= known
    assert lesson.cells is None  # nobody asked for labels
    changed = schools.pair_lessons(schools.config(data, changed_weight=1.0)).rows(0, [0])
    assert changed.cells.changed.any()
    assert (changed.cells.things == UNKNOWN).all()  # nor here for masks


def test_nothing_is_opened_that_nothing_is_learned_from(cfg):
    """No pairs, no splits: a run on RefCOCO alone has no data.root."""
    alone = dataclasses.replace(
        cfg,
        sft=dataclasses.replace(cfg.sft, pairs_weight=0.0),
        data=dataclasses.replace(cfg.data, root="not_there"),
    )
    assert check_data(alone) == {}
    rows = StepLessons(alone, None, schools.question_lessons(alone))[0]
    assert rows.pairs is None
    assert len(rows.questions.tokens) == schools.QUESTIONS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions_per_step": 4}, "sft.questions_per_step=4 reads none; name the folder"),
        ({"pairs_weight": 0.0}, "sft.pairs_weight=0.0 leaves nothing to learn; ask questions"),
        (
            {"questions": "pope;vsr"},
            "sft.questions='pope;vsr' is no list of benchmarks; write names",
        ),
        ({"questions": "pope*0"}, "is no list of benchmarks"),
        ({"questions": "cvbench/ *2"}, "is no list of benchmarks"),
        ({"questions_root": "gs://b/f", "questions_per_step": 4}, "sft.questions_root.*address"),
    ],
)
def test_what_cannot_be_learned_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SftConfig(**changes)
