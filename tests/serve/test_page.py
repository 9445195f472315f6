"""The page at /, in headless Chromium: pictures in, boxes and verdict out, errors in words."""

import re
from json import dumps

import numpy as np
import pytest
from PIL import Image

from dig_jax.boxes import QWEN_SIDE
from dig_jax.config import PromptConfig
from dig_jax.data.inspect.heat import palette
from dig_jax.reward.parse import Verdict, parse
from dig_jax.serve.example import read_example
from tests import ROOT
from tests.serve import browser
from tests.serve.browser import KEY, PAGE, QUESTION

chromium = pytest.mark.skipif(not browser.CHROMIUM, reason="chromium is not installed")
ONE = '[{"bbox_2d": [100, 200, 300, 400]}]'
TWO = '[{"bbox_2d": [100, 200, 300, 400], "label": "d"}, {"bbox_2d": [500, 600, 700, 800]}]'
TEXTS = [
    ONE, TWO, "[]", f"```json\n{TWO}\n```", f"  {ONE}\n<|im_end|>", "", " \n\t", "<|im_end|>",
    "[]<|endoftext|><|im_end|>", f"<|im_start|>{ONE}", "The images are the same.", "[",
    '[{"bbox_2d": [100,200,300,400]}, {"bbox_2d": [500, 60', "```json\n" + ONE[:-1],
    "[{'bbox_2d': [100,200,300,400]}]", '[{"bbox_2d": [100,200,300,400]},]',
    '{"bbox_2d": [100 200 300 400]}', f"Here: {ONE}", f"{ONE} Done.", f"There are [2]: {TWO}",
    f"Maybe {TWO} <answer>{ONE}</answer> done", f"```\n{ONE}\n```",
    '{"bbox_2d": [1, 2, 3, 4]}', "[[1, 2, 3, 4]]", '[{"bbox_2d": [1, 2, 3, 4.0]}]',
    '[{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}]', '[{"bbox_2d": ["1", 2, 3, 4]}]',
    '[{"bbox_2d": [1, 2, 3, 4], "label": 3}]', '[{"bbox_2d": [1, 2, 3, 4], "color": "x"}]',
    '[{"bbox_2d": [1, 2, 3000, 4]}]', '[{"bbox_2d": [-5, 2, 30, 4]}]',
    '[{"bbox_2d": [30, 2, 3, 40]}]', '[{"bbox_2d": [3, 2, 3, 40]}]', "[1e999, NaN, {}, null]",
    f"<think>so {TWO}</think>{ONE}", f"<think>so {TWO}", f"so</think>{ONE}",
    '{"size": [1, 2, 3, 4], "box" : [.5, 6., 7e1, 8]}', "boxes: ( [ '1' , 2,3, \"4\" ] )",
    '[{"label": "a [1,2,3,4] b", "bbox": [5,6,7,8]}', "[" * 30000, '[{"bbox_2d": [01, 2, 3, 4]}]',
    str([{"bbox_2d": [n, n, n + 1, n + 1]} for n in range(300)]).replace("'", '"'),
    "[1,2,3,4] " * 300, '[{"bbox_2d": [1, 2, 3, 4], "label": "\\u00e9\\q"}]', "[1}",
]  # fmt: skip


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture
def stub():
    with browser.serving() as stub:
        yield stub


