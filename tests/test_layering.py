"""The house rules a reader relies on: who may import whom, one door per package, real tests.

The tables at the top are the rules; a new module needs a line in ROWS.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dig_jax"

# A module imports only from rows above its own. Numbers are those of the design; letters split
# a row where its modules build on one another.
ROWS = (
    ("-", "typed model.placement"),
    (
        "0",
        "addresses config boxes images decoding model.params model.rope model.splash model.layers",
    ),
    ("0", "data.scene data.exr data.machine data.colors data.draws data.parallel data.lighting"),
    ("0", "data.easyr1_reward data.parquet"),
    ("0b", "data.look trackers drawing stages flops"),
    ("1", "commandline sharding prompt optim runlog trainable advantage objective"),
    ("1a", "loss"),
    ("1", "reward.parse reward.matching model.hf_config model.coldinit model.sizes"),
    ("1", "model.safetensors_reader model.attention model.lora"),
    ("1", "data.records data.curriculum data.visibility"),
    ("1a", "data.labels data.placement data.decoded data.fetch distributed"),
    ("1b", "reward.neighbours reward.parse_batch reward.sample notice"),
    ("1b", "model.hf_files data.differences buckets data.example baseline"),
    ("1c", "model.hf_export data.produce data.certificates data.dataset_card data.foreign"),
    ("1c", "data.corpus data.survey data.stats_text data.heat data.tags"),
    ("1d", "model.hf data.worker data.supervise"),
    ("1e", "data.render data.manifest data.feasible data.raytrace"),
    ("1f", "data.plans"),
    ("1g", "data.splits data.presets data.progress"),
    ("1h", "data.verify data.cluster data.export data.imports data.stats data.sheet"),
    ("1i", "data.make data.show"),
    ("2", "model.text model.vision model.logprob reward.reward data.pipeline checkpoint pictures"),
    ("2", "sample_sheet"),
    ("2a", "reward.functions sampling"),
    ("2b", "best reward.custom"),
    ("2c", "reward.answers"),
    ("3", "model.qwen3vl"),
    ("3a", "layout"),
    ("3b", "session"),
    ("4", "rollout sft"),
    ("4a", "staged"),
    ("4b", "grpo"),
    ("4c", "programs"),
    ("4d", "experience memory"),
    ("4e", "guard"),
    ("5", "evaluate report compare ask"),
    ("5b", "card validation samples"),
    ("5c", "convert"),
    ("5d", "dryrun"),
    ("6", "train data.__main__ doctor.findings"),  # nobody imports the doctor
    ("6a", "doctor.checks doctor.folder doctor.selftest"),
    ("6b", "doctor.pairs"),
    ("6c", "doctor.__main__"),
)
# Third-party package -> the modules that may import it. Those not listed here are the core
# (numpy, jax) and open to all; a package missing from both lists is an error.
DOORS = {
    "flax": {"*"},  # struct only: see test_flax_is_struct_only
    "optax": {"optim", "reward.matching"},  # matching: optax.assignment alone
    "orbax": {"checkpoint"},
    "grain": {"data.curriculum", "data.pipeline"},
    "absl": {"data.pipeline"},  # tells Grain's worker processes that no flags are to be parsed
    "array_record": {"data.records"},
    "msgpack": {"data.records"},
    "PIL": {
        "data.records",
        "data.foreign",
        "data.heat",
        "images",
        "pictures",
        "report",
        "drawing",
        "sample_sheet",
    },
    "pyarrow": {"data.parquet"},
    "scipy": {"reward.matching", "baseline", "data.labels", "data.stats", "data.easyr1_reward"},
    "transformers": {"prompt"},
    "tokenizers": {"prompt"},
    "safetensors": {"model.hf_export"},
    # epath: paths and gs:// addresses alike
    "etils": {
        "addresses",
        "best",
        "checkpoint",
        "data.fetch",
        "model.hf_export",
        "model.hf_files",
        "model.safetensors_reader",
    },
    "fsspec": {"addresses"},  # its settings; epath brings it along
    "ml_dtypes": {"model.safetensors_reader"},
    "matplotlib": {"pictures"},
    "tensorboardX": {"trackers"},
    "wandb": {"trackers"},
    "trackio": {"trackers"},
    "rich": {"runlog", "report", "data.progress"},
    "bpy": {"data.render"},
    "ray": {"data.cluster"},
    "mathutils": {"data.render"},
}
CORE = {"jax", "numpy"}
NEVER = (("reward", "model"), ("reward", "data"), ("model", "reward"), ("model", "data"))
NEVER += (("data", "model"), ("data", "reward"))


def modules() -> dict[str, ast.Module]:
    """ "data.scene" -> its syntax tree, for every file of the package but the __init__s."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files]
    return {name: ast.parse(path.read_text()) for name, path in zip(names, files, strict=True)}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names a file imports anywhere, inside functions too: "dig_jax.boxes.BoxSet"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}; write dig_jax.x"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(tree: ast.AST, names: set[str]) -> set[str]:
    """Modules of the package among a file's imports."""
    dotted = {name.removeprefix("dig_jax.") for name in imported(tree) if "dig_jax." in name}
    return {name for name in names for d in dotted if d == name or d.startswith(name + ".")}


