"""Files of rows come back cell by cell, a few in memory; what is damaged is named with a remedy."""

import base64
import csv
import io
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.benchmarks import sources, tables
from dig_jax.benchmarks.catalog import entry_of
from dig_jax.benchmarks.picture_cells import read_table
from dig_jax.benchmarks.questions import read_questions
from dig_jax.benchmarks.tables import count_rows, read_rows
from scripts.make.benchmark_files import lines, parquet, picture, put, tsv
from tests.benchmarks.test_readers import FILES, HUB, TSV

FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12)


@pytest.mark.parametrize("tab", ["\t", ","])
@given(st.lists(st.tuples(FIELD, FIELD, FIELD), max_size=6))
def test_texts_come_back_as_pandas_wrote_them(tab, rows):
    """Quotes, tabs and line ends within fields; every row is found again by its place."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=tab, lineterminator="\n")
    writer.writerows([("a", "b", "c"), *rows])
    data = io.BytesIO(file.getvalue().encode())
    records = [f for _, f in tables._records("x", data, tab.encode())][1:]
    assert [tuple(f.decode() for f in fields) for fields in records] == rows


def test_a_quote_within_a_field_is_a_quote():
    assert tables._fields(b'5" pipe\t"6"" pipe"\t"a\tb"', b"\t") == [
        b'5" pipe',
        b'6" pipe',
        b"a\tb",
    ]
    assert tables._fields(b'a\t"b', b"\t") is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path, end, start):
    path = tmp_path / "a.tsv"
    path.write_bytes(f"{start}index\timage{end}0\tx{end}{end}1\t{end}".encode())
    rows = list(read_rows(path))
    assert [row.values for row in rows] == [{"index": "0", "image": "x"},
                                            {"index": "1", "image": None}]  # fmt: skip
    assert [row.again("index") for row in rows] == ["0", "1"]
    assert count_rows(path) == 2


def test_a_cell_is_read_again_from_any_place(tmp_path):
    rows = [{"n": n, "image": picture(n)} for n in range(9)]
    parquet(tmp_path / "a.parquet", rows, n="int64", image="image")
    tsv(tmp_path / "a.tsv", rows, "n image")
    lines(tmp_path / "a.jsonl", [{"n": n} for n in range(9)])
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 3
    for name in ("a.parquet", "a.tsv", "a.jsonl"):
        cells = list(read_rows(tmp_path / name))
        assert [row.number for row in cells] == list(range(1, 10))
        for row in (cells[8], cells[0], cells[4], cells[3], cells[8]):
            assert int(row.again("n")) == int(row.values["n"]) == row.number - 1
        assert count_rows(tmp_path / name) == 9


def test_a_large_row_group_is_read_forwards_and_never_whole(tmp_path, monkeypatch):
    """HR-Bench 8K is one group of 2.8 GB: here 24 MB, of which less than a quarter is held."""
    monkeypatch.setattr(tables, "BATCH_BYTES", 1 << 20)
    monkeypatch.setattr(tables, "KEPT_BYTES", 4 << 20)
    path, size = tmp_path / "big.parquet", 1 << 18
    cells = [bytes([n]) * size for n in range(96)]
    table = pa.table({"n": range(96), "image": cells})
    pq.write_table(table, path, row_group_size=96, compression=None, use_dictionary=False)
    del table
    before = pa.total_allocated_bytes()
    peak, found = 0, []
    for row in read_rows(path):
        assert row.values["image"] == cells[row.number - 1]
        found.append(row)
        row.values.clear()
        peak = max(peak, pa.total_allocated_bytes() - before)
    for place in (0, 1, 50, 95, 3):  # the last lies behind the one before
        assert found[place].again("image") == cells[place]
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 6 << 20
    assert tables._column(path, 0, "image") is None


def test_rows_that_share_their_picture_are_no_more_in_memory_than_others(tmp_path, monkeypatch):
    """A dictionary makes a file small, not its cells: 64 of 1 MB lie in 1 MB."""
    monkeypatch.setattr(tables, "BATCH_BYTES", 4 << 20)
    monkeypatch.setattr(tables, "KEPT_BYTES", 8 << 20)
    path, cell = tmp_path / "same.parquet", b"x" * (1 << 20)
    pq.write_table(pa.table({"image": [cell] * 64}), path, compression=None)
    assert path.stat().st_size < 2 << 20
    assert max(len(rows) for rows in tables._batches(path, 0)) <= 4
    rows = list(read_rows(path))
    assert len(rows) == 64
    assert rows[40].again("image") == cell
    assert tables._column(path, 0, "image") is None


def test_the_last_row_group_is_kept_for_its_next_picture(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", [{"image": picture(n)} for n in range(4)], image="image")
    rows = read_table([tmp_path / "a.parquet"])
    opened = []
    read = tables._batches
    monkeypatch.setattr(tables, "_batches", lambda *args: opened.append(args) or read(*args))
    assert [row.pictures[0].read() for row in rows] == [picture(n) for n in range(4)]
    assert len(opened) == 1


# Damage


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.fixture
def made(tmp_path):
    """A file of each kind, small and whole."""
    rows = [{"index": n, "question": f"Is it\n{n}?", "image": picture(n)} for n in range(6)]
    parquet(tmp_path / "a.parquet", rows, index="int64", question="string", image="image")
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "a.parquet", write_page_checksum=True, compression=None)
    tsv(tmp_path / "a.tsv", rows, "index question image")
    listed = [{"index": n, "image": "x.jpg"} for n in range(3)]
    lines(tmp_path / "a.jsonl", listed)
    lines(tmp_path / "a.json", listed, whole=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "damage", "rule"),
    [
        ("a.parquet", lambda p: cut(p, 900), "a.parquet cannot be read"),
        ("a.parquet", lambda p: flip(p, 300), "a.parquet cannot be read"),
        ("a.tsv", lambda p: cut(p, 250), "a.tsv ends in the midst of a line"),
        ("a.tsv", lambda p: p.write_text("a\tb\n1\n"), "row 1 has 1 of 2 columns"),
        ("a.tsv", lambda p: cut(p, 24), "a.tsv ends within a quoted text"),
        ("a.tsv", lambda p: p.write_text("a\tb\n1\t2\t3\n"), "row 1 has 3 of 2 columns"),
        ("a.tsv", lambda p: p.write_bytes(b"a\tb\n1\t\xff\n"), "row 1 is no text in UTF-8"),
        ("a.jsonl", lambda p: cut(p, 45), "a.jsonl line 2 is not valid JSON"),
        ("a.json", lambda p: cut(p, 45), "a.json is not valid JSON"),
        ("a.json", lambda p: p.write_text('{"a": 1}'), "not a list of objects"),
        ("a.jsonl", lambda p: p.write_text("[1]\n"), r"row 1 is \[1\], not an object"),
        ("a.tsv", lambda p: cut(p, 0), "a.tsv is empty"),
        ("a.tsv", lambda p: p.write_text("\n\n"), "a.tsv holds empty lines alone"),
        ("a.parquet", lambda p: cut(p, 0), "a.parquet is empty"),
        ("a.jsonl", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
         "git-LFS pointer"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_a_whole_one_read(made, name, damage, rule):
    whole = (made / name).read_bytes()
    damage(made / name)
    with pytest.raises(ValueError, match=rule) as told:
        list(read_rows(made / name))
    assert "download it again" in str(told.value) or "git lfs pull" in str(told.value)
    (made / name).write_bytes(whole)  # as advised
    assert list(read_rows(made / name))


def test_without_pyarrow_the_extra_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeError, match=r"pip install -e '\.\[parquet\]'"):
        list(read_rows(made / "a.parquet"))
    assert len(list(read_rows(made / "a.tsv"))) == 6


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        (b"", "its picture is b'', neither bytes"),
        ("?" * 80, "neither bytes, base64, a file's name nor another row's index"),
        ("17", "its picture is that of index '17', which its file has not"),
    ],
)
def test_a_cell_that_is_no_picture_is_named_with_its_row(tmp_path, cell, rule):
    rows = [{"index": "1", "image": base64.b64encode(picture(0)).decode()}]
    bad = {"index": "2", "image": cell}
    kind = pa.binary() if isinstance(cell, bytes) else pa.string()
    first = [] if isinstance(cell, bytes) else rows
    schema = pa.schema([("index", pa.string()), ("image", kind)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([*first, bad], schema=schema), path)
    with pytest.raises(ValueError, match=rule) as told:
        read_table([path])
    assert f"a.parquet row {len(first) + 1}" in str(told.value)
    parquet(path, [bad | {"image": picture(0)}], index="string", image="image")  # a whole one
    assert read_table([path])[0].pictures[0].read() == picture(0)


def test_a_picture_that_is_none_is_named_when_it_is_read(tmp_path):
    parquet(tmp_path / "a.parquet", [{"image": b"\x89PNG but no more"}], image="image")
    put(tmp_path / "images/b.jpg", b"nothing")
    lines(tmp_path / "b.jsonl", [{"image": "b.jpg"}])
    for name, rule in (("a.parquet", "a.parquet row 1 holds no picture"),
                       ("b.jsonl", r"b.jsonl row 1: .*b.jpg holds no picture")):  # fmt: skip
        (row,) = read_table([tmp_path / name])
        with pytest.raises(ValueError, match=rule):
            row.pictures[0].read()
    put(tmp_path / "images/b.jpg", picture(1))  # a whole one
    assert row.pictures[0].read() == picture(1)


def test_a_file_that_changed_since_is_not_believed(tmp_path):
    path = tmp_path / "a.tsv"
    tsv(path, [{"index": 0, "image": picture(0)}], "index image")
    (row,) = read_table([path])
    tsv(path, [{"index": 0, "image": picture(1)}], "index image")
    with pytest.raises(ValueError, match="has changed since it was read"):
        row.pictures[0].read()
    (row,) = read_table([path])  # the command again
    assert row.pictures[0].read() == picture(1)


def test_pictures_that_are_not_there_are_counted_and_put_there(tmp_path):
    shutil.copytree(FILES / "vsr", tmp_path / "vsr")
    shutil.move(tmp_path / "vsr/images", tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=r"2 pictures of VSR .* row 1: there is no") as told:
        read_questions(tmp_path, "vsr")
    assert str(tmp_path / "vsr" / "images") in str(told.value)
    questions, _ = read_questions(tmp_path, "vsr", pictures=False)  # enough to score
    assert [q.target for q in questions] == ["yes", "no", "no"]
    with pytest.raises(FileNotFoundError, match="there is no picture 0000"):
        questions[0].pictures[0].read()
    (tmp_path / "vsr/images").symlink_to(tmp_path / "away")  # as advised
    assert read_questions(tmp_path, "vsr")[0][0].pictures[0].read() == picture(30)


# Which files


def test_nothing_there_is_told_with_the_command_that_downloads_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"POPE is not below --root=.*pope/\*test-") as told:
        read_questions(tmp_path, "pope")
    place = tmp_path / "pope"
    assert f"hf download lmms-lab/POPE --repo-type dataset --local-dir {place}" in str(told.value)
    shutil.copytree(HUB / "pope", place)  # what it would bring
    assert read_questions(tmp_path, "pope")[0]


def test_a_missing_part_of_several_files_is_told(tmp_path):
    whole = HUB / "pope/data/test-00000-of-00001.parquet"
    put(tmp_path / "pope/data/test-00000-of-00002.parquet", whole.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"holds 1 of the 2 files of test; download"):
        read_questions(tmp_path, "pope")
    parquet(tmp_path / "pope/data/test-00001-of-00002.parquet",
            [{"question": "Is there a hat?", "answer": "no", "category": "random",
              "question_id": "9", "image": picture(9)}], image="image", question="string",
            answer="string", category="string", question_id="string")  # fmt: skip
    assert len(read_questions(tmp_path, "pope")[0]) == 9


def test_of_two_forms_the_first_is_read_and_the_other_named(tmp_path):
    for root in (HUB, TSV):
        shutil.copytree(root / "mme", tmp_path / "mme", dirs_exist_ok=True)
    _, warnings = read_questions(tmp_path, "mme")
    assert warnings[0].startswith(f"read from {tmp_path}/mme/data/test-")
    assert warnings[0].endswith("MME.tsv holds it too and is not read")


def test_tables_in_folders_of_pictures_and_hidden_ones_are_not_looked_at(tmp_path):
    for folder in ("images", ".cache/huggingface", "train2017"):
        put(tmp_path / "vsr" / folder / "test.jsonl", b"{}")
    assert sources.forms(tmp_path, entry_of("vsr")) == []
    put(tmp_path / "vsr/data/Test.JSONL", b"{}")
    assert [p.name for p in sources.find_files(tmp_path, entry_of("vsr"))] == ["Test.JSONL"]


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(ValueError, match="unknown benchmark 'refcoco_testC'; nearest: refcoco"):
        read_questions("anywhere", "refcoco_testC")
    with pytest.raises(ValueError, match="prompt='mine' is unknown; use one of qwen, vlmevalkit"):
        read_questions(HUB, "pope", prompt="mine")
    assert read_questions(HUB, "pope", prompt="vlmevalkit")[0]


def test_a_tsv_whose_last_line_has_no_end_is_read_once_it_has_one(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("index\tanswer\n0\tA")
    with pytest.raises(ValueError, match="ends in the midst of a line"):
        list(read_rows(path))
    path.write_text("index\tanswer\n0\tA\n")
    assert [row.values for row in read_rows(path)] == [{"index": "0", "answer": "A"}]


def test_a_missing_column_is_told_with_those_there_are(tmp_path):
    rows = [{"index": 0, "quesion": "?", "answer": "A", "image": picture(0)}]
    tsv(tmp_path / "mmstar/MMStar.tsv", rows, "index quesion answer image")
    told = r"MMStar.tsv row 1 has no column question, but index, quesion, answer, image; see"
    with pytest.raises(ValueError, match=told):
        read_questions(tmp_path, "mmstar")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"answer": "E"}, "row 1: answer='E' is none of the options A, B, C, D"),
        ({"answer": "dog"}, "row 1: answer='dog' is no option's letter"),
        ({"question": ""}, "row 1: question=None is empty"),
        ({"image": ""}, "row 1 has no picture, but the columns index"),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path, change, rule):
    row = {"index": 0, "question": "?", "answer": "A", "image": picture(0), "category": "x"}
    row |= dict.fromkeys("ABCD", "text") | change
    tsv(tmp_path / "mmstar/MMStar.tsv", [row], "index question A B C D answer category image")
    with pytest.raises(ValueError, match=rule):
        read_questions(tmp_path, "mmstar")


def test_rows_with_one_id_are_refused_and_one_of_them_kept(tmp_path):
    shutil.copytree(HUB / "cvbench", tmp_path / "cvbench")
    whole = (tmp_path / "cvbench/test_2d.parquet").read_bytes()
    put(tmp_path / "cvbench/old/test_2d.parquet", whole)
    with pytest.raises(
        ValueError, match="CV-Bench: two rows have the id 2D-0; are its files there"
    ):
        read_questions(tmp_path, "cvbench")
    shutil.rmtree(tmp_path / "cvbench/old")  # as advised
    assert len(read_questions(tmp_path, "cvbench")[0]) == 6


def test_files_of_another_split_hold_no_question(tmp_path):
    row = {"index": 0, "question": "a cat", "answer": "[0, 0, 1, 1]", "category": "RefCOCO testA"}
    row |= {"image": picture(0)}
    tsv(tmp_path / "refcoco/RefCOCO.tsv", [row], " ".join(row))
    with pytest.raises(ValueError, match="the files of RefCOCO val hold no question of it"):
        read_questions(tmp_path, "refcoco_val")
    assert read_questions(tmp_path, "refcoco_testa")[0]
    tsv(tmp_path / "refcoco/RefCOCO.tsv", [row | {"category": "RefCOCO val"}], " ".join(row))
    assert read_questions(tmp_path, "refcoco_val")[0]
