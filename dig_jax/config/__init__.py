"""What a run is: one frozen tree of settings, checked before anything expensive starts.

A configuration is a Python file with `get_config(**kwargs) -> Config`; `load_config` reads it
and applies dotted overrides. Every number a run depends on is a field here; no other module
has a default for one. A file per section, `tree` for all of them and the rules between them;
`commandline` reads --config, --set and --run-dir.

Imports: common.
"""

from dig_jax.config.checkpoint import CheckpointConfig
from dig_jax.config.curriculum import CurriculumConfig, Stage
from dig_jax.config.data import DataConfig
from dig_jax.config.evaluation import EVAL_SCORES, EvalConfig, validation_scores
from dig_jax.config.files import config_hash, config_text, from_json, load_config, to_json
from dig_jax.config.grpo import GrpoConfig
from dig_jax.config.log import LogConfig
from dig_jax.config.mesh import MeshConfig
from dig_jax.config.model import LoraConfig, ModelSource
from dig_jax.config.optim import OptimConfig
from dig_jax.config.prompt import PromptConfig
from dig_jax.config.reward import (
    REWARD_FUNCTIONS,
    REWARD_PRESETS,
    RewardConfig,
    published_reward,
)
from dig_jax.config.rollout import RolloutConfig
from dig_jax.config.sft import SftConfig
from dig_jax.config.tree import Config, best_score, has_reference

__all__ = [
    "EVAL_SCORES",
    "REWARD_FUNCTIONS",
    "REWARD_PRESETS",
    "CheckpointConfig",
    "Config",
    "CurriculumConfig",
    "DataConfig",
    "EvalConfig",
    "GrpoConfig",
    "LogConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelSource",
    "OptimConfig",
    "PromptConfig",
    "RewardConfig",
    "RolloutConfig",
    "SftConfig",
    "Stage",
    "best_score",
    "config_hash",
    "config_text",
    "from_json",
    "has_reference",
    "load_config",
    "published_reward",
    "to_json",
    "validation_scores",
]
