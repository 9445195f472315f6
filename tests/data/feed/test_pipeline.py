"""Batches from shards: order, resume, process slices, padding, and errors before the start."""

import dataclasses
import importlib
import itertools
import os
import re
import shutil

import jax
import numpy as np
import pytest

from dig_jax.common import typed
from dig_jax.common.files import write_json
from dig_jax.config import Config, CurriculumConfig, DataConfig, EvalConfig, Stage
from dig_jax.data import records
from dig_jax.data.feed import checks, curriculum, pipeline, workers
from dig_jax.inputs.images import resize

SIZES = {"single": 5, "dual": 4, "heldout": 7}
WIDTH, HEIGHT = 32, 16


def pair(split, index, *, boxes=None, width=WIDTH):
    """Images that say where they come from, and 1 + index % 3 boxes."""
    rng = np.random.default_rng((len(split), index))
    images = rng.integers(0, 256, (2, HEIGHT, width, 3), np.uint8)
    mask = np.zeros((HEIGHT, width), np.uint8)
    count = 1 + index % 3 if boxes is None else boxes
    differences = [{"id": n, "box": [2 * n, n, 2 * n + 8, n + 4]} for n in range(count)]
    meta = {"differences": differences, "split": split, "idx": index}
    return records.Pair(*images, mask, mask, meta)


def write_split(root, split, pairs, *, shards=2):
    folder = root / split
    folder.mkdir(parents=True)
    parts = np.array_split(np.arange(len(pairs)), shards)
    entries = []
    for number, part in enumerate(parts):
        path = folder / records.shard_name(number, shards)
        entries.append(records.write_shard(path, [records.encode(pairs[i]) for i in part], {}))
    manifest = {"complete": True, "shard_count": shards, "shards": entries}
    write_json(folder / records.MANIFEST, manifest)


@pytest.fixture
def root(tmp_path):
    for split, size in SIZES.items():
        write_split(tmp_path, split, [pair(split, i) for i in range(size)])
    return tmp_path


def config(root, *settings):
    stages = (Stage(until=3, weights={"single": 1.0}), Stage(8, {"single": 0.25, "dual": 0.75}))
    cfg = Config(
        steps=8,
        pairs_per_step=4,
        data=DataConfig(root=str(root), image_width=WIDTH, image_height=HEIGHT, max_boxes=3),
        curriculum=CurriculumConfig(stages=stages),
        eval=EvalConfig(pairs=7, batch=3),
    )
    return typed.override(cfg, list(settings))


def identities(batches):
    return [list(zip(b.bucket.tolist(), b.pair_id.tolist(), strict=True)) for b in batches]


def test_a_batch_holds_the_pairs_the_index_table_names(root):
    cfg = config(root)
    batches = list(pipeline.train_pairs(cfg, 0))
    table = curriculum.index_table(cfg, SIZES)
    got = list(itertools.chain.from_iterable(identities(batches)))
    assert got == list(zip(table.bucket.tolist(), table.offset.tolist(), strict=True))
    assert len(batches) == 8
    for batch in batches:
        assert batch.images.shape == (4, 2, HEIGHT, WIDTH, 3)
        for row in range(4):
            split = cfg.data.buckets[batch.bucket[row]]
            want = pair(split, int(batch.pair_id[row]))
            np.testing.assert_array_equal(batch.images[row], [want.image_a, want.image_b])
            assert batch.truth.valid[row].sum() == len(want.boxes_px)


def test_records_are_resized_to_the_models_size_and_keep_their_boxes(root):
    """Training and evaluation alike, by the resize that equals HF's; the boxes are relative."""
    size = (HEIGHT * 2, WIDTH + 16)
    cfg = config(root)
    for own, batch in (
        (next(pipeline.train_pairs(cfg, 0)), next(pipeline.train_pairs(cfg, 0, size=size))),
        (pipeline.eval_pairs(cfg)[1], pipeline.eval_pairs(cfg, size=size)[1]),
    ):
        assert batch.images.shape == (len(own.images), 2, *size, 3)
        for before, after in zip(own.images.reshape(-1, HEIGHT, WIDTH, 3),
                                 batch.images.reshape(-1, *size, 3), strict=True):  # fmt: skip
            np.testing.assert_array_equal(after, resize(before, size))
        np.testing.assert_array_equal(batch.truth.boxes, own.truth.boxes)
        assert identities([batch]) == identities([own])


def test_records_of_the_models_size_stay_as_they_are_to_the_byte(root):
    same = next(pipeline.train_pairs(config(root), 0, size=(HEIGHT, WIDTH)))
    own = next(pipeline.train_pairs(config(root), 0))
    assert same.images.tobytes() == own.images.tobytes()


