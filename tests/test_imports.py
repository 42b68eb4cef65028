"""Imports run downwards: every package has a floor and imports only from the floors below it."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS: dict[int, set[str]] = {
    6: {"construct"},
    5: {"train", "verify"},
    4: {"training", "report", "evaluate"},
    3: {"recipes", "evaluation", "generate", "convert"},
    2: {"scoring", "rollout", "rewards", "interop"},
    1: {"models", "objectives", "views", "data", "parallel", "command_line", "host_memory"},
}
FLOOR_OF = {unit: floor for floor, units in FLOORS.items() for unit in units}
ROOT_FLOOR = 0  # vla_jax/__init__.py: everyone may import it, it imports nothing of ours

# vla_jax.data runs in worker processes that must start fast and never claim an accelerator.
NOT_IN_DATA = {"jax", "jaxlib", "flax", "optax", "orbax"}


@dataclass(frozen=True)
class Import:
    """One import: `target` is the dotted name as written, made absolute, `line` where it stands."""

    importer: str
    target: str
    line: int


def module_files(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the package in `root`/vla_jax."""
    modules = {}
    for path in sorted((root / "vla_jax").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Every import in a file, at any depth: in functions, under TYPE_CHECKING, by `import_module("...")`."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(module, alias.name, node.lineno)
            case ast.ImportFrom(module=base, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                prefix = ".".join([*above, *([base] if base else [])])
                for alias in names:
                    yield Import(module, f"{prefix}.{alias.name}", node.lineno)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(module, name, node.lineno)


def all_imports(root: Path) -> list[Import]:
    """Every import of every module, in a fixed order."""
    return [found for module, path in module_files(root).items() for found in imports_of(module, path)]


def unit_of(dotted: str, modules: dict[str, Path]) -> str | None:
    """The top-level name that a dotted name lies in: "" for vla_jax itself, None for other libraries."""
    root, *rest = dotted.split(".")
    if root != "vla_jax":
        return None
    # `from vla_jax import __version__` names an attribute, not a module.
    return rest[0] if rest and (rest[0] in FLOOR_OF or f"vla_jax.{rest[0]}" in modules) else ""


def top_level_names(root: Path) -> set[str]:
    """The packages and modules that stand directly in vla_jax/."""
    return {module.split(".")[1] for module in module_files(root) if "." in module}


def unassigned_units(root: Path) -> list[str]:
    """Top-level names without a floor."""
    return [
        f"vla_jax.{unit} has no floor: add it to FLOORS in tests/test_imports.py (and to the docs)"
        for unit in sorted(top_level_names(root) - FLOOR_OF.keys())
    ]


def upward_imports(root: Path) -> list[str]:
    """Imports of the same floor or a higher one, from outside the importing package itself."""
    modules = module_files(root)
    violations = []
    for found in all_imports(root):
        importer, target = unit_of(found.importer, modules), unit_of(found.target, modules)
        if target is None or target == "" or importer == target:
            continue
        from_floor, to_floor = FLOOR_OF.get(importer, ROOT_FLOOR), FLOOR_OF.get(target)
        if to_floor is None or to_floor >= from_floor:
            path = modules[found.importer].relative_to(root)
            violations.append(
                f"{path}:{found.line}: {importer or 'vla_jax'} (floor {from_floor}) imports {target} "
                f"(floor {to_floor}); import only from floors below, and hand in the rest as a callable"
            )
    return violations


def circle(root: Path) -> list[str]:
    """The modules of one circle of imports, first and last the same; empty if there is none."""
    modules = module_files(root)
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in all_imports(root):
        target = found.target
        while target and target not in modules:  # from a name in a module to the module
            target = target.rpartition(".")[0]
        if target:
            graph[found.importer].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def jax_in_data(root: Path) -> list[str]:
    """Imports of the accelerator's libraries in vla_jax/data."""
    return [
        f"{found.importer}:{found.line} imports {found.target}; vla_jax.data works on NumPy arrays only"
        for found in all_imports(root)
        if f"{found.importer}.".startswith("vla_jax.data.") and found.target.split(".")[0] in NOT_IN_DATA
    ]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter at the repository's root, on the CPU."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# --- the house ---------------------------------------------------------------------------------------


def test_every_top_level_name_has_a_floor():
    assert unassigned_units(REPOSITORY) == []


def test_imports_run_downwards():
    assert upward_imports(REPOSITORY) == []


def test_there_are_no_circles():
    assert circle(REPOSITORY) == []


def test_data_names_no_jax():
    assert jax_in_data(REPOSITORY) == []


DATA_WITHOUT_JAX = """
import importlib, pkgutil, sys
# grain takes JAX's tree functions where JAX is installed, and does without where it is not. Load it as in the
# second case, so that whatever loads jax below is ours.
sys.modules["jax"] = None
import grain
del sys.modules["jax"]
import vla_jax.data
for module in pkgutil.walk_packages(vla_jax.data.__path__, "vla_jax.data."):
    importlib.import_module(module.name)
    assert "jax" not in sys.modules, f"{module.name} loads jax"
assert "jax" not in sys.modules, "vla_jax.data loads jax"
"""


@pytest.mark.smoke
def test_data_loads_no_jax():
    result = python(DATA_WITHOUT_JAX)
    assert result.returncode == 0, result.stderr


# Imports modules in a process of their own for each unit, forked once the libraries that most of them need
# are there: those take all of the time.
EACH_UNIT_ALONE = """
import importlib, json, os, sys, traceback
import flax, grain, jax, ml_collections, optax, orbax.checkpoint, transformers
assert not [name for name in sys.modules if name.startswith("vla_jax")]
for unit, names in json.loads(sys.argv[1]).items():
    if (child := os.fork()) == 0:
        try:
            for name in names:
                importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(unit, os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def imported():
    """Unit -> whether all of its modules could be imported, and what was said."""
    units = {
        unit: [name for name in module_files(REPOSITORY) if f"{name}.".startswith(f"vla_jax.{unit}.")]
        for unit in top_level_names(REPOSITORY)
    }
    result = python(EACH_UNIT_ALONE, json.dumps(units))
    assert result.returncode == 0, result.stderr
    ends = dict(line.split() for line in result.stdout.splitlines() if len(line.split()) == 2)
    return {unit: (ends[unit] == "0", result.stderr) for unit in units}


@pytest.mark.smoke
@pytest.mark.parametrize("unit", sorted(top_level_names(REPOSITORY)))
def test_every_module_can_be_imported(imported, unit):
    whole, said = imported[unit]
    assert whole, said


# --- the checker -------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Writes a fake vla_jax: path under vla_jax/ -> source."""

    def write(files: dict[str, str]) -> Path:
        for name, source in {"__init__.py": "", **files}.items():
            path = tmp_path / "vla_jax" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
            if path.parent.name != "vla_jax":
                path.parent.joinpath("__init__.py").touch()
        return tmp_path

    return write


@pytest.mark.parametrize(
    "source",
    [
        "import vla_jax.scoring",
        "import vla_jax.scoring.candidates as candidates",
        "from vla_jax import scoring",
        "from vla_jax.scoring import score",
        "from .. import scoring",
        "from ..scoring.candidates import score",
        "def forward():\n    from vla_jax.scoring import score",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vla_jax.scoring import score",
        "import importlib\nimportlib.import_module('vla_jax.scoring')",
    ],
)
def test_the_checker_finds_an_import_from_above(tree, source):
    (violation,) = upward_imports(tree({"models/vit.py": source, "scoring/candidates.py": ""}))
    assert violation.startswith("vla_jax/models/vit.py:")
    assert "models (floor 1) imports scoring (floor 2)" in violation


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("views/crop.py", "import vla_jax.models"),  # the same floor
        ("train.py", "from vla_jax import construct"),  # the same floor, modules
        ("scoring/__init__.py", "from .. import train"),  # above, from a package's __init__
        ("__init__.py", "from vla_jax.models import vit"),  # the root imports nothing of ours
        ("models/vit.py", "import vla_jax.novelty"),  # a target without a floor
    ],
)
def test_the_checker_finds_sideways_and_unknown_targets(tree, importer, source):
    files = {"models/vit.py": "", "train.py": "", "construct.py": "", "novelty/a.py": ""}
    assert len(upward_imports(tree({**files, importer: source}))) == 1


