"""Real files, broken at random: every record is read or named with its reason, and the counts add up."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.shared_data import shared
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, BatchPlan, DataError, Encoder, RecordReport, batches
from vla_jax.data.formats.preference_folder import format_with
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.published import Published

RECORDS = 6
ENCODER = Encoder(
    tiny_tokenizer(),
    ImageProcessor.square(24),
    4,
    (CHOSEN, REJECTED),
    max_prompt_length=200,
    max_completion_length=100,
)
# Places are drawn as shares of a file's length, so that they mean the same in any of them.
SHARE = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def photographs():
    """Lines of the preference file and the photographs they name."""
    folder = shared("photos")
    lines = (folder / "preference.jsonl").read_bytes().splitlines(keepends=True)[:RECORDS]
    return lines, [folder / json.loads(line)["image"] for line in lines]


def broken(content, places, end):
    """Some bytes exchanged, and what follows `end` cut off."""
    damaged = bytearray(content)
    for share, value in places:
        damaged[int(share * len(damaged))] = value
    return bytes(damaged[: int(np.ceil(end * len(damaged)))])


DAMAGE = st.tuples(
    st.lists(st.tuples(SHARE, st.integers(0, 255)), max_size=6),
    st.one_of(st.just(1.0), SHARE),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(in_text=DAMAGE, in_images=st.lists(DAMAGE, min_size=RECORDS, max_size=RECORDS))
def test_every_record_is_read_or_named(photographs, tmp_path, in_text, in_images):
    lines, images = photographs
    folder = tmp_path / "broken"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    for image, damage in zip(images, in_images, strict=True):
        (folder / "images" / image.name).write_bytes(broken(image.read_bytes(), *damage))
    (folder / "pairs.jsonl").write_bytes(broken(b"".join(lines), *in_text))
    try:
        source = Published(folder / "pairs.jsonl", format_with())
    except DataError as error:
        assert "there is no usable record in it" in error.problem
        return
    written = [line for line in (folder / "pairs.jsonl").read_bytes().split(b"\n") if line.strip(b" \t\r")]
    assert len(source) == len(written)

    report = RecordReport()
    plan = BatchPlan(len(source), 1, 0)
    made = list(batches(source, ENCODER, plan, stop=len(source), skip_bad_records=True, report=report))
    assert sum(float(batch.weights.sum()) for batch in made) + len(report.bad) == len(source)
    for name, error in report.bad.items():
        assert name.startswith(f"{folder / 'pairs.jsonl'}, line ") and error.problem and error.remedy
        assert "\n" not in str(error)
    if report.bad:
        with pytest.raises(DataError, match="pairs.jsonl, line "):
            list(batches(source, ENCODER, plan, stop=len(source)))
