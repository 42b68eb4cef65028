"""Trains a model and shows what it did to it.

    python -m vla_jax.train --config=configs/world_lpoi.py --workdir=DIR [--config.a.b=c ...]

Start it again with the same arguments and it goes on where it stopped. The working directory ends up with
`config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `model/`, `summary.json` and `report.html`.
"""

import errno
import importlib.util
import itertools
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vla_jax.command_line import parse_flags, refuse_words
from vla_jax.data import RecordReport
from vla_jax.data.sources import Files
from vla_jax.data.world import EvaluationWorld
from vla_jax.evaluate import evaluate, open_scenes, table
from vla_jax.evaluation.runner import Evaluation
from vla_jax.host_memory import keep_freed_memory
from vla_jax.interop import Model, load_model, save_model
from vla_jax.parallel import connect, end_alone, is_first, loading, wait_for_all
from vla_jax.report import GalleryItem, ViewStrip, heat_over, write_report
from vla_jax.rewards import JudgeConfig, JudgeError, check_present
from vla_jax.rewards.verifier import Verifier
from vla_jax.training.alarms import Collapsed
from vla_jax.training.assembly import assemble, check_data, fresh_model
from vla_jax.training.bad_records import ListedReport
from vla_jax.training.configuration import check, fingerprint, plain
from vla_jax.training.loop import Diverged, Interrupted
from vla_jax.training.run import Run
from vla_jax.training.saliency import saliency
from vla_jax.training.step import Trained, view_strips
from vla_jax.training.stopping import ask_again
from vla_jax.training.tracking import read_metrics
from vla_jax.training.verifying import make_verifier
from vla_jax.training.workdir import BAD_RECORDS, check_free, claim, is_claimed, write_json

# What a disk says that has no room, or of whose room others' share is used up.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The gallery's scenes are drawn this large: a reader should see them better than the model does.
_GALLERY_SIZE = 216
# Training examples whose views the report shows.
_STRIPS = 4


def train(config: ConfigDict, workdir: Path, command: str = "") -> dict[str, Any]:
    """Runs a configuration from its base model to its report, or goes on with it.

    Args:
      config: see `training.configuration.default_config`.
      workdir: everything is written here.
      command: how it was called, for the report.

    Returns:
      What `summary.json` holds.

    Raises:
      DataError, WorkdirError, ValueError: where something cannot work; nothing has been written then.
      Interrupted, Diverged: see `training.loop.fit`.
    """
    started = time.monotonic()
    check(config)
    changes = check_free(workdir, config)
    if (workdir / "summary.json").is_file():
        _say(f"{workdir} is finished already; its report is {workdir / 'report.html'}")
        return json.loads((workdir / "summary.json").read_text())
    if changes:
        _say(f"{workdir} goes on with {'; '.join(changes)}")

    # What is wrong with the data or the judge shows here, not after the minutes a base model may take.
    if is_first():
        check_present(JudgeConfig(**config.rewards.judge.to_dict()))
    check_data(config)
    model, reward_model = base_model(config), made_model(config, config.rewards)
    towers = load_config(Path(config.verifier.config)) if config.verifier.config else None
    verifier = make_verifier(config, model, towers)
    # Of several processes each reads other records, and has a list of its own.
    name = BAD_RECORDS if is_first() else f"{jax.process_index()}.{BAD_RECORDS}"
    report = ListedReport(workdir / name, goes_on=is_claimed(workdir))
    try:
        return _train(config, model, reward_model, verifier, report, workdir, command, started)
    finally:
        if report.bad:
            print(f"{len(report.bad)} bad records; they are listed in {report.path}")


