"""Writes records as a TFDS data set in array_record: one file with random access, images left encoded.

TFDS writes it without TensorFlow; `data.source=packed` reads it back.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vla_jax.data.formats.packed import row_of
from vla_jax.data.rows import record_errors
from vla_jax.data.schema import DataError, Record, Source


def pack(
    source: Source,
    to: Path,
    skipped: Callable[[DataError], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Packs every record of a source, each image decoded once to see that it is whole.

    Args:
      source: the records.
      to: the folder; it appears whole or not at all.
      skipped: told of each record that cannot be used, which is then left out; by default it is an error.
      progress: called with the number of records after each.

    Returns:
      How many records were packed.

    Raises:
      DataError: at a bad record, unless they are skipped, and where none is good.
      FileExistsError: where `to` exists.
      OSError: where it cannot be written.
    """
    if to.exists():
        raise FileExistsError(f"{to} exists; remove it or choose another folder")
    partial = to.with_name(f".{to.name}.{os.getpid()}")
    packed, name = 0, getattr(source, "name", "data")

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        nonlocal packed
        for index in range(len(source)):
            try:
                row = row_of(_whole(source[index], name))
            except DataError as error:
                if skipped is None:
                    raise
                skipped(error)
            else:
                yield packed, {**row, "record": json.dumps(row["record"])}
                packed += 1
            if progress is not None:
                progress(1)
        if not packed:
            raise DataError(name, "every record", "none can be used", "see what was skipped")

    try:
        os.replace(_write(rows(), partial), to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return packed


def _whole(record: Record, source: str) -> Record:
    with record_errors(source, record.key):
        for image in record.images:
            image.pixels()
    return record


def _write(rows: Iterator[tuple[int, dict[str, Any]]], folder: Path) -> Path:
    """Has TFDS write the rows somewhere below a folder, and says where."""
    # Takes a third of a second, and only packing needs it.
    import tensorflow_datasets as tfds

    # Unregistered: a process may pack twice. TFDS has no types, so that mypy sees an `object` here.
    class VlaJaxRecords(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """Records of vla_jax: see `vla_jax.data.formats.packed`."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = None

        def _info(self) -> Any:
            # Images as the bytes they came in: TFDS would encode them again.
            features = {
                "key": tfds.features.Text(),
                "images": tfds.features.Sequence(tfds.features.Text()),
                "record": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {"train": rows}

        def _generate_examples(self) -> Any:
            raise NotImplementedError("the rows are given")

    tfds.disable_progress_bar()
    builder = VlaJaxRecords(data_dir=folder, file_format="array_record")
    # It announces a download, of which there is none.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return Path(builder.data_path)
