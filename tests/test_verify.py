"""The page of what a verifier makes of a run's words, by its command."""

import json

import pytest

from tests import tiny_runs
from tests.forked import run
from tests.small_clip import small_clip
from vla_jax.data.world import CATEGORIES
from vla_jax.evaluate import open_scenes
from vla_jax.interop.clip_folder import save_clip
from vla_jax.training.workdir import configuration_of

COMMAND = "vla_jax.verify"
# Of the images that the verifier sees; the world's are no smaller than 32.
SIZE = 36


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run that evaluated, and a verifier."""
    folder = tmp_path_factory.mktemp("verified")
    settings = ("train.steps=1", "data.size=8", "evaluation.scenes=4", "evaluation.every=0")
    done = tiny_runs.run("world_sft", folder / "run", *settings)
    assert done.returncode == 0, done.stderr
    save_clip(folder / "clip", small_clip(size=SIZE))
    return folder


def rewritten(workdir, caption):
    """Puts (present, absent) -> caption in the place of a tiny model's captions, which name nothing."""
    scenes, _ = open_scenes(configuration_of(workdir), SIZE)
    for when in ("before", "after"):
        file = workdir / f"evaluation_{when}.json"
        kept = json.loads(file.read_text())
        present = [{one.name for one in scenes[index].objects} for index in kept["records"]]
        absent = [next(c.name for c in CATEGORIES if c.name not in names) for names in present]
        kept["captions"] = [caption(min(there), other) for there, other in zip(present, absent, strict=True)]
        file.write_text(json.dumps(kept))


def test_words_are_told_apart_before_and_after_and_drawn(finished):
    rewritten(finished / "run", lambda present, absent: f"There is a {present}. There is a {absent}.")
    done = run(COMMAND, f"--run={finished / 'run'}", f"--verifier={finished / 'clip'}")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines[:4]] == [
        [when, level] for when in ("before", "after") for level in ("word", "sentence")
    ]
    # The same captions on both sides: the same figures but for the seconds.
    assert [line[2:-2] for line in lines[:2]] == [line[2:-2] for line in lines[2:4]]
    assert lines[0][2::2] == ["correct", "hallucinated", "separation", "pearson", "seconds"]
    assert "<svg" in (finished / "run" / "words.html").read_text()


def test_captions_without_both_kinds_of_words_are_one_line(finished):
    rewritten(finished / "run", lambda present, absent: f"There is a {present}.")
    done = run(COMMAND, f"--run={finished / 'run'}", f"--verifier={finished / 'clip'}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: 4 object words in 4 captions, and not both")


@pytest.mark.parametrize(
    "arguments, told",
    [
        ((), "--run"),
        (("--run=nowhere", "--verifier=nowhere"), "nowhere"),
        (("--run={run}", "--verifier=nowhere"), "nowhere"),
        (("--run={run}/model", "--verifier={clip}"), "model is not the workdir of a run"),
    ],
)
def test_wrong_arguments_are_told_without_a_traceback(finished, arguments, told):
    done = run(
        COMMAND, *(argument.format(run=finished / "run", clip=finished / "clip") for argument in arguments)
    )
    assert done.returncode == 1
    assert told in done.stderr and "Traceback" not in done.stderr
