"""The command that asks a model about an image, and what it makes of wrong arguments."""

import numpy as np
import pytest
from PIL import Image

from tests import forked
from tests.small_models import tiny_model
from vla_jax.interop import save_model


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Flags that name a model and an image."""
    folder = tmp_path_factory.mktemp("asked")
    save_model(folder / "model", tiny_model())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(folder / "a.png")
    return f"--model={folder / 'model'}", f"--image={folder / 'a.png'}", "--max_new_tokens=4"


def generate(*flags):
    return forked.run("vla_jax.generate", *flags)


@pytest.mark.smoke
def test_a_question_of_many_bytes_is_answered(asked):
    done = generate(*asked, f"--question={'🙂' * 400}", "--temperature=1", "--top_k=5", f"--seed={2**63 - 1}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")


@pytest.mark.parametrize(
    "flags, told",
    [
        (("--question=What", "is", "this?"), "'is this?' belongs to no flag; begin a flag with --"),
        (("--question=What?", "--top_k=5"), "--top_k and --top_p would be ignored where --temperature is 0"),
        (("--question=What?", "--temperature=nan"), "temperature is nan"),
        (("--question=What?", "--temperature=1", f"--seed={10**20}"), "--seed"),
        (("--question=What?", "--image=nowhere.png"), "nowhere.png"),
        ((), "--question"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(asked, flags, told):
    done = generate(*asked, *flags)
    assert done.returncode == 1 and done.stdout == ""
    assert told in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