def foreign_imports(tree: ast.AST) -> set[str]:
    """Third-party packages among a file's imports."""
    tops = {name.partition(".")[0] for name in imported(tree)}
    return tops - set(sys.stdlib_module_names) - {"dig_jax"}


MODULES = modules()
ROW_OF = {name: number for number, (_, names) in enumerate(ROWS) for name in names.split()}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_rows_above(name):
    assert name in ROW_OF, f"{name} has no row; add it to ROWS in {Path(__file__).name}"
    for other in own_imports(MODULES[name], set(MODULES)):
        assert ROW_OF[other] < ROW_OF[name], f"{name} imports {other}, which is not above it"


@pytest.mark.parametrize("name", MODULES)
def test_the_four_packages_stay_apart(name):
    package = name.partition(".")[0]
    others = {other.partition(".")[0] for other in own_imports(MODULES[name], set(MODULES))}
    wrong = [(a, b) for a, b in NEVER if a == package and b in others]
    assert not wrong, f"{name}: {wrong}"
    assert "train" not in others, f"{name} imports train"


@pytest.mark.parametrize("name", MODULES)
def test_third_party_packages_come_in_by_their_door(name):
    for package in foreign_imports(MODULES[name]) - CORE:
        assert package in DOORS, f"{name} imports {package}, which has no door in DOORS"
        allowed = DOORS[package]
        assert "*" in allowed or name in allowed, f"{name} imports {package}; doors: {allowed}"


@pytest.mark.parametrize("name", MODULES)
def test_flax_is_struct_only_and_optax_in_matching_is_assignment_only(name):
    names = imported(MODULES[name])
    assert {n for n in names if n.split(".")[0] == "flax"} <= {"flax.struct"}
    if name == "reward.matching":
        optax = {n for n in names if n.split(".")[0] == "optax"}
        assert all(n.startswith("optax.assignment") for n in optax), optax


def test_torch_is_nowhere_in_the_package():
    assert not [name for name, tree in MODULES.items() if "torch" in foreign_imports(tree)]


@pytest.mark.parametrize("worker", ["data.render", "data.raytrace"])
def test_a_renderer_shares_no_process_with_jax(worker):
    """bpy is GPL and pins its own libraries; and jax would slow the start of every worker."""
    reached, waiting = set(), [worker]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += own_imports(MODULES[name], set(MODULES)) - reached
    assert not [name for name in reached if "jax" in foreign_imports(MODULES[name])]


def test_no_module_is_called_utils():
    files = [
        path for folder in ("dig_jax", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    vague = [
        path.name for path in files if path.stem in ("utils", "util", "helpers", "common", "misc")
    ]
    assert not vague


def test_no_exception_is_swallowed():
    """`except ...: pass` hides bugs; contextlib.suppress of a named type says what is meant."""
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                only_pass = all(isinstance(line, ast.Pass) for line in node.body)
                assert not only_pass, f"{name} line {node.lineno}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda p: p.stem)
def test_every_test_asserts(path):
    """A test that only prints proves nothing."""
    tree = ast.parse(path.read_text())
    helpers = {
        f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) if _asserts(f, set())
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert _asserts(node, helpers), f"{path.name}::{node.name} has no assertion"


def _asserts(function: ast.FunctionDef, helpers: set[str]) -> bool:
    """Whether a function asserts, expects an exception, or names something that does."""
    for node in ast.walk(function):
        name = getattr(node, "attr", getattr(node, "id", ""))
        checks = name.startswith("assert_") or name in helpers or name in ("raises", "fail")
        if isinstance(node, ast.Assert) or checks:
            return True
    return False
