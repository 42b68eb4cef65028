"""Measures how much a model hallucinates.

    python -m vla_jax.evaluate --config=configs/world_lpoi.py --model=DIR [--config.evaluation.scenes=1000]

Prints CHAIR, recall and POPE with their n; `--out=FILE` also writes them, with every caption, as JSON.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from vla_jax.command_line import parse_flags, refuse_words
from vla_jax.data.schema import Source
from vla_jax.data.sources import Files, open_evaluation
from vla_jax.data.world import CATEGORIES, WorldConfig
from vla_jax.evaluation import Vocabulary
from vla_jax.evaluation.runner import Evaluation, run
from vla_jax.generate import answerer
from vla_jax.host_memory import keep_freed_memory
from vla_jax.interop import Model, load_model
from vla_jax.models.compute import Compute


def open_scenes(config: ConfigDict, image_size: int) -> tuple[Source, Vocabulary]:
    """What a configuration evaluates on, and the objects CHAIR looks for there.

    Scenes of the built-in world are held out and unbiased. A folder of photographs is evaluated on itself,
    with COCO's 80 categories and whatever else its records name.
    """
    world = WorldConfig(seed=config.seed, image_size=image_size, **config.world.to_dict())
    watched = config.evaluation
    source = open_evaluation(config.data.to_dict(), world, watched.scenes, watched.world)
    if isinstance(source, Files):
        return source, Vocabulary.coco(also=source.object_names())
    return source, Vocabulary.from_names(category.name for category in CATEGORIES)


def answering(config: ConfigDict) -> Compute:
    """How a model answers: as in training, but for attention, whose kernels do not take every length."""
    return Compute(unroll=config.compute.unroll, unroll_decoding=config.compute.unroll_decoding)


def evaluate(config: ConfigDict, model: Model, title: str = "evaluate") -> Evaluation:
    """Lets a model answer freely on the configuration's scenes, and scores what it says.

    Raises:
      DataError: at an unreadable record, unless `data.on_bad_record` is "skip".
    """
    source, vocabulary = open_scenes(config, model.config.vision.image_size)
    watched = config.evaluation
    asked = answerer(model, config.data.max_prompt_length, watched.batch_size, answering(config))
    every = 0.1 if sys.stderr.isatty() else 10
    with tqdm(desc=title, unit="answer", dynamic_ncols=True, mininterval=every) as bar:
        return run(
            asked.answer,
            source,
            vocabulary,
            max_new_tokens=watched.max_new_tokens,
            skip_bad_records=config.data.on_bad_record == "skip",
            progress=bar.update,
        )


def table(columns: Iterable[tuple[str, Evaluation]]) -> str:
    """Scores side by side as plain text, in percent."""
    columns = list(columns)
    names = [name for name, value in columns[0][1].scores.items() if isinstance(value, int | float)]
    lines = [f"{'':20}" + "".join(f"{title:>10}" for title, _ in columns)]
    for name in names:
        values = (evaluation.scores[name] for _, evaluation in columns)
        lines.append(
            f"{name:20}" + "".join(f"{v:>10d}" if isinstance(v, int) else f"{v:>10.1f}" for v in values)
        )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Command line."""
    refuse_words(argv)
    keep_freed_memory()
    try:
        evaluation = evaluate(_CONFIG.value, load_model(Path(_MODEL.value or "")))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(table([(Path(_MODEL.value or "").name, evaluation)]))
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to evaluate on: a config file.")
    _MODEL = flags.DEFINE_string("model", None, "A model folder, or the workdir of a finished run.")
    _OUT = flags.DEFINE_string("out", "", "Where to write scores and captions as JSON.")
    flags.mark_flags_as_required(["config", "model"])
    app.run(main, flags_parser=parse_flags)
