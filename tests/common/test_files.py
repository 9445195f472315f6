"""Files that are replaced: whole or as they were, whoever else writes them."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from dig_jax.common import files


def test_two_writers_of_one_file_never_share_a_temporary_name(tmp_path):
    path = tmp_path / "value.json"
    assert files.temporary(path) != files.temporary(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: files.write_json(path, [n] * 1000), range(64)))
    found = json.loads(path.read_text())
    assert len(found) == 1000
    assert len(set(found)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space .*free some space .* run the same command again"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]
    monkeypatch.undo()
    files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}


@pytest.mark.parametrize(("text", "what"), [("", "is empty"), ('{"a": ', "is not valid JSON")])
def test_a_file_without_json_is_named_with_the_remedy(tmp_path, text, what):
    path = tmp_path / "manifest.json"
    assert files.read_json(path, "", missing={}) == {}
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path} {what}.*; move it away"):
        files.read_json(path, "move it away")


def test_a_sealed_object_is_read_as_it_was_written_or_not_at_all(tmp_path):
    path, value = tmp_path / "x.json", {"a": [1.5, None, "é"], "b": {"c": 1e-30}}
    files.write_sealed(path, value, indent=2)
    assert files.read_sealed(path, "make it again") == value
    good = path.read_text()
    for bad in (good.replace("1.5", "1.6"), good.replace('"b"', '"d"'), good[:20], "", "[1]"):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"x\.json .*make it again"):
            files.read_sealed(path, "make it again")
    path.write_text(json.dumps(value))  # of an earlier version
    assert files.read_sealed(path, "make it again") == value
