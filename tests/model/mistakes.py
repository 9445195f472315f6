"""Single mistakes that a port of Qwen3-VL can make, each as a switch.

A mistake takes a case and returns it as the wrong program would see it; one that needs other code
takes pytest's monkeypatch too, which undoes it after the test. The first block are the rows of the
reference's sensitivity table, the second others that ports have had.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.inputs import prompt as prompts
from dig_jax.model import attention, qwen3vl, rope, text, vision
from tests.model.parity_cases import Case, with_config


def vision_eps(case: Case) -> Case:
    """LayerNorm eps 1e-5."""
    return with_config(case, "vision", norm_eps=1e-5)


def text_eps(case: Case) -> Case:
    """RMSNorm eps 1e-5."""
    return with_config(case, "text", norm_eps=1e-5)


def exact_gelu_in_blocks(case: Case, patch) -> Case:
    gelu = jax.nn.gelu
    patch.setattr(jax.nn, "gelu", lambda x, approximate=True: gelu(x, approximate=False))
    return case


def tanh_gelu_in_mergers(case: Case, patch) -> Case:
    patch.setattr(vision, "gelu_exact", lambda x: jax.nn.gelu(x, approximate=True))
    return case


def text_attention_scale(case: Case) -> Case:
    """1 % off: the scale is linear in the query, and so in its norm's weight."""
    return with_blocks(case, q_norm=lambda w: 1.01 * w)


def vision_attention_scale(case: Case) -> Case:
    """1 % off, in the query's weights and biases."""
    factor = np.array([1.01, 1, 1], np.float32)
    return with_tower(
        case,
        wqkv=lambda w: w * factor[:, None, None],
        wqkv_bias=lambda w: w * factor[:, None, None],
    )


def chunked_sections(case: Case, patch) -> Case:
    """T T T ... H H H ... W W W, as in Qwen2-VL."""
    patch.setattr(rope, "mrope_axes", lambda section: np.repeat(np.arange(3), section))
    return case


def swapped_axes(case: Case) -> Case:
    """M-RoPE's H and W."""
    return with_positions(case, case.prompt.positions[:, [0, 2, 1]])


def other_theta(case: Case) -> Case:
    """A fifth of it, as 1,000,000 instead of 5,000,000."""
    return with_config(case, "text", rope_theta=case.config.text.rope_theta / 5)


def swapped_vision_rotary(case: Case, patch) -> Case:
    right = vision.vision_angles
    patch.setattr(vision, "vision_angles", lambda rows, cols, dim: right(cols, rows, dim))
    return case


def flat_positions(case: Case) -> Case:
    """1-D positions instead of M-RoPE."""
    line = np.broadcast_to(np.arange(case.prompt.tokens.shape[1]), case.prompt.positions.shape)
    return with_positions(case, line)


def advance_by_tokens(case: Case, patch) -> Case:
    """What follows an image starts after its number of tokens, not after its longer side."""

    def walk(is_image, cells):
        positions = right(is_image, cells)
        tokens = np.flatnonzero(is_image)
        for rows, cols in cells:
            tokens, last = tokens[rows * cols :], tokens[rows * cols - 1]
            positions[:, last + 1 :] += rows * cols - max(rows, cols)
        return positions

    right = prompts.mrope_positions
    patch.setattr(prompts, "mrope_positions", walk)
    return replace(case, prompt=prompts.prompt_of_ids(case.config, case.ids, case.sizes))