def test_the_page_refers_to_nothing_outside_itself():
    text = PAGE.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|url\(|https?://(?!www\.w3\.org)", text)
    assert "default-src 'none'" in text
    assert "connect-src 'self'" in text


def test_the_page_asks_what_the_recipe_asks_and_has_words_for_every_verdict():
    text = PAGE.read_text()
    assert f">{PromptConfig().question}</textarea>" in text
    words = re.search(r"const WHY = \{(.*?)\n\};", text, re.S)[1]
    assert set(re.findall(r"(\w+): \"", words)) == {str(verdict) for verdict in Verdict}


def test_the_example_is_a_small_pair_that_differs_inside_its_boxes():
    told = read_example(QUESTION)
    assert told["question"] == QUESTION
    paths = [ROOT / "dig_jax" / "serve" / f"example_{side}.png" for side in "ab"]
    assert all(path.stat().st_size < 40_000 for path in paths)
    a, b = (np.asarray(Image.open(path), int) for path in paths)
    changed = np.abs(a - b).max(-1)
    height, width = changed.shape
    inside = np.zeros(changed.shape, bool)
    for x0, y0, x1, y1 in np.array(told["boxes"]) / QWEN_SIDE:
        rows, columns = (
            slice(int(y0 * height), int(y1 * height)),
            slice(int(x0 * width), int(x1 * width)),
        )
        inside[rows, columns] = True
        assert (changed[rows, columns] > 40).mean() > 0.2
    assert (changed[~inside] > 40).mean() < 0.02


@chromium
def test_boxes_and_colours_are_those_of_the_house(stub, profile):
    """Every text is read as `reward.parse` reads it; the heat map is the contact sheet's."""
    found = browser.run(
        stub,
        profile,
        f"""const read = (text, ended) => {{
              const {{ boxes, verdict, count, readable }} = readAnswer(text, ended);
              return [boxes, verdict, count, readable];
            }};
            out([{dumps(TEXTS)}.flatMap(t => [read(t, true), read(t, false)]), PALETTE]);""",
    )
    expected = []
    for text in TEXTS:
        for ended in (True, False):
            parsed = parse(text, ended=ended)
            boxes = (parsed.boxes_unit.astype(float) * QWEN_SIDE).round(3).tolist()
            expected.append([boxes, str(parsed.verdict), parsed.n_boxes, parsed.readable])
    for number, (one, other) in enumerate(zip(found[0], expected, strict=True)):
        text = TEXTS[number // 2][:80]
        assert one[1:] == other[1:], text
        assert np.allclose(one[0], other[0], atol=1e-3) if one[0] else not other[0], text
    assert np.abs(np.array(found[1]) - palette()).max() <= 1


@chromium
def test_two_dropped_pictures_become_boxes_a_verdict_and_the_time(stub, profile):
    reply = {"content": ONE, "thought": "I look.", "finish": "stop"}
    found = browser.run(
        stub,
        profile,
        f"""await wait(() => model && example);
        const before = at("ask").disabled;
        const jpeg = await file("y.jpg", 40, 80, "blue", "image/jpeg");
        give("drop", sides.a, [await file("x.png", 60, 40, "red"), jpeg]);
        await wait(() => pictures.b);
        at("most").value = "50";
        await answered({dumps(reply)});
        const tags = [...document.querySelectorAll(".side .tag")].map(t => t.style.cssText);
        const result = [text("found"), text("chip"), text("took"), text("raw"), rows()];
        const {{ hidden, open, lastElementChild }} = at("thought");
        const thought = [hidden, open, lastElementChild.textContent];
        const drawn = at("heat").querySelector("canvas").getContext("2d");
        const color = [...drawn.getImageData(5, 5, 1, 1).data.slice(0, 3)];
        give("paste", sides.a.querySelector("input"), [await file("z.png", 30, 30, "green")]);
        await wait(() => pictures.a.name === "z.png");
        const after = at("result").hidden;
        out({{ before, result, tags, thought, color, after, error: text("error") }});
        """,
    )
    assert found["before"] is True
    head, chip, took, raw, rows = found["result"]
    assert (head, chip, raw) == ("1 difference", "readable", ONE)
    assert re.fullmatch(r"\d+\.\d s, 7 tokens", took)
    assert rows[1] == ["1", "100 200 300 400", "4 16 12 32"]
    assert found["tags"] == ["left: 10%; top: 20%;"] * 2
    assert found["thought"] == [False, False, "I look."]
    assert np.abs(palette()[254] - np.array(found["color"])).max() <= 12  # red to JPEG's blue
    assert found["after"] is True  # another picture: that answer is gone
    assert found["error"] == ""
    (body,) = stub.seen
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"][:2]]
    assert [url.partition(";")[0] for url in urls] == ["data:image/png", "data:image/jpeg"]
    assert (body["model"], body["temperature"], body["stream"]) == ("tiny", 0, False)
    assert body["max_tokens"] == 50


@chromium
def test_the_example_has_its_overlaps_and_keys_blink_hide_and_heat(stub, profile):
    one, other = read_example("")["boxes"]
    answer = [{"bbox_2d": other}, {"bbox_2d": [900, 0, 1000, 50]}]
    found = browser.run(
        stub,
        profile,
        f"""await wait(() => model && example);
        const question = at("question").value, key = name =>
          document.dispatchEvent(new KeyboardEvent("keydown", {{ key: name, bubbles: true }}));
        key("e");
        await wait(() => truth);
        at("question").value = JSON.stringify({{ content: JSON.stringify({answer}) }});
        document.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Enter", ctrlKey: true }}));
        await wait(() => asking);
        await wait(() => asking === null);
        const seen = [], states = [];
        const boxless = () => at("pics").classList.contains("no-boxes");
        const state = () => states.push([at("heat").hidden, boxless()]);
        state(); key("h"); key("x"); state(); key("h"); key("x"); state();
        key("b");
        for (let n = 0; n < 2; n++) {{
          await wait(() => sides.a.classList.contains("flip") === (n === 0));
          seen.push(sides.a.querySelector(".which").textContent);
        }}
        key("b");
        const greens = document.querySelectorAll(".side rect.true").length;
        const still = sides.a.querySelector(".flick");
        at("question").focus();
        at("question").dispatchEvent(new KeyboardEvent("keydown", {{ key: "x", bubbles: true }}));
        state();
        out({{ question, rows: rows(), legend: text("legend"), seen, states, greens, still }});
        """,
    )
    assert found["question"] == QUESTION
    assert [row[:2] for row in found["rows"]] == [["", "IoU"], ["1", "1.00"], ["2", "none"]]
    assert "1 of 2 overlapped" in found["legend"]
    assert found["seen"] == ["B", "A"]
    assert found["greens"] == 4
    assert found["still"] is None
    assert found["states"] == [[False, False], [True, True], [False, False], [False, False]]
    assert one != other


@chromium
def test_what_goes_wrong_is_said_in_words_and_the_page_goes_on(stub, profile):
    found = browser.run(
        stub,
        profile,
        """await wait(() => model && example);
        const said = [], note = () => said.push(at("error").hidden ? null : text("error"));
        give("drop", sides.b, [new File(["no picture"], "notes.png", { type: "image/png" })]);
        await wait(() => !at("error").hidden); note();
        await showExample(); note();
        for (const reply of [
          { status: 429, message: "64 questions are waiting", wait: "3" },
          { status: 413, message: "the body has 50 MB" },
          { status: 400, message: "picture 1 cannot be read" },
          { status: 500, message: "" },
        ]) { await answered(reply); note(); }
        await answered({ content: "I see no list.", finish: "stop" }); note();
        const unread = [text("found"), text("chip"), text("why")];
        await answered({ content: "", thought: "so long", finish: "length" });
        const cut = text("why");
        const real = window.fetch;
        window.fetch = () => Promise.reject(new TypeError("Failed to fetch"));
        await answered(); note();
        window.fetch = () => new Promise((_, no) => 0);
        at("ask").click();
        await wait(() => asking);
        at("stop").click();
        await wait(() => asking === null && !at("ask").disabled);
        window.fetch = real;
        await answered({ content: "[]" }); note();
        out({ said, unread, cut, last: text("found") });
        """,
    )
    said = found["said"]
    assert "notes.png is no picture that this browser can show; save it as PNG" in said[0]
    assert said[1] is None
    assert said[2] == "Busy (429)\n64 questions are waiting\nTry again in 3 s."
    assert said[3].startswith("Too large (413)\nthe body has 50 MB\nTake smaller pictures")
    assert said[4] == "Refused (400)\npicture 1 cannot be read"
    assert said[5].startswith("The server failed (500)")
    assert said[6] is None
    assert found["unread"] == ["No boxes were read", "not readable", "there is no list in it"]
    assert found["cut"] == "it ran out of tokens within its thought; allow more"
    assert said[7].startswith("The server does not answer\nIs it running")
    assert (said[8], found["last"]) == (None, "No difference")


@chromium
def test_a_server_with_a_key_is_given_one(stub, profile):
    stub.key = KEY
    found = browser.run(
        stub,
        profile,
        f"""await wait(() => !at("key-field").hidden);
        const focused = document.activeElement.id, shown = at("example").hidden;
        at("key").value = "{KEY}";
        at("key").dispatchEvent(new Event("change"));
        await wait(() => model && !at("example").hidden);
        const closed = at("key-field").hidden;
        await showExample();
        await answered({{ content: "[]" }});
        out([focused, shown, closed, text("found")]);
        """,
    )
    assert found == ["key", True, True, "No difference"]


@chromium
def test_a_server_that_is_not_ready_is_waited_for(stub, profile):
    stub.starting = 2
    found = browser.run(
        stub,
        profile,
        """await wait(() => text("model"));
        const first = text("model");
        await new Promise(r => setTimeout(r, 7000));
        await wait(() => model);
        out([first, text("model")]);""",
    )
    assert found == ["the server is starting", "model: tiny"]


@chromium
def test_a_phone_shows_all_of_it_without_scrolling_sideways(stub, profile):
    found = browser.run(
        stub,
        profile,
        f"""await wait(() => model && example);
        await showExample();
        await answered({{ content: {dumps(TWO)} + " ".padEnd(300, "x") }});
        const small = [...document.querySelectorAll("button, .toggles label")]
          .filter(one => one.offsetParent && one.getBoundingClientRect().height < 32).length;
        parent.document.getElementById("out").textContent = JSON.stringify(
          [innerWidth, document.documentElement.scrollWidth, small, at("chip").className]);
        """,
        path="framed?390",
    )
    assert found == [390, 390, 0, "chip fair"]
