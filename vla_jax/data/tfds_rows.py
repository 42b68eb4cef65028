"""Rows of data sets that TFDS prepared. Importing this takes seconds: whoever opens such a set does it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vla_jax.data.rows import Row, Rows
from vla_jax.data.schema import DataError

# A split may hold a colon of its own: train[:100].
_NAME = re.compile(r"tfds:(?P<set>[^:]+)(:(?P<version>[\d*]+\.[\d*]+\.[\d*]+))?(:(?P<split>.+))?")


class TfdsRows(Rows):
    """A data set that TFDS prepared as array_record; embedded images are left encoded.

    Args:
      name: `tfds:NAME[:VERSION][:SPLIT]`, NAME being a folder of a prepared data set or what TFDS calls it.
        The split is `train` where none is named.

    Raises:
      DataError: where the name is none, or the set lies in files without random access.
    """

    def __init__(self, name: str):
        found = _NAME.fullmatch(name)
        if found is None:
            raise DataError(name, "data.path", "names no data set", "write tfds:NAME[:VERSION][:SPLIT]")
        data_set, version, split = found["set"], found["version"], found["split"] or "train"
        builder = (
            tfds.builder_from_directory(data_set)
            if (Path(data_set) / "dataset_info.json").is_file()
            else tfds.builder(f"{data_set}:{version}" if version else data_set)
        )
        self._features = builder.info.features
        try:
            self._rows = builder.as_data_source(split, decoders=_decoders(self._features))
        except NotImplementedError:
            raise DataError(
                name,
                "whole data set",
                f"lies in files without random access ({builder.info.file_format.value})",
                "prepare it with file_format='array_record'",
            ) from None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return _plain(self._rows[int(index)], self._features)


class _LeftEncoded(tfds.decode.SkipDecoding):
    """Leaves images the bytes they are, in sequences too, which TFDS itself does not offer for arrays."""

    def decode_batch_example_np(self, serialized_image: Any) -> Any:
        """The images of a sequence."""
        return serialized_image


def _decoders(feature: Any) -> Any:
    """What TFDS is to decode otherwise than it would, nested as the features are; None where nothing."""
    if isinstance(feature, tfds.features.Image):
        return _LeftEncoded()
    if type(feature) is tfds.features.Sequence:
        return _decoders(feature.feature)
    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: decoder for key, each in feature.items() if (decoder := _decoders(each))} or None
    return None


def _plain(value: Any, feature: Any) -> Any:
    """What TFDS gives, as JSON would have it: text for bytes that are text, lists for arrays but images."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: _plain(each, feature[key]) for key, each in value.items()}
    if type(feature) is tfds.features.Sequence:
        return [_plain(_element(value, i), feature.feature) for i in range(_length(value))]
    if isinstance(value, bytes) and not isinstance(feature, tfds.features.Image):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not (value.dtype == np.uint8 and value.ndim == 3):
        return value.tolist()
    return value


def _length(columns: Any) -> int:
    """Of a sequence: TFDS gives one of dicts as a dict of sequences."""
    return _length(next(iter(columns.values()))) if isinstance(columns, Mapping) else len(columns)


def _element(columns: Any, index: int) -> Any:
    if isinstance(columns, Mapping):
        return {key: _element(column, index) for key, column in columns.items()}
    return columns[index]
