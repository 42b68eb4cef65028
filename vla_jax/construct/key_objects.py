"""Packs records whose key object a model has verified (LPOI, section 3.1 and Algorithm 1)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vla_jax.construct.content import check_content, content_of
from vla_jax.construct.decisions import Decisions
from vla_jax.construct.files import progress_bar
from vla_jax.construct.without import Without
from vla_jax.data import DataError, Record, Source
from vla_jax.data.packing import pack
from vla_jax.data.sources import open_source
from vla_jax.interop import Model
from vla_jax.rollout.verifying import Verdict, verify
from vla_jax.training.assembly import plan_of, world_of
from vla_jax.training.bad_records import ListedReport
from vla_jax.training.base_identity import fingerprint
from vla_jax.training.configuration import check, plain
from vla_jax.training.workdir import BAD_RECORDS

WHEN_NONE = LEAVE_OUT, KEEP_FIRST = "leave_out", "keep_first"
# Records that are decided together; a run that goes on has lost no more than so many.
_TOGETHER = 256


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
      at_once, later: records whose first candidate passed, or one after it.
      none: records none of whose candidates passed.
      unknown: records without a known object in the picture.
      bad: records that cannot be used.
      asked: how often the model was.
      packed: records that were packed.
    """

    at_once: int
    later: int
    none: int
    unknown: int
    bad: int
    asked: int
    packed: int

    def __str__(self) -> str:
        return (
            f"{self.packed:,} records packed; key object verified at once {self.at_once:,}, later "
            f"{self.later:,}, none {self.none:,}, no object known {self.unknown:,}, bad {self.bad:,}; asked "
            f"{self.asked:,} times"
        )


def pack_verified(config: ConfigDict, model: Model, to: Path, when_none: str = LEAVE_OUT) -> Verified:
    """Verifies the key object of every record that a run of this configuration would choose from; packs them.

    The model is shown the last of the views that the recipe makes of the image. What was decided is kept
    beside the folder, in `DIR.key_objects.jsonl`, so that a run which was stopped goes on. Records without a
    known object are packed as they are.

    Args:
      config: says the data and the recipe.
      model: the verifier.
      to: the folder; it appears whole or not at all.
      when_none: of records none of whose objects passes: `leave_out`, since Algorithm 1 gets to its loss only
        with one that does, or `keep_first`.

    Raises:
      DataError: at a bad record, or, where they are skipped, at one too many.
      FileExistsError: where `to` exists.
      ValueError: where the configuration cannot work, the recipe's views hide no key object, the model reads
        tiles, or what is kept beside the folder was decided by another model or about other data.
    """
    check(config)
    if to.exists():
        raise FileExistsError(f"{to} exists; remove it or choose another folder")
    source = open_source(config.data.to_dict(), world_of(config, model.config.vision.image_size))
    chosen = plan_of(config, source).chosen.tolist()
    ask = Without(config, model)
    decisions = Decisions(to.with_name(f"{to.name}.key_objects.jsonl"), _identity(config, model))
    report = ListedReport(to.with_name(f"{to.name}.{BAD_RECORDS}"), goes_on=bool(decisions.made))
    skips = config.data.on_bad_record == "skip"
    report.most_bad = int(config.data.max_bad_fraction * len(chosen)) if skips else None
    with progress_bar("verify", len(chosen)) as progress:
        progress(len(decisions.made))
        for start in range(len(decisions.made), len(chosen), _TOGETHER):
            part = chosen[start : start + _TOGETHER]
            records = _usable(source, part, ask, report if skips else None)
            verdicts = dict(zip(records, verify(list(records.values()), ask), strict=True))
            decisions.add(
                [verdicts.get(index) for index in part],
                [content_of(records[index]) if index in records else None for index in part],
            )
            progress(len(part))
    kept = [
        (index, verdict.place, content or "")
        for index, verdict, content in zip(chosen, decisions.made, decisions.contents, strict=True)
        if verdict is not None and (_outcome(verdict) != "none" or when_none == KEEP_FIRST)
    ]
    with progress_bar("pack", len(kept)) as progress:
        packed = pack(_WithKeyObjects(source, kept, decisions.path.name), to, progress=progress)
    counts = Counter("bad" if verdict is None else _outcome(verdict) for verdict in decisions.made)
    asked = sum(verdict.asked for verdict in decisions.made if verdict is not None)
    return Verified(
        at_once=counts["at_once"],
        later=counts["later"],
        none=counts["none"],
        unknown=counts["unknown"],
        bad=counts["bad"],
        asked=asked,
        packed=packed,
    )


def _outcome(verdict: Verdict) -> str:
    if verdict.place is None:
        return "none" if verdict.asked else "unknown"
    return "at_once" if verdict.asked == 1 else "later"


def _usable(
    source: Source, places: Sequence[int], ask: Without, report: ListedReport | None
) -> dict[int, Record]:
    """The records that the model can be asked about; bad ones are told to the report, where there is one."""
    records = {}
    for place in places:
        try:
            record = source[place]
            ask.check(record)
        except DataError as error:
            if report is None:
                raise
            report.skipped(error)
        else:
            records[place] = record
    return records


def _identity(config: ConfigDict, model: Model) -> dict[str, Any]:
    """What decisions depend on."""
    said = plain(config)
    how = ("workers", "threads", "preflight", "length_multiple")
    said["data"] = {name: value for name, value in said["data"].items() if name not in how}
    parts = {"base": model.params, "adapter": model.adapter}
    return {
        "model": fingerprint(parts, model.config.to_dict()),
        "recipe": said["recipe"],
        "options": said["options"][config.recipe],
        **{section: said[section] for section in ("seed", "data", "world")},
        "max_new_tokens": config.evaluation.max_new_tokens,
    }


@dataclass(frozen=True)
class _WithKeyObjects:
    """Records of a source, told what their key object is.

    Attributes:
      source: the records.
      kept: (index there, place of the key object or None, content when that was decided) of each.
      decided_in: the file that says so.
    """

    source: Source
    kept: Sequence[tuple[int, int | None, str]]
    decided_in: str

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Record:
        place, key_object, content = self.kept[index]
        record = self.source[place]
        check_content(record, content, self.decided_in)
        return record if key_object is None else replace(record, key_object=key_object)
