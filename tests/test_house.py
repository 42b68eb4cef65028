"""House rules that a linter cannot hold: telling names, docstrings, methods known to recipes only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("vla_jax", "configs", "launch", "benchmarks", "tests")

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "common", "manager", "managers"}

METHODS = {"dpo", "mdpo", "lpoi", "adavip", "popen", "fisao", "bdhs", "povid"}
# What may bear a method's name for another reason. Objectives are called what their formula is called,
# data sources what the published data sets are called.
ALLOWED = {"recipes": METHODS, "objectives": {"dpo"}, "data": {"lpoi", "mdpo", "povid"}}

WORD = re.compile(r"[A-Za-z0-9]+")
CAMEL_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def python_files(root: Path) -> list[Path]:
    """The project's own Python files."""
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]


def vague_names(root: Path) -> list[str]:
    """Files and folders whose name does not say what is in them."""
    return sorted(
        {
            f"{path.relative_to(root)}: '{part}' does not say what is in it; name its one job"
            for path in python_files(root)
            for part in path.relative_to(root).with_suffix("").parts
            if VAGUE_NAMES & set(part.lower().split("_"))
        }
    )


def without_docstring(root: Path) -> list[str]:
    """Modules without a docstring, and packages of the library without an `__init__.py` to hold one.

    Outside the library an empty `__init__.py` marks a folder and needs none.
    """
    marker = re.compile(r"(?!vla_jax/).*__init__\.py")
    missing = [
        f"{path.relative_to(root)}: no docstring; say in a line what lives there"
        for path in python_files(root)
        if not (marker.fullmatch(path.relative_to(root).as_posix()) and not path.read_text().strip())
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    ]
    packages = {path.parent for path in (root / "vla_jax").rglob("*.py")}
    return missing + [
        f"{package.relative_to(root)}: no __init__.py; say in a paragraph what the package holds"
        for package in sorted(packages)
        if not (package / "__init__.py").exists()
    ]


def words(text: str) -> set[str]:
    """The words of an identifier or a string, in lower case: of snake_case, CamelCase and plain text."""
    found = set()
    for word in WORD.findall(text):
        if word == "Popen":  # subprocess.Popen is Python's
            continue
        found |= {word.lower(), *(part.lower() for part in CAMEL_PART.findall(word))}
    return found


def prose(tree: ast.Module) -> set[int]:
    """The ids of strings that stand alone as a statement: docstrings."""
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {id(node.value) for node in statements if isinstance(node.value, ast.Constant)}


def names_and_strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every identifier and every string that is not a docstring."""
    docstrings = prose(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and id(node) not in docstrings:
                yield line, node.value
            continue
        for _, value in ast.iter_fields(node):
            # Identifiers are the plain strings among a node's fields (or, for `global`, a list of them).
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    yield line, text


def method_names(root: Path) -> list[str]:
    """Places in the library, outside the recipes, that know a method's name."""
    violations = []
    for path in sorted((root / "vla_jax").rglob("*.py")):
        inside = path.relative_to(root / "vla_jax")
        forbidden = METHODS - ALLOWED.get(inside.parts[0], set())
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for line, text in [(1, str(inside.with_suffix(""))), *names_and_strings(tree)]:
            violations += [
                f"{path.relative_to(root)}:{line}: {text!r} names the method '{method}'; "
                "say what it does, and leave the name to vla_jax/recipes"
                for method in sorted(forbidden & words(text))
            ]
    return violations


# --- the house ---------------------------------------------------------------------------------------


def test_no_file_has_a_name_that_says_nothing():
    assert vague_names(REPOSITORY) == []


def test_every_module_and_package_says_what_it_is():
    assert without_docstring(REPOSITORY) == []


def test_only_recipes_know_a_method_by_name():
    assert method_names(REPOSITORY) == []


# --- the checker -------------------------------------------------------------------------------------


def write(root: Path, name: str, source: str) -> Path:
    """Write one file of a fake tree and return the tree's root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return root


@pytest.mark.parametrize("name", ["vla_jax/utils.py", "vla_jax/data/image_helpers.py", "tests/common/a.py"])
def test_the_checker_finds_a_vague_name(tmp_path, name):
    assert len(vague_names(write(tmp_path, name, ""))) == 1


def test_the_checker_finds_missing_docstrings(tmp_path):
    write(tmp_path, "vla_jax/__init__.py", "'''What it is.'''")
    messages = without_docstring(write(tmp_path, "vla_jax/models/vit.py", "import jax"))
    assert [message.split(":")[0] for message in messages] == ["vla_jax/models/vit.py", "vla_jax/models"]


def test_the_checker_allows_an_empty_marker_only_outside_the_library(tmp_path):
    write(tmp_path, "tests/models/__init__.py", "")
    (message,) = without_docstring(write(tmp_path, "vla_jax/__init__.py", ""))
    assert message.startswith("vla_jax/__init__.py")


@pytest.mark.parametrize(
    "source",
    [
        "lpoi = 1",
        "def run_lpoi(): pass",
        "class LPOIRecipe: pass",
        "class Lpoi: pass",
        "from vla_jax.recipes import lpoi",
        "from vla_jax.recipes.lpoi import prepare",
        "import numpy as lpoi",
        "def f(*, lpoi): pass",
        "f(lpoi=1)",
        "x.lpoi",
        "if method == 'LPOI': pass",
        "raise ValueError(f'{x} is not for LPOI')",
        "def f():\n    global lpoi_state",
    ],
)
def test_the_checker_finds_a_method_by_name(tmp_path, source):
    assert len(method_names(write(tmp_path, "vla_jax/training/step.py", source))) >= 1


def test_the_checker_finds_a_file_named_after_a_method(tmp_path):
    assert len(method_names(write(tmp_path, "vla_jax/rewards/fisao.py", ""))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("training/step.py", '"""As LPOI does."""\nx = 1  # LPOI'),
        ("training/step.py", "def f():\n    '''As in mDPO, equation 3.'''"),
        ("parallel/workers.py", "import subprocess\nsubprocess.Popen(['ls'])"),
        ("evaluation/pope.py", "def pope_questions(): pass"),
        ("objectives/preference.py", "def dpo(margins): pass"),
        ("data/sources.py", "POVID = 'POVID_preference_data_for_VLLMs'"),
        ("recipes/lpoi.py", "def lpoi(): pass"),
    ],
)
def test_the_checker_allows_other_uses(tmp_path, name, source):
    assert method_names(write(tmp_path, f"vla_jax/{name}", source)) == []


def test_the_checker_allows_only_the_formula_in_objectives(tmp_path):
    assert len(method_names(write(tmp_path, "vla_jax/objectives/preference.py", "def mdpo(x): pass"))) == 1
