"""What `construct inspect` says of a data set, line by line."""

import json

import numpy as np
from PIL import Image

from vla_jax.data.formats import named
from vla_jax.data.inspection import histogram, inspect
from vla_jax.data.published import Published


def said(table):
    """Heading -> value."""
    lines = (line.split("  ", 1) for line in table.splitlines())
    return {heading: value.strip() for heading, value in lines}


def test_the_table_counts_lengths_sizes_and_what_is_there_twice(tmp_path):
    for number, (height, width) in enumerate([(20, 30), (40, 10)]):
        Image.fromarray(np.full((height, width, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    rows = [
        {"prompt": "one two", "chosen": "a", "rejected": "a b", "images": ["0.png"]},
        {"prompt": "one two three", "chosen": "a b c", "rejected": "a", "images": ["0.png"]},
        {"prompt": "one", "chosen": "a b c", "rejected": "a", "images": ["1.png", "0.png"]},
        {"prompt": "one", "chosen": "a b c", "rejected": "a", "images": []},
        {"prompt": "one", "chosen": "a b c", "rejected": "a", "images": ["none.png"]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = said(inspect(Published(tmp_path / "rows.jsonl", named("trl"), tmp_path)).table())
    assert table["records"] == "4 good, 1 bad, of 5 looked at"
    assert table["images a record"] == "0: 1, 1: 2, 2: 1"
    assert table["repeated images"] == "2"
    assert table["image sizes"] == "10x20 to 30x40 (width x height)"
    assert table["words of question"] == "1 █▄▄ 3, median 2"
    assert table["words of chosen"] == "1 ▃ █ 3, median 3"
    assert table["words of rejected"] == "1 █▃ 2, median 1"


def test_a_histogram_has_a_bar_for_each_step_and_the_fullest_is_full():
    assert histogram([7]) == "7 █ 7, median 7"
    drawn = histogram([0] * 8 + [5] * 4 + [9], bins=10)
    assert drawn == "0 █    ▄   ▁ 9, median 0"
    # Wider steps where there are more values than bars.
    assert histogram(list(range(100)), bins=4) == "0 ████ 99, median 50"
