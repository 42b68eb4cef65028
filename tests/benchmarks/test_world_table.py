"""The table's figures and the place where it writes them."""

import pytest

from benchmarks.world_table import _BEGIN, _END, _HEADINGS, seed_table, spread_table, write_between_marks


def scores(value: float) -> dict[str, float]:
    return dict.fromkeys(_HEADINGS, value)


def test_spread_is_the_sample_standard_deviation_over_seeds():
    heads, rule, row = spread_table({"dpo": [scores(1.0), scores(2.0), scores(4.5)]}).splitlines()
    assert heads.startswith("| recipe | CHAIR_s |") and set(rule) <= set("|- ")
    assert row == "| dpo |" + " 2.5 ± 1.8 |" * len(_HEADINGS) + " 3 |"


def test_one_seed_has_no_spread():
    assert "| dpo | 3.0 | 3.0 |" in spread_table({"dpo": [scores(3.0)]})


def test_every_seed_shows_before_and_after():
    table = seed_table({2: {"before": scores(90.0), "after": scores(41.26)}})
    assert table.splitlines()[-1] == "| 2 | 90.0 -> 41.3 | 90.0 -> 41.3 | 90.0 -> 41.3 |"


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"head\n{_BEGIN}old\n{_END}\ntail\n")
    for text in ("new", "newer"):
        write_between_marks(page, text)
        assert page.read_text() == f"head\n{_BEGIN}{text}\n{_END}\ntail\n"


@pytest.mark.parametrize("text", ["nothing", _BEGIN + "no end", "no beginning " + _END])
def test_a_page_without_both_marks_is_refused_and_kept(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="between them"):
        write_between_marks(page, "new")
    assert page.read_text() == text
