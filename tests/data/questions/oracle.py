"""What a question's answer is, read from its text alone and the plan and masks, another way.

Nothing of dig_jax.data.questions is used but the question. Whatever the text says is looked up
among all planned things of the picture, hidden ones too.
"""

import numpy as np

from dig_jax.data.scene.scene import COLORS, MATERIALS, SHAPES, Thing, plan_from_json
from dig_jax.data.scene.visibility import View, cast

WORDS = {
    **dict.fromkeys(COLORS, "color"),
    **dict.fromkeys(MATERIALS, "material"),
    **dict.fromkeys(SHAPES, "shape"),
    **dict.fromkeys(("large", "medium", "small"), "size"),
}


class Picture:
    """Plan and mask of a side."""

    def __init__(self, pair, side: str):
        plan = plan_from_json(pair.meta)
        self.things = plan.a if side == "a" else plan.b
        self.mask = pair.mask_a if side == "a" else pair.mask_b
        self.camera = (plan.camera_b if side == "b" else None) or plan.camera

    def meant(self, name: str) -> list[Thing]:
        """The things that a name means."""
        name = name.removeprefix("The ").removeprefix("the ")
        for start, best in (("leftmost ", min), ("rightmost ", max)):
            if name.startswith(start):
                some = self.meant(name.removeprefix(start))
                assert len(some) > 1
                return [best(some, key=self.x)]
        for end, best in ((" closest to the camera", min), (" farthest from the camera", max)):
            if name.endswith(end):
                some = self.meant(name.removesuffix(end))
                assert len(some) > 1
                return [best(some, key=self.away)]
        told = {WORDS[word]: word for word in name.split() if word != "object"}
        assert told, name
        return [t for t in self.things if all(getattr(t, k) == v for k, v in told.items())]

    def one(self, name: str) -> Thing:
        (thing,) = self.meant(name)
        return thing

    def pixels(self, thing: Thing) -> np.ndarray:
        return np.argwhere(self.mask == thing.id)

    def share(self, thing: Thing) -> float:
        """Visible part of what would be seen of it alone."""
        height, width = self.mask.shape
        alone = np.isfinite(cast(View(self.camera, width, height), thing)).sum()
        return len(self.pixels(thing)) / alone

    def x(self, thing: Thing) -> float:
        return self.pixels(thing)[:, 1].mean()

    def away(self, thing: Thing) -> float:
        at = (*thing.xy, thing.top / 2)
        return float(np.linalg.norm(np.subtract(at, self.camera.location)))

    def box(self, thing: Thing) -> tuple:
        rows, columns = self.pixels(thing).T
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def between(one: Thing, other: Thing) -> float:
    return float(np.hypot(one.xy[0] - other.xy[0], one.xy[1] - other.xy[1]))
