"""What a refusal advises is accepted: each remedy of a configuration is followed once."""

import ast
import re

import pytest

from dig_jax.common import typed
from dig_jax.config import Config
from tests.config.test_ranges import named, numbers, with_value

REMEDIES = [  # settings that are refused; how the remedy reads; the settings that it amounts to
    (["steps=61"], r"use --set (\S+)$", ["steps=61", "{0}"]),
    (["grpo.accumulate=3"], r"use (\d+) pairs or",
     ["grpo.accumulate=3", "pairs_per_step={0}"]),
    (["mesh.fsdp=3", "eval.batch=3"], r"use (pairs_per_step=\d+)",
     ["mesh.fsdp=3", "eval.batch=3", "{0}"]),
    (["eval.batch=5", "mesh.fsdp=2"], r"use (\d+)$", ["mesh.fsdp=2", "eval.batch={0}"]),
    (["rollout.group=9", "grpo.answer_slices=2"], r"use (rollout.group=\d+)",
     ["grpo.answer_slices=2", "{0}"]),
    (["lora.rank=8", "optim.freeze=vision"], r"(drop) one", ["lora.rank=8"]),
    (["checkpoint.best=f2"], r"use one of (\w+),", ["checkpoint.best={0}"]),
    (["reward.overlong_buffer=97"], r"use (\d+), or 0", ["reward.overlong_buffer={0}"]),
    (["optim.schedule=linear", "optim.warmup=60"], r"(shorten) it",
     ["optim.schedule=linear", "optim.warmup=59"]),
    (["optim.schedule=linear", "optim.warmup=60"], r"(lengthen) the run",
     ["optim.schedule=linear", "optim.warmup=60", "steps=61", "curriculum.stages.2.until=61"]),
    (["reward.cost_l1=0", "reward.cost_giou=0"], r"give (cost_l1)", ["reward.{0}=1"]),
    (["reward.function=digg"], r"did you mean '(\w+)'", ["reward.function={0}"]),
    (["reward.function=mine"], r"your own as (module:function)", ["reward.function={0}"]),
    (["rollout.compact=0.05"], r"use (0.5), or 0", ["rollout.compact={0}"]),
    (["grpo.dual_clip=0.5"], r"use (3), or 0", ["grpo.dual_clip={0}"]),
    (["grpo.objective=cispo", "grpo.importance=sequence"], r"use (importance=token)",
     ["grpo.objective=cispo", "grpo.{0}"]),
    (["grpo.objective=sapo", "grpo.importance=sequence"], r"use (importance=token)",
     ["grpo.objective=sapo", "grpo.{0}"]),
    (["grpo.advantage=parts", "grpo.kl_in=reward"], r"use (kl_in=loss)",
     ["grpo.advantage=parts", "grpo.{0}"]),
    (["grpo.advantage=parts", "reward.function=vlm_r1_ap"], r"use (advantage=group)",
     ["reward.function=vlm_r1_ap", "grpo.{0}"]),
    (["grpo.kl_coef=0", "grpo.reference=host"], r"(drop) it or", ["grpo.kl_coef=0"]),
    (["data.min_pixels=9", "data.max_pixels=8"], r"lower it or (raise) max",
     ["data.min_pixels=9", "data.max_pixels=9"]),
    (["optim.rat=1"], r"nearest: (\w+)", ["optim.{0}=1"]),
    (["prompt.add_vision_id=maybe"], r"use (true) or", ["prompt.add_vision_id={0}"]),
    (["curriculum.stages.0.weights={'single': 1e-12}"], r"else (1e-9) or more",
     ["curriculum.stages.0.weights={{'single': {0}}}"]),
    (["data.root=gs://b"], r"in a bucket (one below) its root", ["data.root=gs://b/folder"]),
    (["run_dir=gs://b/f"], r"(checkpoint.root) and data.root may be", ["{0}=gs://b/f"]),
    (["run_dir="], r"(\.) is the one you are in", ["run_dir={0}"]),
    (["run_dir=~no_such_user/x"], r"(write the folder out)", ["run_dir=/home/no_such_user/x"]),
    (["run_dir= a"], r"(leave those out)", ["run_dir=a"]),
    (["steps=1000000", "pairs_per_step=65536"], r"split the run, or (take fewer)",
     ["steps=61", "curriculum.stages.2.until=61", "pairs_per_step=65536"]),
    (["checkpoint.accept=versoins"], r"use .*(versions), or", ["checkpoint.accept={0}"]),
    (["checkpoint.accept=versoins"], r"such as (versions.jax)", ["checkpoint.accept={0}"]),
    (["curriculum.stages.0.weights={}"], r"give at least one bucket a (positive) share",
     ["curriculum.stages.0.weights={{'single': 1}}"]),
    (["data.buckets=single,dual,mixed,dual"], r"name (each once)",
     ["data.buckets=single,dual,mixed"]),
    (["eval.modes=greedy,greedy"], r"use (\S+) or one", ["eval.modes={0}"]),
    (["eval.modes="], r"(one of them)", ["eval.modes=greedy"]),
    (["eval.splits=a,a"], r"name (each split once)", ["eval.splits=a"]),
    (["eval.splits=heldout"], r"name (other) splits", ["eval.splits={0}"]),
    (["log.trackers=wandb,wandb"], r"name (each once)", ["log.trackers=wandb"]),
    (["log.project="], r"name (one)", ["log.project={0}"]),
    (["lora.targets=wq,wq"], r"name (each once)", ["lora.targets=wq"]),
    (["optim.rate"], r"write (--set) a.b=c", ["optim.rate=1e-6"]),
    (["curriculum.stages.5.until=3"], r"use 0 to (\d+)", ["curriculum.stages.{0}.until=60"]),
    (["curriculum=3"], r"give a (dict)", ["curriculum={{'reference': 'fixed'}}"]),
    (["curriculum.stages=[{'until': 60}]"], r"weights is missing; give it a (value)",
     ["curriculum.stages=[{{'until': 60, 'weights': {{'single': 1}}}}]"]),
    (["optim.schedule=cosin"], r"use one of .*'(cosine)'", ["optim.schedule={0}"]),
    (["curriculum.stages.0.weights={'single': 1" + "0" * 400 + "}"], r"give a (smaller) one",
     ["curriculum.stages.0.weights={{'single': 1}}"]),
    (["optim.rate.x=1"], r"'optim.rate' is a (single value)", ["optim.rate=1"]),
    (["optim.rate=a"], r"does not read as (float)", ["optim.rate=1"]),
    (["curriculum.stages=(3)"], r"give a (tuple)",
     ["curriculum.stages=({{'until': 60, 'weights': {{'single': 1}}}},)"]),
    (["curriculum.stages.0.weights={1: 2}"], r"has a (int) for its name",
     ["curriculum.stages.0.weights={{'single': 2}}"]),
    (["optim.rate=nan"], r"give a (plain) one", ["optim.rate=1e-6"]),
    (["name=\udc80"], r"give it as (UTF-8)", ["name={0}"]),
    (["sft.questions_per_step=4"], r"holds them in (sft.questions_root)",
     ["sft.questions_per_step=4", "{0}=data/questions"]),
    (["sft.questions=a;b"], r"commas, as (\S+)", ["sft.questions={0}"]),
    (["sft.pairs_weight=0"], r"(ask questions), or", ["sft.pairs_weight=0",
     "sft.questions_root=q", "sft.questions_per_step=4"]),
    (["run_dir=~no_such_user/x"], r"(\./~)\.\.\. for a name", ["run_dir={0}no_such_user/x"]),
]  # fmt: skip


