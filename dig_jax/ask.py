"""Ask a checkpoint about any number of pictures of any sizes, and print its answer.

    python -m dig_jax.ask --source assets/tiny_qwen3vl a.png b.png
    python -m dig_jax.ask --source FOLDER photo.jpg --question "What is this?" --max-tokens 64

Pictures reach the model as Hugging Face's processor would resize them. --bucket 640x480:1024
(width x height in pixels, prompt tokens; repeatable) pads to fixed shapes, so that questions
about other pictures reuse what was compiled (set JAX_COMPILATION_CACHE_DIR to keep it).
"""

import argparse
import sys

import jax
import numpy as np

from dig_jax.common.commandline import bucket_of, clear_errors, place_of, seed_of, within
from dig_jax.config import MeshConfig, PromptConfig
from dig_jax.hf import weights
from dig_jax.hf.files import local_companions
from dig_jax.inputs.buckets import Bucket, make_batcher
from dig_jax.inputs.picture_files import depth_fault, open_image
from dig_jax.inputs.prompt import Processor, decode_answers
from dig_jax.mesh.sharding import make_mesh, param_shardings
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.specs import model_specs
from dig_jax.run.session import image_rules, open_processor, read_weights
from dig_jax.sampler.rollout import make_sampler


def prepare_question(
    args: argparse.Namespace, folder: str, model: ModelConfig, processor: Processor
) -> tuple[PromptInputs, np.ndarray]:
    """The prompt and its images u8[1, I, Y, X, 3]; raises for whatever is wrong with them."""
    limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    rules = image_rules(folder, model, **limits)
    cfg = PromptConfig(args.question, add_vision_id=args.add_vision_id)
    buckets = [Bucket(canvas, tokens, len(args.images)) for canvas, tokens in args.bucket]
    batch = make_batcher(cfg, processor, model, rules, buckets, answer=args.max_tokens)
    pictures = [open_image(path) for path in args.images]
    for path, picture in zip(args.images, pictures, strict=True):
        if fault := depth_fault(picture):  # shown as Hugging Face would show it
            print(f"warning: {path} will not look as it should: {fault}", file=sys.stderr)
    return batch([pictures], [args.question], [", ".join(args.images) or "the question"])


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "images", type=place_of, nargs="*", metavar="IMAGE", help="picture files, in order"
    )
    parser.add_argument(
        "--source", type=place_of, required=True, metavar="FOLDER", help="checkpoint folder"
    )
    parser.add_argument("--question", default=PromptConfig().question)
    parser.add_argument(
        "--max-tokens", type=within(int, 1, 2**20), default=256, help="of the answer"
    )
    parser.add_argument(
        "--temperature", type=within(float, 0, 100), default=0.0, help="0 is greedy"
    )
    parser.add_argument("--seed", type=seed_of, default=0, help="of the draws at temperature > 0")
    parser.add_argument(
        "--devices", type=within(int, 1, 2**16), default=1, help="to split the weights over"
    )
    parser.add_argument("--bucket", type=bucket_of, action="append", default=[], metavar="XxY:P")
    parser.add_argument("--add-vision-id", action="store_true", help="'Picture 1: ' before each")
    for name in ("min", "max"):
        text = f"{name}imum size of a resized picture; 0 is the checkpoint's own limit"
        parser.add_argument(
            f"--{name}-pixels", type=within(int, 0, 2**28), default=0, metavar="N", help=text
        )
    args = parser.parse_args(argv)
    if 0 < args.temperature < 1e-3:  # logits would leave float32's range
        parser.error("--temperature is 0, or 0.001 and more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with clear_errors():  # whatever is wrong with the question is found before weights are read
        model = weights.read_model_config(args.source)
        local = str(local_companions(args.source))
        processor = open_processor(args.source, model)
        prompt, images = prepare_question(args, local, model, processor)
        mesh = make_mesh(MeshConfig(fsdp=args.devices), jax.devices()[: args.devices])
        where = param_shardings(model_specs(model), mesh)
        params = read_weights(args.source, model, where)
    sampler = make_sampler(model, group=1, max_tokens=args.max_tokens, temperature=args.temperature)
    key = jax.random.key(args.seed)
    answer = jax.device_get(jax.jit(sampler)(params, prompt, images, key))
    lengths = answer.valid.sum(-1)
    print(decode_answers(processor, answer.tokens, lengths, stops=model.eos_tokens)[0][0])
    if not answer.ended.all():
        print(f"(cut off after --max-tokens {args.max_tokens})", file=sys.stderr)


if __name__ == "__main__":
    main()
