"""Prompts are Qwen3-VL's, to the token and to the position; answers come back as written."""

import json
import shutil
import unicodedata

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.config import PromptConfig
from dig_jax.inputs.prompt import (
    decode_answers,
    encode_answer,
    load_processor,
    make_prompt,
    mrope_positions,
    prompt_of_ids,
    repeat_prompt,
)
from dig_jax.model.config import ModelConfig, TextConfig, VisionConfig
from dig_jax.reward.parse import parse
from scripts.make.tiny_tokenizer import (
    ADDED_TOKENS,
    QUESTION,
    VOCABULARY,
    write_processor,
    write_tokenizer,
)

BOX = '{"bbox_2d": [123, 450, 678, 901]}'
TOKENS = {name: VOCABULARY - len(ADDED_TOKENS) + n for n, name in enumerate(ADDED_TOKENS)}
IMAGE, EOS, PAD = TOKENS["<|image_pad|>"], TOKENS["<|im_end|>"], TOKENS["<|endoftext|>"]

CONFIG = ModelConfig(
    text=TextConfig(VOCABULARY, 64, 96, 2, 4, 2, 32, 5e6, (6, 5, 5)),
    vision=VisionConfig(48, 64, 2, 2, 64, 64, (0,), patch=8),
    image_token=IMAGE,
    video_token=TOKENS["<|video_pad|>"],
    vision_start=TOKENS["<|vision_start|>"],
    vision_end=TOKENS["<|vision_end|>"],
    eos_tokens=(EOS, PAD),
    pad_token=PAD,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(out, seed=0)
    write_processor(out, 8, (4096, 1048576))
    return out


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


def decoded(processor, tokens, lengths):
    return decode_answers(processor, tokens, lengths, stops=CONFIG.eos_tokens)


def length(processor, text: str) -> int:
    return len(processor.tokenizer(text)["input_ids"])


def test_the_tiny_tokenizer_is_small_and_cheap_for_boxes(processor):
    """768 rows with Qwen's special tokens last; the costs that answer budgets rely on."""
    tokenizer = processor.tokenizer
    assert len(tokenizer) == VOCABULARY == 768
    assert tokenizer.convert_tokens_to_ids(list(TOKENS)) == list(TOKENS.values())
    assert (processor.eos_token, tokenizer.pad_token_id) == (EOS, PAD)
    assert length(processor, f"[{BOX}]") == 19
    assert length(processor, f"[{BOX}, {BOX}]") == 19 + 18
    assert length(processor, "[]") == 1
    assert length(processor, QUESTION) <= 25
    ids = tokenizer("bbox 2024 [17]")["input_ids"]
    assert [t for t in tokenizer.convert_ids_to_tokens(ids) if any(map(str.isdigit, t))] == list(
        "202417"
    )


def test_the_default_question_is_the_one_the_tokenizer_learned():
    assert PromptConfig().question == QUESTION


def test_the_tokenizer_files_are_reproducible(folder, tmp_path):
    write_tokenizer(tmp_path, seed=0)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_round_trips_up_to_nfc(processor, text):
    if any(name in text for name in TOKENS):
        return
    ids = encode_answer(processor, text)
    assert ids[-1] == EOS
    assert decoded(processor, np.array(ids), len(ids)) == unicodedata.normalize("NFC", text)


def test_the_chat_is_laid_out_as_qwens(processor):
    """No default system turn, nothing between images and question, the assistant turn open."""
    prompt = make_prompt(PromptConfig("Q?"), processor, CONFIG, [[(16, 16), (16, 16)]])
    one = "<|vision_start|><|image_pad|><|vision_end|>"
    expected = f"<|im_start|>user\n{one}{one}Q?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.tokenizer.decode(prompt.tokens[0]) == expected
    cfg = PromptConfig("Q?", add_vision_id=True)
    prompt = make_prompt(cfg, processor, CONFIG, [[(16, 16), (16, 16)]])
    named = expected.replace(one + one, f"Picture 1: {one}Picture 2: {one}")
    assert processor.tokenizer.decode(prompt.tokens[0]) == named


def test_the_template_takes_turns_and_systems(processor):
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
    ]
    text = processor.tokenizer.apply_chat_template(messages, tokenize=False)
    turns = [("system", "S"), ("user", "U"), ("assistant", "A")]
    assert text == "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)


