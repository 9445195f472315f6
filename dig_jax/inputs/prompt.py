"""From images and a question to token ids, M-RoPE positions and image-token slots, and back.

Only this file and `processor` know a tokenizer or the chat template. Everything here is numpy on
the host; what the model reads is `PromptInputs`, whose image shapes are static and grids data.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dig_jax.config import PromptConfig
from dig_jax.inputs.processor import Processor as Processor
from dig_jax.inputs.processor import load_processor as load_processor
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs


def make_prompt(
    cfg: PromptConfig,
    processor: Processor,
    config: ModelConfig,
    sizes: Sequence[Sequence[tuple[int, int]]],
    *,
    questions: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    answer: int = 0,
    canvas: tuple[int, int] | None = None,
    tokens: int | None = None,
    images: int | None = None,
) -> PromptInputs:
    """One user turn per row: its images, then the question, then the opened assistant turn.

    sizes      (height, width) in pixels of each image of each row; a row may have none
    questions  one per row; cfg.question if absent
    names      of the rows, such as pair ids, for messages; "row n" if absent
    answer     tokens that the model's context must still hold after the prompt
    canvas     (Y, X) of the zero-padded image batch; the largest height and width if absent
    tokens     P; the longest row if absent
    images     I; the most images of a row if absent

    Raises if an image is not cut into whole merged cells or exceeds the canvas, if a question
    holds an image placeholder of its own or a token that the embedding has no row for, and if a
    row is longer than `tokens`, cfg.max_tokens or the model's context: a prompt is never cut.
    """
    questions = [cfg.question] * len(sizes) if questions is None else questions
    if len(questions) != len(sizes):
        raise ValueError(f"{len(questions)} questions for {len(sizes)} rows of images; one each")
    ids = [
        render(cfg, processor, question, len(row))
        for question, row in zip(questions, sizes, strict=True)
    ]
    names = names or [f"row {n}" for n in range(len(ids))]
    for n, row in enumerate(ids):
        check_ids(row, config.text.vocab, f"prompt of {names[n]}", processor)
    shape = {"canvas": canvas, "tokens": tokens, "images": images}
    prompt = prompt_of_ids(config, ids, sizes, names=names, **shape)
    for n, length in enumerate(prompt.length):
        _check_length(cfg, config, int(length), answer, sizes[n], names[n])
    return prompt


def prompt_of_ids(
    config: ModelConfig,
    ids: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[tuple[int, int]]],
    *,
    names: Sequence[str] | None = None,
    canvas: tuple[int, int] | None = None,
    tokens: int | None = None,
    images: int | None = None,
) -> PromptInputs:
    """`make_prompt` from token ids that hold one image token per image, not yet expanded."""
    names = names or [f"row {n}" for n in range(len(ids))]
    for height, width in (size for row in sizes for size in row):
        config.check_image(height, width)
    for n, row in enumerate(ids):
        check_ids(row, config.text.vocab, f"prompt of {names[n]}")
    canvas = _check_canvas(canvas, sizes, config)
    rows = [_expand(config, names[n], ids[n], sizes[n], canvas) for n in range(len(sizes))]
    longest = max(len(ids) for ids, _, _ in rows)
    tokens = longest if tokens is None else tokens
    most = max(map(len, sizes))
    images = most if images is None else images
    for n, (row, _, _) in enumerate(rows):
        if len(row) > tokens:
            raise ValueError(
                f"prompt of {names[n]} has {len(row)} tokens, more than {tokens}; shorten "
                f"the question, shrink the images{_listed(sizes[n])} or allow more tokens"
            )
        if len(sizes[n]) > images:
            raise ValueError(
                f"prompt of {names[n]} has {len(sizes[n])} images, more than {images}; "
                f"allow more images per row"
            )
    return _stack(rows, sizes, (tokens, images), config)


def repeat_prompt(prompt: PromptInputs, rows: int) -> PromptInputs:
    """The same single prompt for `rows` pairs: all pairs of one size share one prompt."""
    if len(prompt.tokens) != 1:
        raise ValueError(
            f"repeat_prompt repeats one row, got {len(prompt.tokens)}; slice one first"
        )
    return jax.tree.map(lambda a: np.repeat(a, rows, axis=0), prompt)


def opens_thought(processor: Processor, ids: Sequence[int]) -> bool:
    """Whether a prompt ends inside a thought, by its template: answers hold only `</think>`."""
    return processor.tokenizer.decode(ids).rstrip().endswith("<think>")


def decode_answers(
    processor: Processor, tokens: np.ndarray, lengths: np.ndarray, *, stops: Sequence[int]
) -> list:
    """Texts of answers, up to the first stop token: every token before it shows.

    A special token inside an answer is a fault of its form, so the reward must see it; one that
    was stripped would be free. An id that the tokenizer does not know, such as a row that pads the
    vocabulary, shows as <|id|>, where the tokenizer would leave it out.

    tokens   i32[..., T]
    lengths  i32[...]      answer tokens, a final stop token included
    stops    ids that end an answer: the model's eos_tokens, as in the sampler
    ->       nested lists of str, one per answer; `</think>` is kept: Qwen does not call it special
    """
    tokens, lengths = np.asarray(tokens), np.asarray(lengths)
    assert tokens.shape[:-1] == lengths.shape, (tokens.shape, lengths.shape)
    if lengths.ndim:
        rows = zip(tokens, lengths, strict=True)
        return [decode_answers(processor, t, n, stops=stops) for t, n in rows]
    ids = tokens[: int(lengths)].tolist()
    over = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return _text_of(processor.tokenizer, ids[:over])


def _text_of(tokenizer: Any, ids: list[int]) -> str:
    tokens = tokenizer.convert_ids_to_tokens(ids)
    unknown = [at for at, token in enumerate(tokens) if token is None]
    parts, start = [], 0
    for at in [*unknown, len(ids)]:
        some = ids[start:at]
        parts.append(tokenizer.decode(some, clean_up_tokenization_spaces=False) if some else "")
        parts += [f"<|{number}|>" for number in ids[at : at + 1]]
        start = at + 1
    return "".join(parts)


def encode_answer(processor: Processor, text: str) -> list[int]:
    """Token ids of an answer as the model should write it, the end token included.

    Raises ValueError where the embedding of `processor.rows` rows has none for a token.
    """
    ids = [*processor.tokenizer(text, add_special_tokens=False)["input_ids"], processor.eos_token]
    if processor.rows is not None:
        check_ids(ids, processor.rows, "answer", processor)
    return ids


def check_ids(ids: Sequence[int], rows: int, what: str, processor: Processor | None = None) -> None:
    """Raises ValueError naming the first id that an embedding of `rows` rows does not have.

    A device would clamp it, so that all such tokens look alike; HF raises. A table longer than
    the tokenizer is normal, and so are tokens that no text uses.
    """
    wrong = next((int(token) for token in ids if not 0 <= token < rows), None)
    if wrong is None:
        return
    name = f" {processor.tokenizer.convert_ids_to_tokens(wrong)!r}" if processor else ""
    raise ValueError(
        f"{what} has token{name} with id {wrong}, but the model's embedding has {rows} rows "
        f"(vocab_size); do without that token, or take tokenizer.json and the weights from one "
        f"checkpoint, resized by resize_token_embeddings after tokens were added"
    )


def mrope_positions(is_image: np.ndarray, cells: Sequence[tuple[int, int]]) -> np.ndarray:
    """M-RoPE positions of one unpadded row (HF `get_rope_index`, images only).

    is_image  bool[P]    true at image tokens
    cells     merged rows and columns of each image, in order
    ->        i32[3, P]  (T, H, W)

    Text advances all axes by one per token; an image stands still in time and advances what
    follows by the longer of its sides.
    """
    positions = np.zeros((3, len(is_image)), np.int32)
    at = start = 0  # next token, its position
    for rows, cols in cells:
        first = at + int(np.argmax(is_image[at:]))
        positions[:, at:first] = start + np.arange(first - at)
        start += first - at
        at = first + rows * cols
        i, j = np.divmod(np.arange(rows * cols), cols)
        positions[:, first:at] = start + np.stack([np.zeros_like(i), i, j])
        start += max(rows, cols)
    positions[:, at:] = start + np.arange(len(is_image) - at)
    return positions


def _check_canvas(canvas, sizes, config: ModelConfig) -> tuple[int, int]:
    flat = [size for row in sizes for size in row]
    need = tuple(max((size[axis] for size in flat), default=config.vision.cell) for axis in (0, 1))
    canvas = need if canvas is None else canvas
    config.check_image(*canvas)
    if need[0] > canvas[0] or need[1] > canvas[1]:
        raise ValueError(
            f"an image of height {need[0]} or width {need[1]} exceeds the canvas "
            f"{canvas[1]}x{canvas[0]}; enlarge the canvas"
        )
    return canvas


def _listed(sizes: Sequence[tuple[int, int]]) -> str:
    """ " of 96x64, 32x32 px", or nothing."""
    return f" of {', '.join(f'{x}x{y}' for y, x in sizes)} px" if sizes else ""


def _check_length(cfg: PromptConfig, config: ModelConfig, length, answer, sizes, name) -> None:
    """A prompt that is too long is an error: a cut one would ask something else."""
    told = f"prompt of {name} has {length} tokens, {len(sizes)} images{_listed(sizes)} included"
    remedy = "shorten prompt.question, lower data.max_pixels"
    if cfg.max_tokens and length > cfg.max_tokens:
        raise ValueError(
            f"{told}, more than prompt.max_tokens={cfg.max_tokens}; {remedy} or raise "
            f"prompt.max_tokens"
        )
    context = config.text.context
    if length + answer > context:
        raise ValueError(
            f"{told}; with {answer} answer tokens (rollout.max_tokens) that is {length + answer}, "
            f"more than the model's context of {context} (max_position_embeddings); {remedy} or "
            f"lower rollout.max_tokens"
        )


def render(cfg: PromptConfig, processor: Processor, question: str, images: int) -> list[int]:
    """The chat template's text of one row as ids, one image token per image."""
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    return render_turns(processor, turns, add_vision_id=cfg.add_vision_id)


