"""The blocks of a page: markup is what the code wrote, pictures stand where their numbers are."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dig_jax.pages import bars, facts, lines
from dig_jax.pages.answers import is_box, of_row
from dig_jax.pages.picture import WIDTH_PX, framed, rectangle, small_copy, small_copy_of
from dig_jax.pages.results import Scored, benchmark, p_text, scale_of
from dig_jax.pages.runs import most_moved
from dig_jax.pages.shell import Html, Side, html, joined, page, plain, printable, table, tag
from tests.benchmark.parsed import Page

A, B = Side(0, "first", ""), Side(1, "second", "")
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.text())
def test_text_comes_back_as_it_was_and_makes_no_markup(text):
    """Whatever it says: an element with it has that element alone, and the text's own letters."""
    written = tag("p", text, title=text)
    found = Page(written)
    assert [name for name, _ in found.tags] == ["p"]
    assert found.tags[0][1]["title"] == printable(text)
    assert found.words == " ".join(printable(text).split())
    assert written.encode()


def test_half_a_character_a_null_and_a_turned_direction_are_replaced():
    assert printable("a\ud800b\0c\u202ed\r\ne") == "a\ufffdb\ufffdc\ufffdd\ne"


def test_text_that_is_added_to_markup_is_escaped():
    assert joined(tag("b", "x") + "<i>") == "<b>x</b>&lt;i&gt;"
    assert Html(" & ").join(["<", tag("b", ">")]) == "&lt; & <b>&gt;</b>"
    assert isinstance(html("x") + "y", Html)


def test_words_of_a_cell_are_without_markup():
    assert plain(tag("b", 'a < b & "c"')) == 'a < b & "c"'
    assert plain(3) == "3"


def test_no_content_is_taken_for_a_place_of_the_template():
    text = page("<!--NAV-->", "", [A], [])
    assert text.count("&lt;!--NAV--&gt;") == 2
    assert "<!--" not in text


def test_a_cell_tells_its_column_where_a_row_becomes_a_block():
    found = Page(table(["", tag("b", "A & B"), "c"], [["row", 1, 2]], css="stack", wide=[2]))
    assert [cell["data-label"] for cell in found.all("td")] == ["A & B", "c"]
    assert [cell.get("class") for cell in found.all("td")] == [None, "wide"]
    assert found.all("th", scope="row")


def test_bars_share_one_scale_and_clip_at_its_ends():
    picture = Page(bars.intervals([(A, [0, -1, 0.5]), (B, [1, 0.5, 2])], (0.0, 1.0), "said"))
    (left, right) = (
        [float(line[n]) for n in ("x1", "x2")] for line in picture.all("line", css="whisker")
    )
    assert (left, right) == ([12, 170], [170, 328])
    assert len(picture.all("circle")) == len(picture.all("polygon")) == 1  # not by colour alone
    assert picture.all("svg", **{"aria-label": "said", "role": "img"})
    assert picture.words == "0 0.25 0.5 0.75 1"


def test_a_difference_stands_about_zero_with_what_could_not_be_shown():
    picture = Page(bars.difference(B, [2.0, -1.0, 5.0], 4.0, 10.0, ""))
    (band,) = picture.all("rect", css="band")
    (zero,) = picture.all("line", css="zero")
    middle = float(zero["x1"])
    assert float(band["x"]) + float(band["width"]) / 2 == pytest.approx(middle)
    (whisker,) = picture.all("line", css="whisker")
    unit = (float(whisker["x2"]) - float(whisker["x1"])) / 6
    assert float(band["width"]) == pytest.approx(8 * unit)
    assert float(whisker["x1"]) == pytest.approx(middle - unit)


@given(NUMBERS, NUMBERS)
def test_a_scale_is_round_and_holds_both_ends(one, other):
    low, high = sorted((one, other))
    ticks = lines.rounded(low, high)
    gaps = np.diff(ticks)
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert high <= ticks[-1] + slack
    assert 2 <= len(ticks) <= 7
    assert gaps == pytest.approx(gaps[0], rel=1e-6, abs=1e-12)


def test_a_running_mean_is_over_the_last_twentieth():
    points = [(step, float(step % 2)) for step in range(40)]
    found = lines.running_mean(points)
    assert found[0] == (0, 0.0)
    assert {value for _, value in found[1:]} == {0.5}
    assert lines.running_mean(points[:3]) == points[:3]


def test_a_long_line_is_thinned_and_keeps_its_mean():
    chart = Page(lines.chart("t", {"x": [(s, s / 4999) for s in range(5000)]}, {}))
    (raw,) = chart.all("polyline", css="raw")
    points = [tuple(map(float, point.split(","))) for point in raw["points"].split()]
    assert len(points) <= 300
    assert np.mean([y for _, y in points]) == pytest.approx((8 + 180) / 2, abs=1)


