"""What a run is: one frozen tree of settings, checked before anything expensive starts.

A configuration is a Python file with `get_config(**kwargs) -> Config`; `load_config` reads it
and applies dotted overrides. Every number a run depends on is a field here; no other module
has a default for one.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dig_jax import typed
from dig_jax.typed import above, at_least, require

_QUESTION = (
    "Find every difference between the two images. Answer with a JSON list of bbox_2d boxes."
)


@dataclass(frozen=True)
class ModelSource:
    source: str = "assets/tiny_qwen3vl"  # Hugging Face folder: config.json, safetensors, tokenizer
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

    def __post_init__(self):
        typed.check_fields(self, "model")


@dataclass(frozen=True)
class DataConfig:
    root: str = "data/tiny"  # folder with one sub-folder of shards per bucket and eval split
    image_width: int = 96  # px, X, of the records; the model's size follows from the limits below
    image_height: int = 64  # px, Y; same
    min_pixels: int = 0  # smallest image the model sees, height x width; 0 = the checkpoint's own
    max_pixels: int = 0  # largest; an image outside is resized as HF and vLLM do; 0 = same
    max_boxes: int = 8  # M: true boxes are padded to this many per pair
    buckets: tuple[str, ...] = ("single", "dual", "mixed")  # training splits, in index order
    eval_split: str = "heldout"  # split scored by evaluate; never trained on
    prefetch: int = 2  # batches decoded ahead, by each worker where there are any; >= 0
    workers: int = 0  # processes that decode; 0 = two threads of the run's own process
    cache: Literal["none", "decoded"] = "none"  # training pairs kept as raw pixels on disk (1)

    # (1) decoded: the first run writes every training pair, at the model's size, into
    #     <root>/<bucket>/decoded; height x width x 6 bytes each (480x320: 0.9 MB, six times its
    #     PNGs; 96x64: 37 KB). Off unless asked for: a GRPO step takes seconds for pairs that
    #     decode in milliseconds. It pays where steps are short: supervised training, many epochs.
    #     Neither field has a say in which pairs a step sees.

    def __post_init__(self):
        typed.check_fields(self, "data")
        least = {"image_width": 1, "image_height": 1, "min_pixels": 0, "max_pixels": 0}
        at_least("data", self, max_boxes=1, prefetch=0, workers=0, **least)
        ok = not self.max_pixels or self.min_pixels <= self.max_pixels
        rule = f"is above data.max_pixels={self.max_pixels}"
        require(ok, "data.min_pixels", self.min_pixels, rule, "lower it or raise max_pixels")
        ok = bool(self.buckets) and len(set(self.buckets)) == len(self.buckets)
        require(ok, "data.buckets", self.buckets, "is empty or repeats a name", "name each once")
        ok = self.eval_split not in self.buckets
        rule = "is also a training bucket"
        require(ok, "data.eval_split", self.eval_split, rule, "score pairs never trained on")


@dataclass(frozen=True)
class PromptConfig:
    question: str = _QUESTION  # the user turn after the two images
    add_vision_id: bool = False  # "Picture 1: " before each image, as the chat template can
    max_tokens: int = 0  # longest prompt, image tokens included; 0 = what the context leaves

    def __post_init__(self):
        typed.check_fields(self, "prompt")
        at_least("prompt", self, max_tokens=0)
        ok = bool(self.question.strip())
        require(ok, "prompt.question", self.question, "is empty", "say what to answer")


@dataclass(frozen=True)
class RolloutConfig:
    group: int = 8  # G: answers per pair, >= 2 (advantages are relative to the group)
    max_tokens: int = 96  # T: answer tokens including EOS
    temperature: float = 1.0  # > 0, of sampling and loss alike; evaluation may be greedy

    def __post_init__(self):
        typed.check_fields(self, "rollout")
        at_least("rollout", self, group=2, max_tokens=1)
        above("rollout", self, temperature=0)


REWARD_FUNCTIONS = ("dig", "perception_r1", "vlm_r1_weighted", "vlm_r1_ap", "vision_reasoner")


@dataclass(frozen=True)
class RewardConfig:
    """R = w_format * format + w_f1 * F1 + w_iou * mean IoU; each part lies in [0, 1].

    The weights make `dig`; another function gives its own value instead, and DiG's parts are
    logged beside it. docs/rewards.md has them all.
    """

    function: str = "dig"  # one of REWARD_FUNCTIONS, or your own as module:function
    w_format: float = 1.0  # weight of the format part, >= 0
    w_f1: float = 1.0  # weight of F1 at iou_threshold, >= 0
    w_iou: float = 1.0  # weight of the mean IoU of matched boxes, >= 0
    iou_threshold: float = 0.5  # a match with at least this IoU is a true positive, (0, 1]
    cost_l1: float = 5.0  # matching cost: L1 of unit-frame corners, >= 0 (DETR's weights)
    cost_giou: float = 2.0  # matching cost: -GIoU, >= 0
    cost_iou: float = 0.0  # matching cost: -IoU, >= 0
    iou_denominator: Literal["max", "matched", "true"] = "max"  # of mean IoU: max(n_pred, n_true)
    empty_is_perfect: bool = True  # no predicted and no true box: F1 = IoU = 1, else 0
    max_boxes: int = 16  # Q: predicted boxes kept per answer; more make the answer malformed
    matching: Literal["scipy", "xla"] = "scipy"  # assignment: host callback, or on device
    think: Literal["none", "prefilled", "full"] = "none"  # <think>: absent, opened by us, by it
    overlong_buffer: int = 0  # last tokens of rollout.max_tokens that cost (DAPO); 0 = none
    overlong_weight: float = 1.0  # taken off an answer of rollout.max_tokens tokens, >= 0

    def __post_init__(self):
        typed.check_fields(self, "reward")
        names = ("w_format", "w_f1", "w_iou", "cost_l1", "cost_giou", "cost_iou")
        names += ("overlong_buffer", "overlong_weight")
        at_least("reward", self, max_boxes=1, **dict.fromkeys(names, 0))
        _check_function(self.function)
        ok = 0 < self.iou_threshold <= 1
        require(ok, "reward.iou_threshold", self.iou_threshold, "is outside (0, 1]", "use 0.5")
        cost = self.cost_l1 + self.cost_giou + self.cost_iou
        remedy = "give cost_l1, cost_giou or cost_iou a weight"
        require(cost > 0, "reward.cost_*", cost, "makes every match equal", remedy)


def _check_function(name: str) -> None:
    """A function of the user's own is imported when the session opens, not here."""
    module, colon, attribute = name.partition(":")
    ok = bool(module and attribute) if colon else name in REWARD_FUNCTIONS
    near = difflib.get_close_matches(name, REWARD_FUNCTIONS, n=1, cutoff=0.4)
    guess = f"did you mean {near[0]!r}? " if near and not colon else ""
    remedy = f"{guess}use one of {', '.join(REWARD_FUNCTIONS)}, or your own as module:function"
    require(ok, "reward.function", name, "names no reward", remedy)