def test_positions_of_the_worked_example():
    """reference: grids 4x6 and 4x4, tokens t t S P*6 E S P*4 E t t."""
    is_image = np.array([0, 0, 0, *[1] * 6, 0, 0, *[1] * 4, 0, 0, 0], bool)
    expected = [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8, 8, 8, 8, 10, 11, 12],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8, 8, 9, 9, 10, 11, 12],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12],
    ]
    np.testing.assert_array_equal(mrope_positions(is_image, [(2, 3), (2, 2)]), expected)


def positions_token_by_token(tokens: list[int], cells: list[tuple[int, int]]) -> list[list[int]]:
    """The definition as a walk over tokens, one axis triple each."""
    out, p, images, k = [], 0, list(cells), 0
    for token in tokens:
        if token != IMAGE:
            out.append([p, p, p])
            p += 1
            continue
        rows, cols = images[0]
        out.append([p, p + k // cols, p + k % cols])
        k += 1
        if k == rows * cols:
            p, k = p + max(rows, cols), 0
            images.pop(0)
    return out


side = st.integers(1, 5)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), side, side), max_size=3), min_size=1, max_size=3
    ),
    st.integers(1, 4),
    side,
    side,
)
@settings(max_examples=100, deadline=None)
def test_rows_agree_with_a_walk_over_tokens(rows, tail, spare_y, spare_x):
    """Positions, slots, lengths and grids of ragged rows with zero to three images."""
    cell = CONFIG.vision.cell
    ids, sizes = [], []
    for row in rows:
        ids.append([t for n, _, _ in row for t in [5] * n + [7, IMAGE, 8]] + [6] * tail)
        sizes.append([(a * cell, b * cell) for _, a, b in row])
    canvas = ((5 + spare_y) * cell, (5 + spare_x) * cell)
    prompt = prompt_of_ids(CONFIG, ids, sizes, canvas=canvas)
    columns = canvas[1] // cell
    for n, row in enumerate(rows):
        cells = [(a, b) for _, a, b in row]
        tokens, slots, k = [], [], 0
        for token in ids[n]:
            a, b = cells[k] if token == IMAGE else (1, 1)
            tokens += [token] * (a * b)
            whole = canvas[0] // cell * columns
            at = [k * whole + i * columns + j for i in range(a) for j in range(b)]
            slots += at if token == IMAGE else [-1]
            k += token == IMAGE
        size = len(tokens)
        walked = positions_token_by_token(tokens, cells)
        assert prompt.length[n] == size
        assert prompt.tokens[n].tolist() == tokens + [PAD] * (prompt.tokens.shape[1] - size)
        assert prompt.slot[n].tolist() == slots + [-1] * (prompt.tokens.shape[1] - size)
        assert prompt.positions[n, :, :size].T.tolist() == walked
        assert not prompt.positions[n, :, size:].any()
        assert prompt.next_position[n] == max(map(max, walked)) + 1
        assert prompt.grids[n, : len(row)].tolist() == [[2 * a, 2 * b] for a, b in cells]
        assert not prompt.grids[n, len(row) :].any()


def test_one_prompt_serves_all_pairs_of_its_size(processor):
    sizes = [(32, 48), (32, 48)]
    cfg = PromptConfig()
    one = make_prompt(cfg, processor, CONFIG, [sizes])
    three = make_prompt(cfg, processor, CONFIG, [sizes] * 3)
    repeated = repeat_prompt(one, 3)
    for name, array in vars(three).items():
        np.testing.assert_array_equal(getattr(repeated, name), array)
    with pytest.raises(ValueError, match="got 3; slice one first"):
        repeat_prompt(three, 3)
    first = jax.tree.map(lambda rows: rows[:1], three)
    np.testing.assert_array_equal(repeat_prompt(first, 3).tokens, three.tokens)