def _train(
    config: ConfigDict,
    model: Model,
    reward_model: Model | None,
    verifier: Verifier | None,
    report: RecordReport,
    workdir: Path,
    command: str,
    started: float,
) -> dict[str, Any]:
    """`train`, of a configuration that was checked and a base model that is there."""
    run = assemble(config, model, report, reward_model, verifier)
    if is_first():
        claim(workdir, config)
        _announce(run, workdir)
    wait_for_all("directory claimed")

    measured = _can_be_measured(run)
    aligned = bool(config.base.model or config.base.config)
    before = _evaluate_once(run, run.model, workdir, "before") if measured and aligned else None
    trained = run.train(workdir, config.recipe)
    after = _evaluate_once(run, trained, workdir, "after") if measured else None

    summary = {
        "recipe": config.recipe,
        "seed": config.seed,
        "steps": config.train.steps,
        "batch_size": config.train.batch_size,
        "seconds": round(time.monotonic() - started, 1),
        "records": len(run.plan.chosen),
        "skipped_records": len(run.report.bad),
        "truncated_records": len(run.report.truncated),
        "command": command,
        **{when: dict(e.scores) for when, e in (("before", before), ("after", after)) if e},
    }
    if is_first():
        save_model(workdir / "model", trained)
        _report(run, run.on_local_devices(trained), workdir, summary, before, after)
        write_json(workdir / "summary.json", summary)
        if after:
            print(table([(when, e) for when, e in (("before", before), ("after", after)) if e]))
        print(f"report: {workdir / 'report.html'}")
    wait_for_all("run finished")
    return summary


def base_model(config: ConfigDict) -> Model:
    """The model training starts from: loaded, made once by another configuration, or fresh."""
    return made_model(config, config.base) or fresh_model(config)


def made_model(config: ConfigDict, wanted: ConfigDict) -> Model | None:
    """A model that a configuration names: loaded, or made once by another configuration.

    Args:
      config: the run's.
      wanted: its section that says which (`base` or `rewards`); None comes back where it names none.
    """
    if wanted.model:
        with loading():
            return load_model(Path(wanted.model))
    if not wanted.config:
        return None
    made = load_config(Path(wanted.config))
    for section in wanted.inherit:
        made[section] = config[section]
    made.base.cache = config.base.cache
    name = f"{Path(wanted.config).stem}-seed{config.seed}-{fingerprint(made)}"
    folder = Path(config.base.cache) / name
    if not (folder / "model").is_dir():
        print(f"{wanted.config} into {folder}, once")
        train(made, folder)
    with loading():
        return load_model(folder)