REWARD_PRESETS = {  # the paper's ablation rows
    "format_only": RewardConfig(w_f1=0.0, w_iou=0.0),
    "with_iou": RewardConfig(w_f1=0.0),
    "with_f1": RewardConfig(w_iou=0.0),
    "full": RewardConfig(),
}


@dataclass(frozen=True)
class GrpoConfig:
    clip_low: float = 0.2  # ratio floor 1 - clip_low, (0, 1)
    clip_high: float = 0.28  # ratio ceiling 1 + clip_high, > 0
    dual_clip: float = 3.0  # bound of ratio x |advantage| where the advantage is negative, > 1
    kl_coef: float = 0.01  # weight of the k3 KL(policy, reference), >= 0; 0 keeps no reference
    minibatches: int = 1  # optimiser updates per epoch over one rollout
    accumulate: int = 1  # gradient slices per update (over pairs; a group is never split)
    epochs: int = 1  # passes over one rollout
    advantage_eps: float = 1e-6  # added to the group's standard deviation, > 0
    vocab_chunk: int = 4096  # vocabulary columns per log-softmax block

    def __post_init__(self):
        typed.check_fields(self, "grpo")
        at_least("grpo", self, kl_coef=0, minibatches=1, accumulate=1, epochs=1, vocab_chunk=1)
        ok = 0 < self.clip_low < 1
        require(ok, "grpo.clip_low", self.clip_low, "is outside (0, 1)", "use 0.2")
        above("grpo", self, clip_high=0, dual_clip=1, advantage_eps=0)


