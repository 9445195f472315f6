"""What can be known of devices, model, prompt and memory before a run starts.

One function per line of the doctor's table: it takes the configuration and what other checks have
found, and gives a `Finding`. What is wrong with an input is raised by the code that a run itself
would call.
"""

import hashlib
import math
from collections import Counter
from dataclasses import replace

import jax
from jax.sharding import Mesh

from dig_jax.config import Config, config_hash
from dig_jax.doctor.findings import Finding
from dig_jax.hf import files
from dig_jax.hf.files import local_companions
from dig_jax.inputs.images import Size
from dig_jax.inputs.prompt import Processor, opens_thought
from dig_jax.learner.trainable import split, trained_names
from dig_jax.mesh import distributed, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model import params
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.specs import model_specs
from dig_jax.run import arrays, manifest, memory, session
from dig_jax.run.memory import bytes_text
from dig_jax.run.trackers import check_trackers

Opened = tuple[Processor, PromptInputs]


def devices(cfg: Config) -> Finding:
    """Value: the mesh."""
    found, limit = jax.devices(), memory.device_limit(jax.local_devices()[0])
    own = f"{bytes_text(limit)} each" if limit else "memory unknown"
    kind = "" if found[0].device_kind == found[0].platform else f" ({found[0].platform})"
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    mesh = sharding.make_mesh(cfg.mesh)
    text = f"{len(found)} x {found[0].device_kind}{kind}{processes}, {own}; "
    return Finding(f"{text}mesh fsdp {cfg.mesh.fsdp} x tensor {cfg.mesh.tensor}", mesh)


def model(cfg: Config) -> Finding:
    """Value: the ModelConfig, adapters included."""
    found = session.open_model(cfg, cfg.model.source, jax.devices()[0].platform)
    count = params.count(model_specs(found)) / 1e6
    blocks = f"{found.text.layers} text and {found.vision.depth} vision blocks"
    return Finding(f"{cfg.model.source}: {count:,.1f} M parameters, {blocks}", found)


def computation(cfg: Config, found: ModelConfig) -> Finding:
    """How the model is computed, and how much of it is trained."""
    shapes = params.param_shapes(model_specs(found))
    trained = split(shapes, trained_names(cfg, shapes))[0]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained)) / 1e6
    how = f"{found.compute_dtype}, {found.attention} attention, remat {found.remat}"
    return Finding(f"{how}, {found.layers}; {count:,.1f} M parameters are trained")


def weights(cfg: Config, found: ModelConfig) -> Finding:
    """The headers of the weight files against config.json; tensors are not read."""
    if arrays.has_params(cfg.model.source):
        return Finding("an import by `convert import`; its arrays are checked when they are read")
    folder = files.open_folder(cfg.model.source)
    stored, specs = files.find_weights(folder), model_specs(replace(found, lora=None))
    files.check_weights(folder, stored, specs, tied=found.text.tied)
    size = sum(one.entry.stop - one.entry.start for one in stored.values())
    kinds = ", ".join(Counter(str(one.entry.dtype) for one in stored.values()))
    return Finding(f"{len(stored)} tensors, {bytes_text(size)} of {kinds}, as config.json asks")


