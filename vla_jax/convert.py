"""Takes LLaVAs in from Hugging Face folders or the hub, and gives them back.

python -m vla_jax.convert import --from=llava-hf/llava-1.5-7b-hf --to=models/llava15
python -m vla_jax.convert import --from=models/llava15_hf --adapter=adapters/mine --to=models/mine
python -m vla_jax.convert export --from=runs/lpoi --to=llava15-lpoi --merge_adapter
python -m vla_jax.convert export --from=runs/lpoi --to=llava15-lpoi-adapter --adapter_only
"""

import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
from absl import app, flags
from tqdm import tqdm

from vla_jax.command_line import parse_flags
from vla_jax.interop import export_adapter, export_model, find, import_model, load_model, peft, save_model
from vla_jax.interop.folders import refuse_existing
from vla_jax.models import llava
from vla_jax.parallel import make_mesh

_COMMANDS = ("import", "export")


def import_checkpoint(
    source: str, to: Path, dtype: str = "", adapter: str = "", allow_other_base: bool = False
) -> None:
    """Makes a model folder of a Hugging Face checkpoint, and of a PEFT adapter for it.

    Args:
      source: folder or hub id; an adapter's, then its base model is found by the name it gives.
      to: the model folder; must not exist.
      dtype: of the parameters; "" keeps them as they are stored.
      adapter: folder or hub id of a PEFT adapter.
      allow_other_base: take an adapter that names another base model.

    Raises:
      ValueError: where something in the checkpoint is damaged, does not fit or is not supported.
      OSError: where `to` exists, or there is no room.
    """
    refuse_existing(to)
    folder = find(source)
    if peft.is_adapter(folder):
        if adapter:
            raise ValueError(f"--from={source} is an adapter itself; give its base model there")
        adapter, source = source, peft.base_of(folder)
        if not source:
            raise ValueError(
                f"{adapter} names no base model; give it with --from, and this one with --adapter"
            )
        print(f"{adapter} is an adapter of {source}")
        folder = find(source)
    adapter_folder = find(adapter) if adapter else None
    if adapter_folder is not None and not allow_other_base:
        _refuse_other_base(adapter, peft.base_of(adapter_folder), source)
    start = time.perf_counter()
    with _progress("read") as bar:
        model = import_model(folder, _name(source), make_mesh(data=1, fsdp=-1), dtype or None, bar)
    if adapter_folder is not None:
        factors, lora = peft.read_adapter(adapter_folder, llava.table(model.config))
        model = replace(model, adapter=factors, lora=lora)
    with _progress("write") as bar:
        save_model(to, model, bar, replace=False)
    leaves = jax.tree.leaves(model.params)
    size, largest = sum(leaf.nbytes for leaf in leaves), max(leaf.nbytes for leaf in leaves)
    print(
        f"{to}: {sum(leaf.size for leaf in leaves):,} parameters"
        + (f", an adapter of rank {model.lora.rank}" if model.lora else "")
        + f", {size / 1e9:.2f} GB (largest array {largest / 1e9:.2f} GB) in "
        f"{time.perf_counter() - start:.0f} s; {_peak_memory()}"
    )


def export_checkpoint(
    source: Path,
    to: Path,
    merge_adapter: bool = False,
    adapter_only: bool = False,
    base_only: bool = False,
) -> None:
    """Makes a Hugging Face folder, or one of PEFT, of a model folder.

    Args:
      source: a model folder, or the workdir of a finished run.
      to: the folder; must not exist.
      merge_adapter: add the adapter to the weights.
      adapter_only: write the adapter alone.
      base_only: leave the adapter out.

    Raises:
      ValueError: where the model cannot be read, or has an adapter and it is not said what becomes of it.
      OSError: where `to` exists, or there is no room.
    """
    refuse_existing(to)
    said = {"merge_adapter": merge_adapter, "adapter_only": adapter_only, "base_only": base_only}
    wanted = [f"--{flag}" for flag, is_set in said.items() if is_set]
    if len(wanted) > 1:
        raise ValueError(f"{' and '.join(wanted)} exclude each other")
    start = time.perf_counter()
    model = load_model(source)
    if model.adapter is None and wanted:
        raise ValueError(f"{source} has no adapter; leave out {wanted[0]}")
    if model.adapter is not None and not wanted:
        choices = ", ".join(f"--{flag}" for flag in said)
        raise ValueError(f"{source} has an adapter; say what becomes of it: {choices}")
    if adapter_only:
        export_adapter(to, model)
        if not model.origin:
            print(f"note: {to} names no base model, since it was made here; export that with --base_only")
    else:
        with _progress("write") as bar:
            export_model(to, replace(model, adapter=None) if base_only else model, progress=bar)
    print(f"{to}: written in {time.perf_counter() - start:.0f} s; {_peak_memory()}")


