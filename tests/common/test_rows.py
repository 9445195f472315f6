"""Rows vouch for all before them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.common.rows import beginning, line_of, read_rows, text_of

ROWS = [{"step": n, "loss": 0.1 * n, "text": "é\n\u2028" * n, "kind": "train"} for n in range(6)]
VALUES = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())


def written(tmp_path, rows=ROWS):
    path = tmp_path / "rows.jsonl"
    path.write_text(text_of(rows)[0])
    return path


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.text().filter(lambda k: k != "crc"), VALUES, max_size=4)))
def test_rows_come_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    path.write_bytes(text_of(rows)[0].encode())
    assert read_rows(path) == rows


def test_rows_are_appended_one_by_one_as_all_at_once():
    crc, lines = 0, ""
    for row in ROWS:
        line, crc = line_of(row, crc)
        lines += line
    assert (lines, crc) == text_of(ROWS)


def test_every_change_of_a_bit_shows(tmp_path):
    path, rng = written(tmp_path), np.random.default_rng(0)
    good = path.read_bytes()
    found = []
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.integers(len(bad) - 1)] ^= 1 << int(rng.integers(8))  # not the last line's end
        path.write_bytes(bad)
        try:
            assert read_rows(path) == ROWS  # a space for another white space
        except ValueError as error:
            found.append(str(error))
    assert len(found) > 290
    assert all(f"{path} line" in message for message in found)


@pytest.mark.parametrize("change", ["lost", "moved", "twice", "foreign"])
def test_rows_that_are_not_the_files_own_show(change, tmp_path):
    path = written(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    if change == "lost":
        del lines[2]
    elif change == "moved":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "twice":
        lines.insert(2, lines[2])
    else:
        lines[2] = text_of([ROWS[0] | {"loss": 9.0}, *ROWS[1:]])[0].splitlines(keepends=True)[2]
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"is not what was written, .*its copy back; a change"):
        read_rows(path)
    changed = [json.loads(line) for line in lines]
    for row in changed:
        row.pop("crc", None)
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))  # "crc" gone: as one's own
    assert read_rows(path) == changed
    path.unlink()  # moved away
    assert read_rows(path) == []
    assert read_rows(written(tmp_path)) == ROWS  # its copy


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text()[:-9])
    assert read_rows(path) == ROWS[:-1]
    assert read_rows(tmp_path / "nowhere.jsonl") == []


def test_rows_without_checksums_are_read_and_vouched_for_by_later_ones(tmp_path):
    path = tmp_path / "rows.jsonl"
    old = [json.dumps(row) + "\n" for row in ROWS[:3]]
    new = text_of(ROWS)[0].splitlines(keepends=True)[3:]
    path.write_text("".join(old))
    assert read_rows(path) == ROWS[:3]
    path.write_text("".join(old + new))
    assert read_rows(path) == ROWS
    path.write_text("".join([old[0], old[2], *new]))
    with pytest.raises(ValueError, match="line 3"):
        read_rows(path)


@pytest.mark.parametrize("text", ["nonsense\n", "[1]\n", "3\n", "\n"])
def test_what_is_no_row_is_named(text, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rows\.jsonl line 1 is not a JSON row"):
        read_rows(path)


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        line_of({"loss": float("nan")}, 0)


def test_rows_of_another_run_show_and_those_of_older_versions_do_not(tmp_path):
    path, lines, crc = tmp_path / "rows.jsonl", "", beginning("one")
    for row in ROWS:
        line, crc = line_of(row, crc)
        lines += line
    path.write_text(lines)
    assert read_rows(path, "one") == read_rows(path, None) == ROWS
    with pytest.raises(ValueError, match=r"line 1: .* or is another run's"):
        read_rows(path, "two")
    path.write_text(text_of(ROWS)[0])
    assert read_rows(path, "one") == ROWS
