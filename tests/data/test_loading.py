"""Loading: the same bytes from any start, with any number of threads, processes and hosts."""

import subprocess
import sys

import numpy as np
import pytest

from tests.published_files import as_jsonl, image_folder, read
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, BatchPlan, DataError, Encoder, RecordReport, batches
from vla_jax.data.batches import collate
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.lengths import measure
from vla_jax.data.loading import Reader
from vla_jax.data.mixture import Mixture
from vla_jax.data.plan import Part
from vla_jax.data.record_report import TooManyBadRecordsError

STEPS = 9
ENCODER = Encoder(
    tiny_tokenizer(),
    ImageProcessor.square(24),
    4,
    (CHOSEN, REJECTED),
    max_prompt_length=60,
    max_completion_length=24,
    length_multiple=8,
)


def rows(count, word="What", **changed):
    return [
        {
            "img_path": "a.png",
            "prompt": f"{word} is {i}?",
            "chosen": f"A {i}." * (1 + i % 3),
            "rejected": "No.",
        }
        | changed
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Two files, 7 and 4 records, the second at three quarters of the places."""
    folders = [image_folder(tmp_path_factory.mktemp(name)) for name in ("one", "two")]
    files = [
        read("mdpo", as_jsonl(folder, rows(size, word)), folder)
        for folder, size, word in zip(folders, (7, 4), ("What", "Who"), strict=True)
    ]
    return Mixture(files, [1, 3])


def plan_of(source, batch_size=4):
    reader = Reader(source, ENCODER)
    lengths = measure(reader, np.arange(len(source)), RecordReport(), skip=False)
    return BatchPlan(len(source), batch_size, seed=3, mixture=source.parts, lengths=lengths)


def load(source, **options):
    return list(batches(source, ENCODER, plan_of(source), **{"stop": STEPS, **options}))


def content(batch):
    return [None if column is None else (column.dtype, column.shape, column.tobytes()) for column in batch]


@pytest.fixture(scope="module")
def expected(mixture):
    """Every batch, made here one record after the other."""
    plan = plan_of(mixture)
    made = [[ENCODER.encode(mixture[int(i)], "m") for i in plan.indices(step)] for step in range(STEPS)]
    return [content(collate(encoded, ENCODER)) for encoded in made]


@pytest.mark.parametrize(
    "workers, threads, start",
    [(0, 1, 0), (0, 1, 5), (0, 3, 0), (0, 3, 5), (1, 1, 5), (2, 2, 0), (3, 1, 5), (4, 1, 0), (4, 1, 5)],
)
def test_batches_are_the_same_bytes_whoever_makes_them(mixture, expected, workers, threads, start):
    """Stopped at any batch and gone on with, also with another number of workers: the state is the step."""
    made = load(mixture, start=start, workers=workers, threads=threads)
    assert [content(batch) for batch in made] == expected[start:]


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 5])
def test_hosts_read_their_rows_of_the_same_batches(mixture, expected, parts, start):
    """What begins on two hosts may go on with one or four: no record is seen twice, none is lost."""
    assert len({shape for batch in expected for _, shape, _ in batch[3:5]}) > 2
    rows = np.array_split(np.random.default_rng(0).permutation(4), parts)
    shares = [load(mixture, start=start, part=np.sort(each)) for each in rows]
    order = np.argsort(np.concatenate([np.sort(each) for each in rows]))
    for step, whole in enumerate(expected[start:]):
        columns = zip(*(share[step] for share in shares), strict=True)
        joined = [None if column[0] is None else np.concatenate(column)[order] for column in columns]
        assert [None if c is None else (c.dtype, c.shape, c.tobytes()) for c in joined] == whole


# --- bad records -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_bad(tmp_path_factory):
    """Six records, of which two are bad."""
    folder = image_folder(tmp_path_factory.mktemp("bad"))
    (folder / "images" / "broken.png").write_bytes(b"<html>404</html>")
    lines = rows(6)
    lines[1]["img_path"], lines[4]["rejected"] = "broken.png", " "
    return read("mdpo", as_jsonl(folder, lines), folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_bad_record_is_named_across_processes(with_bad, workers):
    with pytest.raises(DataError, match=r"rows.jsonl, line (2: names an image that cannot|5: has an empty)"):
        list(batches(with_bad, ENCODER, BatchPlan(6, 6, 0), stop=1, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_records_are_counted_and_the_counts_add_up(with_bad, workers):
    report = RecordReport()
    plan = BatchPlan(6, 3, 0)
    made = list(
        batches(with_bad, ENCODER, plan, stop=4, skip_bad_records=True, report=report, workers=workers)
    )
    assert {error.record for error in report.bad.values()} == {"line 2", "line 5"}
    assert len(report.box_origins) + len(report.bad) == len(with_bad)
    for step, batch in enumerate(made):
        np.testing.assert_array_equal(batch.weights == 0, np.isin(plan.indices(step), [1, 4]))


@pytest.mark.parametrize("workers", [0, 2])
def test_one_bad_record_too_many_stops_the_loader(with_bad, workers):
    loader = batches(
        with_bad,
        ENCODER,
        BatchPlan(6, 1, 0),
        stop=6,
        skip_bad_records=True,
        report=RecordReport(1),
        workers=workers,
    )
    with pytest.raises(
        TooManyBadRecordsError, match="with it 2 records are bad, and 1 may be; .*max_bad_frac"
    ):
        list(loader)


# --- mixtures ----------------------------------------------------------------------------------------


def test_a_mixtures_records_are_known_by_their_files(mixture):
    assert len(mixture) == 11 and mixture.parts == (Part(7, 1), Part(4, 3))
    assert [mixture[i].question for i in (0, 6, 7, 10)] == [
        "What is 0?",
        "What is 6?",
        "Who is 0?",
        "Who is 3?",
    ]
    assert len({mixture[i].key for i in range(11)}) == 11
    with pytest.raises(IndexError, match="there is no record 11"):
        mixture[11]


def test_a_file_may_not_be_mixed_with_itself(tmp_path):
    folder = image_folder(tmp_path)
    source = read("mdpo", as_jsonl(folder, rows(2)), folder)
    with pytest.raises(ValueError, match="names a file twice"):
        Mixture([source, source], [1, 1])


# --- without flags -----------------------------------------------------------------------------------

SCRIPT = """
from tests.data.test_loading import ENCODER
from vla_jax.data import BatchPlan, batches
from vla_jax.data.world import PreferenceWorld, WorldConfig

def main():
    source = PreferenceWorld(WorldConfig(image_size=32), 8)
    for workers in (0, 2):
        made = list(batches(source, ENCODER, BatchPlan(8, 2, 0), stop=4, workers=workers))
        print(len(made), sum(int(batch.prefix_tokens.sum()) for batch in made))

if __name__ == "__main__":
    main()
"""


def test_a_plain_script_needs_to_parse_no_flags(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {"PYTHONPATH": ".", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second and first.startswith("4 ")
