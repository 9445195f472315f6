"""A run's whole configuration, and the rules between its sections."""

from dataclasses import dataclass, field
from typing import Literal

from dig_jax.common import typed
from dig_jax.common.fields import SEED, number, place, require
from dig_jax.config.checkpoint import CheckpointConfig
from dig_jax.config.curriculum import CurriculumConfig
from dig_jax.config.data import DataConfig
from dig_jax.config.evaluation import EVAL_SCORES, EvalConfig, validation_scores
from dig_jax.config.grpo import GrpoConfig
from dig_jax.config.log import LogConfig
from dig_jax.config.mesh import MeshConfig
from dig_jax.config.model import LoraConfig, ModelSource
from dig_jax.config.optim import OptimConfig
from dig_jax.config.prompt import PromptConfig
from dig_jax.config.reward import RewardConfig
from dig_jax.config.rollout import RolloutConfig
from dig_jax.config.rules import DRAWS, STEPS, check_local
from dig_jax.config.sft import SftConfig


@dataclass(frozen=True)
class Config:
    name: str = "tiny"  # of the run, in logs and reports
    learner: Literal["grpo", "sft"] = "grpo"  # which program runs it: train, or sft
    seed: int = number(0, least=0, most=SEED)  # root of every random draw
    steps: int = number(60, least=1, most=STEPS)  # of training; equals the last stage's `until`
    pairs_per_step: int = number(16, least=1, most=2**16)  # B: in all of a mesh
    run_dir: str = place("runs/tiny")  # all files of the run, but for checkpoint.root
    model: ModelSource = field(default_factory=ModelSource)
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    sft: SftConfig = field(default_factory=SftConfig)  # read by the learner of that name
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        typed.check_fields(self, "")
        check_local("run_dir", self.run_dir)
        rule = f"with pairs_per_step={self.pairs_per_step} draws more than {DRAWS} pairs"
        ok = self.steps * self.pairs_per_step <= DRAWS
        require(ok, "steps", self.steps, rule, "split the run, or take fewer")
        _check_stages(self)
        (_check_rows if self.learner == "sft" else _check_batches)(self)
        ok = not (self.lora.rank and self.optim.freeze)
        rule = f"adds nothing: lora.rank={self.lora.rank} freezes all but the adapters"
        require(ok, "optim.freeze", self.optim.freeze, rule, "drop one of the two")
        _check_validation(self)
        _check_overlong(self)
        ok = self.grpo.advantage != "parts" or self.reward.function == "dig"
        rule = f"needs DiG's parts, but reward.function={self.reward.function!r} has one value"
        require(ok, "grpo.advantage", self.grpo.advantage, rule, "use advantage=group")
        decays = self.optim.schedule != "constant"
        ok = not decays or self.optim.warmup < self.steps
        rule = f"leaves no step of steps={self.steps} to decay"
        require(ok, "optim.warmup", self.optim.warmup, rule, "shorten it or lengthen the run")


def has_reference(cfg: Config) -> bool:
    """Whether a run keeps the weights that its KL pulls towards."""
    return cfg.learner == "grpo" and cfg.grpo.kl_coef > 0


def _check_stages(cfg: Config) -> None:
    last = len(cfg.curriculum.stages) - 1
    until = cfg.curriculum.stages[last].until
    rule = f"does not equal steps={cfg.steps}"
    remedy = f"use --set curriculum.stages.{last}.until={cfg.steps}"
    require(until == cfg.steps, f"curriculum.stages.{last}.until", until, rule, remedy)
    for index, stage in enumerate(cfg.curriculum.stages):
        unknown = [name for name in stage.weights if name not in cfg.data.buckets]
        where, rule = f"curriculum.stages.{index}.weights", "names a bucket that data lacks"
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


def _check_rows(cfg: Config) -> None:
    """Supervised rows are cut into slices, and these over the mesh, as GRPO's pairs are."""
    each = cfg.sft.accumulate * cfg.mesh.fsdp * cfg.mesh.tensor
    rows = {"pairs_per_step": cfg.pairs_per_step if cfg.sft.pairs_weight else 0}
    rows["sft.questions_per_step"] = cfg.sft.questions_per_step
    for name, count in rows.items():
        rule = f"is not a multiple of sft.accumulate x mesh.fsdp x mesh.tensor = {each}"
        require(count % each == 0, name, count, rule, f"use {max(each, count // each * each)}")
    rule = "decodes in processes, which supervised rows do not"
    require(not cfg.data.workers, "data.workers", cfg.data.workers, rule, "use 0: threads")


def _check_validation(cfg: Config) -> None:
    fsdp = cfg.mesh.fsdp
    rule = f"is not a multiple of mesh.fsdp={fsdp}"
    remedy = f"use {fsdp * max(1, cfg.eval.batch // fsdp)}"
    require(cfg.eval.batch % fsdp == 0, "eval.batch", cfg.eval.batch, rule, remedy)
    beside = {*cfg.eval.splits, *filter(None, [cfg.eval.controls])}
    wrong = sorted(beside & {*cfg.data.buckets, cfg.data.eval_split})
    rule = "is trained on, or is data.eval_split, which is always validated"
    require(not wrong, "eval.splits or eval.controls", wrong, rule, "name other splits")
    name, known = cfg.checkpoint.best, validation_scores(cfg.eval)
    ok = not name or name in known or name in EVAL_SCORES
    rule = "is no score of a validation"
    remedy = f"use one of {', '.join((*EVAL_SCORES, *known))}, or '' to keep none"
    require(ok, "checkpoint.best", name, rule, remedy)


def best_score(cfg: Config) -> str:
    """The full name of the score that checkpoint.best means; "" where no best is kept."""
    name = cfg.checkpoint.best if cfg.eval.every else ""
    return f"{cfg.eval.modes[0]}/{name}" if name in EVAL_SCORES else name


def _check_overlong(cfg: Config) -> None:
    buffer, limit = cfg.reward.overlong_buffer, cfg.rollout.max_tokens
    rule = f"is longer than an answer may be, rollout.max_tokens={limit}"
    remedy = f"use {max(1, limit // 4)}, or 0 for no penalty"
    require(buffer <= limit, "reward.overlong_buffer", buffer, rule, remedy)