def test_a_fixed_width_pads_and_names_the_row_that_does_not_fit(processor):
    cfg, sizes = PromptConfig(), [[(16, 16)], [(64, 64)]]
    short, long = make_prompt(cfg, processor, CONFIG, sizes).length
    assert make_prompt(cfg, processor, CONFIG, sizes, tokens=long + 3).tokens.shape == (2, long + 3)
    wrong = f"prompt of row 1 has {long} tokens, more than {short}; shorten the question, shrink"
    with pytest.raises(ValueError, match=wrong):
        make_prompt(cfg, processor, CONFIG, sizes, tokens=short)
    asked = PromptConfig("?")
    for one, shown, room in (
        (cfg, sizes, long),
        (cfg, sizes[:1] * 2, short),
        (asked, sizes, short),
    ):
        make_prompt(one, processor, CONFIG, shown, tokens=room)
    with pytest.raises(ValueError, match="has 1 images, more than 0; allow more images per row"):
        make_prompt(cfg, processor, CONFIG, sizes, images=0)
    make_prompt(cfg, processor, CONFIG, sizes, images=1)


@pytest.mark.parametrize(
    ("change", "message", "followed"),
    [
        (
            {"sizes": [[(40, 64)]]},
            "64x40 is not a multiple of patch.merge = 8.2 = 16; choose .* that 16 divides",
            {"sizes": [[(48, 64)]]},
        ),
        ({"canvas": (64, 50)}, "50x64 is not a multiple", {"canvas": (64, 64)}),
        ({"canvas": (16, 64)}, "exceeds the canvas 64x16; enlarge", {"canvas": (32, 64)}),
        ({"questions": ["a", "b"]}, "2 questions for 1 rows of .*; one each", {"questions": ["a"]}),
        (
            {"questions": ["look: <|image_pad|>"]},
            "row 0 has 2 image placeholders .*; does the question hold one",
            {"questions": ["look: "]},
        ),
    ],
)
def test_bad_requests_are_refused_and_their_remedy_is_taken(processor, change, message, followed):
    given = {"sizes": [[(32, 64)]]}
    with pytest.raises(ValueError, match=message):
        make_prompt(PromptConfig(), processor, CONFIG, **given | change)
    make_prompt(PromptConfig(), processor, CONFIG, **given | followed)


def test_answers_end_at_a_stop_token_or_their_length(processor):
    """Whatever follows is not read; every token before it is."""
    ids = processor.tokenizer("<think>a</think>[]")["input_ids"]
    rows = [[*ids, EOS, 70], [*ids, PAD, 70], [*ids, TOKENS["<|box_end|>"], 70]]
    tokens = np.array([rows])
    full = np.full((1, 3), tokens.shape[-1])
    kept = "<think>a</think>[]"
    last = processor.tokenizer.decode([70])
    assert decoded(processor, tokens, full) == [[kept, kept, f"{kept}<|box_end|>{last}"]]
    assert decoded(processor, tokens[0], np.array([0, 1, 2])) == ["", "<think>", "<think>a"]


@pytest.mark.parametrize("name", [n for n in TOKENS if n not in ("<|endoftext|>", "<|im_end|>")])
def test_a_special_token_inside_an_answer_shows_and_costs_the_format(processor, name):
    """It was stripped before anything looked: 25 of them around a right list were free."""
    ids = processor.tokenizer(f"[{BOX}]")["input_ids"]
    noise = [TOKENS[name]] * 25
    rows = [[*noise, *ids, EOS], [*ids, *noise, EOS], [*ids[:-1], *noise, ids[-1], EOS]]
    marks = name * 25
    texts = decoded(processor, np.array(rows), np.full(3, len(rows[0])))
    assert texts == [f"{marks}[{BOX}]", f"[{BOX}]{marks}", f"[{BOX[:-2]}{marks}{BOX[-2:]}]"]
    for text in texts:
        for think in ("none", "prefilled", "full"):
            thought = {"none": "", "prefilled": "a</think>", "full": "<think>a</think>"}[think]
            assert not parse(thought + text, think=think).ok
    ids = processor.tokenizer(f'[{BOX[:-1]}, "label": "x"}}]')["input_ids"]
    at = ids.index(processor.tokenizer("x")["input_ids"][0])
    (label,) = decoded(processor, np.array([[*ids[:at], TOKENS[name], *ids[at:], EOS]]), [99])
    assert f'"{name}x"' in label
    assert parse(label).ok == (name.startswith(("<tool", "</tool")))  # tags that Qwen calls text
    assert parse(f"[{BOX}]").ok