def images_see_each_other(case: Case, patch) -> Case:
    """The images of a prompt attend to each other in the tower."""
    count, right = case.images.shape[1], attention.full

    def attend(kind, q, k, v, inside):
        joined = (q.shape[0] // count, count * q.shape[1])
        together = (a.reshape(*joined, *a.shape[2:]) for a in (q, k, v, inside))
        return right(kind, *together).reshape(q.shape)

    patch.setattr(attention, "full", attend)
    return case


def nearest_positions(case: Case, patch) -> Case:
    """The table's nearest row instead of the mean of its neighbours."""

    def nearest(places, lengths, side):
        step = (side - 1) / jnp.maximum(lengths - 1, 1)
        at = jnp.minimum(jnp.round(np.arange(places) * step[:, None]), side - 1)
        return jax.nn.one_hot(at, side)

    patch.setattr(vision, "axis_weights", nearest)
    return case


def centred_positions(case: Case, patch) -> Case:
    """Pixel centres aligned instead of corners, torch's align_corners=False."""

    def centred(places, lengths, side):
        at = (np.arange(places) + 0.5) * (side / lengths[:, None]) - 0.5
        distance = jnp.abs(jnp.clip(at, 0, side - 1)[..., None] - np.arange(side))
        return jnp.maximum(1.0 - distance, 0.0)

    patch.setattr(vision, "axis_weights", centred)
    return case


def raster_positions(case: Case, patch) -> Case:
    """The position table added in raster order although patches come block by block."""

    def raster(table, grids, rows, cols, merge):
        side = round(table.shape[0] ** 0.5)
        along_y = rope.axis_weights(rows, grids[:, 0], side)
        along_x = rope.axis_weights(cols, grids[:, 1], side)
        square = table.reshape(side, side, -1)
        grid = jnp.einsum("ers,ect,std->ercd", along_y, along_x, square)
        return grid.reshape(len(grids), rows * cols, -1)

    patch.setattr(vision, "position_embedding", raster)
    return case


def late_deepstack(case: Case, patch) -> Case:
    """Each feature added one layer late."""
    right = text.prompt_pass

    def late(blocks, x, positions, deepstack, config):
        shifted = jnp.concatenate([jnp.zeros_like(deepstack[:1]), deepstack])
        return right(blocks, x, positions, shifted, config)

    patch.setattr(text, "prompt_pass", late)
    return case


def no_deepstack(case: Case) -> Case:
    """Mergers that say nothing."""
    return with_tower(case, "deepstack", w_down=jnp.zeros_like, w_down_bias=jnp.zeros_like)


def kernel_time_first(case: Case) -> Case:
    """The patch kernel flattened as time, channel, y, x."""
    return with_kernel(case, (1, 0, 2, 3))


def channels_reversed(case: Case) -> Case:
    return replace(case, images=case.images[..., ::-1])


def canvas_attended_to(case: Case, patch) -> Case:
    right = attention.full
    patch.setattr(attention, "full", lambda *given: right(*given[:4], jnp.ones_like(given[4])))
    return case


def prompt_padding_attended_to(case: Case, patch) -> Case:
    patch.setattr(
        qwen3vl.PromptCache,
        "valid",
        property(lambda cache: jnp.ones((len(cache.length), cache.k.shape[2]), bool)),
    )
    return case


def sections_without_lengths(case: Case, patch) -> Case:
    """T H W to the end. Invisible at theta 5,000,000, hence the untied checkpoint's 10,000."""
    patch.setattr(rope, "mrope_axes", lambda section: np.arange(sum(section)) % 3)
    return case


SENSITIVITY_TABLE = (
    vision_eps,
    text_eps,
    exact_gelu_in_blocks,
    tanh_gelu_in_mergers,
    text_attention_scale,
    vision_attention_scale,
    chunked_sections,
    swapped_axes,
    other_theta,
    swapped_vision_rotary,
    flat_positions,
    advance_by_tokens,
    images_see_each_other,
    nearest_positions,
    centred_positions,
    raster_positions,
    late_deepstack,
    no_deepstack,
    kernel_time_first,
    channels_reversed,
    canvas_attended_to,
    prompt_padding_attended_to,
    sections_without_lengths,
)


def kernel_columns_first(case: Case) -> Case:
    """The patch kernel flattened as channel, time, x, y."""
    return with_kernel(case, (0, 1, 3, 2))


def vision_rotary_exponent(case: Case, patch) -> Case:
    """Frequencies over the whole head instead of half of it: they fall half as fast."""

    def slow(rows, cols, dim):
        frequency = 10000.0 ** (-np.arange(0, dim // 2, 2) / dim)
        both = np.stack([rows, cols], -1)[:, :, None] * frequency
        return jnp.asarray(both.reshape(len(rows), dim // 2), jnp.float32)

    patch.setattr(vision, "vision_angles", slow)
    return case


def neighbouring_pairs(case: Case, patch) -> Case:
    """Rotary pairs (0, 1), (2, 3), ... instead of the two halves."""

    def rotate(x, angles):
        cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
        even, odd = x[..., ::2], x[..., 1::2]
        pairs = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
        return pairs.reshape(x.shape)

    patch.setattr(text, "rotate", rotate)
    return case


def no_query_norm_weight(case: Case) -> Case:
    return with_blocks(case, q_norm=jnp.ones_like)


def one_plus_norm_weight(case: Case) -> Case:
    """The norm's weight taken as an offset from one, as Gemma's."""
    return with_blocks(case, attn_norm=lambda w: 1 + w)


def scattered_groups(case: Case) -> Case:
    """Query heads n, n + K, ... share a key head, instead of consecutive ones."""
    c = case.config.text

    def scatter(w, axis):
        heads = np.arange(c.heads).reshape(c.kv_heads, -1).T.reshape(-1)
        return jnp.take(w, heads, axis)

    assert c.kv_heads > 1, "one key head serves all queries whatever their order"
    return with_blocks(case, wq=lambda w: scatter(w, 2), wo=lambda w: scatter(w, 1))


def heads_before_qkv(case: Case) -> Case:
    """The tower's qkv rows read as (heads, 3, e) instead of (3, heads, e)."""

    def regroup(w):
        *lead, three, heads, dim = w.shape
        return w.reshape(*lead, heads, three, dim).swapaxes(-3, -2)

    return with_tower(case, wqkv=regroup, wqkv_bias=regroup)


def no_vision_bias(case: Case) -> Case:
    return with_tower(case, wqkv_bias=jnp.zeros_like)


def merger_norm_after_joining(case: Case, patch) -> Case:
    """The final merger's LayerNorm over the joined width."""
    return _with_merge(case, patch, norm_first=True)


def deepstack_norm_before_joining(case: Case, patch) -> Case:
    """The deepstack mergers' LayerNorm over each patch instead of the joined width."""
    return _with_merge(case, patch, norm_first=False)


def _with_merge(case: Case, patch, *, norm_first: bool) -> Case:
    right, width = vision.merge, case.config.vision.width

    def merge(p, x, config, *, norm_first):
        return (wrong if norm_first is target else right)(p, x, config, norm_first=norm_first)

    def wrong(p, x, config, *, norm_first):
        ones = jnp.ones(width * 4 if norm_first else width)
        if norm_first:
            tiled = {name: jnp.tile(p[name], 4) for name in ("norm", "norm_bias")}
            return right(p | tiled, x, config, norm_first=False)
        scaled = vision.layer_norm(x, ones, 0 * ones, config.norm_eps).reshape(
            x.shape[0], -1, 4 * width
        )
        patch_normed = scaled * p["norm"] + p["norm_bias"]
        hidden = vision.gelu_exact(patch_normed @ p["w_up"] + p["w_up_bias"])
        return hidden @ p["w_down"] + p["w_down_bias"]

    target = norm_first
    patch.setattr(vision, "merge", merge)
    return case


def raster_patches(case: Case, patch) -> Case:
    """Patches cut in raster order, so that a merged token joins four in a line."""

    def cut(images, config):
        count, height, width, channels = images.shape
        p = config.patch
        tiles = images.reshape(count, height // p, p, width // p, p, channels)
        tiles = tiles.transpose(0, 1, 3, 5, 2, 4).reshape(count, -1, channels, 1, p * p)
        tiles = jnp.broadcast_to(tiles, (*tiles.shape[:3], 2, p * p))
        return tiles.reshape(*tiles.shape[:2], -1) / 127.5 - 1.0

    patch.setattr(vision, "patchify", cut)
    return case


def pixels_not_centred(case: Case, patch) -> Case:
    """Pixels in [0, 1] instead of [-1, 1]."""
    right = vision.patchify
    patch.setattr(vision, "patchify", lambda *given: (right(*given) + 1) / 2)
    return case


def deepstack_reversed(case: Case, patch) -> Case:
    """The last tap's feature added first."""
    right = text.prompt_pass
    patch.setattr(
        text,
        "prompt_pass",
        lambda blocks, x, positions, deepstack, config: right(
            blocks, x, positions, deepstack[::-1], config
        ),
    )
    return case


def answers_one_early(case: Case) -> Case:
    """The first answer token at the prompt's largest position instead of the next."""
    return replace(case, prompt=case.prompt.replace(next_position=case.prompt.next_position - 1))


def answers_at_their_index(case: Case) -> Case:
    """Answer positions counted from the prompt's number of tokens, as if it were all text."""
    return replace(case, prompt=case.prompt.replace(next_position=case.prompt.length))


def text_without_final_norm_weight(case: Case) -> Case:
    params = case.params | {"norm": jnp.ones_like(case.params["norm"])}
    return replace(case, params=params)


OTHERS = (
    kernel_columns_first,
    vision_rotary_exponent,
    neighbouring_pairs,
    no_query_norm_weight,
    one_plus_norm_weight,
    scattered_groups,
    heads_before_qkv,
    no_vision_bias,
    merger_norm_after_joining,
    deepstack_norm_before_joining,
    raster_patches,
    pixels_not_centred,
    deepstack_reversed,
    answers_one_early,
    answers_at_their_index,
    text_without_final_norm_weight,
)


def with_positions(case: Case, positions: np.ndarray) -> Case:
    return replace(case, prompt=case.prompt.replace(positions=positions.astype(np.int32)))


def with_blocks(case: Case, **changes) -> Case:
    """Other weights in the text blocks, each by a function of the right one."""
    blocks = case.params["blocks"]
    changed = {name: change(blocks[name]) for name, change in changes.items()}
    return replace(case, params=case.params | {"blocks": blocks | changed})


def with_tower(case: Case, part: str = "blocks", **changes) -> Case:
    tower = case.params["vision"]
    changed = {name: change(tower[part][name]) for name, change in changes.items()}
    tower = tower | {part: tower[part] | changed}
    return replace(case, params=case.params | {"vision": tower})


def with_kernel(case: Case, order: tuple[int, ...]) -> Case:
    """The patch weights as if the kernel's axes (c, t, y, x) had been flattened in `order`."""
    c = case.config.vision
    shape = (c.channels, c.temporal, c.patch, c.patch)
    kernel = case.params["vision"]["patch"]
    flat = kernel.reshape(*shape, -1).transpose(*order, 4).reshape(kernel.shape)
    return replace(case, params=case.params | {"vision": case.params["vision"] | {"patch": flat}})
