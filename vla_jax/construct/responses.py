"""Responses that a model makes for every record of a data set, written as a data set of their own."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vla_jax.construct.content import check_content, content_of
from vla_jax.construct.files import progress_bar
from vla_jax.construct.journal import Journal
from vla_jax.data import REJECTED, Record, Source
from vla_jax.data.packing import pack
from vla_jax.recipes import constructing
from vla_jax.train import base_model, made_model
from vla_jax.training.assembly import assemble, check_data
from vla_jax.training.bad_records import ListedReport
from vla_jax.training.base_identity import fingerprint
from vla_jax.training.configuration import check, plain
from vla_jax.training.one_pass import one_pass
from vla_jax.training.run import Run
from vla_jax.training.workdir import BAD_RECORDS


class WithResponses:
    """Records of a source beside the responses that were made for them.

    Args:
      source: the records.
      journal: what was made; records of which nothing was made are left out.
      role: what a response is called here; "" calls it what the method does.
    """

    def __init__(self, source: Source, journal: Journal, role: str = ""):
        self.name = getattr(source, "name", "data")
        self._source, self._journal, self._role = source, journal, role
        self._made = [(index, each) for index, each in sorted(journal.made.items()) if each.responses]

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> Record:
        place, made = self._made[index]
        record = self._source[place]
        check_content(record, self._journal.contents[place], self._journal.path.name)
        called = {role: self._role or role for role in made.responses}
        responses = {called[role]: text for role, text in made.responses.items()}
        replaced = set(responses) & set(record.responses)

        def others(by_role: Mapping[str, Any]) -> dict[str, Any]:
            return {role: value for role, value in by_role.items() if role not in replaced}

        return replace(
            record,
            responses={**record.responses, **responses},
            # Annotators never saw what was made.
            ratings=others(record.ratings),
            spans=others(record.spans),
            provenance={**record.provenance, **{role: dict(made.provenance) for role in responses}},
        )


def construct(config: ConfigDict, method: str, to: Path, as_rejected: bool = False) -> str:
    """Has a model make a method's responses for all records, and packs them; goes on where it was stopped.

    Args:
      config: says which data, which model, and the method's options.
      method: a recipe that can make responses without training.
      to: the folder; what is made lies beside it, in `DIR.making`, until all is.
      as_rejected: the one response that is made takes the place of the rejected one.

    Returns:
      What became of the records, in words.

    Raises:
      ValueError: where the configuration cannot work, or another command has begun a set here.
      DataError: at a bad record, unless they are skipped.
      OSError: where the folder exists or cannot be written.
    """
    if to.exists():
        raise FileExistsError(f"{to} exists; remove it or choose another folder")
    if jax.process_count() > 1:
        raise ValueError("a set is made in one process")
    making = to.with_name(f"{to.name}.making")
    report = ListedReport(to.with_name(f"{to.name}.{BAD_RECORDS}"), goes_on=making.is_dir())
    run = _assembled(config, method, report)
    if as_rejected and len(run.recipe.made_here) != 1:
        raise ValueError(f"{method} makes {', '.join(run.recipe.made_here)}; leave --as_rejected out")
    identity = {
        "recipe": method,
        "options": run.config.options[method].to_dict(),
        "model": fingerprint(run.model.params, run.model.config.to_dict()),
        "seed": run.config.seed,
    }
    sections = {name: plain(run.config)[name] for name in ("data", "world", "rewards")}
    making.mkdir(parents=True, exist_ok=True)
    journal = Journal(making / "made.jsonl", {**identity, **sections})
    _fill(journal, run, identity, making)

    source = WithResponses(run.source, journal, REJECTED if as_rejected else "")
    if not len(source):
        raise ValueError(f"nothing could be made of any record; see {journal.path}")
    with progress_bar("pack", len(source)) as progress:
        packed = pack(source, to, progress=progress)
    shutil.rmtree(making)
    without, bad = len(journal.made) - packed, len(run.report.bad)
    return f"{to}: {packed:,} records; nothing was made of {without:,} others, {bad:,} of them bad"


def _assembled(config: ConfigDict, method: str, report: ListedReport) -> Run:
    """The run of which the method's responses are those of its first round, on all records."""
    config = config.copy_and_resolve_references()
    config.recipe = method
    config.options[method].update(constructing(method))
    check(config)
    check_data(config)
    return assemble(config, base_model(config), report, made_model(config, config.rewards))


def _fill(journal: Journal, run: Run, identity: Mapping[str, Any], folder: Path) -> None:
    """Makes what the journal lacks."""
    indices = sorted(run.plan.chosen.tolist())
    todo = [index for index in indices if index not in journal.made]
    with progress_bar("construct", len(indices)) as progress:
        progress(len(indices) - len(todo))
        for answered in one_pass(run, todo, folder):
            for index, each in answered.items():
                if each.responses:
                    answered[index] = each._replace(provenance={**identity, **each.provenance})
            contents = {
                index: content_of(run.source[index]) if each.responses else ""
                for index, each in answered.items()
            }
            journal.add(answered, contents)
            progress(len(answered))