@dataclass(frozen=True)
class OptimConfig:
    rate: float = 1e-6  # peak learning rate, > 0
    warmup: int = 0  # steps of linear rise from 0; step 0 already moves
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after warm-up, to 0 at steps
    b1: float = 0.9  # Adam, [0, 1)
    b2: float = 0.999  # Adam, [0, 1)
    eps: float = 1e-8  # Adam, > 0
    weight_decay: float = 0.01  # on matrices only: not norms, biases, embeddings; >= 0
    max_grad_norm: float = 1.0  # global norm clip, > 0
    freeze: tuple[str, ...] = ()  # parameter path prefixes such as "vision" or "text/embed"

    def __post_init__(self):
        typed.check_fields(self, "optim")
        at_least("optim", self, warmup=0, weight_decay=0)
        above("optim", self, rate=0, eps=0, max_grad_norm=0)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name}", value, "is outside [0, 1)", "use 0.9 or 0.999")


@dataclass(frozen=True)
class Stage:
    until: int  # first step that is no longer in this stage
    weights: dict[str, float]  # bucket -> share of the stage's pairs, >= 0, normalised; 0 = off

    def __post_init__(self):
        typed.check_fields(self, "curriculum.stages")
        where, remedy = "curriculum.stages.weights", "give at least one bucket a positive share"
        ok = min(self.weights.values(), default=-1) >= 0 and sum(self.weights.values()) > 0
        require(ok, where, self.weights, "is empty, negative or all zero", remedy)


def _three_stages() -> tuple[Stage, ...]:
    return (
        Stage(until=20, weights={"single": 1.0}),
        Stage(until=40, weights={"single": 0.3, "dual": 0.7}),
        Stage(until=60, weights={"single": 0.2, "dual": 0.3, "mixed": 0.5}),
    )


@dataclass(frozen=True)
class CurriculumConfig:
    stages: tuple[Stage, ...] = field(default_factory=_three_stages)  # ascending `until`
    reference: Literal["fixed", "per_stage"] = "fixed"  # KL reference renewed at a stage change?
    optimizer: Literal["keep", "reset"] = "keep"  # moments kept or zeroed at a stage change

    def __post_init__(self):
        typed.check_fields(self, "curriculum")
        untils = [0, *(stage.until for stage in self.stages)]
        ok = len(untils) > 1 and all(a < b for a, b in itertools.pairwise(untils))
        rule = "are not ascending positive steps"
        require(ok, "curriculum.stages until", untils[1:], rule, "order the stages by `until`")


@dataclass(frozen=True)
class EvalConfig:
    pairs: int = 120  # held-out pairs scored, from the first; >= 1
    batch: int = 20  # pairs per forward; the last batch is padded
    every: int = 0  # steps between evaluations while training; 0 = only before and after
    bootstrap: int = 2000  # resamples behind each 95 % interval
    samples: int = 0  # answers drawn per pair at rollout.temperature; 0 = one greedy answer
    decoding: Literal["policy", "checkpoint"] = "policy"  # or as generation_config.json says

    def __post_init__(self):
        typed.check_fields(self, "eval")
        at_least("eval", self, pairs=1, batch=1, every=0, bootstrap=1, samples=0)


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 10  # steps between saves, >= 1; the last step is always saved
    keep: int = 2  # newest checkpoints kept on disk

    def __post_init__(self):
        typed.check_fields(self, "checkpoint")
        at_least("checkpoint", self, every=1, keep=1)


@dataclass(frozen=True)
class MeshConfig:
    fsdp: int = 1  # devices the pairs and the weights are split over
    tensor: int = 1  # devices each matrix is split over; fsdp x tensor = all devices

    def __post_init__(self):
        typed.check_fields(self, "mesh")
        at_least("mesh", self, fsdp=1, tensor=1)


