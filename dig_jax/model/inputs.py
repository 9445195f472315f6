"""What the model reads: B prompts as static arrays. `dig_jax.inputs.prompt` makes them."""

import numpy as np
from flax import struct


@struct.dataclass
class PromptInputs:
    """B prompts, right-padded to P tokens, each with at most I images on one canvas.

    tokens         i32[B, P]      image slots hold the image token, padding the pad token
    slot           i32[B, P]      -1 at text and padding, else index into the row's I*S features
    positions      i32[B, 3, P]   M-RoPE positions (T, H, W); 0 at padding
    length         i32[B]         tokens that are not padding
    next_position  i32[B]         position of the first answer token, on all three axes
    grids          i32[B, I, 2]   patch rows and columns of each image; 0 0 where there is none
    """

    tokens: np.ndarray
    slot: np.ndarray
    positions: np.ndarray
    length: np.ndarray
    next_position: np.ndarray
    grids: np.ndarray

    def row(self, number: int) -> np.ndarray:
        """Token ids of one prompt, i32[length], without padding."""
        return self.tokens[number, : int(self.length[number])]
