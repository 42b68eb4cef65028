"""The report: needs nothing but itself, escapes all it shows, marks exactly what CHAIR counts."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_jax.evaluation import Vocabulary
from vla_jax.report import GalleryItem, ViewStrip, heat_over, write_report
from vla_jax.report.curves import charts
from vla_jax.report.marking import mark
from vla_jax.report.measures import measures

VOCABULARY = Vocabulary.from_names(["dog", "cat", "kite", "dining table"])
IMAGE = np.full((48, 48, 3), 200, np.uint8)
ITEM = GalleryItem(IMAGE, ("dog",), "What is there?", "A dog, a kite and two cats.", "A dog.")
STRIP = ViewStrip(np.stack([IMAGE, IMAGE]), ("original", "masked"), "A dog.")
SUMMARY = {
    "recipe": "dpo",
    "seed": 3,
    "seconds": 3720.0,
    "command": "python -m vla_jax.train --config=configs/world.py",
    "before": {"chair_s": 40.0, "recall": 90.0, "pope_yes_ratio": 70.0, "n": 200, "pope_n": 600},
    "after": {"chair_s": 25.5, "recall": 88.0, "pope_yes_ratio": 55.0, "n": 200, "pope_n": 600},
}
METRICS = [{"step": step, "loss": 1 / (1 + step), "rewards/chosen": 0.1 * step} for step in range(20)]


@pytest.fixture
def page(tmp_path):
    """Writes a report with some of its parts replaced, and returns its text."""

    def write(**parts) -> str:
        path = tmp_path / "run" / "report.html"
        defaults = dict(title="A run", summary=SUMMARY, metrics=METRICS, gallery=[ITEM], views=[STRIP])
        write_report(path, vocabulary=VOCABULARY, **{**defaults, "config_text": "seed = 3", **parts})
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]
        return path.read_text(encoding="utf-8")

    return write


class Elements(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def marks(page: str, kind: str) -> list[str]:
    """Marked words inside answers (the legend above the gallery has no title)."""
    return re.findall(rf'<mark class="{kind}" title="[^"]*">([^<]*)', page)


def test_page_needs_nothing_but_itself(page):
    elements = Elements(page()).found
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in elements}
    links = [
        attributes[key]
        for _, attributes in elements
        for key in ("src", "href", "xlink:href")
        if key in attributes
    ]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "url(http" not in page() and "@import" not in page()


def test_page_shows_what_was_run(page):
    text = page()
    for shown in ("A run", "dpo", "1 h 02 min", "--config=configs/world.py", "40.0", "25.5", "seed = 3"):
        assert shown in text


def test_same_input_gives_the_same_page(page):
    assert page() == page()


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> a <b>kite</b> \" ' &"


def test_what_others_wrote_is_escaped(page):
    text = page(
        title=HOSTILE,
        summary={"recipe": HOSTILE, "command": HOSTILE, HOSTILE: HOSTILE},
        gallery=[GalleryItem(IMAGE, ("dog",), HOSTILE, HOSTILE, HOSTILE)],
        views=[ViewStrip(IMAGE[None], (HOSTILE,), HOSTILE)],
        config_text=HOSTILE,
    )
    elements = Elements(text).found
    assert not {"script", "b"} & {tag for tag, _ in elements}
    assert not any("onerror" in attributes for _, attributes in elements)
    assert "&lt;script&gt;" in text


def test_half_a_surrogate_pair_is_shown_not_fatal(page):
    assert r"\ud83d" in page(config_text="\ud83d")


def test_marks_exactly_the_hallucinated_words(page):
    text = page()
    assert marks(text, "absent") == ["kite", "cats"]
    assert marks(text, "present") == ["dog", "dog"]
    assert "absent mentions: 2 of 3" in text
    assert text.count("(not in the image)") == 2


def test_segments_carry_the_truth_of_each_mention():
    assert mark("Dogs at a dining table!", ["dog"], VOCABULARY) == (
        ("Dogs", "present"),
        (" at a ", "unmarked"),
        ("dining table", "absent"),
        ("!", "unmarked"),
    )


@given(st.lists(st.sampled_from(["dog", "cats", "a", "dining", "table", "<kite>", "\n", "é"])), st.text())
def test_segments_join_to_the_answer(words, noise):
    answer = " ".join([*words, noise])
    assert "".join(segment.text for segment in mark(answer, ["dog"], VOCABULARY)) == answer


@pytest.mark.parametrize("summary", [{}, {"before": None}, {"before": {}, "after": {"n": 3}}])
def test_without_figures_there_is_no_table(page, summary):
    assert "<table" not in page(summary=summary, metrics=[], gallery=[], views=[])


def test_one_side_alone_is_shown_without_a_change():
    (row,) = measures({"after": {"chair_i": 4.0, "n": 10}})
    assert (row.name, row.before, row.after, row.change, row.verdict) == ("CHAIR_i", None, 4.0, None, "")


def test_verdicts_follow_the_direction_of_each_measure():
    verdicts = {row.name: row.verdict for row in measures(SUMMARY)}
    assert verdicts == {"CHAIR_s": "better", "Recall": "worse", "POPE yes-ratio": ""}


def test_pope_splits_stand_beside_the_whole():
    split = {"pope": {"adversarial": {"f1": 80.0, "n": 50}}}
    (row,) = measures({"before": {"pope": {}}, "after": split})
    assert (row.name, row.after, row.n_after) == ("POPE adversarial, F1", 80.0, 50)


def test_a_figure_that_is_not_finite_is_not_shown_as_one(page):
    text = page(summary={"before": {"chair_s": math.nan}, "after": {"chair_s": 10.0}})
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower()


def test_curves_count_what_they_cannot_draw():
    rows = [{"step": step, "loss": [1.0, math.nan, math.inf, None][step % 4]} for step in range(100)]
    (chart,) = charts(rows)
    assert chart.note == "75 of 100 values are not finite"
    assert chart.svg.startswith("<svg")


def test_curves_of_nothing_but_nan_or_of_one_row():
    assert charts([]) == ()
    assert len(charts([{"step": 0, "loss": math.nan}])) == 1
    assert charts([{"step": 0, "loss": 1.0}])[0].note == ""


def test_curves_take_rows_that_log_different_keys():
    titles = [chart.title for chart in charts([{"step": 0, "loss": 1.0}, {"step": 0, "grad_norm": 1.0}])]
    assert titles == ["Loss", "Gradient norm"]


def test_a_map_shows_the_image_in_grey_where_it_is_0_and_the_brightest_colour_where_it_is_large():
    """Inferno runs from (0, 0, 4) to (252, 255, 164): three quarters of it, over 0.35 of the image's mean."""
    image, values = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20))
    image[0], image[1, 0] = 255, (30, 60, 90)
    values[10:], values[0, 0], values[0, 1] = 2.0, 2.0, 1e6
    drawn = heat_over(image, values).astype(int)
    assert drawn.shape == image.shape
    for place, colour in {
        (5, 5): (0, 0, 3),
        (0, 5): (89, 89, 92),
        (1, 0): (21, 21, 24),
        (15, 5): (189, 191, 123),
        (0, 0): (255, 255, 212),
        (0, 1): (255, 255, 212),  # one outlier does not leave the rest black
    }.items():
        np.testing.assert_allclose(drawn[place], colour, atol=1, err_msg=str(place))


def test_a_map_of_nothing_is_the_image_in_grey():
    drawn = heat_over(np.full((4, 4, 3), 200, np.uint8), np.zeros((4, 4)))
    np.testing.assert_allclose(drawn, np.broadcast_to([70, 70, 73], drawn.shape), atol=1)


def test_photographs_are_shrunk_and_drawings_stay_crisp(page):
    photograph = np.zeros((900, 1200, 3), np.uint8)
    text = page(gallery=[GalleryItem(photograph, (), "?", "", "")], views=[])
    assert 'class="crisp"' not in text
    assert 'class="crisp"' in page()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"views": [ViewStrip(IMAGE[None], ("one", "two"), "")]}, "1 views but 2 captions"),
        ({"views": [ViewStrip(IMAGE[None] / 255, ("one",), "")]}, "uint8 .*not float64"),
        ({"gallery": [GalleryItem(IMAGE, ("unicorn",), "", "", "")]}, "'unicorn' is not among"),
    ],
)
def test_errors_say_what_is_wrong_and_leave_no_file(page, tmp_path, parts, message):
    with pytest.raises(ValueError, match=message):
        page(**parts)
    assert not list(tmp_path.rglob("*.html"))
