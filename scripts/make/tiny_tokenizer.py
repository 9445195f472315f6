"""Make the tiny Qwen3-VL's tokenizer, chat template and processor files.

    python -m scripts.make.tiny_tokenizer --out assets/tiny_qwen3vl --patch 8

A byte-level BPE with 768 rows: 256 bytes, the merges learned from a seeded corpus, Qwen's special
tokens under their own names at the end. As in Qwen's tokenizer text is NFC and every digit is one
token, and a word that tells a thing is one token wherever it stands, as every word is for Qwen's.
Nothing else is split before BPE, so the JSON between two numbers becomes one token and a box costs
18 tokens at most. Any text round-trips (up to NFC).
Same seed and same `tokenizers` release: same files, byte for byte.
"""

import argparse
import json
import random
import re
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from dig_jax.benchmarks import prompts
from dig_jax.common.commandline import path_of, seed_of
from dig_jax.data.questions.depth import DEPTH, DISTANCE
from dig_jax.data.questions.sides import POSITION, RELATION
from dig_jax.data.scene.scene import COLORS, MATERIALS, SHAPES

VOCABULARY = 768
QUESTION = (
    "Find every difference between the two images. "
    "Answer with a JSON list of bbox_2d boxes."
)  # config.PromptConfig's default: tests/inputs/test_prompt.py holds the two together

# Qwen's added tokens in Qwen's order; False: kept by skip_special_tokens
ADDED_TOKENS = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    "<|object_ref_start|>": True,
    "<|object_ref_end|>": True,
    "<|box_start|>": True,
    "<|box_end|>": True,
    "<|quad_start|>": True,
    "<|quad_end|>": True,
    "<|vision_start|>": True,
    "<|vision_end|>": True,
    "<|vision_pad|>": True,
    "<|image_pad|>": True,
    "<|video_pad|>": True,
    "<tool_call>": False,
    "</tool_call>": False,
    "<|fim_prefix|>": False,
    "<|fim_middle|>": False,
    "<|fim_suffix|>": False,
    "<|fim_pad|>": False,
    "<|repo_name|>": False,
    "<|file_sep|>": False,
    "<tool_response>": False,
    "</tool_response>": False,
    "<think>": False,
    "</think>": False,
}
PAD, EOS = "<|endoftext|>", "<|im_end|>"

ENGLISH = """\
The quick answer is that there is no difference here. Look at the first image and then at the
second image. One object was added, another object was removed, and the colour of the sphere
changed from red to blue. In the left part of the picture there is a small cube; on the right side
there is a large cylinder. What is different between these two pictures? Some things are the same
in both of them, and other things are not. The light comes from above, so every object has a
shadow on the floor. Please describe all that you can see, and then give the position of each
object with four numbers. If nothing has changed, say so with an empty list. When the shape of an
object is different, the box must hold both shapes. We have been looking for a long time, but the
green cone in the corner was not in the image before. It would be better to check again: the
material may be metal or rubber, the size may be small or large, and the place may be behind or in
front of another thing. The answer should be short. She asked for the names of the things on the
table, and he said that there were only three. They were made of glass, wood and stone. This is
how people compare two images with one another: first they find the parts that match, then they
search for what is left over, because those are the differences.
"""

# The layout Qwen3-VL's released template has, in our own words.
CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for item in message.content -%}
{%- if item.type == 'image' or item.type == 'image_url' -%}
{%- set seen.images = seen.images + 1 -%}
{%- if add_vision_id -%}{{- 'Picture ' ~ seen.images ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif item.type == 'video' -%}
{%- set seen.videos = seen.videos + 1 -%}
{%- if add_vision_id -%}{{- 'Video ' ~ seen.videos ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif item.type == 'text' -%}
{{- item.text -}}
{%- else -%}
{{- raise_exception('content type ' ~ item.type ~ ' is neither image, video nor text') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path_of, required=True, help="folder; made if missing")
    parser.add_argument("--patch", type=int, default=8, help="ViT patch size in pixels")
    parser.add_argument("--min-pixels", type=int, default=4096)
    parser.add_argument("--max-pixels", type=int, default=1048576)
    parser.add_argument("--seed", type=seed_of, default=0)
    args = parser.parse_args()
    write_tokenizer(args.out, seed=args.seed)
    write_processor(args.out, args.patch, (args.min_pixels, args.max_pixels))


def write_tokenizer(out: Path, *, seed: int) -> Tokenizer:
    """Train the BPE and write every file that AutoTokenizer, vLLM and older loaders ask for."""
    tokenizer = train(corpus(seed))
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.model.save(str(out))  # vocab.json, merges.txt
    special = [name for name, is_special in ADDED_TOKENS.items() if is_special]
    _write_json(
        out / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "additional_special_tokens": special[1:],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": EOS,
            "errors": "replace",
            "model_max_length": 4096,
            "pad_token": PAD,
            "split_special_tokens": False,
            # not Qwen2Tokenizer: that class replaces the pre-tokenizer by Qwen's own expression
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": None,
        },
    )
    _write_json(
        out / "special_tokens_map.json",
        {"additional_special_tokens": special[1:], "eos_token": EOS, "pad_token": PAD},
    )
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    ids = {name: tokenizer.token_to_id(name) for name in (PAD, EOS)}
    _write_json(
        out / "generation_config.json",
        {"do_sample": False, "eos_token_id": [ids[EOS], ids[PAD]], "pad_token_id": ids[PAD]},
    )
    return tokenizer


def write_processor(out: Path, patch: int, pixels: tuple[int, int]) -> None:
    """The image (and, for HF's processor class, video) settings; `pixels` are pixel counts."""
    shared = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": 2,
        "patch_size": patch,
        "processor_class": "Qwen3VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": pixels[0], "longest_edge": pixels[1]},
        "temporal_patch_size": 2,
    }
    image = {**shared, "image_processor_type": "Qwen2VLImageProcessorFast"}
    video = {**shared, "video_processor_type": "Qwen3VLVideoProcessor"}
    _write_json(out / "preprocessor_config.json", image)
    _write_json(out / "video_preprocessor_config.json", video)


