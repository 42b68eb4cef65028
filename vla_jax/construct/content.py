"""What a record holds, as a short hash: what was found out about one says nothing of another at its place."""

import hashlib
import json
from dataclasses import asdict

from vla_jax.data import Record


def content_of(record: Record) -> str:
    """A hash of a record's images, question, turns, responses and objects' boxes."""
    said = {
        "question": record.question,
        "system": record.system,
        "turns": [asdict(turn) for turn in (*record.history, *record.further_turns)],
        "responses": dict(record.responses),
        "objects": [[each.name, each.box] for each in record.objects],
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for image in record.images:
        digest.update(image.encoded())
    return digest.hexdigest()[:16]


def check_content(record: Record, expected: str, kept_in: str) -> None:
    """Refuses a record that has changed since something was found out about it.

    Raises:
      ValueError: names the record and the file that says otherwise.
    """
    if content_of(record) != expected:
        raise ValueError(
            f"{record.key} has changed since {kept_in} was written; remove that file, and what it says is "
            "found out anew"
        )