def render_turns(
    processor: Processor, turns: Sequence[dict[str, Any]], *, add_vision_id: bool = False
) -> list[int]:
    """The chat template's text of a conversation as ids, the assistant's next turn opened.

    turns  {"role": ..., "content": [{"type": "image"} | {"type": "text", "text": ...}, ...]}
    """
    try:
        text = processor.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, add_vision_id=add_vision_id
        )
    except Exception as error:  # a template is a program: jinja raises whatever it meets
        raise ValueError(
            f"the chat template cannot be rendered ({type(error).__name__}: {error}); copy "
            f"chat_template.jinja from the checkpoint that the weights came from"
        ) from error
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def _expand(config: ModelConfig, name: str, ids, sizes, canvas):
    """Ids, slots and positions of one row, unpadded, each image token repeated for its cells."""
    ids = np.asarray(ids, np.int32)
    places = np.flatnonzero(ids == config.image_token)
    if len(places) != len(sizes):
        raise ValueError(
            f"prompt of {name} has {len(places)} image placeholders (id {config.image_token}) for "
            f"{len(sizes)} images; does the question hold one, or are tokenizer and config.json "
            f"from different checkpoints?"
        )
    cell = config.vision.cell
    cells = [(height // cell, width // cell) for height, width in sizes]
    counts = np.ones(len(ids), np.int64)
    counts[places] = [rows * cols for rows, cols in cells]
    ids = np.repeat(ids, counts)
    is_image = ids == config.image_token
    slot = np.full(len(ids), -1, np.int32)
    slot[is_image] = _slots(cells, (canvas[0] // cell, canvas[1] // cell))
    return ids, slot, mrope_positions(is_image, cells)


def _slots(cells, canvas_cells) -> np.ndarray:
    """Canvas numbers of the image tokens: cell (i, j) of image n is n*S + i*canvas columns + j."""
    total, columns = canvas_cells[0] * canvas_cells[1], canvas_cells[1]
    slots = [
        n * total + np.add.outer(np.arange(rows) * columns, np.arange(cols)).ravel()
        for n, (rows, cols) in enumerate(cells)
    ]
    return np.concatenate([np.zeros(0, np.int64), *slots])


def _stack(rows, sizes, shape: tuple[int, int], config: ModelConfig) -> PromptInputs:
    (tokens, images), patch = shape, config.vision.patch
    out = PromptInputs(
        tokens=np.full((len(rows), tokens), config.pad_token, np.int32),
        slot=np.full((len(rows), tokens), -1, np.int32),
        positions=np.zeros((len(rows), 3, tokens), np.int32),
        length=np.array([len(ids) for ids, _, _ in rows], np.int32),
        next_position=np.array([p.max() + 1 for _, _, p in rows], np.int32),
        grids=np.zeros((len(rows), images, 2), np.int32),
    )
    for n, (ids, slot, positions) in enumerate(rows):
        out.tokens[n, : len(ids)] = ids
        out.slot[n, : len(ids)] = slot
        out.positions[n, :, : len(ids)] = positions
        for k, (height, width) in enumerate(sizes[n]):
            out.grids[n, k] = height // patch, width // patch
    return out