def test_boxes_are_in_the_unit_frame_and_padded(root):
    batch = pipeline.eval_pairs(config(root))[0]
    assert batch.truth.boxes.shape == (3, 3, 4)
    np.testing.assert_array_equal(batch.truth.valid.sum(1), [1, 2, 3])
    expected = [2 / WIDTH, 1 / HEIGHT, 10 / WIDTH, 5 / HEIGHT]
    np.testing.assert_allclose(batch.truth.boxes[1, 1], expected)
    assert not batch.truth.boxes[0, 1:].any()


@pytest.mark.parametrize("step", [1, 3, 7, 8])
def test_resuming_at_a_step_equals_running_straight_through_it(root, step):
    straight = list(pipeline.train_pairs(config(root), 0))[step:]
    resumed = list(pipeline.train_pairs(config(root, "data.prefetch=0"), step))
    assert identities(resumed) == identities(straight)
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a.images, b.images)


def test_process_slices_partition_every_global_batch_in_order(root):
    whole = list(pipeline.train_pairs(config(root), 2))
    parts = [list(pipeline.train_pairs(config(root), 2, ((rank,), 2))) for rank in range(2)]
    for step, batch in enumerate(whole):
        halves = [part[step] for part in parts]
        joined = np.concatenate([half.images for half in halves])
        np.testing.assert_array_equal(joined, batch.images)
        assert [*identities(halves[:1])[0], *identities(halves[1:])[0]] == identities([batch])[0]


def test_spare_batches_are_other_pairs_of_the_steps_stage_and_a_function_of_the_arguments(root):
    cfg = config(root)
    spare = pipeline.spare_pairs(cfg)
    straight = identities(list(pipeline.train_pairs(cfg, 0)))
    for step in (1, 5):
        drawn = [identities([spare(step, attempt)])[0] for attempt in (1, 2)]
        assert drawn[0] != drawn[1]
        assert straight[step] not in drawn
        for rows in drawn:  # the stage's own shares of the buckets
            assert sorted(b for b, _ in rows) == sorted(b for b, _ in straight[step])
    again = pipeline.spare_pairs(cfg)
    assert identities([again(5, 2)])[0] == drawn[1]
    halves = [pipeline.spare_pairs(cfg, ((rank,), 2))(5, 2) for rank in range(2)]
    assert identities(halves)[0] + identities(halves)[1] == drawn[1]


def assert_same(batches, wanted):
    """Equal pixels, boxes and identities, batch by batch."""
    assert len(batches) == len(wanted)
    assert identities(batches) == identities(wanted)
    for got, want in zip(batches, wanted, strict=True):
        np.testing.assert_array_equal(got.images, want.images)
        np.testing.assert_array_equal(got.truth.boxes, want.truth.boxes)
        np.testing.assert_array_equal(got.truth.valid, want.truth.valid)


@pytest.mark.parametrize("size", [None, (24, 48)])
def test_decoded_copies_give_the_same_batches_straight_resumed_and_sliced(root, size):
    cfg = config(root, "data.cache=decoded")
    wanted = list(pipeline.train_pairs(config(root), 0, size=size))
    for _ in ("made", "found"):
        assert_same(list(pipeline.train_pairs(cfg, 0, size=size)), wanted)
    assert_same(list(pipeline.train_pairs(cfg, 5, size=size)), wanted[5:])
    halves = [list(pipeline.train_pairs(cfg, 0, ((rank,), 2), size=size)) for rank in (0, 1)]
    for left, right, whole in zip(*halves, wanted, strict=True):
        np.testing.assert_array_equal(np.concatenate([left.images, right.images]), whole.images)


def test_decoded_copies_are_read_without_decoding_a_picture(root, monkeypatch):
    cfg = config(root, "data.cache=decoded")
    wanted = list(pipeline.train_pairs(cfg, 0))
    decoded_again = []
    real = records.decode_images
    monkeypatch.setattr(
        records, "decode_images", lambda record: decoded_again.append(1) or real(record)
    )
    assert_same(list(pipeline.train_pairs(cfg, 0)), wanted)
    assert len(decoded_again) == 2  # the first record of each bucket, when it is opened


def test_copies_are_made_for_training_at_the_models_size_and_before_it_starts(root):
    """Not by a check that does not know the size, and never of the evaluation's split."""
    cfg = config(root, "data.cache=decoded")
    checks.check_data(cfg)
    assert not list(root.glob("*/decoded"))
    assert checks.check_data(cfg, size=(24, 48)) == SIZES
    pipeline.eval_pairs(cfg)
    found = sorted(str(path.relative_to(root)) for path in root.glob("*/decoded/*"))
    assert found == ["dual/decoded/48x24", "single/decoded/48x24"]