def test_a_line_of_no_numbers_is_no_chart():
    assert lines.chart("t", {"x": [(1, float("nan")), (2, float("inf"))]}, {}) == ""
    assert "x" in lines.chart("t", {"x": [(1, 2.0)]}, {})


def test_a_picture_is_reduced_and_a_small_one_kept_to_the_pixel():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    shown = small_copy(file.getvalue())
    assert (shown.width, shown.height) == (WIDTH_PX, 259)
    assert shown.uri.startswith("data:image/jpeg;base64,")
    tiny = small_copy_of(noise[:30, :40])
    data = base64.b64decode(tiny.uri.partition(",")[2])
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(data))), noise[:30, :40])


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "CMYK", "I;16"])
def test_pictures_of_any_mode_are_shown(mode):
    file = io.BytesIO()
    Image.new(mode, (20, 10)).save(file, "TIFF" if mode == "CMYK" else "PNG")
    assert (small_copy(file.getvalue()).width, small_copy(file.getvalue()).height) == (20, 10)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut off"])
def test_bytes_that_are_no_picture_are_told(data):
    with pytest.raises(ValueError, match="no picture that can be read"):
        small_copy(data)


def test_a_box_stays_inside_its_picture_whichever_corner_comes_first():
    (_, rect) = Page(rectangle("said s0", (1.4, 0.75, 0.5, -2))).all("rect")
    drawn = [float(rect[name]) for name in ("x", "y", "width", "height")]
    assert drawn == [0.5, 0, 0.5, 0.75]
    shown = small_copy_of(np.zeros((10, 20, 3), np.uint8))
    assert not Page(framed(shown, "nothing over it")).all("svg")


def test_fields_that_differ_are_marked_and_those_that_a_side_lacks_not_told():
    found = Page(facts.beside([A, B], [{"x": 1, "y": True}, {"x": 1.5}], caption="c"))
    assert [row.get("class") for row in found.all("tr")] == [None, "differs", "differs"]
    assert "x 1 1.5" in found.words
    assert "y yes not told" in found.words
    same = [{"x": 1}, {"x": 1}]
    assert facts.beside([A, B], same, caption="c", only_differences=True) == ""
    assert len(Page(facts.beside([A, B], same, caption="c")).all("tr")) == 2


def test_fields_of_several_parts_tell_where_they_differ():
    parts = [("pope", {"a": 1, "b": 2}), ("vstar", {"a": 1, "b": 3}), ("mme", {"a": 1, "b": 2})]
    assert facts.merged(parts) == {"a": "1", "b": "2 (pope, mme); 3 (vstar)"}


@pytest.mark.parametrize(
    ("largest", "value", "text"),
    [
        (1.0, 0.1234, "12.3"),
        (2000.0, 1643.4, "1643"),
        (100.0, 12.34, "12.3"),
        (1.0, -0.05, "\u22125.0"),
    ],
)
def test_a_score_is_written_in_the_units_of_its_scale(largest, value, text):
    assert scale_of(largest).text(value) == text


def test_p_values_have_two_digits():
    assert [p_text(p) for p in (0.5, 0.0312, 0.0004, 1.0)] == ["0.50", "0.031", "<\xa0.001", "1.00"]


def test_the_most_moved_are_half_rises_and_half_falls_where_there_are_as_many():
    moved = [0.1, -0.5, 0.9, 0.0, -0.1, 0.5]
    assert most_moved(moved, 4) == [2, 5, 1, 4]
    assert most_moved(moved, 100) == [2, 5, 0, 1, 4]
    assert most_moved([0.1, 0.2, 0.3], 2) == [2, 1]
    assert most_moved([0.0], 2) == []


def test_all_boxes_of_an_answer_are_drawn_and_the_first_counts():
    row = {"value": [[0, 0, 500, 500], [1, 2, 3, 4]], "how": "json", "correct": 1.0, "iou": 0.5}
    found = of_row(A, row, samples=4, share=0.75)
    assert found.boxes == [[0, 0, 0.5, 0.5], [0.001, 0.002, 0.003, 0.004]]
    assert "the first of 2 counts (json) · IoU 0.50" in found.facts
    assert "the first of 4 answers, 75% of them right" in found.facts
    assert not is_box("ABCD")


def test_a_way_in_which_one_side_read_nothing_is_none_there():
    counts = {"questions": 2, "answers": 2, "truncated": 0, "unparsed": 0}
    told = {"headline": "accuracy", "scores": {"accuracy": [1, 1, 1]}, "protocol": {}, "rows": []}
    scored = [
        Scored(side, {**told, "counts": {**counts, "how": how}})
        for side, how in ((A, {"word": 2}), (B, {"word": 1, "tag": 1}))
    ]
    scales = {"accuracy": scale_of(1.0)}
    found = Page(benchmark("vsr", scored, scales, [], [], open_=True))
    assert "read: tag 0 1" in found.words
