"""What a run will read, said before its first step: tokens, what will be cut, images that lack or repeat."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from vla_jax.data.encoding import Encoded, Encoder
from vla_jax.data.loading import Reader
from vla_jax.data.record_report import RecordReport
from vla_jax.data.schema import CHOSEN, REJECTED


@dataclass
class Preflight:
    """What was found in the records that were encoded.

    Attributes:
      records: how many training may read.
      prompts: tokens of each prompt, its images' included.
      images: tokens of each prompt's images.
      responses: tokens of each response before it is cut, by role.
      without_image: records without an image.
      repeated_images: records whose images look to the model like those of a record before.
      alike: records whose chosen and rejected responses are the same once they are cut; their texts teach
        nothing.
      empty_rows: rows of the files that hold no record, as those of VLFeedback without a pair.
    """

    records: int
    prompts: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    responses: dict[str, list[int]] = field(default_factory=dict)
    without_image: int = 0
    repeated_images: int = 0
    alike: int = 0
    empty_rows: int = 0
    _prints: set[bytes] = field(default_factory=set, repr=False)

    def saw(self, encoded: Encoded, roles: Sequence[str]) -> None:
        """Counts a record."""
        self.prompts.append(len(encoded.prefix))
        self.images.append(encoded.image_tokens)
        for role, length in zip(roles, encoded.lengths, strict=True):
            self.responses.setdefault(role, []).append(length)
        cut = dict(zip(roles, encoded.responses, strict=True))
        self.alike += {CHOSEN, REJECTED} <= cut.keys() and np.array_equal(cut[CHOSEN], cut[REJECTED])
        if not encoded.image_tokens:
            self.without_image += 1
            return
        fingerprint = hashlib.blake2b(encoded.image.tobytes(), digest_size=16).digest()
        self.repeated_images += fingerprint in self._prints
        self._prints.add(fingerprint)

    def table(self, encoder: Encoder, bad: int) -> str:
        """All of it as lines of text.

        Args:
          encoder: what encoded them; its limits stand beside the lengths.
          bad: how many records could not be used.
        """
        looked_at = len(self.prompts) + bad
        rows = [
            ("records", f"{self.records:,}, of which {looked_at:,} were read; {bad:,} bad"),
            ("rows without any", f"{self.empty_rows:,}"),
            ("prompt tokens", f"{_spread(self.prompts)}, limit {encoder.max_prompt_length}"),
            ("of images", _spread(self.images)),
        ]
        limit = encoder.max_completion_length
        for role, lengths in self.responses.items():
            cut = sum(length > limit for length in lengths)
            rows.append((f"{role} tokens", f"{_spread(lengths)}, limit {limit}, {cut:,} cut"))
        if {CHOSEN, REJECTED} <= self.responses.keys():
            rows.append(("alike once cut", f"{self.alike:,}, chosen and rejected"))
        rows += [
            ("without image", f"{self.without_image:,}"),
            ("repeated image", f"{self.repeated_images:,}"),
        ]
        widest = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name:<{widest}}  {value}" for name, value in rows)


def preflight(
    reader: Reader, records: Int[np.ndarray, " n"], report: RecordReport, skip: bool, most: int
) -> Preflight:
    """Reads records whole, as training will, with a progress bar where there are many.

    Args:
      reader: reads them.
      records: indices of those that training may read.
      report: filled along the way.
      skip: whether bad records are skipped.
      most: how many to read, evenly spread; 0 reads all.

    Raises:
      DataError: at a bad record, unless they are skipped, and at one too many.
    """
    found = Preflight(len(records), empty_rows=getattr(reader.source, "empty_rows", 0))
    indices = sample(records, most)
    every = 0.1 if sys.stderr.isatty() else 10
    # Of a few, a bar would only flicker.
    with tqdm(indices, "preflight", unit="record", mininterval=every, leave=False, delay=1) as bar:
        for index in bar:
            if (encoded := reader.read(index, report, skip)) is not None:
                found.saw(encoded, reader.encoder.responses)
    return found


def sample(records: Int[np.ndarray, " n"], most: int) -> list[int]:
    """At most so many of the records, evenly spread from the first to the last; 0 gives all."""
    if not most or most >= len(records):
        return records.tolist()
    return records[np.linspace(0, len(records) - 1, most).astype(int)].tolist()


def _spread(lengths: Sequence[int]) -> str:
    ordered = sorted(lengths)
    return f"{ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}"