def images(cfg: Config, found: ModelConfig) -> Finding:
    """Value: (height, width) at which images reach the model."""
    size = session.image_size(cfg.data, str(local_companions(cfg.model.source)), found)
    cells = (size[0] // found.vision.cell) * (size[1] // found.vision.cell)
    own = (cfg.data.image_width, cfg.data.image_height)
    resized = "" if size[::-1] == own else f", resized to {size[1]}x{size[0]}"
    text = f"{own[0]}x{own[1]} px{resized}: {cells} visual tokens an image, {2 * cells} a pair"
    return Finding(text, size)


def prompt(cfg: Config, found: ModelConfig, size: Size) -> Finding:
    """Value: processor and prompt."""
    opened = session.open_prompt(cfg, cfg.model.source, found, size)
    length = int(opened[1].length[0])
    visual = int((opened[1].slot[0] >= 0).sum())
    answer, context = cfg.rollout.max_tokens, found.text.context
    text = f"{length} tokens: {visual} visual, {length - visual} text; "
    return Finding(f"{text}{answer} of answer follow, of a context of {context:,}", opened)


def template(cfg: Config, opened: Opened) -> Finding:
    """Which chat template it is."""
    processor, inputs = opened
    digest = hashlib.sha256(str(processor.tokenizer.chat_template).encode()).hexdigest()
    thought = "opens a thought" if opens_thought(processor, inputs.row(0)) else "opens no thought"
    return Finding(f"sha256 {digest[:12]}, {thought}")


def stops(cfg: Config, found: ModelConfig, opened: Opened) -> Finding:
    """What ends an answer."""
    tokens = opened[0].tokenizer.convert_ids_to_tokens(list(found.eos_tokens))
    named = (f"{token} ({number})" for token, number in zip(tokens, found.eos_tokens, strict=True))
    return Finding(f"an answer ends at {' or '.join(named)}")


def decoding(cfg: Config) -> Finding:
    """How answers are drawn in training, evaluation and validation."""
    chosen, modes = session.open_decoding(cfg, str(local_companions(cfg.model.source)))
    text = f"rollouts temperature {cfg.rollout.temperature}; evaluation {chosen}"
    validated = "".join(f"; {mode} validation {how}" for mode, how in modes.items())
    return Finding(text + validated)


def memory_at_rest(cfg: Config, mesh: Mesh, found: ModelConfig) -> Finding:
    """Value: its bytes per device, and the device's."""
    layout, limit = Layout(cfg, mesh, found), memory.device_limit(mesh.local_devices[0])
    parts = memory.at_rest(layout)
    host = memory.host_bytes(layout)
    more = f"; reference {bytes_text(host)} in the host's memory" if host else ""
    remedy = "more devices, grpo.reference=bfloat16 or host, lora.rank, or optim.freeze"
    return _memory(parts, limit, remedy, more)


def memory_rollout(
    cfg: Config, mesh: Mesh, found: ModelConfig, opened: Opened, rest: tuple[int, int | None]
) -> Finding:
    """`rest` is the value of `memory_at_rest`."""
    added = memory.rollout(Layout(cfg, mesh, found), opened[1].tokens.shape[1])
    remedy = "fewer pairs_per_step, a smaller rollout.group or rollout.max_tokens, or more devices"
    return _memory({"at rest": rest[0], **added}, rest[1], remedy)


def memory_update(
    cfg: Config, mesh: Mesh, found: ModelConfig, opened: Opened, rest: tuple[int, int | None]
) -> Finding:
    """`rest` is the value of `memory_at_rest`."""
    added = memory.update(Layout(cfg, mesh, found), opened[1].tokens.shape[1])
    remedy = "more devices, lora.rank, optim.freeze, or a higher grpo.accumulate"
    return _memory({"at rest": rest[0], **added}, rest[1], remedy)


def trackers(cfg: Config) -> Finding:
    """Those asked for can be imported."""
    check_trackers(cfg.log)
    return Finding(", ".join(("TensorBoard", *cfg.log.trackers)))


def program(cfg: Config) -> Finding:
    """Commit and versions; all processes have one configuration."""
    distributed.check_same("configuration", config_hash(cfg))
    facts = manifest.facts(cfg)
    commit, plus, changed = (facts["commit"] or "").partition("+")
    told = f"commit {commit[:12]}{plus}{changed}" if commit else "no commit, this is no checkout"
    names = ("python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers")
    found = [f"{name} {facts['versions'][name]}" for name in names if name in facts["versions"]]
    return Finding(f"{told}; {', '.join(found)}")


def _memory(parts: memory.Parts, limit: int | None, remedy: str, more: str = "") -> Finding:
    total = sum(parts.values())
    of = f" of {bytes_text(limit)}" if limit else ""
    named = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts.items() if size)
    text = f"{bytes_text(total)}{of} a device: {named}{more}"
    if limit and total > limit:
        rule = f"that is {bytes_text(total - limit)} more than there is, before any activation"
        return Finding(text, rule=rule, remedy=remedy)
    return Finding(text, (total, limit))
