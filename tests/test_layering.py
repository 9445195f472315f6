"""The house rules a reader relies on: who may import whom, one door per package, real tests.

A folder is a claim. ROOMS has a row for each, from the ground up: what it may import. A file is
in the room whose folder it lies in, so a new one changes nothing here.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from tests import ROOT

PACKAGE = ROOT / "dig_jax"

# Room -> the rooms that it may import, all of them above its own row. "data" is what lies at that
# folder's root, "commands" what lies at the package's.
ROOMS = {
    "common": "",
    "boxes": "",
    "config": "common",
    "model": "",
    "hf": "common model",
    "inputs": "common config model",
    "sampler": "model",
    "learner": "boxes config inputs model sampler",
    "mesh": "common config inputs learner model sampler",
    "engine": "config inputs mesh model sampler",
    "reward": "boxes common config",
    "data.records": "common",
    "data.scene": "common",
    "data.render": "common data.records data.scene",
    "data.corpus": "common data.records data.render data.scene",
    "data.inspect": "common data.corpus data.records data.scene",
    "data.questions": "common data.corpus data.records data.scene",
    "data.exchange": "boxes common config data.records data.scene inputs",
    "data.feed": "boxes common config data.records data.scene inputs",
    "data": "common data.corpus data.inspect data.render data.scene",
    "scoring": "boxes common config data.feed reward",
    "benchmarks": "boxes common inputs scoring",
    "lessons": "benchmarks boxes common config data.feed data.records data.scene inputs learner "
    "model",
    "pictures": "",
    "run": "common config data.feed hf inputs learner mesh model pictures reward sampler scoring",
    "pages": "common config data.feed pictures run scoring",
    "benchmark": "benchmarks common config engine inputs mesh pages run scoring",
    "serve": "common config engine inputs model run",
    "convert": "common config data.feed hf inputs model run scoring",
    "doctor": "boxes common config data.feed hf inputs learner mesh model reward run",
    "commands": "benchmark boxes common config data.feed data.inspect engine hf inputs learner "
    "lessons mesh model pages pictures reward run sampler scoring",
}
# Third-party package -> the rooms that may import it. Those not listed here are the core (numpy,
# jax) and open to all; a package missing from both lists is an error.
DOORS = {
    "flax": "*",  # struct only: see test_flax_is_struct_only
    "optax": "learner reward",  # reward: optax.assignment alone
    "orbax": "run",
    "grain": "data.feed lessons",
    "absl": "data.feed",  # tells Grain's worker processes that no flags are to be parsed
    "array_record": "data.records",
    "msgpack": "data.records",
    "PIL": "data.records data.exchange data.inspect data.questions inputs pages pictures",
    "pyarrow": "common",
    "scipy": "reward data.scene data.inspect data.exchange",
    "transformers": "inputs",
    "safetensors": "hf",
    "etils": "common data.feed hf run",  # epath: paths and gs:// addresses alike
    "fsspec": "common",  # its settings; epath brings it along
    "ml_dtypes": "hf",
    "matplotlib": "pictures",
    "tensorboardX": "run",
    "wandb": "run",
    "trackio": "run",
    "rich": "common run",
    "starlette": "serve",
    "uvicorn": "serve",
    "bpy": "data.render",
    "mathutils": "data.render",
    "ray": "data.corpus",
}
CORE = {"jax", "numpy"}
# Whatever lies between them: no chain of imports leads from the first to the second.
NEVER = (
    ("reward", "model"), ("reward", "data"), ("model", "reward"), ("model", "data"),
    ("data", "model"), ("data", "reward"),
)  # fmt: skip


def modules() -> dict[str, Path]:
    """ "data.scene.look" -> its file; of an __init__ the name of its folder."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


FILES = {name.removesuffix(".__init__"): path for name, path in modules().items()}
MODULES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def room_of(name: str) -> str:
    """The room of a module: the longest row whose folder or file it lies in."""
    inside = [room for room in ROOMS if name == room or name.startswith(room + ".")]
    return max(inside, key=len, default="commands")


@cache
def imported(tree: ast.AST) -> frozenset[str]:
    """Dotted names a file imports anywhere, inside functions too: "dig_jax.boxes.BoxSet"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}; write dig_jax.x"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def own_imports(name: str) -> frozenset[str]:
    """Modules of the package among a module's imports: the longest name that is a file."""
    dotted = {d.removeprefix("dig_jax.") for d in imported(MODULES[name]) if "dig_jax." in d}
    prefixes = ([d.rsplit(".", n)[0] for n in range(d.count(".") + 1)] for d in dotted)
    found = (next((p for p in some if p in FILES), None) for some in prefixes)
    return frozenset(f for f in found if f) - {name}