def test_an_id_that_the_tokenizer_does_not_know_shows(processor):
    """Rows that pad the vocabulary have no token; decode() leaves them out."""
    ids = processor.tokenizer(f"[{BOX}]")["input_ids"]
    row = [800, *ids[:-1], 801, 802, ids[-1], 803, EOS]
    (text,) = decoded(processor, np.array([row]), np.array([len(row)]))
    assert text == f"<|800|>[{BOX[:-2]}<|801|><|802|>{BOX[-2:]}]<|803|>"
    assert decoded(processor, np.array([[800, EOS]]), np.array([2])) == ["<|800|>"]
    assert processor.tokenizer.decode(row[:-1]) == f"[{BOX}]"  # the trap


def test_a_folder_without_a_tokenizer_is_named(folder, tmp_path):
    """The remedy fits anybody's folder: no script of ours makes another checkpoint's tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with pytest.raises(FileNotFoundError, match=rf"has no {name}; copy it from the check"):
            load_processor(tmp_path)
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(ValueError, match=r"has no chat template; add chat_template.jinja"):
        load_processor(tmp_path)
    shutil.copy(folder / "chat_template.jinja", tmp_path)
    load_processor(tmp_path)


def test_a_folder_without_an_end_token_is_given_qwens(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    told = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "special_tokens_map.json").unlink()  # an older place for the same
    (copy / "tokenizer_config.json").write_text(json.dumps(told | {"eos_token": None}))
    with pytest.raises(ValueError, match=r"names no eos_token; Qwen's is \S+") as caught:
        load_processor(copy)
    advised = str(caught.value).split()[-1]
    (copy / "tokenizer_config.json").write_text(json.dumps(told | {"eos_token": advised}))
    assert load_processor(copy).eos_token == EOS


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_git_lfs_pointer_is_named_with_the_way_on(name, folder, tmp_path):
    """The template's pointer would be taken for the template."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=rf"{name} is a git-LFS pointer, .*`git lfs pull`"):
        load_processor(copy)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", "{}", "cannot be opened by transformers .*copy tokenizer.json and"),
        ("tokenizer.json", "{", "tokenizer.json is not valid JSON"),
        ("tokenizer_config.json", "[]", r"tokenizer_config.json holds \[\], not an object"),
        ("tokenizer_config.json", '{"eos_token": 3, "auto_map": 7}', "cannot be opened by transf"),
        ("tokenizer_config.json", '{"split_special_tokens": true}', "only False is implemented"),
        ("chat_template.json", '{"chat_template": 3}', "chat_template=3 is not a text"),
    ],
)
def test_whatever_transformers_cannot_open_is_named(name, text, message, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    if name == "chat_template.json":
        (copy / "chat_template.jinja").unlink()
    (copy / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_processor(copy)
    if name == "chat_template.json":
        name = "chat_template.jinja"
    shutil.copy(folder / name, copy)  # from the checkpoint that the weights came from
    load_processor(copy)


def test_a_template_that_fails_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ValueError, match=r"chat template cannot be rendered .*chat_template.jinja"):
        make_prompt(PromptConfig(), load_processor(copy), CONFIG, [[]])
    shutil.copy(folder / "chat_template.jinja", copy)
    make_prompt(PromptConfig(), load_processor(copy), CONFIG, [[]])