@pytest.mark.parametrize(("refused", "advice", "followed"), REMEDIES, ids=lambda v: str(v)[:50])
def test_a_remedy_that_a_rule_names_is_accepted(refused, advice, followed):
    with pytest.raises((KeyError, TypeError, ValueError)) as caught:
        typed.override(Config(), refused)
    found = re.search(advice, str(caught.value.args[0]))
    assert found, caught.value
    typed.override(Config(), [setting.format(found[1]) for setting in followed])


@pytest.mark.parametrize("case", numbers(), ids=named)
def test_the_bound_that_a_range_advises_is_accepted(case):
    """`use 1000000 or less`: a section with that value can be made."""
    kind, field, leaf = case
    allowed = field.metadata.get("check")
    if allowed is None:  # a look's sizes: each by its own rule
        return
    low = allowed.least if allowed.least is not None else allowed.above
    for outside in (low - 1, allowed.most * 2 + 1):
        with pytest.raises(ValueError, match=rf"{field.name}.*; use ") as caught:
            with_value(kind, field, leaf(outside))
        advised = re.search(r"use (more than )?(\S+?)(?: or (?:more|less))?$", str(caught.value))
        value = leaf(ast.literal_eval(advised[2]))
        value = value + 0.01 if advised[1] else value
        said = ""
        try:
            with_value(kind, field, value)
        except ValueError as error:
            said = str(error)
        bounds = ("is below", "is not above", "is above")
        ranged = any(
            f"{field.name}={value!r} {word} {bound};" in said
            for word in bounds
            for bound in (low, allowed.most)
        )
        assert not ranged, said  # another rule, between fields, may still speak
