"""What a run is: one frozen tree of settings, checked before anything expensive starts.

A configuration is a Python file with `get_config(**kwargs) -> Config`; `load_config` reads it
and applies dotted overrides. Every number a run depends on is a field here; no other module
has a default for one.

Imports: common.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.typed import above, at_least, require

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


def _check_local(where: str, folder: str) -> None:
    """A path takes gs://BUCKET for a folder named "gs:" and would be made here."""
    remedy = "name a folder of this machine; checkpoint.root and data.root may be in a bucket"
    require("://" not in folder, where, folder, "is an address", remedy)


def _check_place(where: str, folder: str) -> None:
    """A folder of this machine, or one below a bucket's name."""
    ok = "://" not in folder or re.fullmatch(r"gs://[^/]+/+[^/].*", folder)
    rule = "is neither a path nor gs://BUCKET/FOLDER"
    require(bool(ok), where, folder, rule, "name a folder, in a bucket one below its root")


@dataclass(frozen=True)
class DataConfig:
    root: str = "data/tiny"  # folder with a sub-folder of shards per bucket and eval split (2)
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
    # (2) Or gs://BUCKET/FOLDER: every machine copies the splits that it opens, once, to
    #     .cache/data/BUCKET/FOLDER below the working directory, and compares checksums.

    def __post_init__(self):
        typed.check_fields(self, "data")
        _check_place("data.root", self.root)
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
    chunk: int = 256  # tokens that answers' caches have room for at first; 0 = max_tokens (1)
    compact: float = 0.0  # unfinished answers move into this share of the rows; 0 = they stay (2)
    layers: Literal["auto", "model", "unroll"] = "auto"  # how blocks are repeated (3)

    # (1) A full cache is replaced by one of twice the length, up to max_tokens, so that a step
    #     reads what answers have written rather than what they may. A program for each length.
    # (2) Once they fit, again and again. 0.5 saves most of the time that ended answers take,
    #     0.7 computes fewer empty rows with more programs. RESULTS.md has figures.
    # (3) model: as model.layers. unroll: a copy of the program per block, and of the weights while
    #     decoding. A small model on a CPU decodes 1.4 times as fast and compiles half as fast; on a
    #     GPU a scan copies every block's weights and keys at every token. auto: unroll on a GPU.

    def __post_init__(self):
        typed.check_fields(self, "rollout")
        at_least("rollout", self, group=2, max_tokens=1, chunk=0)
        above("rollout", self, temperature=0)
        ok = self.compact == 0 or 0.1 <= self.compact <= 0.9
        rule = "is neither 0 nor within [0.1, 0.9]"
        require(ok, "rollout.compact", self.compact, rule, "use 0.5, or 0 to leave rows in place")


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
    """The learner. docs/grpo.md writes every choice out as a formula, with its origin."""

    advantage: Literal["group", "batch", "none", "leave_one_out"] = "group"  # scale, baseline (1)
    ddof: Literal[0, 1] = 1  # of that standard deviation: divides by n - ddof
    advantage_eps: float = 1e-6  # added to it, > 0
    objective: Literal["clip", "cispo"] = "clip"  # clipped surrogate, or clipped weight (2)
    importance: Literal["token", "sequence"] = "token"  # ratio of a token, or of its answer (3)
    clip_low: float = 0.2  # ratio floor 1 - clip_low, (0, 1]; 1 = no floor
    clip_high: float = 0.28  # ratio ceiling 1 + clip_high, > 0
    dual_clip: float = 3.0  # bound of ratio x |advantage| where that is negative, > 1; 0 = off
    aggregate: Literal["token", "sequence", "constant"] = "token"  # what the loss is a mean of (4)
    truncated: Literal["train", "mask"] = "train"  # answers cut off by rollout.max_tokens
    kl_coef: float = 0.01  # weight of KL(policy, reference), >= 0; 0 keeps no reference
    kl: Literal["k1", "k2", "k3", "abs"] = "k3"  # its estimator; k1 in the loss has no pull (5)
    kl_in: Literal["loss", "reward"] = "loss"  # per token in the loss, or summed off the reward
    kl_max: float = 0.0  # bound of one token's |KL|, beyond which it pulls no more; 0 = none
    reference: Literal["float32", "bfloat16", "host"] = "float32"  # how it is kept (6)
    entropy_coef: float = 0.0  # weight of the entropy bonus, >= 0
    resample: int = 0  # times flat groups are drawn again with other pairs; 0 = never (7)
    min_spread: float = 0.0  # a group whose rewards span no more than this is flat, >= 0
    minibatches: int = 1  # optimiser updates per epoch over one rollout
    accumulate: int = 1  # gradient slices per update (over pairs; a group is never split)
    answer_slices: int = 1  # parts of a group whose activations exist at a time (8)
    epochs: int = 1  # passes over one rollout
    vocab_chunk: int = 4096  # vocabulary columns per log-softmax block of a device, at most

    # (1) group: (r - mean) / std of the group (GRPO); batch: std of the whole batch; none: r - mean
    #     (Dr. GRPO); leave_one_out: r - mean of the others (RLOO). 0 for flat groups, always.
    # (2) clip: min(ratio A, clipped ratio A), no gradient beyond the clip; cispo: the clipped ratio
    #     weighs A log p and has no gradient itself, so that every token keeps one (MiniMax-M1).
    # (3) sequence: the exponential of the answer's mean log-ratio, for all of its tokens (GSPO);
    #     wants clips near 3e-4 and 4e-4, and aggregate=sequence.
    # (4) token: all tokens of the minibatch (DAPO); sequence: its answers' token means (GRPO as
    #     published); constant: answers x rollout.max_tokens, whatever their lengths (Dr. GRPO).
    # (5) On-policy the expected gradient of k1 is 0. In the reward k1 is the usual choice.
    # (6) Only what is trained is kept twice. float32: the KL of a policy that has not moved is
    #     exactly 0; bfloat16: half the memory, rounded; host: in the host's memory, where the
    #     backend has such, fetched once a step.
    # (7) The last draw is kept, flat or not: a step never fails for want of spread.
    # (8) Long answers to one pair need not fit a device together: the prompt is still encoded
    #     once, forwards and backwards, and the gradient is the same.

    def __post_init__(self):
        typed.check_fields(self, "grpo")
        at_least("grpo", self, kl_coef=0, kl_max=0, entropy_coef=0, resample=0, min_spread=0)
        at_least("grpo", self, minibatches=1, accumulate=1, epochs=1, vocab_chunk=1)
        at_least("grpo", self, answer_slices=1)
        ok = 0 < self.clip_low <= 1
        require(ok, "grpo.clip_low", self.clip_low, "is outside (0, 1]", "use 0.2")
        above("grpo", self, clip_high=0, advantage_eps=0)
        ok = self.dual_clip == 0 or self.dual_clip > 1
        require(ok, "grpo.dual_clip", self.dual_clip, "is not above 1", "use 3, or 0 for none")
        ok = (self.objective, self.importance) != ("cispo", "sequence")
        rule = "weighs tokens, but grpo.importance=sequence has one ratio per answer"
        require(ok, "grpo.objective", self.objective, rule, "use importance=token")
        ok = self.kl_coef > 0 or self.reference == "float32"
        rule = "says how to keep a reference, but grpo.kl_coef=0 keeps none"
        require(ok, "grpo.reference", self.reference, rule, "drop it or give kl_coef a weight")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the text decoder in place of training its weights (LoRA)."""

    rank: int = 0  # of every adapter; 0 = none: the weights themselves are trained
    alpha: float = 0.0  # adapters are scaled by alpha / rank; 0 = rank, so by 1
    targets: tuple[str, ...] = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")  # per block

    def __post_init__(self):
        typed.check_fields(self, "lora")
        at_least("lora", self, rank=0, alpha=0)
        ok = bool(self.targets) and len(set(self.targets)) == len(self.targets)
        require(ok, "lora.targets", self.targets, "is empty or repeats a name", "name each once")


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
    freeze: tuple[str, ...] = ()  # parameter path prefixes such as "vision" or "blocks/wq" (1)

    # (1) Frozen parameters have no gradient and no moments. With all of "vision" frozen, a step
    #     encodes its images once, for rollout, reference and every update. With lora.rank > 0
    #     everything but the adapters is frozen already.

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
    every: int = 0  # steps between validations while training; 0 = only before and after
    at_start: bool = True  # with `every`: validate before the first step too
    modes: tuple[Literal["greedy", "sampled"], ...] = ("sampled", "greedy")  # of a validation (1)
    splits: tuple[str, ...] = ()  # validated beside data.eval_split, e.g. test_novel
    controls: str = ""  # split of identical pairs whose right answer is []; "" = none
    bootstrap: int = 2000  # resamples behind each 95 % interval
    samples: int = 0  # answers drawn per pair at rollout.temperature; 0 = one greedy answer (1)
    decoding: Literal["policy", "checkpoint"] = "policy"  # or as generation_config.json says

    # (1) A validation while training scores every mode; `sampled` draws max(1, samples) answers
    #     per pair. `dig_jax.evaluate` writes one protocol: sampled where samples > 0.

    def __post_init__(self):
        typed.check_fields(self, "eval")
        at_least("eval", self, pairs=1, batch=1, every=0, bootstrap=1, samples=0)
        ok = bool(self.modes) and len(set(self.modes)) == len(self.modes)
        remedy = "use sampled,greedy or one of them"
        require(ok, "eval.modes", self.modes, "is empty or repeats a mode", remedy)
        names = [*self.splits, *filter(None, [self.controls])]
        ok = len(set(names)) == len(names) and not set(names) & {"", "controls"}
        rule = 'with eval.controls repeats a name, or has "" or "controls"'
        require(ok, "eval.splits", self.splits, rule, "name each split once")


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 10  # steps between saves, >= 1; the last step is always saved
    keep: int = 2  # newest checkpoints kept on disk
    best: str = "reward"  # validation metric whose best weights are kept; "" = off (1)
    root: str = ""  # folder or gs://BUCKET/FOLDER that gets checkpoints/ and best/; "" = run_dir

    # (1) `f1` is that of the first of eval.modes, `greedy/f1` or `greedy/test_novel/f1` say which;
    #     `validation_scores` lists them all. Needs eval.every.

    def __post_init__(self):
        typed.check_fields(self, "checkpoint")
        at_least("checkpoint", self, every=1, keep=1)
        _check_place("checkpoint.root", self.root)


@dataclass(frozen=True)
class LogConfig:
    samples_every: int = 20  # steps between pictures of sampled answers; 0 = none
    samples: int = 4  # pairs in each picture, >= 1
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()  # beside TensorBoard, which is always on
    project: str = "dig_jax"  # that the trackers file the run under

    def __post_init__(self):
        typed.check_fields(self, "log")
        at_least("log", self, samples_every=0, samples=1)
        ok = len(set(self.trackers)) == len(self.trackers)
        require(ok, "log.trackers", self.trackers, "repeats a tracker", "name each once")
        require(bool(self.project.strip()), "log.project", self.project, "is empty", "name one")


@dataclass(frozen=True)
class MeshConfig:
    """Devices in two directions; their product is all of them.

    The update splits its pairs, weights and moments over both (ZeRO-3); a rollout has its pairs
    split over `fsdp` and each matrix over `tensor`, a copy of the weights per row of the mesh.
    """

    fsdp: int = 1  # copies of the weights in a rollout, each with its share of the pairs
    tensor: int = 1  # devices that share such a copy

    def __post_init__(self):
        typed.check_fields(self, "mesh")
        at_least("mesh", self, fsdp=1, tensor=1)


@dataclass(frozen=True)
class Config:
    name: str = "tiny"  # of the run, in logs and reports
    seed: int = 0  # root of every random draw, >= 0
    steps: int = 60  # rollout batches; equals the last stage's `until`
    pairs_per_step: int = 16  # B: pairs per rollout batch, over all processes
    run_dir: str = "runs/tiny"  # metrics, pictures, and checkpoints unless checkpoint.root is set
    model: ModelSource = field(default_factory=ModelSource)
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        typed.check_fields(self, "")
        at_least("", self, seed=0, steps=1, pairs_per_step=1)
        _check_local("run_dir", self.run_dir)
        _check_stages(self)
        _check_batches(self)
        ok = not (self.lora.rank and self.optim.freeze)
        rule = f"adds nothing: lora.rank={self.lora.rank} freezes all but the adapters"
        require(ok, "optim.freeze", self.optim.freeze, rule, "drop one of the two")
        _check_validation(self)
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
    devices = fsdp * cfg.mesh.tensor
    rule = f"does not divide the {slice_pairs} pairs of one gradient slice"
    remedy = f"use pairs_per_step={slices * devices} or a multiple of it, or fewer slices"
    require(slice_pairs % devices == 0, "mesh.fsdp x mesh.tensor", devices, rule, remedy)
    group, parts = cfg.rollout.group, cfg.grpo.answer_slices
    rule = f"is not a multiple of grpo.answer_slices={parts}"
    remedy = f"use rollout.group={parts * max(1, group // parts)} or fewer slices"
    require(group % parts == 0, "rollout.group", group, rule, remedy)
    rule = f"is not a multiple of mesh.fsdp={fsdp}"
    remedy = f"use {fsdp * max(1, cfg.eval.batch // fsdp)}"
    require(cfg.eval.batch % fsdp == 0, "eval.batch", cfg.eval.batch, rule, remedy)


def _check_validation(cfg: Config) -> None:
    beside = {*cfg.eval.splits, *filter(None, [cfg.eval.controls])}
    wrong = sorted(beside & {*cfg.data.buckets, cfg.data.eval_split})
    rule = "is trained on, or is data.eval_split, which is always validated"
    require(not wrong, "eval.splits or eval.controls", wrong, rule, "name other splits")
    name, known = cfg.checkpoint.best, validation_scores(cfg.eval)
    ok = not name or name in known or name in EVAL_SCORES
    rule = "is no score of a validation"
    remedy = f"use one of {', '.join((*EVAL_SCORES, *known))}, or '' to keep none"
    require(ok, "checkpoint.best", name, rule, remedy)


# Scores of answers, means over pairs and their answers, for all of which more is better.
EVAL_SCORES = ("reward", "f1", "iou", "precision", "recall", "format", "count_ok")


def validation_scores(cfg: EvalConfig) -> list[str]:
    """Names of the scores that a validation gives: "sampled/f1", "greedy/test_novel/f1", ..."""
    splits = ("", *(f"{name}/" for name in cfg.splits))
    names = [f"{split}{score}" for split in splits for score in EVAL_SCORES]
    names += ["controls/empty"] if cfg.controls else []
    return [f"{mode}/{name}" for mode in cfg.modes for name in names]


def best_score(cfg: Config) -> str:
    """The full name of the score that checkpoint.best means; "" where no best is kept."""
    name = cfg.checkpoint.best if cfg.eval.every else ""
    return f"{cfg.eval.modes[0]}/{name}" if name in EVAL_SCORES else name


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
    del plain["checkpoint"]["root"]  # it came later: earlier hashes hold
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def config_text(config: Config) -> str:
    """The configuration for the console: one line per field."""
    return typed.tree_text(config)
