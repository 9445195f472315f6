"""Picture cells in all their forms; what they tell without being read, and of whom."""

import base64
import hashlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dig_jax.benchmarks import catalog, picture_cells, sources
from dig_jax.benchmarks.picture_cells import read_table
from dig_jax.benchmarks.questions import data_digest, pictures_digest, read_questions
from dig_jax.benchmarks.tables import read_rows
from scripts.make.benchmark_files import lines, picture, put, tsv
from tests.benchmarks.test_readers import COUNTS, FILES, HUB, TSV, asked, content


def test_pictures_come_in_every_form_of_a_cell(tmp_path):
    data = picture(5)
    coded = base64.b64encode(data).decode()
    put(tmp_path / "images/5.png", data)
    cells = [
        {"bytes": data, "path": None}, {"bytes": None, "path": "5.png"}, data, coded,
        f"data:image/png;base64,{coded}", "images/5.png", "elsewhere/5.png", [data], [coded],
        coded[:40] + "\n" + coded[40:],
    ]  # fmt: skip
    for n, cell in enumerate(cells):
        path = tmp_path / f"{n}.parquet"
        pq.write_table(pa.Table.from_pylist([{"image": cell}]), path)
        (row,) = read_table([path])
        assert [p.read() for p in row.pictures] == [data], cell
    two = f'["{coded}", "{coded}"]'
    tsv(tmp_path / "two.tsv", [{"index": 0, "image": two}], "index image")
    (row,) = read_table([tmp_path / "two.tsv"])
    assert [p.read() for p in row.pictures] == [data, data]
    for cell in ({"image": coded}, {"image": None, "image_path": "5.png"}):
        lines(tmp_path / "one.json", [cell], whole=True)
        assert read_table([tmp_path / "one.json"])[0].pictures[0].read() == data


def as_bytes(data, **_):
    return {"image": data}


def as_base64(data, **_):
    return {"image": base64.b64encode(data).decode()}


def as_struct_of_a_file(data, folder, **_):
    return {"image": {"bytes": None, "path": beside(data, folder)}}


def as_image_path(data, folder, **_):
    return {"image": None, "image_path": beside(data, folder)}


def beside(data, folder):
    name = f"{hashlib.sha256(data).hexdigest()[:8]}.png"
    put(folder / "images" / name, data)
    return name


def as_another_rows_index(data, row, seen, **_):
    """VLMEvalKit's way to save room: the first row that has the picture holds it."""
    first = seen.setdefault(data, row["index"])
    return {"image": data if first == row["index"] else first}


def rewritten(name, root, out, cell):
    """A fixture with its pictures in cells of another form."""
    for path in sources.find_files(root, catalog.entry_of(name)):
        target, seen, made = out / path.relative_to(root), {}, []
        for cells, row in zip(list(read_rows(path)), read_table([path]), strict=True):
            values = dict(cells.values)
            for shown in row.pictures:
                told = {"folder": target.parent, "row": values, "seen": seen}
                values |= cell(shown.read(), **told)
            made.append(values)
        if path.suffix == ".tsv":
            tsv(target, made, " ".join(dict.fromkeys([*made[0], "image_path"])))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(made), target)


FORMS = {
    "hub": (HUB, (as_bytes, as_base64, as_struct_of_a_file)),
    "tsv": (TSV, (as_base64, as_image_path, as_another_rows_index)),
}


@pytest.mark.parametrize(
    ("form", "cell"), [(form, cell) for form, (_, cells) in FORMS.items() for cell in cells]
)
@pytest.mark.parametrize("name", [*COUNTS, "vsr", "refcoco_val"])
def test_every_benchmark_is_read_from_every_form_of_a_cell(name, form, cell, tmp_path):
    root = FORMS[form][0]
    if (form, name) == ("hub", "vsr"):
        return  # a list, whose pictures are files
    rewritten(name, root, tmp_path, cell)
    left, right = asked(root, name), asked(tmp_path, name)
    assert content(left, "groups") == content(right, "groups")
    assert [[p.read() for p in q.pictures] for q in left] == [
        [p.read() for p in q.pictures] for q in right
    ]


def test_equal_pictures_have_equal_keys_and_others_not(tmp_path):
    rows = [{"index": n, "image": picture(n % 2)} for n in range(3)] + [{"index": 3, "image": 1}]
    tsv(tmp_path / "a.tsv", rows, "index image")
    keys = [row.pictures[0].key for row in read_table([tmp_path / "a.tsv"])]
    assert keys[0] == keys[2] != keys[1] == keys[3]


def test_a_picture_of_the_same_name_is_another_picture(tmp_path):
    """Beside a table the names alone were looked at; a date, or a size, would not do."""
    shutil.copytree(FILES / "vstar", tmp_path / "vstar")
    path = tmp_path / "vstar/direct_attributes/sa_0.png"
    before = asked(tmp_path, "vstar")
    digest = pictures_digest(before)
    assert digest == pictures_digest(asked(FILES, "vstar"))  # other dates, another root
    for part in (0.1, 0.5, 0.9):
        data = bytearray(picture(40))
        data[int(part * len(data))] ^= 1
        path.write_bytes(data)
        assert pictures_digest(before) != digest
        assert data_digest(asked(tmp_path, "vstar")) == data_digest(before)
    path.write_bytes(picture(40))  # back
    assert pictures_digest(before) == digest
    path.unlink()
    picture_cells._found.cache_clear()  # a command looks anew
    assert pictures_digest(read_questions(tmp_path, "vstar", pictures=False)[0]) is None
    assert pictures_digest(asked(HUB, "vstar")) is None  # of cells, their keys are their contents


def test_a_large_files_middle_and_end_are_looked_at(tmp_path):
    path, size = tmp_path / "big", 10 * picture_cells.SAMPLE
    seen = {picture_cells.file_sample(path) for place in (None, 0, size // 2, size - 1)
            if put(path, changed(size, place)) is None}  # fmt: skip
    assert len(seen) == 4


def changed(size, place):
    data = bytearray(size)
    if place is not None:
        data[place] = 1
    return bytes(data)


@pytest.mark.parametrize("root", [HUB, TSV], ids=["hub", "tsv"])
def test_sizes_are_known_without_reading_a_table_again(root, monkeypatch):
    """A pass over HR-Bench 8K is one over 4.6 GB; what is no picture is named when it is read."""
    questions = asked(root, "hrbench8k")
    monkeypatch.setattr(picture_cells, "_read_cell", lambda *_: pytest.fail("was read again"))
    assert {picture_cells.size_of(q.pictures[0]) for q in questions} == {(32, 24)}
