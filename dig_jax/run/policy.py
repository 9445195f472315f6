"""Who answers: a checkpoint folder or a run's weights, on a mesh, with its own processor.

For benchmarks and servers, which have no run of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from dig_jax.config import Config, EvalConfig, MeshConfig, ModelSource, RolloutConfig
from dig_jax.hf.files import local_companions
from dig_jax.inputs.decoding import Decoding, read_decoding
from dig_jax.inputs.images import ImageRules
from dig_jax.inputs.processor import Processor
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model.params import Params, placed_shapes
from dig_jax.run import checkpoint, depends, session
from dig_jax.run.trained import Trained, open_run

# Qwen's own settings for Thinking models disagree: the model card's, and those of the repository's
# evaluation; "checkpoint" is what generation_config.json says.
PRESETS = {
    "greedy": Decoding(0.0),
    "card": Decoding(1.0, top_k=20, top_p=0.95),
    "readme": Decoding(0.6, top_k=20, top_p=0.95),
}
DECODINGS = ("checkpoint", *PRESETS)


@dataclass(frozen=True)
class Policy:
    """Everything about who answers but the weights.

    facts  of a protocol: source, source_digest, decoding, dtype
    """

    layout: Layout
    processor: Processor
    rules: ImageRules
    decoding: Decoding
    facts: dict[str, str | None]
    trained: Trained | None

    def load(self) -> Params:
        """The weights, as they answer."""
        layout = self.layout
        if self.trained:
            params = self.trained.read(placed_shapes(layout.model, layout.shardings))
        else:
            params = session.read_weights(layout.cfg.model.source, layout.model, layout.shardings)
        return programs.jit_reshard(layout)(params)


def answer_room(wanted: int | None, usual: int, *, context: int, longest: int) -> int:
    """Tokens that an answer may have.

    wanted   --max-tokens; None: `usual`, or what the context leaves
    context  tokens of prompt and answer together
    longest  tokens of the longest prompt

    Raises ValueError where the context does not hold them.
    """
    room = context - longest
    if room < (wanted or 1):
        raise ValueError(
            f"--max-tokens {wanted or 1}: the longest prompt has {longest} tokens, and the model's "
            f"context of {context} leaves {max(room, 0)}; lower --max-pixels or --max-tokens"
        )
    return wanted or min(usual, room)


def open_policy(
    source: str | None,
    run: str | None,
    *,
    from_best: bool,
    decoding: str,
    mesh: MeshConfig,
    dtype: str,
    min_pixels: int,
    max_pixels: int,
    as_trained: bool = False,
) -> Policy:
    """Checks and binds everything but the weights.

    source, run   one of them: a checkpoint folder, or a run's folder or checkpoint.root
    decoding      of DECODINGS
    mesh          of the first devices, where there are more
    dtype         "auto": bfloat16 where there is an accelerator
    min_pixels, max_pixels   of a resized picture; 0: the checkpoint's
    as_trained    0 pixels mean the run's own limits, where there is a run

    Raises FileNotFoundError or ValueError naming the field or file.
    """
    if from_best and not run:
        raise ValueError("--from-best chooses among a run's weights; give --run, or leave it out")
    devices, there = mesh.fsdp * mesh.tensor, jax.device_count()
    if devices > there:
        raise ValueError(
            f"--fsdp {mesh.fsdp} x --tensor {mesh.tensor} are {devices} devices, but there are "
            f"{there}; lower one of the two"
        )
    trained = open_run(run, from_best=from_best) if run else None
    folder = trained.source if trained else source
    on = sharding.make_mesh(mesh, jax.devices()[:devices])
    platform = on.devices.flat[0].platform
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    batches = {"pairs_per_step": 16 * devices, "eval": EvalConfig(batch=16 * devices)}
    # blocks apart: in one scan a CPU copies each block's keys, and a TPU all of them for writing
    rollout = RolloutConfig(layers="unroll")
    way = ModelSource(source=folder, compute_dtype=dtype)
    cfg = Config(model=way, mesh=mesh, rollout=rollout, **batches)
    layout = Layout(cfg, on, session.open_model(cfg, folder, platform))
    local = str(local_companions(folder))
    own = trained.cfg.data if trained and as_trained else None
    limits = {
        "min_pixels": min_pixels or (own.min_pixels if own else 0),
        "max_pixels": max_pixels or (own.max_pixels if own else 0),
    }
    rules = session.image_rules(local, layout.model, **limits)
    how = PRESETS.get(decoding) or read_decoding(local)
    facts = {"decoding": str(how), "dtype": dtype, **_facts(folder, trained)}
    return Policy(layout, session.open_processor(folder, layout.model), rules, how, facts, trained)


def _facts(folder: str, trained: Trained | None) -> dict[str, str | None]:
    """Which weights these are: names for a reader, digests for a comparison."""
    known = depends.source_digests(folder)
    digest = " ".join(value for value in known.values() if value)
    if not trained:
        return {"source": folder, "source_digest": digest or None}
    name = f"{trained.cfg.name} step {trained.step}" + " (best)" * trained.best
    return {"source": name, "source_digest": f"{digest} {_run_digest(trained)}".strip()}


def _run_digest(trained: Trained) -> str:
    number = checkpoint.run_number(trained.cfg, trained.step)
    return f"run {number} step {trained.step}" + " best" * trained.best
