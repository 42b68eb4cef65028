"""Opens whatever kind of file a data set was published in."""

from pathlib import Path

from vla_jax.data.arrow_rows import ArrowRows
from vla_jax.data.json_rows import JsonBesideImages, JsonLines, JsonList, holds_lines
from vla_jax.data.rows import Rows, reason
from vla_jax.data.schema import DataError


def open_rows(path: str | Path) -> Rows:
    """The rows of a file or folder, told apart by what is there.

    `.jsonl` and `.json` (a list of objects, or an object a line), `.parquet` (a file, a folder of shards, or
    those of a folder that a pattern like `train*.parquet` names), a folder that `datasets` saved, a folder
    with a JSON file beside each image, and `tfds:NAME[:VERSION][:SPLIT]`, a data set that TFDS prepared as
    array_record.

    Raises:
      DataError: where there is none of these, or it cannot be opened.
    """
    try:
        return _opened(path)
    except DataError:
        raise
    except Exception as error:
        # Each library has errors of its own for files that are broken, and few name the file.
        raise DataError(
            str(path),
            "whole file",
            f"cannot be opened ({reason(error)})",
            "fetch it again, or correct the path",
        ) from error


def _opened(path: str | Path) -> Rows:
    where = str(path)
    if where.startswith("tfds:"):
        return _tfds_rows(where)
    path = Path(path)
    if path.is_dir():
        return _in_folder(path)
    if "*" in path.name and (shards := sorted(path.parent.glob(path.name))):
        return ArrowRows(path, shards)
    if not path.is_file():
        raise DataError(where, "data.path", "there is no such file", "give the path of the published file")
    match path.suffix.lower():
        case ".parquet":
            return ArrowRows(path, [path])
        case ".json":
            return JsonLines(path) if holds_lines(path) else JsonList(path)
        case _:
            return JsonLines(path)


def _in_folder(path: Path) -> Rows:
    if (path / "state.json").is_file():
        return ArrowRows(path)
    if (path / "dataset_dict.json").is_file():
        splits = sorted(file.parent.name for file in path.glob("*/state.json"))
        raise DataError(
            str(path),
            "whole folder",
            f"holds several splits: {', '.join(splits) or 'none that is whole'}",
            f"give the folder of one split, as in {path / (splits or ['train'])[0]}",
        )
    if shards := sorted(path.rglob("*.parquet")):
        return ArrowRows(path, shards)
    if (path / "dataset_info.json").is_file():
        return _tfds_rows(f"tfds:{path}")
    if any(path.glob("*.json")):
        return JsonBesideImages(path)
    raise DataError(
        str(path),
        "whole folder",
        "holds no parquet shards, no data set saved by `datasets` or TFDS, no JSON beside images",
        "give the file itself, or the folder that holds one of these",
    )


def _tfds_rows(name: str) -> Rows:
    # Takes seconds, and most runs read JSON.
    from vla_jax.data.tfds_rows import TfdsRows

    return TfdsRows(name)
