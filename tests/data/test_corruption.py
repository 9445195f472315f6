"""Damage is found before it is used and named with a remedy that works: planted and found.

Every kind of file of a split, of its decoded copies and of an export; one byte changed, cut in
half, emptied, deleted, exchanged with another split's. Where something is made from other files
(sidecars, plans, decoded copies), making it again in silence counts as found. The messages'
remedies are followed to the letter. Run it with -s for the table.
"""

import contextlib
import dataclasses
import json
import random
import re
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dig_jax.common import sealed
from dig_jax.config import DataConfig
from dig_jax.data import __main__ as verbs
from dig_jax.data import records
from dig_jax.data.corpus import manifest
from dig_jax.data.exchange.export import export
from dig_jax.data.exchange.imports import import_split
from dig_jax.data.feed import fetch
from dig_jax.data.feed.source import PairSource
from dig_jax.data.make import add_arguments, corpus_from
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from tests.damage import PLANTED, cases, damage

LOOK = ["look.renderer=numpy", "look.width=64", "look.height=48", "splits.0.shard_pairs=2"]


def run(verb, root, split="single", pairs=4, k=1):
    argv = [verb, "--root", str(root), "--split", split, "--pairs", str(pairs), "--k", str(k)]
    settings = [part for one in LOOK for part in ("--set", one)]
    assert verbs.main([*argv, "--workers", "1", *settings]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two planned and rendered splits, their export, and decoded copies of one."""
    base = tmp_path_factory.mktemp("whole")
    for split, k in (("single", 1), ("dual", 2)):
        run("plan", base / "data", split, k=k)
        run("render", base / "data", split, k=k)
        list_rows(base / "data", split)
    export(base / "data", base / "hub", formats=["parquet", "jsonl", "coco"])
    return base


def list_rows(root, split="single"):
    cfg = DataConfig(root=str(root), image_width=64, image_height=48, buckets=("single", "dual"))
    source = PairSource(cfg, split, cache="decoded")
    return [source[index] for index in range(len(source))]


def stored(root, split="single"):
    return [one for path in records.open_split(root / split) for one in records.read_shard(path)]


def follow(text):
    """Do what a message says: delete what it names, run the command it gives."""
    for name in re.findall(r"delete (/\S+?)(?=[ ;,]|$)", text):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    for command in re.findall(r"`python -m dig_jax.data ([^`]*)`", text):
        workers = [] if command.startswith("import") else ["--workers", "1"]
        assert verbs.main([*shlex.split(command), *workers]) == 0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file, and what is done with it next.

    path, other   of the file, below the copy; what it is exchanged with
    use           (copy) -> what comes out; raises where damage is found
    named         what a message must name; None: whatever uses it makes it again
    """

    path: str
    other: str
    use: object
    named: str | None


def render_again(copy):
    run("render", copy / "data")
    return stored(copy / "data")


def plan_and_render(copy):
    """From the plans: the shards are gone."""
    for shard in (copy / "data" / "single").glob("*.arrayrecord"):
        shard.unlink()
    run("plan", copy / "data")
    return render_again(copy)


def import_back(copy):
    import_split([copy / "hub"], copy / "back", "single")
    return stored(copy / "back")


def sums_hold(copy):
    told = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    done = subprocess.run(told, cwd=copy / "hub", capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stdout + done.stderr)


SHARD = "data/{}/pairs-00001-of-00002.arrayrecord"
COPY = "data/{}/decoded/64x48/pairs-00001-of-00002-*"
KINDS = {
    "shard": Kind(SHARD, SHARD, lambda copy: stored(copy / "data"), "pairs-00001-of-00002"),
    "manifest": Kind(*["data/{}/manifest.json"] * 2, lambda c: stored(c / "data"), "/single"),
    "sidecar": Kind(*["data/{}/pairs-00001-of-00002.json"] * 2, render_again, None),
    "plans": Kind(*["data/{}/plan-00001-of-00002.jsonl"] * 2, plan_and_render, None),
    "decoded pixels": Kind(*[COPY + ".u8"] * 2, lambda c: list_rows(c / "data"), None),
    "decoded facts": Kind(*[COPY + ".json"] * 2, lambda c: list_rows(c / "data"), None),
    "parquet pairs": Kind(*["hub/data/{}-00000-of-00001.parquet"] * 2, import_back, "hub"),
    "parquet masks": Kind(*["hub/masks/{}-00000-of-00001.parquet"] * 2, import_back, "hub/masks"),
    "json lines": Kind(*["hub/jsonl/{}.jsonl"] * 2, sums_hold, "jsonl/single.jsonl"),
    "coco": Kind(*["hub/coco/{}.json"] * 2, sums_hold, "coco/single.json"),
    "picture": Kind(
        *["hub/images/{0}/{0}-000000_a.png"] * 2, sums_hold, "images/single/single-000000_a.png"
    ),
    "card": Kind("hub/README.md", "hub/easyr1_reward.py", sums_hold, "README.md"),
    "reward file": Kind("hub/easyr1_reward.py", "hub/README.md", sums_hold, "easyr1_reward.py"),
}


def found(copy, kind, pristine):
    """Whether the next use finds the damage, names it, and heals by the remedy it gives."""
    wanted = kind.use(pristine) if kind.use is not import_back else stored(pristine / "data")
    for _ in range(3):
        try:
            got = kind.use(copy)
        except (ValueError, OSError) as error:
            text = str(error)
            assert (kind.named or "single") in text, text
            if kind.path.startswith("hub"):  # "copy it again" is a way for all of them
                assert (
                    kind.use is sums_hold
                    or "copy, download or export" in text
                    or ("use one of these names" in text or "no split" in text)
                ), text
                shutil.rmtree(copy / "hub")
                shutil.copytree(pristine / "hub", copy / "hub")
            else:
                follow(text)
                if "run the same command again" not in text:
                    assert "`python -m" in text, text
            continue
        return same(got, wanted)
    return False


def same(got, wanted):
    if wanted is None or isinstance(wanted[0], bytes):
        return got == wanted
    return all(
        np.array_equal(a.images, b.images)
        and np.array_equal(a.boxes_unit, b.boxes_unit)
        and np.array_equal(a.kind, b.kind)
        for a, b in zip(got, wanted, strict=True)
    )


def one_of(folder, pattern, split):
    (path,) = folder.glob(pattern.format(split))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_planted_damage_is_found_named_and_mended(name, made, tmp_path):
    kind, rng, table = KINDS[name], random.Random(name), Counter()
    for number, damaged in enumerate(cases()):
        copy = tmp_path / f"{damaged}{number}"
        shutil.copytree(made, copy)
        path = one_of(copy, kind.path, "single")
        before = path.read_bytes()
        damage(damaged, path, one_of(copy, kind.other, "dual"), rng)
        table["planted"] += 1
        assert found(copy, kind, made), f"{damaged} {path}"
        again = one_of(copy, kind.path, "single").read_bytes()
        if name not in ("plans", "sidecar"):  # they tell core-seconds
            assert again == before, f"{damaged} {path} was not mended"
        table["found"] += 1
        shutil.rmtree(copy)
    print(f"{name}: {table['found']} of {table['planted']} found")
    assert table["found"] == table["planted"] == PLANTED


def test_a_sealed_object_tells_of_every_changed_byte():
    text = json.dumps(sealed.sealed({"count": 3, "types": {"add": 2}, "name": "a b"}), indent=1)
    whole = sealed.parse(text)
    for at in range(len(text)):
        for flip in (1, 2, 32):
            changed = text[:at] + chr(ord(text[at]) ^ flip) + text[at + 1 :]
            try:
                assert sealed.parse(changed) == whole  # a space for another one
            except ValueError:
                continue
    assert sealed.parse('{"count": 3}') == {"count": 3}  # as older versions wrote it


def test_a_file_that_is_no_part_of_an_export_is_deleted_as_advised(made, tmp_path):
    hub = shutil.copytree(made / "hub", tmp_path / "hub")
    for part in ("data", "masks"):
        stray = hub / part / "other-00000-of-00001.parquet"
        shutil.copy(one_of(hub, part + "/{}-*", "dual"), stray)
    with pytest.raises(ValueError, match=r"is not among the files of its export .*; delete it"):
        import_split([hub / "data" / stray.name], tmp_path / "r", "other")
    for part in ("data", "masks"):
        (hub / part / stray.name).unlink()
    assert import_split([hub], tmp_path / "r", "single")["pairs"] == 4
    sums = hub / "SHA256SUMS"
    sums.write_text("0" + sums.read_text()[1:].replace("a", "b", 1))
    with pytest.raises(ValueError, match=r"SHA256SUMS was changed; .*, or delete it"):
        import_split([hub], tmp_path / "q", "single")
    sums.unlink()
    assert import_split([hub], tmp_path / "q", "single")["pairs"] == 4


def test_a_damaged_manifest_is_told_with_its_command_where_a_run_asks_what_it_holds(made, tmp_path):
    """A start asks for the digests before it opens a split: it said "render again", not how."""
    shutil.copytree(made / "data" / "single", tmp_path / "single")
    wanted = fetch.digest_of(str(tmp_path), "single")
    (tmp_path / "single" / "manifest.json").write_text('{"shards": ')
    with pytest.raises(ValueError, match=r"delete \S+ and make it again with `python") as caught:
        fetch.digest_of(str(tmp_path), "single")
    follow(str(caught.value))
    assert fetch.digest_of(str(tmp_path), "single") == wanted


def test_a_manifest_of_another_split_is_blamed_not_the_shards(made, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    shutil.copy(tmp_path / "data/dual/manifest.json", tmp_path / "data/single/manifest.json")
    with pytest.raises(ValueError, match=r"single/manifest.json is not of the shards beside it"):
        records.open_split(tmp_path / "data" / "single")


def test_a_shard_of_another_split_with_its_sidecar_is_blamed_not_the_manifest(made, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    for path in (tmp_path / "data" / "dual").glob("pairs-00001-of-*"):
        shutil.copy(path, tmp_path / "data" / "single" / path.name)
    with pytest.raises(ValueError, match=r"pairs-00001-of-00002.arrayrecord is corrupt"):
        records.open_split(tmp_path / "data" / "single")


@pytest.mark.parametrize(
    ("draw", "fields", "look"),
    [
        (Draw("single"), {"pairs": 4}, {}),
        (
            Draw("test_novel", 7, 0, 2, combos="novel", noise="independent", camera_jitter_b=0.25),
            {"pairs": 9, "shard_pairs": 5},
            {"width": 64, "types": ("add", "remove"), "sizes": {"one": 0.7}, "renderer": "numpy",
             "held_out": ("red cube",), "min_visible": 0.25},
        ),
    ],
)  # fmt: skip
def test_a_manifest_tells_arguments_that_make_the_same_split(draw, fields, look):
    import argparse

    spec, config = SplitSpec(draw, **fields), SceneConfig(**look)
    parser = argparse.ArgumentParser()
    add_arguments(parser, "render")
    text = manifest.request_arguments(spec, config)
    corpus = corpus_from(parser.parse_args(["--root", "R", *shlex.split(text)]))
    assert (corpus.look, corpus.splits) == (config, (spec,))


def test_folders_without_seals_and_arguments_are_read_as_they_are(made, tmp_path):
    """As older versions wrote them."""
    shutil.copytree(made / "data" / "single", tmp_path / "single")
    for path in tmp_path.rglob("*.json"):
        told = json.loads(path.read_text())
        if "decoded" not in path.parts:
            path.write_text(
                json.dumps({k: v for k, v in told.items() if k not in ("seal", "arguments")})
            )
    assert stored(tmp_path) == stored(made / "data")
    run("render", tmp_path)
    assert stored(tmp_path) == stored(made / "data")


def test_an_imported_split_is_mended_by_importing_it_again(made, tmp_path):
    """`data import` refuses a folder that is there, so the folder goes, not the shard."""
    import_split([next((made / "hub" / "data").glob("single-*"))], tmp_path, "theirs", limit=3)
    wanted = stored(tmp_path, "theirs")
    for name in ("pairs-00000-of-00001.arrayrecord", "manifest.json"):
        for kind in ("byte", "deleted"):
            damage(kind, tmp_path / "theirs" / name, None, random.Random(0))
            with pytest.raises((ValueError, FileNotFoundError), match=name) as caught:
                records.open_split(tmp_path / "theirs")
            text = str(caught.value)
            file = next((made / "hub" / "data").glob("single-*"))
            follow(text.replace("FILES", shlex.quote(str(file)) + " --limit 3"))
            assert stored(tmp_path, "theirs") == wanted


def test_an_export_is_taken_whole_or_not_at_all(made, tmp_path):
    """One of several files gone, or one mask file: it came back with fewer pairs or masks."""
    export(made / "data", tmp_path / "hub", splits=["single"], shard_bytes=1)
    files = sorted((tmp_path / "hub" / "data").iterdir())
    masks = sorted((tmp_path / "hub" / "masks").iterdir())
    assert len(files) == len(masks) == 4
    kept = masks[2].read_bytes()
    masks[2].unlink()
    with pytest.raises(FileNotFoundError, match=f"{masks[2].name} is gone; .*delete .*masks"):
        import_split([tmp_path / "hub"], tmp_path / "r", "single")
    masks[2].write_bytes(kept)
    files[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 3 of the 4 files of single; .* themselves"):
        import_split([tmp_path / "hub"], tmp_path / "r", "single")
    rest = [path for path in files if path.exists()]  # the second way that the message gives
    assert import_split(rest, tmp_path / "r", "part")["pairs"] == 3


@pytest.mark.slow
def test_without_its_sums_a_parquet_file_still_finds_what_would_change_a_pair(made, tmp_path):
    """By the checksums of its pages and of its note."""
    wanted, rng, seen = stored(made / "data"), random.Random(3), Counter()
    for number in range(60):
        out = tmp_path / str(number)
        for part in ("data", "masks"):
            (out / part).mkdir(parents=True)
            shutil.copy(one_of(made / "hub", part + "/{}-*", "single"), out / part)
        damage("byte", one_of(out, rng.choice(["data", "masks"]) + "/{}-*", "single"), None, rng)
        try:
            import_split([out], out / "back", "single")
        except (ValueError, OSError) as error:
            seen["found" if "parquet" in str(error) else str(error)] += 1
            continue
        assert stored(out / "back") == wanted
        seen["without effect"] += 1
    print(dict(seen))
    assert set(seen) <= {"found", "without effect"}
    assert seen["found"] > 20  # the rest lies in columns that an import does not read