def train(texts: list[str]) -> Tokenizer:
    """Byte-level BPE whose only boundaries are the digits and the words that tell things."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(_VARIES.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ADDED_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(
        [
            AddedToken(name, special=is_special, normalized=False)
            for name, is_special in ADDED_TOKENS.items()
        ]
    )
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"{tokenizer.get_vocab_size()} rows learned, {VOCABULARY} wanted")
    return tokenizer


def corpus(seed: int) -> list[str]:
    """Answers, the pieces of the chat between special tokens, and ordinary English word by word."""
    rng = random.Random(seed)
    texts = [_answer(rng, labelled=False) for _ in range(3000)]
    texts += [_answer(rng, labelled=True) for _ in range(300)]
    texts += [_fenced(_answer(rng, labelled=True)) for _ in range(60)]
    texts += ["[]"] * 1500
    texts += [" " + word for word in QUESTION.split() for _ in range(600)]
    texts += [piece for _ in range(3000) for piece in _VARIES.split(_question(rng)) if piece]
    texts += [space + word for word in _WORDS for space in (" ", "") for _ in range(1000)]
    texts += [" " + word for word in ENGLISH.split() for _ in range(20)]
    texts += ["user\n", "assistant\n", "system\n", "\n", "\n\n", "Picture 1: "] * 150
    return texts


def _question(rng: random.Random) -> str:
    """One of the suite's questions about rendered scenes, as a benchmark asks it."""
    one, two, three = (_name(rng) for _ in range(3))
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    attribute = rng.choice(("color", "material", "shape"))
    values = {"color": list(COLORS), "material": list(MATERIALS), "shape": list(SHAPES)}[attribute]
    side = rng.choice(("left of", "right of", "behind", "in front of"))
    what = rng.choice((f"{shape}s", f"{color} objects", f"{rng.choice(MATERIALS)} objects"))
    asked = (
        lambda: prompts.locate(rng.choice(_PLACES).format(one), "qwen"),
        lambda: prompts.yes_no(f"Is there a {color} {shape} in the image?"),
        lambda: prompts.statement(f"The {one} is {side} the {two}."),
        lambda: prompts.choice(f"How many {what} are in the image?", "1 2 3 4 0".split()),
        lambda: prompts.choice(RELATION.format(one, two), ("left", "right")),
        lambda: prompts.choice(DEPTH.format(one, two), (one, two)),
        lambda: prompts.choice(DISTANCE.format(one, two, three), (one, two)),
        lambda: prompts.choice(
            f"What is the {attribute} of the {one}?", rng.sample(values, min(4, len(values)))
        ),
        lambda: prompts.choice(POSITION.format(one, two), _SIDES),
    )
    return rng.choice(asked)()


# What varies in a question: "red" is one token in "red cube" as in "(A) red".
_WORDS = (*COLORS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *MATERIALS)
_WORDS += ("object", "objects", "large", "medium", "leftmost", "rightmost", "left", "right")
_WORDS += ("behind", "in front", "color", "material", "shape")
_VARIES = re.compile(rf"( ?\b(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})\b)")

_PLACES = ("{}", "leftmost {}", "rightmost {}", "{} closest to the camera")
_SIDES = ("left", "right")


def _name(rng: random.Random) -> str:
    """ "large red cube": a thing as a question calls it."""
    told = [rng.choice(("large", "medium")), rng.choice(list(COLORS)), rng.choice(MATERIALS)]
    told = [word for word in told if rng.random() < 0.5]
    return " ".join([*told, rng.choice((*SHAPES, "object"))])


def _answer(rng: random.Random, *, labelled: bool) -> str:
    boxes = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        x0, x1 = sorted(rng.sample(range(1001), 2))
        y0, y1 = sorted(rng.sample(range(1001), 2))
        box: dict = {"bbox_2d": [x0, y0, x1, y1]}
        if labelled:
            box["label"] = "difference"
        boxes.append(box)
    return json.dumps(boxes)


def _fenced(answer: str) -> str:
    return "```json\n" + answer.replace("[{", "[\n\t{").replace("}, {", "},\n\t{") + "\n```"


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
