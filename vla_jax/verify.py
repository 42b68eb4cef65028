"""Shows how a verifier scores what a run's model said before and after: words, sentences, captions.

    python -m vla_jax.verify --run=WORKDIR --verifier=DIR [--to=words.html]

Reads the captions that the run's evaluations kept, and the labels of their scenes.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from vla_jax.command_line import parse_flags, refuse_words
from vla_jax.data.schema import decoded
from vla_jax.evaluate import open_scenes
from vla_jax.evaluation.runner import Evaluation
from vla_jax.interop.clip_folder import Clip, load_clip
from vla_jax.report import figures, write_words
from vla_jax.rewards.word_scores import WordScores, word_scores
from vla_jax.training.verifying import verifier_of
from vla_jax.training.workdir import configuration_of


def verified(workdir: Path, towers: Clip) -> dict[str, WordScores]:
    """Before, after -> what a verifier says of a run's captions.

    Args:
      workdir: of a run that evaluated.
      towers: the verifier's; its words and scale are those of the run.

    Raises:
      OSError: where the run kept no evaluation.
      ValueError: where there is no run, or its captions name too little to compare.
    """
    config = configuration_of(workdir)
    verifier = verifier_of(towers, config)
    scenes, _ = open_scenes(config, towers.config.vision.image_size)
    sides = {}
    for when in ("before", "after"):
        said = Evaluation.from_dict(json.loads((workdir / f"evaluation_{when}.json").read_text()))
        records = [scenes[index] for index in said.records]
        images = np.stack([towers.processor(decoded(record, "scenes"))[0] for record in records])
        sides[when] = word_scores(verifier, images, said.captions, records)
    return sides


def main(argv: list[str]) -> None:
    """Command line."""
    refuse_words(argv)
    workdir, folder = Path(_RUN.value or ""), Path(_VERIFIER.value or "")
    to = Path(_TO.value) if _TO.value else workdir / "words.html"
    try:
        sides = verified(workdir, load_clip(folder))
        facts = {"run": workdir.name, "verifier": folder.name}
        write_words(to, "What the verifier makes of words", facts, sides)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for when, scores in sides.items():
        for level, found in figures(scores).items():
            print(f"{when:7} {level:9}", *(f"{name} {value:.4g}" for name, value in found.items()))
    print(f"drawn in {to}")


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", None, "The workdir of a finished run.")
    _VERIFIER = flags.DEFINE_string("verifier", None, "A CLIP or SigLIP folder.")
    _TO = flags.DEFINE_string("to", "", "The page to write; by default words.html in the workdir.")
    flags.mark_flags_as_required(["run", "verifier"])
    app.run(main, flags_parser=parse_flags)
