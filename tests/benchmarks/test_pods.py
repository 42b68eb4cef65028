"""The pods' table: how its largest batch is found, and that configs and code still make the same programs."""

from dataclasses import replace
from importlib.util import find_spec

import jax
import pytest

from benchmarks.pods import PAGE, ROWS, finished, identity, kept, largest, page
from vla_jax.training.aot import Compiled

STEP = Compiled("v5e:2x4", 8, 8, 1, 40, 0, 0, 100, 1.0, 1, 1.0, "")


@pytest.mark.parametrize("first", [1, 3, 9])
@pytest.mark.parametrize("bytes_a_row, most", [(7, 8), (61, 0), (60, 1), (1, 60), (13, 4)])
def test_the_largest_batch_is_found_in_few_compilations(bytes_a_row, most, first):
    measured = []

    def measure(rows):
        measured.append(rows)
        return replace(STEP, temporaries=bytes_a_row * rows)

    assert largest(measure, first) == most
    assert most + 1 in measured and len(measured) <= 4


def test_a_bent_line_only_takes_longer():
    assert largest(lambda rows: replace(STEP, temporaries=rows**2 // 4 + 8 * (rows > 3))) == 14


def test_the_table_has_every_row_and_all_fit():
    found = finished()
    assert tuple(found) == ROWS
    for row, known in found.items():
        programs = {int(rows): Compiled(**step) for rows, step in known["programs"].items()}
        assert programs[known["largest"]].fits and not programs[known["largest"] + 1].fits, row


def test_the_page_shows_what_is_kept():
    assert PAGE.read_text() == page(finished())


@pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed (extra `pods`)")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file.stem)
def test_configs_and_code_still_make_the_programs_of_the_table(row):
    known = kept(row)
    if known["jax"] != jax.__version__:
        pytest.skip(f"the table was made with JAX {known['jax']}")
    now = identity(row, known["largest"])
    assert now == known["programs"][str(known["largest"])]["identity"], "stale: run `make pods`"
