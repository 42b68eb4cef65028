"""The pages on training and launching name fields that exist, and all that a run may go on with."""

import re
from pathlib import Path

import pytest

from vla_jax.training import configuration
from vla_jax.training.configuration import default_config
from vla_jax.training.programs import Memory

DOCS = Path(__file__).resolve().parents[2] / "docs"
CODE = re.compile(r"`([^`\n]+)`")


def fields(text):
    """What is written in code and begins with a section of the configuration, as paths."""
    config = default_config()
    named = (word for code in CODE.findall(text) for word in code.split())
    paths = (word.removeprefix("--config.").split("=")[0] for word in named)
    return [path for path in paths if path.split(".")[0] in config and re.fullmatch(r"\w+(\.\w+)+", path)]


@pytest.mark.parametrize("page", ["training.md", "launch.md"])
def test_every_field_that_is_named_exists(page):
    named = fields((DOCS / page).read_text())
    assert named
    for path in named:
        node = default_config()
        for name in path.split("."):
            assert name in node, path
            node = node[name]


def test_what_a_run_may_go_on_with_is_named():
    text = (DOCS / "training.md").read_text()
    (sentence,) = re.findall(r"\*\*What may change in between\*\*(.*?)The changes are said", text, re.DOTALL)
    assert {name.rstrip(".") for name in configuration._HOW} == set(CODE.findall(sentence))


def test_the_line_about_memory_is_the_trainers():
    line = re.compile(r"memory: " + re.sub(r"\d+\.\d+", r"\\d+\\.\\d+", str(Memory(2**30, 2**30))))
    assert line.search((DOCS / "training.md").read_text())