def test_a_damaged_copy_names_the_record_and_the_same_command_heals_it(root):
    cfg = config(root, "data.cache=decoded")
    wanted = list(pipeline.train_pairs(cfg, 0))
    copy = next((root / "single" / "decoded").rglob("*00001-of*.u8"))
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1  # in the last pair of the shard
    copy.write_bytes(data)
    with pytest.raises(ValueError, match=r"single/pairs-00001-of-00002.* record 1: .*is damaged"):
        list(pipeline.train_pairs(cfg, 0))
    assert_same(list(pipeline.train_pairs(cfg, 0)), wanted)


def test_copies_do_not_hide_a_wrong_size_or_too_many_boxes(root):
    cfg = config(root, "data.cache=decoded")
    pipeline.train_pairs(cfg, 0, size=(24, 48))
    wrong = config(root, "data.cache=decoded", "data.image_width=48")
    with pytest.raises(ValueError, match=r"record 0: image_a is 32x16 px .* is 48x16"):
        pipeline.train_pairs(wrong, 0, size=(24, 48))
    few = config(root, "data.cache=decoded", "data.max_boxes=2")
    with pytest.raises(ValueError, match=r"single/pairs-00000.* record 2: 3 true boxes"):
        pipeline.train_pairs(few, 0, size=(24, 48))


def test_a_bad_record_is_found_while_copies_are_made_before_the_first_batch(root):
    pairs = [pair("odd", i, width=48 if i == 3 else WIDTH) for i in range(5)]
    write_split(root, "odd", pairs, shards=2)
    cfg = config(root, "data.cache=decoded", "data.buckets=single,dual,odd")
    cfg = dataclasses.replace(
        cfg, curriculum=CurriculumConfig(stages=(Stage(until=8, weights={"odd": 1.0}),))
    )
    with pytest.raises(ValueError, match=r"odd/pairs-00001-of-00002.* record 0: .*48x16"):
        pipeline.train_pairs(cfg, 0)


def spying_collate(rows, *, max_boxes):
    """`collate` in a worker; `real` tells: another process than the tests', and no backend."""
    from jax._src import xla_bridge

    importlib.import_module(os.environ["TESTS_PROGRAM"])
    batch = COLLATE(rows, max_boxes=max_boxes)
    facts = [os.environ["TESTS_PID"] != str(os.getpid()), not xla_bridge.backends_are_initialized()]
    return batch.replace(real=np.array([all(facts)] * len(rows)))


COLLATE = pipeline.collate


