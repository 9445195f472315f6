"""What a pair is asked."""

from dataclasses import dataclass

from dig_jax.common import typed
from dig_jax.common.fields import number, require
from dig_jax.config.rules import TOKENS

_QUESTION = (
    "Find every difference between the two images. Answer with a JSON list of bbox_2d boxes."
)


@dataclass(frozen=True)
class PromptConfig:
    question: str = _QUESTION  # the user turn after the two images
    add_vision_id: bool = False  # "Picture 1: " before each image, as the chat template can
    max_tokens: int = number(0, least=0, most=TOKENS)  # longest prompt (1)

    # (1) Image tokens included; 0 = what the context leaves.

    def __post_init__(self):
        typed.check_fields(self, "prompt")
        ok = bool(self.question.strip())
        require(ok, "prompt.question", self.question, "is empty", "say what to answer")
