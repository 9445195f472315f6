"""A pair that anybody may ask about, with the boxes of its differences.

The two pictures are Blender's, of the recipe's held-out split (`data render --preset quickstart
--splits heldout --set look.width=288 --set look.height=192`, pair 11): a cube has come, and
another has become a cylinder.
"""

import base64
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_BOXES = ((97, 427, 264, 682), (781, 297, 948, 599))  # the record's labels, in 0..1000


def read_example(question: str) -> dict[str, Any]:
    """What the page asks for, as JSON has it.

    question   what such pairs are asked by default

    ->  a, b      the pictures as data URLs
        boxes     their true differences in 0..1000, the same in both
        question
    """
    pictures = {side: _data_url(_FOLDER / f"example_{side}.png") for side in "ab"}
    return {**pictures, "boxes": [list(box) for box in _BOXES], "question": question}


def _data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
