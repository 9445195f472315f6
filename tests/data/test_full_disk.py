"""No room, no rights, no memory: a clear stop, nothing lost, and the same command goes on."""

import json
import shutil

import numpy as np
import pytest

from dig_jax.config import DataConfig
from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.exchange.export import export
from dig_jax.data.exchange.imports import import_split
from dig_jax.data.feed.source import PairSource
from dig_jax.data.render.supervise import RenderFailed
from tests.data.test_records import CONFIG, FAKE, SPEC, hashes, quiet
from tests.small_disk import fill, grow, leftovers, mounted, needs_mounts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    render_split(root, SPEC, CONFIG, 2, quiet, FAKE)
    return root


def manifest_of(root):
    return json.loads((root / "test" / records.MANIFEST).read_text())


@needs_mounts
def test_a_disk_that_fills_up_stops_a_render_which_then_continues(whole, tmp_path):
    with mounted(tmp_path / "disk", 4000) as root:

        def filling(done, total, note):
            if note:
                fill(root)

        with pytest.raises(OSError, match=r"pairs-\S+ of 0.0 MB could .* 0.0 MB left; free some"):
            render_split(root, SPEC, CONFIG, 1, filling, FAKE)
        assert len(list((root / "test").glob("*.arrayrecord"))) == 1
        assert not leftovers(root)
        (root / "filler").unlink()
        assert hashes(render_split(root, SPEC, CONFIG, 1, quiet, FAKE)) == hashes(
            manifest_of(whole)
        )


@needs_mounts
def test_too_small_a_disk_is_refused_before_a_worker_starts(tmp_path, capsys):
    argv = ["render", "--split", "single", "--pairs", "40", "--set", "look.renderer=numpy"]
    with mounted(tmp_path / "disk", 100) as root:
        assert verbs.main([*argv, "--root", str(root)]) == 1
        told = capsys.readouterr().err
        assert "40 pairs of 96x64 need about" in told
        assert "choose another --root" in told


@needs_mounts
@pytest.mark.parametrize("verb", ["plan", "render"])
def test_a_root_that_cannot_be_written_is_named_first(verb, tmp_path, capsys):
    argv = [verb, "--split", "single", "--pairs", "2", "--set", "look.renderer=numpy"]
    argv += ["--set", "look.width=64", "--set", "look.height=48", "--workers", "1"]
    with mounted(tmp_path / "disk", 4000) as root:
        (root / "data").mkdir()
        grow(root, 4000, read_only=True)
        assert verbs.main([*argv, "--root", str(root / "data")]) == 1
        told = capsys.readouterr().err
        assert f"{root}/data/single could not be written (Read-only file system)" in told
        assert "choose another folder" in told
        grow(root, 4000)
        assert verbs.main([*argv, "--root", str(root / "data")]) == 0


def test_a_file_in_the_way_of_a_root_is_named(tmp_path, capsys):
    (tmp_path / "data").write_text("")
    argv = ["plan", "--split", "single", "--pairs", "2", "--root", str(tmp_path / "data")]
    assert verbs.main(argv) == 1
    assert "data/single could not be written (Not a directory)" in capsys.readouterr().err


def test_a_render_worker_without_memory_says_so_and_all_else_is_kept(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NO_MEMORY", "6")  # alone in the last shard
    with pytest.raises(RenderFailed, match=r"(?s)idx 6: .*MemoryError; it found no .* --workers"):
        render_split(tmp_path, SPEC, CONFIG, 2, quiet, FAKE)
    assert len(manifest_of(tmp_path)["shards"]) == 2
    monkeypatch.delenv("FAKE_NO_MEMORY")
    assert hashes(render_split(tmp_path, SPEC, CONFIG, 2, quiet, FAKE)) == hashes(
        manifest_of(whole)
    )


@needs_mounts
@pytest.mark.parametrize("formats", [["parquet"], ["jsonl"], ["coco"]])
def test_an_export_without_room_leaves_the_one_before_as_it_was(formats, whole, tmp_path):
    with mounted(tmp_path / "disk", 4000) as disk:
        export(whole, disk / "hub", formats=["jsonl"])
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        fill(disk)
        full = r"hub(\.lock)? could not be written .* 0.0 MB left; free some"
        with pytest.raises(OSError, match=full):
            export(whole, disk / "hub", formats=formats, overwrite=True)
        (disk / "filler").unlink()
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
        assert not leftovers(disk)
        export(whole, disk / "hub", formats=formats, overwrite=True)


@needs_mounts
def test_an_import_without_room_leaves_nothing_and_then_works(whole, tmp_path):
    export(whole, tmp_path / "hub")
    with mounted(tmp_path / "disk", 4000) as disk:
        fill(disk)
        with pytest.raises(OSError, match=r"MB left; .*the same command again"):
            import_split([tmp_path / "hub"], disk, "test")
        assert [path.name for path in disk.iterdir()] == ["filler"]
        (disk / "filler").unlink()
        import_split([tmp_path / "hub"], disk, "test")
        assert manifest_of(disk) == manifest_of(whole)


@needs_mounts
def test_decoded_copies_without_room_are_refused_or_stopped_and_made_later(whole, tmp_path):
    cfg = DataConfig(root=str(tmp_path / "disk"), image_width=64, image_height=48)
    with mounted(tmp_path / "disk", 8000) as disk:
        shutil.copytree(whole / "test", disk / "test")
        fill(disk)
        with pytest.raises(OSError, match=r"need 0.1 MB and the disk has 0.0 MB .*cache=none"):
            PairSource(cfg, "test", cache="decoded")
        wanted = [PairSource(cfg, "test")[index] for index in range(7)]  # what the message advises
        (disk / "filler").unlink()
        real = records.decode_images
        with pytest.MonkeyPatch.context() as patch:
            calls = []

            def filling(record):
                calls.append(1)
                if len(calls) == 3:  # the first record is decoded when the split is opened
                    fill(disk)
                return real(record)

            patch.setattr(records, "decode_images", filling)
            with pytest.raises(OSError, match=r"could not be written .* 0.0 MB left.*cache=none"):
                PairSource(cfg, "test", cache="decoded")
        assert not leftovers(disk)
        (disk / "filler").unlink()
        source = PairSource(cfg, "test", cache="decoded")
        for index, row in enumerate(wanted):
            np.testing.assert_array_equal(source[index].images, row.images)
