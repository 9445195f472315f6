"""The contact sheet refers to nothing outside itself, shows the records' bytes, hides no text."""

import base64
import io
import json
import re

import msgpack
import numpy as np
import pytest
from PIL import Image

from dig_jax.data import records
from dig_jax.data.__main__ import main
from dig_jax.data.corpus.on_disk import open_splits
from dig_jax.data.inspect import heat, sheet, show, tags
from dig_jax.data.scene.labels import pixel_difference
from tests.benchmark.parsed import Page
from tests.corpora import paint_split, plain_pair, stored_records, write_split

NASTY = '<script>alert("1")</script>'


def sheet_of(root, *args):
    out = root / "sheet.html"
    assert main(["show", "--root", str(root), *args]) == 0
    return out.read_text()


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    paint_split(root, "mixed", 9, k_low=1, k_high=3)
    paint_split(root, "test_same", 2, k_low=0, k_high=0)
    return root


@pytest.fixture(scope="module")
def text(painted):
    return sheet_of(painted)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_nothing_is_fetched_from_anywhere(text, page):
    links = [
        attrs[name]
        for _, attrs in page.tags
        for name in ("src", "href", "srcset", "action", "poster", "data")
        if name in attrs
    ]
    assert len(links) > 30
    assert not [link for link in links if not link.startswith(("data:", "#"))]
    outside = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    for way_out in ("http:", "https:", "//", "url(", "@import", "import(", "fetch(", "WebSocket"):
        assert way_out not in outside, way_out


def test_the_content_policy_forbids_every_request(page):
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(maxsplit=1) for rule in policy["content"].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert set(rules) == {"default-src", "img-src", "style-src", "script-src"}