def reached(name: str) -> set[str]:
    """A module, and all that it imports, directly or not."""
    seen, waiting = set(), [name]
    while waiting:
        seen.add(now := waiting.pop())
        waiting += own_imports(now) - seen
    return seen


def foreign_imports(tree: ast.AST) -> set[str]:
    """Third-party packages among a file's imports."""
    tops = {name.partition(".")[0] for name in imported(tree)}
    return tops - set(sys.stdlib_module_names) - {"dig_jax"}


def test_every_row_is_a_room_and_has_only_rooms_above_it():
    above = set()
    for room, others in ROOMS.items():
        assert room == "commands" or any(room_of(name) == room for name in FILES), room
        assert set(others.split()) <= above, f"{room}: {set(others.split()) - above}"
        above.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_of_its_row(room):
    allowed = {room, *ROOMS[room].split()}
    for name in FILES:
        if room_of(name) != room:
            continue
        wrong = {other for other in own_imports(name) if room_of(other) not in allowed}
        assert not wrong, f"{name} imports {sorted(wrong)}; ROOMS says {room}: {ROOMS[room]}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_says_what_it_may_import(room):
    path = PACKAGE.joinpath(*room.split("."), "__init__.py")
    if not path.is_file():
        return
    text = " ".join((ast.get_docstring(MODULES[room]) or "").split())
    said = text.partition("Imports: ")[2].removesuffix(".")
    assert said == (", ".join(sorted(ROOMS[room].split())) or "nothing of dig_jax"), room


def test_no_circle_of_modules():
    done, path = set(), []

    def visit(name: str) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for other in own_imports(name):
                visit(other)
            done.add(path.pop())

    for name in FILES:
        visit(name)


@pytest.mark.parametrize(("room", "other"), NEVER)
def test_no_chain_of_imports_leads_across(room, other):
    for name in FILES:
        if name.partition(".")[0] == room:
            wrong = {far for far in reached(name) if far.partition(".")[0] == other}
            assert not wrong, f"{name} reaches {sorted(wrong)}"


def test_nobody_imports_the_algorithm_or_a_doctor():
    for name in FILES:
        others = {other.partition(".")[0] for other in own_imports(name)}
        assert "train" not in others, f"{name} imports train"
        assert "doctor" not in others or room_of(name) == "doctor", f"{name} imports the doctor"


@pytest.mark.parametrize("package", sorted({*DOORS, *CORE}))
def test_a_third_party_package_comes_in_by_its_doors(package):
    rooms = DOORS.get(package, "*").split()
    users = {name for name in FILES if package in foreign_imports(MODULES[name])}
    assert users, f"nobody imports {package}; take it out of DOORS"
    wrong = {name for name in users if "*" not in rooms and room_of(name) not in rooms}
    assert not wrong, f"{sorted(wrong)} import {package}; its doors: {rooms}"


def test_every_third_party_package_has_a_door():
    for name in FILES:
        missing = foreign_imports(MODULES[name]) - CORE - set(DOORS)
        assert not missing, f"{name} imports {missing}, without a door in DOORS"


def test_flax_is_struct_only_and_optax_in_the_reward_is_assignment_only():
    for name in FILES:
        names = imported(MODULES[name])
        assert {n for n in names if n.split(".")[0] == "flax"} <= {"flax.struct"}, name
        if room_of(name) == "reward":
            optax = {n for n in names if n.split(".")[0] == "optax"}
            assert all(n.startswith("optax.assignment") for n in optax), optax


def test_torch_is_nowhere_in_the_package():
    assert not [name for name, tree in MODULES.items() if "torch" in foreign_imports(tree)]


def test_one_file_imports_blender():
    """bpy is GPL: see "Data and licences" of the docs."""
    users = [name for name, tree in MODULES.items() if "bpy" in foreign_imports(tree)]
    assert users == ["data.render.blender"]


@pytest.mark.parametrize("worker", ["data.render.blender", "data.render.raytrace"])
def test_a_renderer_shares_no_process_with_jax(worker):
    """bpy is GPL and pins its own libraries; and jax would slow the start of every worker."""
    assert not [name for name in reached(worker) if "jax" in foreign_imports(MODULES[name])]


def test_no_module_is_called_utils():
    files = [
        path for folder in ("dig_jax", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    vague = [path.name for path in files if path.stem in ("utils", "util", "helpers", "misc")]
    assert not vague


def test_no_exception_is_swallowed():
    """`except ...: pass` hides bugs; contextlib.suppress of a named type says what is meant."""
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                only_pass = all(isinstance(line, ast.Pass) for line in node.body)
                assert not only_pass, f"{name} line {node.lineno}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.stem)
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