@pytest.fixture(scope="module")
def by_workers(tmp_path_factory):
    """What two workers give from step 1 on, what one gives, and how that one ends.

    The two read decoded copies. The one imports what a training run imports, takes the second
    half of every batch, and meets a bad record in the curriculum's second stage.
    """
    root = tmp_path_factory.mktemp("workers")
    for split, size in SIZES.items():
        write_split(root, split, [pair(split, i) for i in range(size)])
    straight = list(pipeline.train_pairs(config(root), 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "collate", spying_collate)
        patch.setenv("TESTS_PID", str(os.getpid()))
        patch.setenv("TESTS_PROGRAM", "dig_jax.data.feed.pipeline")
        two = pipeline.train_pairs(config(root, "data.workers=2", "data.cache=decoded"), 1)
        from_two = list(two)
        two.close()
        bad = [pair("dual", i, width=48 if i == 3 else WIDTH) for i in range(SIZES["dual"])]
        shutil.rmtree(root / "dual")
        write_split(root, "dual", bad)
        patch.setenv("TESTS_PROGRAM", "dig_jax.train")
        one = pipeline.train_pairs(config(root, "data.workers=1"), 0, ((1,), 2))
        from_one = []
        with pytest.raises(ValueError, match="image_a") as caught:
            from_one.extend(one)
        one.close()
    return straight, from_two, from_one, str(caught.value)


@pytest.mark.slow
def test_workers_give_the_batches_of_threads_in_their_order(by_workers):
    straight, from_two, from_one, _ = by_workers
    assert_same(from_two, straight[1:])
    assert len(from_one) >= 3
    for half, whole in zip(from_one, straight, strict=False):
        np.testing.assert_array_equal(half.images, whole.images[2:])
        assert half.pair_id.tolist() == whole.pair_id[2:].tolist()


@pytest.mark.slow
def test_workers_never_start_a_jax_backend(by_workers):
    """Not even after importing the whole program, which every spawned process does."""
    _, from_two, from_one, _ = by_workers
    assert all(batch.real.all() for batch in [*from_two, *from_one])


@pytest.mark.slow
def test_an_error_in_a_worker_names_file_and_record(by_workers):
    assert re.search(r"dual/pairs-00001-of-00002.arrayrecord record 1: .* 48x16", by_workers[3])


@pytest.mark.slow
def test_batches_of_workers_are_plain_arrays_that_own_their_memory(by_workers):
    for batch in by_workers[1]:
        for leaf in (batch.images, batch.truth.boxes, batch.truth.valid, batch.pair_id):
            assert type(leaf) is np.ndarray
            assert leaf.flags.owndata


def test_a_worker_whose_program_has_started_jax_refuses_to_work(root):
    assert jax.devices()  # as a script without a main guard would
    with pytest.raises(RuntimeError, match=r"worker 1 of 2: .* started a JAX backend; .*workers=0"):
        workers._refuse_backend(1, 2)
    assert next(pipeline.train_pairs(config(root, "data.workers=0"), 0))


def test_evaluation_pads_its_last_batch_and_says_so(root):
    batches = pipeline.eval_pairs(config(root))
    assert [batch.real.tolist() for batch in batches] == [[True] * 3] * 2 + [[True, False, False]]
    ids = np.concatenate([batch.pair_id[batch.real] for batch in batches])
    assert ids.tolist() == list(range(7))
    assert {int(b) for batch in batches for b in batch.bucket} == {-1}


def test_a_bucket_of_weight_zero_needs_no_files(root):
    assert "mixed" in config(root).data.buckets
    assert not (root / "mixed").exists()
    assert checks.check_data(config(root)) == SIZES


def test_missing_data_names_the_command_that_makes_it(root):
    with pytest.raises(FileNotFoundError, match=r"dig_jax.data render --root .* --split single"):
        pipeline.train_pairs(config(root, "data.root=nowhere"), 0)


def test_too_few_held_out_pairs_are_an_error_with_both_numbers(root):
    with pytest.raises(ValueError, match=r"eval.pairs=9, but .*heldout holds 7; .*eval.pairs=7"):
        checks.check_data(config(root, "eval.pairs=9"))
    checks.check_data(config(root, "eval.pairs=7"))


def test_a_wrong_image_size_is_found_before_the_first_batch(root):
    with pytest.raises(ValueError, match=r"record 0: image_a is 32x16 px .* is 64x16"):
        pipeline.train_pairs(config(root, "data.image_width=64"), 0)
    pipeline.train_pairs(config(root, "data.image_width=32"), 0)


def test_a_later_bad_record_names_file_and_record(root, tmp_path):
    pairs = [pair("odd", 0), pair("odd", 1, width=48), pair("odd", 2)]
    write_split(tmp_path, "odd", pairs, shards=1)
    cfg = config(root, "eval.pairs=3", "data.eval_split=odd")
    with pytest.raises(ValueError, match=r"pairs-00000-of-00001.arrayrecord record 1: .*48x16"):
        pipeline.eval_pairs(cfg)


def test_a_pair_with_too_many_boxes_is_named(root, tmp_path):
    write_split(tmp_path, "crowd", [pair("crowd", 0, boxes=4)], shards=1)
    cfg = config(root, "eval.pairs=1", "data.eval_split=crowd")
    with pytest.raises(ValueError, match=r"record 0: 4 true boxes, more than data.max_boxes=3"):
        pipeline.eval_pairs(cfg)
    assert pipeline.eval_pairs(typed.override(cfg, ["data.max_boxes=4"]))


def test_a_flipped_byte_is_found_when_the_split_is_opened(root):
    path = root / "dual" / records.shard_name(1, 2)
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF  # inside the first record's PNG
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"dual/pairs-00001-of-00002.arrayrecord is corrupt"):
        checks.check_data(config(root))


def test_processes_must_divide_the_batch(root):
    with pytest.raises(ValueError, match=r"pairs_per_step=4 is not a multiple of 3 shares"):
        pipeline.train_pairs(config(root), 0, ((0,), 3))
    pipeline.train_pairs(config(root, "pairs_per_step=6"), 0, ((0,), 3))


def test_a_batch_is_a_pytree_of_numpy_arrays(root):
    batch = next(pipeline.train_pairs(config(root), 0))
    leaves = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    assert all(isinstance(leaf, np.ndarray | type(batch.truth)) for leaf in leaves)