def test_a_and_b_are_the_bytes_of_the_record(painted, page):
    shown = [base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")]
    stored = [
        msgpack.unpackb(r) for s in ("mixed", "test_same") for r in stored_records(painted, s)
    ]
    assert shown[0::3] == [record["image_a"] for record in stored]
    assert shown[1::3] == [record["image_b"] for record in stored]


def test_the_heat_map_has_the_colour_of_every_difference(painted, page):
    pair = records.decode(stored_records(painted, "mixed")[0])
    png = base64.b64decode(page.all("img")[2]["src"].partition(",")[2])
    got = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    delta = pixel_difference(pair.image_a, pair.image_b)
    assert delta.max() > 50
    np.testing.assert_array_equal(got, heat.palette()[delta])


def test_heat_gets_lighter_and_tells_small_differences_apart():
    linear = (heat.palette() / 255.0) ** 2.2
    lightness = (linear @ [0.2126, 0.7152, 0.0722]) ** (1 / 3)
    assert (np.diff(lightness) > -1e-3).all()
    marks = lightness[list(heat.MARKS)]
    assert (np.diff(marks) > 0.04).all()
    assert marks[0] < 0.15
    assert marks[-1] > 0.95


def test_every_label_is_drawn_in_all_three_pictures(painted, page):
    rects = [r for r in page.all("rect") if r.get("class", "").startswith("label t-")]
    drawn = [[float(rect[name]) for name in ("x", "y", "width", "height")] for rect in rects]
    boxes = []
    for record in stored_records(painted, "mixed"):
        pair = [d["box"] for d in records.decode_meta(record)["differences"]]
        boxes += 3 * [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in pair]
    assert drawn == boxes


def test_every_difference_is_told_in_words(painted, page):
    words = page.words
    for record in stored_records(painted, "mixed"):
        for d in records.decode_meta(record)["differences"]:
            assert " → ".join(v for v in (d["from"], d["to"]) if v) in words
    assert "identical pair" in words


def test_every_picture_has_a_text_and_every_pair_its_own_address(page):
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    names = [article["id"] for article in page.all("article")]
    assert len(set(names)) == len(names) == 11
    assert all(page.all("a", href=f"#{name}") for name in names)


def test_filters_find_what_the_pairs_hold(painted, page):
    articles = page.all("article", **{"data-split": "mixed"})
    metas = [records.decode_meta(record) for record in stored_records(painted, "mixed")]
    assert [int(a["data-k"]) for a in articles] == [m["k"] for m in metas]
    kinds = [sorted({d["type"] for d in m["differences"]}) for m in metas]
    assert [json.loads(a["data-types"]) for a in articles] == kinds


def test_the_header_tells_the_draw_the_renderer_and_the_look(page):
    words = page.words
    for told in ("K 1..3, all combos", "fake", "min_changed", "11 pairs, the first ones"):
        assert told in words, told


def test_equal_corpora_give_equal_sheets(painted, text):
    assert sheet_of(painted) == text


def test_imported_pairs_are_shown_and_their_words_are_only_text(tmp_path):
    fields = {"from": NASTY, "to": "a & b", "type": NASTY}
    write_split(tmp_path, "elsewhere", [plain_pair((5, 5, 20, 21), **fields)])
    page = Page(sheet_of(tmp_path))
    assert len(page.all("script")) == 1
    words = page.words
    assert NASTY in words
    assert "a & b" in words
    assert "imported" in words
    (article,) = page.all("article")
    assert json.loads(article["data-types"]) == [NASTY]
    assert len(page.all("rect", **{"class": "label t-other"})) == 3


def picked(root, **kwargs):
    (split,) = open_splits(root, "mixed")
    args = {"pick": "first", "pairs": 4, **kwargs}
    return [card.idx for card in show.read_cards(split, show.choose(split, **args))]


def test_first_pairs_come_in_order(painted):
    assert picked(painted) == [0, 1, 2, 3]


def test_random_pairs_repeat_with_their_seed_only(painted):
    draws = [picked(painted, pick="random", seed=seed) for seed in range(5)]
    assert picked(painted, pick="random", seed=3) == draws[3]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(len(set(draw)) == 4 for draw in draws)


def test_hard_pairs_come_faintest_first(painted):
    metas = [records.decode_meta(record) for record in stored_records(painted, "mixed")]
    faint = [min(d["changed_px"] * d["mean_absdiff"] for d in m["differences"]) for m in metas]
    assert picked(painted, pick="hard") == np.argsort(faint, kind="stable")[:4].tolist()


def test_marginal_pairs_are_those_that_tighter_rules_reject_first(painted):
    (split,) = open_splits(painted, "mixed")
    metas = [records.decode_meta(record) for record in stored_records(painted, "mixed")]
    slacks = [show.slack(meta, split.look) for meta in metas]
    assert min(slacks) > 0.9  # min_side_px and min_visible are the planner's, at its own size
    assert picked(painted, pick="marginal") == np.argsort(slacks, kind="stable")[:4].tolist()
    first = metas[int(np.argmin(slacks))]
    worse = json.loads(json.dumps(first))
    worse["differences"][0]["changed_frac"] = 0.5 * split.look["min_changed"]
    assert show.slack(worse, split.look) == pytest.approx(0.5)


def test_asked_indices_come_as_asked(painted):
    assert picked(painted, indices=[7, 2]) == [7, 2]
    with pytest.raises(ValueError, match="--idx=9 is not in split mixed; use 0 to 8"):
        picked(painted, indices=[9])


def test_a_sheet_too_large_is_refused_with_a_number_that_fits(painted, capsys):
    args = ["show", "--root", str(painted), "--out", str(painted / "small.html")]
    args += ["--max-mb", "0.1"]
    assert main(args) == 1
    message = capsys.readouterr().err
    fits = re.search(r"--pairs (\d+)", message)[1]
    assert main([*args, "--pairs", fits]) == 0
    size = (painted / "small.html").stat().st_size - sheet.TEMPLATE.stat().st_size
    assert size < 0.1e6 + 20e3  # of which the header's and the scale's text


@pytest.mark.parametrize(
    ("args", "message", "followed"),
    [
        (["--idx", "3;4"], "write 3,17", ["--idx", "0,1"]),
        (["--idx", "9999"], "use 0 to", ["--idx", "0"]),
        (["--pairs", "0"], "use 1 or more", ["--pairs", "1"]),
        (["--splits", "mixd"], "use mixed", ["--splits", "mixed"]),
    ],
)
def test_wrong_requests_say_what_to_do(painted, tmp_path, capsys, args, message, followed):
    show = ["show", "--root", str(painted), "--out", str(tmp_path / "sheet.html")]
    assert main([*show, *args]) == 1
    assert message in capsys.readouterr().err
    assert main([*show, *followed]) == 0


def test_names_stay_in_the_picture_and_apart():
    """Three names of boxes that nearly coincide in a corner, where the first choices collide."""
    boxes = [(90, 0, 126, 30), (92, 2, 127, 33), (88, 3, 124, 34)]
    texts = ["1 material: rubber", "2 color: purple", "3 size: medium"]
    styles = tags.place(boxes, texts, (128, 96))
    assert len(set(styles)) == 3
    for style in styles:
        at = dict(part.split(":") for part in style.split(";"))
        assert all(-1 <= float(value.removesuffix("%")) <= 100 for value in at.values()), style
    assert "right" in styles[0]  # flush with the right side, where it fits


def test_a_name_stands_above_its_box_where_there_is_room():
    assert tags.place([(32, 48, 64, 72)], ["1 add"], (128, 96)) == ["left:25.0%;bottom:50.0%"]