def load_config(path: Path) -> ConfigDict:
    """What `get_config()` of a config file returns.

    Raises:
      FileNotFoundError: where there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such config file (paths are relative to where you stand)"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def _can_be_measured(run: Run) -> bool:
    """Whether there is something to evaluate on; says so where a folder names no objects."""
    if run.config.evaluation.scenes == 0:
        return False
    if run.config.evaluation.world:
        return True
    if isinstance(run.source, Files) and not run.source.object_names():
        _say("no record names its objects, so CHAIR is not measured; add `objects` to measure it")
        return False
    return True


def _say(line: str) -> None:
    if is_first():
        print(line)


def _announce(run: Run, workdir: Path) -> None:
    origins = ", ".join(f"{origin} ({count})" for origin, count in run.report.origins.most_common())
    print(f"{run.config.recipe}: {len(run.plan.chosen)} records, {len(run.report.bad)} bad, into {workdir}")
    if isinstance(run.source, Files):
        print(run.preflight.table(run.encoder, len(run.report.bad)))
        prompts, answers = zip(*run.shapes(), strict=True)
        print(
            f"  batches: prompts padded to {_range(prompts)} tokens and answers to {_range(answers)}, "
            f"{len(prompts)} programs to compile"
        )
    if len(run.recipe.view_names) > 1:
        print(f"key objects, of the records read so far: {origins}")


def _range(lengths: Sequence[int]) -> str:
    return str(max(lengths)) if len(set(lengths)) == 1 else f"{min(lengths)} to {max(lengths)}"


def _evaluate_once(run: Run, model: Model, workdir: Path, when: str) -> Evaluation | None:
    """Evaluates, or reads what an earlier start of this run measured; the first of several processes does."""
    file = workdir / f"evaluation_{when}.json"
    if is_first() and not file.is_file():
        evaluation = evaluate(run.config, run.on_local_devices(model), f"evaluate {when}")
        write_json(file, evaluation.to_dict())
    wait_for_all(f"evaluated {when}")
    return Evaluation.from_dict(json.loads(file.read_text())) if is_first() else None


def _report(
    run: Run,
    trained: Model,
    workdir: Path,
    summary: dict[str, Any],
    before: Evaluation | None,
    after: Evaluation | None,
) -> None:
    size = run.model.config.vision.image_size
    scenes, vocabulary = open_scenes(run.config, size)
    if isinstance(scenes, EvaluationWorld):
        scenes = EvaluationWorld(replace(scenes.config, image_size=_GALLERY_SIZE), len(scenes))
    gallery = []
    if before and after:
        answers = zip(after.records, before.captions, after.captions, strict=True)
        for index, old, new in itertools.islice(answers, run.config.evaluation.gallery):
            record = scenes[index]
            objects = tuple(dict.fromkeys(o.name for o in record.objects if o.name))
            gallery.append(GalleryItem(record.image, objects, record.question, old, new))
    write_report(
        workdir / "report.html",
        title=f"{run.config.recipe} on {run.config.data.source.replace('_', ' ')}",
        summary=summary,
        metrics=read_metrics(workdir / "metrics.jsonl"),
        gallery=gallery,
        views=_strips(run, trained),
        vocabulary=vocabulary,
        config_text=json.dumps(plain(run.config), indent=2),
    )


def _strips(run: Run, trained: Model) -> list[ViewStrip]:
    """The views of the first examples, and where in the untouched image their losses look.

    None of a method that makes its responses: the report shows those instead.
    """
    if run.recipe.rollout is not None:
        return []
    batch = jax.tree.map(lambda column: column[:_STRIPS], next(run.open_batches(0, 1)))
    views, names = np.asarray(view_strips(run.recipe, batch, run.config.seed)), run.recipe.view_names
    if run.config.evaluation.saliency:
        # The base as it was loaded may lie elsewhere than what was trained.
        places = jax.tree.map(lambda leaf: leaf.sharding, trained.params)
        method, base = run.local_method(), jax.device_put(run.model.params, places)
        moments = {
            "loss by pixel, before": Trained(None, {}),
            "loss by pixel, after": Trained(trained.adapter, trained.params),
        }
        for moment in moments.values():
            maps = np.asarray(saliency(method, moment, base, batch))[:, 0]
            heats = [heat_over(row[0], values) for row, values in zip(views, maps, strict=True)]
            views = np.concatenate([views, np.stack(heats)[:, None]], axis=1)
        names = (*names, *moments)
    strips = []
    for row, pictures in enumerate(views):
        ids = batch.response_tokens[row, 0][batch.response_mask[row, 0]]
        response = run.model.tokenizer.decode(ids, skip_special_tokens=True).strip()
        strips.append(ViewStrip(pictures, names, response))
    return strips


def _end_between_steps(number: int, frame: FrameType | None) -> NoReturn:
    """Ends a run that takes no steps now: what it has to save is saved."""
    del number, frame
    print("stopped between steps; go on with the same command", file=sys.stderr)
    sys.exit(0)


def main(argv: list[str]) -> None:
    """Command line."""
    refuse_words(argv)
    # JAX and orbax tell much of what they do; what a user must know is said here or raised.
    logging.set_verbosity(logging.FATAL)
    command = shlex.join(["python", "-m", "vla_jax.train", *sys.argv[1:]])
    keep_freed_memory()
    try:
        connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        if cache := _CONFIG.value.compilation_cache:
            jax.config.update("jax_compilation_cache_dir", str(Path(cache).absolute()))
        sys.unraisablehook = ask_again
        if jax.process_count() == 1:  # of several, JAX notes it until the first step
            signal.signal(signal.SIGTERM, _end_between_steps)
        train(_CONFIG.value, Path(_WORKDIR.value or ""), command)
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(130 if error.signal_number == signal.SIGINT else 0)
    except KeyboardInterrupt:
        sys.exit("interrupted; go on with the same command")
    except OSError as error:
        full = error.errno in _FULL
        end_alone(f"error: {error}{'; make room, and go on with the same command' if full else ''}")
    except (ValueError, ModuleNotFoundError, Diverged, Collapsed, JudgeError) as error:
        end_alone(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        end_alone(f"error: a device or another process of this run failed: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to run: a config file.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
    _COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of the first of several processes.")
    _NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes there are.")
    _PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
