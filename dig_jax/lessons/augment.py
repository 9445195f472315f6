"""A pair made into another pair, with labels that are true of it."""

from dataclasses import dataclass, replace

import numpy as np

from dig_jax.boxes import reading_order

GAIN, SHIFT = (0.85, 1.15), (-12, 12)  # of brightness, in grey levels


@dataclass(frozen=True)
class Labelled:
    """A pair with what is known of it.

    images   u8[2, Y, X, 3]
    boxes    f32[n, 4]       unit frame, in the order of the answer
    masks    of both images u8[Y, X], ids of things; () where nobody knows them
    things   of both images, as a record's meta has them
    """

    images: np.ndarray
    boxes: np.ndarray
    masks: tuple[np.ndarray, ...] = ()
    things: tuple[list[dict], ...] = ()
    recolored: bool = False  # colours are no longer those that the things are called by


def augment(pair: Labelled, rng: np.random.Generator) -> Labelled:
    """Mirror, swap A and B, permute colour channels, change brightness."""
    if rng.random() < 0.5:
        pair = mirrored(pair)
    if rng.random() < 0.5:
        sides = {"images": pair.images[::-1], "masks": pair.masks[::-1]}
        pair = replace(pair, **sides, things=pair.things[::-1])
    if rng.random() < 0.5:
        order = rng.permutation(3)
        recolored = not (order == np.arange(3)).all()
        pair = replace(pair, images=pair.images[..., order], recolored=recolored)
    return replace(pair, images=dimmed(pair.images, rng))


def mirrored(pair: Labelled) -> Labelled:
    """Left and right exchanged."""
    boxes = np.stack(
        [1 - pair.boxes[:, 2], pair.boxes[:, 1], 1 - pair.boxes[:, 0], pair.boxes[:, 3]], -1
    )
    masks = tuple(mask[:, ::-1] for mask in pair.masks)
    return replace(pair, images=pair.images[:, :, ::-1], boxes=reading_order(boxes), masks=masks)


def dimmed(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """u8 pictures with another brightness, one for all of them."""
    gain, shift = rng.uniform(*GAIN), rng.uniform(*SHIFT)
    levels = np.clip(np.arange(256) * gain + shift, 0, 255).astype(np.uint8)
    return levels[images]
