"""Write a Hugging Face checkpoint folder of any size with random weights, shard by shard.

    python -m scripts.make.random_checkpoint --size 8b --out data/random_8b --dtype bfloat16

Stands in for a released checkpoint where none can be had: real keys, shapes, shards and index.
Every value follows from the seed and the tensor's key alone. They come from the raw bits of
PCG64, whose stream NumPy never changes, so that a golden file may hold what a model says of these
weights without holding the weights. Norms and biases are random too: initial ones and zeros would
hide a forgotten one.
"""

import argparse
import json
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from dig_jax.common.commandline import path_of, seed_of
from dig_jax.hf import settings
from dig_jax.model.config import ModelConfig
from dig_jax.model.sizes import released
from dig_jax.model.specs import Spec, model_specs, named_specs

QUIET = 0.1  # of patch embedding and position table: small states make LayerNorm's eps matter


def random_tensor(key: str, spec: Spec, seed: int) -> np.ndarray:
    """One tensor in HF's shape; f32, near unit variance behind each matmul."""
    shape = spec.hf_shape
    count = int(np.prod(shape))
    bits = np.random.PCG64([seed, zlib.crc32(key.encode())]).random_raw((count + 1) // 2)
    unit = bits.view(np.uint32)[:count].astype(np.float32)
    unit *= np.float32(2**-31 * 3**0.5)  # uniform of variance 1, once centred
    unit -= np.float32(3**0.5)
    unit = unit.reshape(shape)
    if spec.init == "ones":
        return 1 + np.float32(0.25) * unit
    if spec.init == "zeros":
        return np.float32(0.25) * unit
    return unit * np.float32(_scale(key, shape))


def _scale(key: str, shape: tuple[int, ...]) -> float:
    if "pos_embed" in key:
        return QUIET
    fan_in = np.prod(shape[1:])
    if "embed_tokens" in key or "lm_head" in key:
        return 1.5 * fan_in**-0.5
    return fan_in**-0.5 * (QUIET if "patch_embed" in key else 1)


def sketch(key: str, gradient: np.ndarray, *, rows: int = 16) -> np.ndarray:
    """Random sums of a tensor that stand in for it; f64[rows].

    Each adds every entry with a random sign, so E[(a - b)^2] of two sketches is the squared
    distance of the tensors: a stored sketch measures a relative error, whatever the size.
    """
    count = gradient.size
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(rows * -(-count // 64))
    bits = np.unpackbits(raw.view(np.uint8).reshape(rows, -1), axis=1)[:, :count]
    flat = gradient.reshape(-1).astype(np.float64)
    return np.stack([flat[row == 1].sum() - flat[row == 0].sum() for row in bits])


def write_random(
    folder: Path, config: ModelConfig, *, seed: int, dtype: str, shard_bytes: int = 2 * 10**9
) -> None:
    """A folder with config.json, generation_config.json and weights; holds one shard in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    top = settings.to_json(config, dtype, base={})
    stops = {"eos_token_id": list(config.eos_tokens), "pad_token_id": config.pad_token}
    (folder / "config.json").write_text(json.dumps(top, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(stops) + "\n")
    kind = np.dtype(jnp.dtype(dtype))
    rows = [(key, spec) for _, spec in named_specs(model_specs(config)) for key in spec.keys]
    shards: list[list] = [[]]
    room = shard_bytes
    for key, spec in rows:
        size = kind.itemsize * int(np.prod(spec.hf_shape))
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append((key, spec))
        room -= size
    names, total = {}, 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {key: random_tensor(key, spec, seed).astype(kind) for key, spec in shard}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        names |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
        del tensors
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", required=True, help="2b, 4b, 8b or 32b")
    parser.add_argument("--out", type=path_of, required=True)
    parser.add_argument("--seed", type=seed_of, default=0)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    args = parser.parse_args()
    write_random(args.out, released(args.size), seed=args.seed, dtype=args.dtype)
    print(f"{args.out}: a random Qwen3-VL of the size of {args.size} in {args.dtype}")


if __name__ == "__main__":
    main()
