"""The page says what the files say, refers to nothing outside itself, runs no text of theirs."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from dig_jax import report as run_report
from dig_jax.benchmark import cards, report
from dig_jax.benchmark.__main__ import main
from dig_jax.benchmarks.questions import data_digest
from dig_jax.common.files import read_sealed
from dig_jax.common.rows import line_of
from dig_jax.config import Config, DataConfig, EvalConfig, to_json
from dig_jax.pages.picture import WIDTH_PX
from dig_jax.scoring.metrics import METRICS
from tests.benchmark.parsed import Page
from tests.benchmark.results import (
    BOX,
    box_questions,
    edit,
    letter_questions,
    pair_questions,
    write,
)
from tests.corpora import plain_pair, write_split

NASTY = '</pre><script>alert("1")</script><img src=x onerror=alert(1)><!--SECTIONS-->\ud800\0\u202e'
FIRST, SECOND = [1] * 10 + [0] * 10, [1] * 8 + [0] * 2 + [1] * 5 + [0] * 5


def picture(key, size=(640, 480)):
    """A picture's file; a wide one, so that a small copy is another."""
    file = io.BytesIO()
    Image.new("RGB", size, (int(key[1:]) * 9, 60, 90)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def sides(tmp_path):
    """Two result folders: letters, pairs and boxes."""
    for name, right in (("base", FIRST), ("tuned", SECOND)):
        folder = tmp_path / name
        write(
            folder, "vstar", letter_questions(20), right, source=name, warnings=["19 rows wanted"]
        )
        write(folder, "mmvp", pair_questions(20), right, source=name)
        write(folder, "refcoco_testa", box_questions(20), right, source=name)
    return tmp_path / "base", tmp_path / "tuned"


@pytest.fixture
def asked(monkeypatch):
    """Questions with pictures below any root."""
    made = {"vstar": letter_questions, "refcoco_testa": box_questions}

    def read_questions(root, name, **_):
        if name not in made:
            raise ValueError(f"{root} holds no {name}")
        return made[name](20, picture), []

    monkeypatch.setattr(cards, "read_questions", read_questions)


def page_of(*places, **options):
    return report.page_of(places, **({"resamples": 100} | options))


def test_nothing_is_fetched_from_anywhere(sides, run, asked):
    text = page_of(*sides, run, root=sides[0])
    page = Page(text)
    names = ("src", "href", "srcset", "action", "poster", "data")
    links = [attrs[name] for _, attrs in page.tags for name in names if name in attrs]
    assert len(links) > 20
    assert not [link for link in links if not link.startswith(("data:", "#"))]
    outside = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", "", text)
    for way_out in ("http:", "https:", "url(", "@import", "import(", "fetch(", "WebSocket"):
        assert way_out not in outside, way_out
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(maxsplit=1) for rule in policy["content"].split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")


def test_no_text_of_a_file_becomes_markup(tmp_path, run, monkeypatch):
    """Whoever wrote it: a model, a data set, a configuration, a folder's name."""
    made = [type(q)(**(vars(q) | {"id": f"{q.id}{NASTY}", "prompt": NASTY}))
            for q in letter_questions(20)]  # fmt: skip
    monkeypatch.setattr(cards, "read_questions", lambda *_, **__: (made, []))
    texts = {question.id: NASTY for question in made[:10]}
    said = {"source": NASTY, "commit": NASTY, "versions": {NASTY: NASTY}, "decoding": NASTY}
    folders = [tmp_path / "a<b>", tmp_path / 'c" onload="d']
    for folder, right in zip(folders, (FIRST, SECOND), strict=True):
        write(folder, "vstar", made, right, texts=texts, warnings=[NASTY], **said)
    spoil_run(run)
    text = page_of(*folders, run, root=tmp_path)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert len(page.all("section")) == text.count("<section")
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    handlers = [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert not handlers
    assert page.words.count('<script>alert("1")</script>') > 10
    assert "\0" not in text
    assert text.encode()  # half a surrogate pair could not be written


def spoil_run(folder):
    for path in folder.glob("*.json"):
        body = json.loads(path.read_text())
        for row in body.get("rows", ()):
            row |= {"text": NASTY, "verdict": NASTY}
        body |= {"name": NASTY[:-3]} if path.name == "config.json" else {}
        for start in body.get("starts", ()):
            start |= {"commit": NASTY, "changed": {NASTY: [NASTY, NASTY]}}
        path.write_text(json.dumps(body))


def test_what_answering_cost_is_told_with_the_part_that_was_compiling(sides):
    """Two shares of one benchmark: 100 s, of which 25 s, for 40 answers."""
    for number in (1, 2):
        told = {"answers": 20, "tokens": 300, "seconds": 50, "compiling": 12.5}
        line, _ = line_of(told | {"device": "cpu", "devices": 1}, 0)
        (sides[0] / "vstar" / f"cost-{number}-of-2.jsonl").write_text(line)
    page = Page(page_of(*[side / "vstar" for side in sides]))
    assert "seconds of answering 100.0 for 40 answers, on 1 x cpu not told" in page.words
    assert "share that was compiling 25.0% not told" in page.words
    assert "tokens per second without it 8 not told" in page.words


def test_scores_are_those_of_the_files(sides):
    page = Page(page_of(*sides))
    for folder in sides:
        for path in folder.glob("*/result.json"):
            body = read_sealed(path, "")
            value, low, high = (100 * v for v in body["scores"][body["headline"]])
            assert f"{value:.1f} [{low:.1f}, {high:.1f}]" in page.words
    assert "vstar accuracy, 20 questions" in page.words


def test_every_interval_is_drawn_where_it_is(sides):
    """The scale goes from 0 at 12 px to 100 at 328 px."""
    page = Page(page_of(sides[0] / "vstar"))
    _, low, high = read_sealed(sides[0] / "vstar" / "result.json", "")["scores"]["accuracy"]
    (whisker,) = page.all("line", css="whisker")
    drawn = [float(whisker[name]) for name in ("x1", "x2")]
    assert drawn == pytest.approx([12 + 316 * low, 12 + 316 * high], abs=0.01)
    (dot,) = page.all("circle", css="dot")
    assert float(dot["cx"]) == pytest.approx(12 + 316 * 0.5)
    labels = [svg["aria-label"] for svg in page.all("svg", css="bars")]
    assert any(label.startswith("vstar accuracy: A 50 [") for label in labels)


def test_a_difference_is_judged_in_words_and_by_its_flips(sides):
    page = Page(page_of(*sides))
    minus = "\N{MINUS SIGN}"
    assert f"B {minus} A" in page.words
    assert f"+5 {minus}2" in page.words
    assert "inside noise: 20 questions could show" in page.words
    assert "McNemar" in page.words
    assert "Holm" in page.words
    assert "published, for reading: accuracy 92.2" in page.words
    assert len(page.all("rect", css="band")) == 3


def test_flips_are_shown_with_question_answers_and_reading(sides):
    page = Page(page_of(*sides, answers=20))
    assert len(page.all("article", **{"data-way": "gained"})) == 15
    assert len(page.all("article", **{"data-way": "lost"})) == 6
    assert "From A to B: 5 questions gained, 2 lost" in page.words
    assert "A wrong · read as B (letter)" in page.words
    assert "name the benchmarks' folder with --root" in page.words
    assert not page.all("img")


def test_pictures_are_embedded_small_and_boxes_drawn_over_them(sides, asked):
    page = Page(page_of(*[side / "refcoco_testa" for side in sides], root=sides[0], answers=20))
    shown = page.all("img")
    assert len(shown) == 7
    for image in shown:
        data = base64.b64decode(image["src"].partition(",")[2])
        assert Image.open(io.BytesIO(data)).size == (WIDTH_PX, WIDTH_PX * 3 // 4)
    for css, box in (("true", BOX), ("said", BOX), ("said", (600, 700, 900, 950))):
        at = [v / 1000 for v in box]
        wanted = pytest.approx([*at[:2], at[2] - at[0], at[3] - at[1]], abs=1e-4)
        drawn = [[float(r[name]) for name in ("x", "y", "width", "height")]
                 for r in page.all("rect", css=css)]  # fmt: skip
        assert drawn.count(wanted) == 7, css
    assert "Locate thing 10." in page.words
    assert "IoU 1.00" in page.words


def test_what_cannot_be_shown_is_told(sides, monkeypatch):
    def read_questions(root, name, **_):
        if name == "vstar":
            return letter_questions(20, lambda key: b"no picture"), []
        raise OSError(f"{name}.parquet is cut off")

    monkeypatch.setattr(cards, "read_questions", read_questions)
    page = Page(page_of(*sides, root=sides[0]))
    assert "A picture is missing: no picture that can be read" in page.words
    assert "could not be read: refcoco_testa.parquet is cut off" in page.words
    assert "are not those that were answered here" in page.words  # no digest of theirs is "d1"
    for folder in sides:
        digest = data_digest(letter_questions(20, picture))
        edit(folder / "vstar" / "result.json", data_digest=digest)  # cells: no pictures_digest
    shown = Page(page_of(*[side / "vstar" for side in sides], root=sides[0]))
    assert "are not those that were answered here" not in shown.words


def test_one_result_alone_shows_wrong_and_right_answers(sides):
    page = Page(page_of(sides[0] / "vstar", answers=9))
    ways = [card["data-way"] for card in page.all("article")]
    assert ways == ["wrong"] * 6 + ["right"] * 3
    assert "Differences" not in page.words


def test_a_thought_that_was_cut_off_is_shown_from_its_end(tmp_path):
    texts = {"v12": "so " * 3000 + "THE END"}
    write(tmp_path, "vstar", letter_questions(20), FIRST, texts=texts, thinking=True)
    text = page_of(tmp_path, answers=20)
    (shown,) = re.findall("<pre[^>]*>([^<]*THE END)</pre>", text)
    assert shown.startswith("... ")
    assert 1900 < len(shown) < 2100
    assert "read as nothing (truncated)" in Page(text).words


def test_two_protocols_are_marked_and_not_subtracted(sides):
    for path in sides[1].glob("*/result.json"):
        edit(path, decoding="sampled")
    page = Page(page_of(*sides))
    assert len(page.all("tr", css="differs")) >= 2  # source and decoding
    assert "B is not measured as A is" in page.words
    assert "B is not compared:" in page.words
    assert "are of two protocols" in page.words
    assert not page.all("rect", css="band")
    anyway = Page(page_of(*sides, anyway=True))
    assert "another decoding: 'greedy' in the first, 'sampled' in the second" in anyway.words
    assert len(anyway.all("rect", css="band")) == 3


def test_a_keyboard_and_a_narrow_screen_reach_everything(sides, run, asked):
    text = page_of(*sides, run, root=sides[0])
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert all(link["href"][1:] in ids for link in page.all("a"))
    assert all(
        div.get("tabindex") == "0" and div["aria-label"] for div in page.all("div", css="scroll")
    )
    assert all(card["tabindex"] == "-1" for card in page.all("article"))
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert len(page.all("details")) == len(page.all("summary"))
    (viewport,) = page.all("meta", name="viewport")
    assert viewport["content"] == "width=device-width, initial-scale=1"
    assert "(max-width: 760px)" in text
    assert "(prefers-color-scheme: dark)" in text
    stacked = page.all("table", css="stack")
    assert stacked
    assert all("data-label" in cell for cell in page.all("td"))


def test_the_same_files_make_the_same_page(sides, run):
    assert page_of(*sides, run) == page_of(*sides, run)


# runs


def evaluation(name, reward, pairs=6):
    """An eval_<name>.json; of its pairs every second one is found after training."""
    rows = []
    for i in range(pairs):
        f1 = float(name == "after" and i % 2)
        row = {"pair_id": i, "n_true": 1, "text": f"[{i}]", "verdict": "ok", "reward": reward + f1}
        row |= {"pred": [[0.1, 0.2, 0.3, 0.4]], "true": [[0.25, 0.25, 0.5, 0.5]], "f1": f1}
        row |= {"match": [0], "match_iou": [f1], "iou": f1}
        rows.append(row)
    share = reward / 3
    summary = {metric: [share, share - 0.1, share + 0.1] for metric in METRICS}
    summary["f1_n1"] = [share, share - 0.1, share + 0.1]
    protocol = {"split": "heldout", "pairs": pairs, "decode": "greedy", "iou_threshold": 0.5}
    return {"name": name, "protocol": protocol, "summary": summary, "rows": rows}


@pytest.fixture
def run(tmp_path):
    """A run folder as training and evaluating leave it, and its held-out pairs."""
    folder = tmp_path / "run"
    folder.mkdir()
    data = DataConfig(root=str(tmp_path / "data"), image_width=64, image_height=48)
    cfg = Config(name="fake", run_dir=str(folder), data=data, eval=EvalConfig(pairs=6, batch=4))
    (folder / "config.json").write_text(to_json(cfg))
    told = {"kind": "train", "stage": 0, "kl": "nan", "tokens": 50}
    told |= {"time/step": 2.0, "time/rollout": 0.5}
    rows = [told | {"step": s, "reward": 1 + s / 10, "f1": 0.1 * s} for s in range(4)]
    rows[0]["time/compile"] = 1.5
    rows.append({"kind": "eval", "step": 3, "greedy/reward": 1.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = {"first_step": 0, "commit": "abc123", "versions": {"jax": "1.2.3"}}
    later = start | {"first_step": 2, "changed": {"optim.rate": [0.1, 0.01]}}
    later |= {"stopped": {"step": 3, "why": "loss=nan"}, "depends": {"data.dual": "8 pairs 22"}}
    (folder / "manifest.json").write_text(json.dumps({"starts": [start, later]}))
    for name, reward in (("before", 1.0), ("after", 1.5), ("other", 2.0)):
        (folder / f"eval_{name}.json").write_text(json.dumps(evaluation(name, reward)))
    pairs = [plain_pair((16, 12, 32, 24), seed=seed) for seed in range(6)]
    write_split(tmp_path / "data", "heldout", pairs)
    return folder


def test_a_run_is_told_whole(run):
    page = Page(page_of(run))
    for words in (
        "run fake, 4 steps",
        "F1@0.5 0.333 [0.233, 0.433] 0.500 [0.400, 0.600] 0.667 [0.567, 0.767]",
        "F1, 1 difference 0.333",
        "after \N{MINUS SIGN} before, paired by pair: +1.000",
        "name fake tiny",
        "answer tokens per second of rollout 100",
        "share of time that was compiling 75.0% 18.8%",
        "made by commit abc123",
        "jax 1.2.3",
        "2 changed optim.rate 0.1 0.01",
        "3 stopped loss=nan",
        "data.dual 8 pairs 22",
    ):
        assert words in page.words, words


def test_curves_have_every_step_and_no_point_that_is_no_number(run):
    page = Page(page_of(run))
    charts = [svg["aria-label"] for svg in page.all("svg", css="chart")]
    assert charts == ["reward, mean over answers: total, F1 from step 1 to 4"]
    (reward, _) = page.all("polyline", css="raw")
    points = [tuple(map(float, point.split(","))) for point in reward["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert len(points) == 4
    assert np.diff([y for _, y in points]) == pytest.approx(
        np.diff([y for _, y in points])[0], abs=0.2
    )
    assert len(page.all("circle", css="mark")) == 1


def test_pairs_that_changed_are_shown_with_their_boxes(run):
    page = Page(page_of(run, answers=4))
    shown = page.all("article")
    assert [card["data-way"] for card in shown] == ["gained"] * 3
    assert len(page.all("img")) == 6
    assert len(page.all("rect", css="true")) == 6 + 1  # and one in the key
    assert "F1 rose" in page.words
    assert "before F1 0.00, 1 boxes, ok" in page.words


def test_a_run_without_its_data_shows_no_pictures_and_says_so(run, tmp_path):
    (tmp_path / "data").rename(tmp_path / "moved")
    page = Page(page_of(run))
    assert not page.all("img")
    assert "no pictures:" in page.words
    assert len(page.all("article")) == 3


def test_a_run_without_evaluations_still_has_its_curves(run):
    for path in run.glob("eval_*.json"):
        path.unlink()
    page = Page(page_of(run))
    assert "No held-out evaluation" in page.words
    assert page.all("svg", css="chart")


def test_two_runs_stand_beside_one_another_with_what_differs(run, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    for path in run.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    settings = json.loads((run / "config.json").read_text())
    settings["optim"]["rate"] = 0.5
    (other / "config.json").write_text(json.dumps(settings))
    page = Page(page_of(run, other))
    assert "Settings that differ" in page.words
    assert "optim.rate 1e-06 0.5" in page.words
    assert "data.root " not in page.words.partition("Settings of the runs that differ")[2]


def test_the_run_report_writes_the_same_page(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_report, "write_report", lambda folder: "")  # tests/test_report.py's
    out = tmp_path / "deep" / "run.html"
    assert run_report.main([str(run), "--html", str(out)]) == 0
    assert f"its pictures, {out}" in capsys.readouterr().out
    assert out.read_text() == report.page_of([run])


# the command


def test_the_command_writes_one_file(sides, run, tmp_path, capsys):
    out = tmp_path / "page.html"
    args = ["report", *map(str, sides), str(run), "--out", str(out), "--resamples", "100"]
    assert main(args) == 0
    assert "MB; open it in a browser" in capsys.readouterr().out
    assert out.read_text() == page_of(*sides, run)
    page = Page(out.read_text())
    sections = [section["id"] for section in page.all("section")]
    assert sections == [
        "scores",
        "differences",
        "benchmarks",
        "run-2",
        "published",
        "protocol",
        "environment",
    ]


def test_a_file_that_no_browser_would_like_is_not_written(sides, asked, tmp_path, capsys):
    out = tmp_path / "page.html"
    args = ["report", *map(str, sides), "--out", str(out), "--root", str(tmp_path)]
    args += ["--resamples", "100", "--max-mb", "0.08"]
    assert main(args) == 1
    assert (
        "above --max-mb=0.08; use fewer --answers, or a higher --max-mb" in capsys.readouterr().err
    )
    assert not out.exists()
    assert main([*args, "--answers", "0"]) == 0


def test_a_folder_of_neither_is_named(tmp_path, sides, capsys):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")  # a model's, no run's
    out = str(tmp_path / "page.html")
    assert main(["report", str(tmp_path / "checkpoint"), "--out", out]) == 1
    told = capsys.readouterr().err
    assert "holds neither results nor a run; name what `benchmark run --out`" in told
    assert main(["report", str(sides[0]), "--out", out, "--resamples", "100"]) == 0


def test_a_headline_that_counts_nothing_gives_way_on_the_page_too(tmp_path):
    for name, right in (("a", FIRST), ("b", SECOND)):
        write(tmp_path / name, "cvbench", letter_questions(20), right)
    page = Page(page_of(tmp_path / "a", tmp_path / "b"))
    assert "cvbench plain, 20 questions 50.0 [" in page.words
