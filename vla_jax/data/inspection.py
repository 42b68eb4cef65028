"""What is in a data set: counts, lengths, sizes of images, what is there twice, what cannot be used."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from vla_jax.data.rows import record_errors
from vla_jax.data.schema import DataError, Record, Source


@dataclass
class Inspection:
    """What was found in the records that were looked at.

    Attributes:
      looked_at: how many records that were.
      bad: those of them that cannot be used.
      lengths: text -> its number of words in each record that has it; texts are `question` and the roles.
      turns: number of turns, the answered ones before and after included -> records.
      images: number of images -> records.
      sizes: (height, width) of every image.
      objects: how many records name objects, give boxes, give masks.
      repeated_images: images that are the same to the byte as one before.
      empty_rows: rows of the file that hold no record, as those of VLFeedback without a pair.
    """

    looked_at: int = 0
    bad: list[DataError] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    turns: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)
    repeated_images: int = 0
    empty_rows: int = 0

    def add(self, record: Record) -> None:
        """Counts a record whose images can be read."""
        for name, text in {"question": record.question, **record.responses}.items():
            self.lengths.setdefault(name, []).append(len(text.split()))
        self.turns[1 + len(record.history) + len(record.further_turns)] += 1
        self.images[len(record.images)] += 1
        named = record.objects
        self.objects.update(
            kind
            for kind, there in (
                ("names", any(o.name for o in named)),
                ("boxes", any(o.box is not None for o in named)),
                ("masks", any(o.mask is not None for o in named)),
            )
            if there
        )

    @property
    def good(self) -> int:
        """Records that can be used."""
        return self.looked_at - len(self.bad)

    def table(self) -> str:
        """All of it as lines of text."""
        rows = [
            ("records", f"{self.good:,} good, {len(self.bad):,} bad, of {self.looked_at:,} looked at"),
            ("rows without any", f"{self.empty_rows:,}"),
            ("images a record", _counted(self.images)),
            ("turns a record", _counted(self.turns)),
            (
                "objects",
                ", ".join(f"{count:,} with {kind}" for kind, count in self.objects.items()) or "none",
            ),
            ("repeated images", f"{self.repeated_images:,}"),
        ]
        if self.sizes:
            heights, widths = zip(*self.sizes, strict=True)
            rows.append(
                (
                    "image sizes",
                    f"{min(widths)}x{min(heights)} to {max(widths)}x{max(heights)} (width x height)",
                )
            )
        rows += [(f"words of {name}", histogram(lengths)) for name, lengths in self.lengths.items()]
        widest = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{widest}}  {value}" for name, value in rows)


def inspect(
    source: Source,
    progress: Callable[[int], object] | None = None,
    seen: Callable[[Record], object] | None = None,
) -> Inspection:
    """Looks at every record of a source; images are decoded, since only that shows whether they are whole.

    Args:
      source: the records.
      progress: called with the number of records after each.
      seen: shown each good record.
    """
    found, before = Inspection(empty_rows=getattr(source, "empty_rows", 0)), set()
    for index in range(len(source)):
        found.looked_at += 1
        try:
            record = source[index]
            sizes, prints = [], []
            with record_errors(getattr(source, "name", "data"), record.key):
                for image in record.images:
                    image.pixels()
                    sizes.append(image.size)
                    prints.append(hashlib.sha256(image.encoded()).digest())
        except DataError as error:
            found.bad.append(error)
        else:
            found.add(record)
            found.sizes += sizes
            found.repeated_images += sum(each in before for each in prints)
            before.update(prints)
            if seen is not None:
                seen(record)
        if progress is not None:
            progress(1)
    return found


def histogram(values: list[int], bins: int = 24) -> str:
    """Least, median and greatest of some whole numbers, and a bar for each step between them."""
    low, high = min(values), max(values)
    width = max(1, -(-(high - low + 1) // bins))
    counts = [0] * ((high - low) // width + 1)
    for value in values:
        counts[(value - low) // width] += 1
    bars = " ▁▂▃▄▅▆▇█"
    drawn = "".join(bars[-(-count * (len(bars) - 1) // max(counts))] for count in counts)
    median = sorted(values)[len(values) // 2]
    return f"{low} {drawn} {high}, median {median}"


def _counted(counts: Counter[int]) -> str:
    return ", ".join(f"{value}: {count:,}" for value, count in sorted(counts.items())) or "none"
