"""How long a run's prompts are and how large its images, before its checkpoint is here."""

from pathlib import Path

from dig_jax.config import Config
from dig_jax.hf import weights
from dig_jax.inputs import images
from dig_jax.inputs import prompt as prompts
from dig_jax.model.config import ModelConfig
from dig_jax.model.sizes import released
from dig_jax.run.session import image_size
from tpu.phases import PromptShape

# Qwen3-VL's preprocessor_config.json, for runs whose model folder is not here
RELEASED_RULES = images.ImageRules(min_pixels=2**16, max_pixels=2**24, patch=16, merge=2)
# <|im_start|>user\n ... <|im_end|>\n<|im_start|>assistant\n<think>\n
TEMPLATE = 12
PICTURE = len("Picture 1: ")


def prompt_shape(cfg: Config, size: str) -> PromptShape:
    """Of a step's prompts.

    size  a released size, or "" for the model folder of cfg.model.source

    From the folder's own tokenizer where it is here. Else an upper bound: Qwen's tokenizer takes
    at most one token per byte of the question.
    """
    folder = Path(cfg.model.source)
    if (folder / "tokenizer.json").is_file() and not size:
        model = weights.read_model_config(folder)
        pixels = image_size(cfg.data, str(folder), model)
        processor = prompts.load_processor(folder)
        prompt = prompts.make_prompt(cfg.prompt, processor, model, [[pixels, pixels]])
        return PromptShape(prompt.tokens.shape[1], pixels)
    return bound(cfg, released(size.lower()))


def bound(cfg: Config, model: ModelConfig) -> PromptShape:
    """Upper bound of the tokens of a released model's prompts."""
    rules, data = RELEASED_RULES, cfg.data
    rules = images.ImageRules(
        data.min_pixels or rules.min_pixels,
        data.max_pixels or rules.max_pixels,
        rules.patch,
        rules.merge,
    )
    height, width = images.target_size(data.image_height, data.image_width, rules)
    each = model.cells(height, width) + 2 + (PICTURE if cfg.prompt.add_vision_id else 0)
    text = len(cfg.prompt.question.encode()) + TEMPLATE
    return PromptShape(2 * each + text, (height, width))