def _name(source: str) -> str:
    """A hub id as it is, also from its snapshot in the hub's cache; a folder by its whole path."""
    path = Path(source).expanduser()
    if not path.exists():
        return source
    path = path.resolve()
    if path.parent.name == "snapshots" and (found := path.parent.parent.name).startswith("models--"):
        return "/".join(found.split("--")[1:])
    return str(path)


def _refuse_other_base(adapter: str, named: str, given: str) -> None:
    """Of two folders that are here the paths are compared, else the last parts of the names."""
    named, given = _name(named), _name(given)
    if Path(named).exists() and Path(given).exists():
        same = named == given
    else:
        same = Path(named).name == Path(given).name
    if named and not same:
        raise ValueError(
            f"{adapter} is an adapter for another base: it names {named}, not {given}; "
            "pass --allow_other_base if the weights are the same"
        )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], object]]:
    every = 0.1 if sys.stderr.isatty() else 10
    with tqdm(desc=what, unit="B", unit_scale=True, dynamic_ncols=True, mininterval=every) as bar:
        yield bar.update


def _peak_memory() -> str:
    # In kilobytes on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak host memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB"


def main(argv: list[str]) -> None:
    """Command line."""
    command = argv[1] if len(argv) == 2 else None
    if command not in _COMMANDS:
        sys.exit(f"error: say what to do: python -m vla_jax.convert {'|'.join(_COMMANDS)} --from=… --to=…")
    idle = (
        ("merge_adapter", "adapter_only") if command == "import" else ("dtype", "adapter", "allow_other_base")
    )
    if wrong := [name for name in idle if flags.FLAGS[name].present]:
        sys.exit(f"error: --{wrong[0]} says nothing to {command}")
    source, to = _FROM.value or "", Path(_TO.value or "")
    # Ended by a scheduler or with its terminal, it cleans up as when it is ended by hand.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    try:
        if command == "import":
            import_checkpoint(source, to, _DTYPE.value, _ADAPTER.value, _ALLOW_OTHER_BASE.value)
        else:
            adapter = _MERGE_ADAPTER.value, _ADAPTER_ONLY.value, _BASE_ONLY.value
            export_checkpoint(Path(source), to, *adapter)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"error: stopped; nothing was left at {to}")


if __name__ == "__main__":
    _FROM = flags.DEFINE_string("from", None, "What is converted: a folder, or (import) a hub id.")
    _TO = flags.DEFINE_string("to", None, "The folder to write; must not exist.")
    _DTYPE = flags.DEFINE_enum(
        "dtype",
        "",
        ["", "float32", "bfloat16", "float16"],
        "import: of the parameters; as stored by default.",
    )
    _ADAPTER = flags.DEFINE_string("adapter", "", "import: a PEFT adapter for it, a folder or a hub id.")
    _ALLOW_OTHER_BASE = flags.DEFINE_boolean(
        "allow_other_base", False, "import: take an adapter that names another base model."
    )
    _MERGE_ADAPTER = flags.DEFINE_boolean("merge_adapter", False, "export: add the adapter to the weights.")
    _ADAPTER_ONLY = flags.DEFINE_boolean("adapter_only", False, "export: write the adapter alone, for PEFT.")
    _BASE_ONLY = flags.DEFINE_boolean("base_only", False, "export: leave the adapter out.")
    flags.mark_flags_as_required(["from", "to"])
    app.run(main, flags_parser=parse_flags)
