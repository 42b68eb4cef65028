"""Which records of a file are trained on: a function of yours says so."""

import importlib
import sys
from collections.abc import Callable

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from vla_jax.data.rows import reason
from vla_jax.data.schema import DataError, Record, Source


def filter_named(path: str) -> Callable[[Record], bool]:
    """The function at `module:function`, looked for where you stand too.

    Raises:
      ValueError: where there is none.
    """
    module, _, name = path.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"data.filter is {path!r}, which cannot be found ({reason(error)}); give module:function, of a "
            "module that can be imported from here"
        ) from None
    return function


def passing(
    source: Source, keep: Callable[[Record], bool], name: str, where: str = "data"
) -> Int[np.ndarray, " m"]:
    """The records that a function keeps, ascending; every one is read, no image is decoded.

    A bad record passes: where it is read for training it is named, or skipped and counted.

    Args:
      source: the records.
      keep: says of a record whether it is trained on; every process, and every start of a run, must hear the
        same.
      name: what an error calls it.
      where: what an error calls the source.

    Raises:
      DataError: where the function raises; names the record.
    """
    kept = []
    for index in tqdm(range(len(source)), desc="data.filter", unit="record", mininterval=1, leave=False):
        try:
            record = source[index]
        except DataError:
            kept.append(index)
            continue
        try:
            stays = keep(record)
        except Exception as error:
            raise DataError(
                where, record.key, f"makes {name} fail ({reason(error)})", "correct the function"
            ) from error
        if stays:
            kept.append(index)
    return np.array(kept, np.int64)