def test_the_checker_allows_what_the_floors_allow(tree):
    root = tree(
        {
            "__init__.py": "__version__ = '0'",
            "train.py": "from vla_jax import __version__, training\nfrom vla_jax.recipes import lpoi",
            "training/loop.py": "from vla_jax.training.state import State\nfrom . import state\nimport jax",
            "training/state.py": "from ..models import vit",
            "recipes/lpoi.py": "from vla_jax.models.vit import forward",
            "models/vit.py": "import vla_jax",
        }
    )
    assert upward_imports(root) == [] and circle(root) == [] and unassigned_units(root) == []


@pytest.mark.parametrize("new", ["novelty/a.py", "novelty.py"])
def test_the_checker_finds_a_name_without_a_floor(tree, new):
    (message,) = unassigned_units(tree({new: ""}))
    assert "vla_jax.novelty has no floor: add it to FLOORS in tests/test_imports.py" in message


@pytest.mark.parametrize(
    "files",
    [
        {"models/a.py": "from . import b", "models/b.py": "def late():\n    from vla_jax.models.a import x"},
        {"models/__init__.py": "from .a import x", "models/a.py": "from vla_jax.models import y"},
    ],
)
def test_the_checker_finds_a_circle_within_a_package(tree, files):
    found = circle(tree(files))
    assert found[0] == found[-1] and "vla_jax.models.a" in found


@pytest.mark.parametrize(
    "source", ["import jax.numpy as jnp", "def f():\n    from flax import struct", "import optax"]
)
def test_the_checker_finds_jax_in_data(tree, source):
    assert len(jax_in_data(tree({"data/world/scenes.py": source}))) == 1


def test_the_checker_allows_jaxtyping_in_data_and_jax_elsewhere(tree):
    files = {"data/schema.py": "from jaxtyping import Float", "models/vit.py": "import jax"}
    assert jax_in_data(tree(files)) == []
