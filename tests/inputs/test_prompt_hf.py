"""Prompts equal those of Hugging Face's own Qwen3VLProcessor, whatever template a folder brings.

`tests/hf_outputs/prompts.json` (scripts/make/prompt_goldens.py) holds what that class made of
twelve prompts; it needs torchvision, so here it is only compared with.
"""

import dataclasses
import json
import shutil
from functools import cache

import numpy as np
import pytest

from dig_jax.config import PromptConfig
from dig_jax.hf import weights
from dig_jax.inputs import images
from dig_jax.inputs.prompt import load_processor, make_prompt, opens_thought
from tests import HF_OUTPUTS, THINKING
from tests.tiny_model import ASSETS

GOLDEN = json.loads((HF_OUTPUTS / "prompts.json").read_text())["cases"]
MODEL = weights.read_model_config(ASSETS)


@pytest.fixture(scope="module")
def processor_of(tmp_path_factory):
    """processor_of(template) of a folder with the Instruct or Thinking template, or 4.57's file."""

    @cache
    def load(template: str):
        folder = tmp_path_factory.mktemp(template)
        for file in ASSETS.iterdir():
            if file.suffix in (".json", ".txt", ".jinja"):
                shutil.copyfile(file, folder / file.name)
        jinja = folder / "chat_template.jinja"
        if template == "thinking":
            shutil.copyfile(THINKING, jinja)
        if template == "legacy":
            older = {"chat_template": jinja.read_text()}
            (folder / "chat_template.json").write_text(json.dumps(older))
            jinja.unlink()
        return load_processor(folder)

    return load


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['template']}-{len(c['sizes'])}")
def test_ids_grids_and_positions_equal_those_of_hfs_processor(processor_of, case):
    rules = images.read_rules(ASSETS)
    sizes = [images.target_size(*size, rules) for size in case["sizes"]]
    cfg = PromptConfig(case["question"], add_vision_id=case["add_vision_id"])
    prompt = make_prompt(cfg, processor_of(case["template"]), MODEL, [sizes], tokens=999)
    length = len(case["input_ids"])
    assert prompt.length.tolist() == [length]
    assert prompt.tokens[0, :length].tolist() == case["input_ids"]
    assert (prompt.slot[0, :length] >= 0).astype(int).tolist() == case["mm_token_type_ids"]
    grids = [[1, *grid] for grid in prompt.grids[0].tolist()]
    assert grids == case["image_grid_thw"]
    np.testing.assert_array_equal(prompt.positions[0, :, :length], case["position_ids"])


def test_the_golden_prompts_cover_every_kind():
    """0 to 3 images, with and without vision ids, each template: else the test above is empty."""
    assert {len(case["sizes"]) for case in GOLDEN} == {0, 1, 2, 3}
    kinds = {(case["template"], case["add_vision_id"]) for case in GOLDEN}
    assert kinds >= {(t, flag) for t in ("instruct", "thinking") for flag in (False, True)}
    assert ("legacy", False) in kinds


def test_only_the_thinking_template_opens_a_thought(processor_of):
    for template, opens in (("instruct", False), ("legacy", False), ("thinking", True)):
        prompt = make_prompt(PromptConfig("Q?"), processor_of(template), MODEL, [[]])
        assert opens_thought(processor_of(template), prompt.row(0)) == opens
        text = processor_of(template).tokenizer.decode(prompt.tokens[0])
        end = "<|im_start|>assistant\n" + "<think>\n" * opens
        assert text == "<|im_start|>user\nQ?<|im_end|>\n" + end


def test_past_turns_lose_their_thoughts(processor_of):
    """Only an answer after the last user turn keeps its own."""
    turns = [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "<think>\nold\n</think>\n\nA"},
    ]
    render = processor_of("thinking").tokenizer.apply_chat_template
    kept = render(turns, tokenize=False)
    assert kept.endswith("<|im_start|>assistant\n<think>\nold\n</think>\n\nA<|im_end|>\n")
    more = [*turns, {"role": "user", "content": "V"}]
    asked = render(more, tokenize=False, add_generation_prompt=True)
    assert asked == (
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def too_long(processor_of, cfg: PromptConfig, *, answer: int = 0, context: int = 262144):
    text = dataclasses.replace(MODEL.text, context=context)
    model = dataclasses.replace(MODEL, text=text)
    sizes = [[(64, 96)] * 2, [(64, 96), (160, 96)]]
    names = ["pair 7", "pair 12"]
    return make_prompt(
        cfg, processor_of("instruct"), model, sizes, names=names, answer=answer
    ).length.tolist()


def test_a_prompt_that_is_too_long_is_refused_by_pair_and_never_cut(processor_of):
    """Two limits, the config's and the model's context with the answer; exactly full is fine."""
    cfg = PromptConfig()
    short, long = too_long(processor_of, cfg)
    assert short < long
    told = rf"prompt of pair 12 has {long} tokens, 2 images of 96x64, 96x160 px included"
    at = dataclasses.replace
    assert too_long(processor_of, at(cfg, max_tokens=long)) == [short, long]
    with pytest.raises(
        ValueError, match=rf"{told}, more than prompt.max_tokens={long - 1}; .*raise"
    ):
        too_long(processor_of, at(cfg, max_tokens=long - 1))
    assert too_long(processor_of, cfg, answer=50, context=long + 50) == [short, long]
    with pytest.raises(
        ValueError, match=rf"{told}; with 50 answer tokens .* context of {long + 49}"
    ):
        too_long(processor_of, cfg, answer=50, context=long + 49)
    with pytest.raises(
        ValueError, match=rf"prompt of pair 12 has {long} tokens, more than {short}"
    ):
        make_prompt(
            cfg, processor_of("instruct"), MODEL, [[(64, 96)] * 2, [(64, 96), (160, 96)]],
            names=["pair 7", "pair 12"], tokens=short,
        )  # fmt: skip


def test_an_image_in_the_question_is_refused_by_pair(processor_of):
    with pytest.raises(ValueError, match=r"prompt of pair 3 has 3 image placeholders .* 2 images"):
        make_prompt(
            PromptConfig("see <|image_pad|>"), processor_of("instruct"), MODEL,
            [[(64, 96)] * 2], names=["pair 3"],
        )  # fmt: skip