@dataclass(frozen=True)
class Config:
    name: str = "tiny"  # of the run, in logs and reports
    seed: int = 0  # root of every random draw, >= 0
    steps: int = 60  # rollout batches; equals the last stage's `until`
    pairs_per_step: int = 16  # B: pairs per rollout batch, over all processes
    run_dir: str = "runs/tiny"  # metrics, snapshots, checkpoints, pictures
    model: ModelSource = field(default_factory=ModelSource)
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        typed.check_fields(self, "")
        at_least("", self, seed=0, steps=1, pairs_per_step=1)
        _check_stages(self)
        _check_batches(self)
        _check_overlong(self)
        decays = self.optim.schedule != "constant"
        ok = not decays or self.optim.warmup < self.steps
        rule = f"leaves no step of steps={self.steps} to decay"
        require(ok, "optim.warmup", self.optim.warmup, rule, "shorten it or lengthen the run")


def _check_stages(cfg: Config) -> None:
    last = len(cfg.curriculum.stages) - 1
    until = cfg.curriculum.stages[last].until
    rule = f"does not equal steps={cfg.steps}"
    remedy = f"use --set curriculum.stages.{last}.until={cfg.steps}"
    require(until == cfg.steps, f"curriculum.stages.{last}.until", until, rule, remedy)
    for number, stage in enumerate(cfg.curriculum.stages):
        unknown = [name for name in stage.weights if name not in cfg.data.buckets]
        where, rule = f"curriculum.stages.{number}.weights", "names a bucket that data lacks"
        require(not unknown, where, unknown, rule, f"data.buckets={cfg.data.buckets}")


def _check_batches(cfg: Config) -> None:
    pairs, slices = cfg.pairs_per_step, cfg.grpo.minibatches * cfg.grpo.accumulate
    rule = f"is not a multiple of grpo.minibatches x grpo.accumulate = {slices}"
    remedy = f"use {slices * max(1, pairs // slices)} pairs or fewer slices"
    require(pairs % slices == 0, "pairs_per_step", pairs, rule, remedy)
    fsdp, slice_pairs = cfg.mesh.fsdp, pairs // slices
    rule = f"does not divide the {slice_pairs} pairs of one gradient slice"
    remedy = f"use pairs_per_step={slices * fsdp} or a multiple of it, or a smaller fsdp axis"
    require(slice_pairs % fsdp == 0, "mesh.fsdp", fsdp, rule, remedy)
    rule = f"is not a multiple of mesh.fsdp={fsdp}"
    remedy = f"use {fsdp * max(1, cfg.eval.batch // fsdp)}"
    require(cfg.eval.batch % fsdp == 0, "eval.batch", cfg.eval.batch, rule, remedy)


def _check_overlong(cfg: Config) -> None:
    buffer, limit = cfg.reward.overlong_buffer, cfg.rollout.max_tokens
    rule = f"is longer than an answer may be, rollout.max_tokens={limit}"
    remedy = f"use {max(1, limit // 4)}, or 0 for no penalty"
    require(buffer <= limit, "reward.overlong_buffer", buffer, rule, remedy)


def load_config(path: str | Path, overrides: list[str] = (), **kwargs: object) -> Config:
    """The configuration of a Python file, with dotted overrides such as `optim.rate=5e-7`.

    path        a file with `get_config(**kwargs) -> Config`
    overrides   applied together, then every rule is checked again

    Raises FileNotFoundError, TypeError (no get_config, wrong return), KeyError (unknown field,
    with the nearest names) or ValueError (a rule).
    """
    return typed.override(typed.run_file(Path(path), Config, **kwargs), list(overrides))


def to_json(config: Config) -> str:
    """The resolved configuration as indented JSON; `from_json` gives back an equal Config."""
    return json.dumps(typed.to_plain(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Config from `to_json`'s text; unknown names raise KeyError, every rule is checked."""
    return typed.from_plain(Config, json.loads(text))


def config_hash(config: Config) -> str:
    """Twelve hex digits of the configuration, blind to where the run is written."""
    plain = typed.to_plain(dataclasses.replace(config, run_dir=""))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def config_text(config: Config) -> str:
    """The configuration for the console: one line per field."""
    return typed.tree_text(config)
