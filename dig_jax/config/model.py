"""Which model, and how it is computed; its adapters."""

from dataclasses import dataclass
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import number, place, require


@dataclass(frozen=True)
class ModelSource:
    source: str = place("assets/tiny_qwen3vl")  # Hugging Face folder, or an import of one (4)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # of matmuls; weights stay float32
    attention: Literal["auto", "xla", "chunked", "dot", "cudnn", "splash"] = "auto"  # kernel (1)
    remat: Literal["none", "full", "dots", "qkvo"] = "none"  # recomputed going backward (2)
    layers: Literal["one_scan", "scan", "unroll"] = "one_scan"  # how blocks are repeated (3)

    # (1) auto: splash on a TPU, cudnn on a CUDA GPU in bfloat16 and chunked in float32, xla on
    #     a CPU. xla holds all scores at once, chunked 512 rows of them; see model/attention.py.
    # (2) none keeps all activations, full only each block's input, dots the outputs of matrix
    #     products with weights, qkvo what attention reads and writes. dots has crashed the TPU
    #     compiler at one sequence per chip.
    # (3) one_scan: one body for all blocks, compiles fastest; scan: one for blocks with deepstack
    #     features and one without, whose cut stacks are a second copy of the weights; unroll: a
    #     copy per block, compiles slowest.
    # (4) With config.json, safetensors and tokenizer; of this machine, or gs://BUCKET/FOLDER.

    def __post_init__(self):
        typed.check_fields(self, "model")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the text decoder in place of training its weights (LoRA)."""

    rank: int = number(0, least=0, most=2**16)  # of every adapter; 0 = weights are trained
    alpha: float = number(0.0, least=0, most=1e6)  # adapters are scaled by alpha / rank; 0 = by 1
    targets: tuple[str, ...] = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")  # per block

    def __post_init__(self):
        typed.check_fields(self, "lora")
        ok = bool(self.targets) and len(set(self.targets)) == len(self.targets)
        require(ok, "lora.targets", self.targets, "is empty or repeats a name", "name each once")
