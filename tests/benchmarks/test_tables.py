"""What campaigns write: tables, and pages whose findings are people's."""

from benchmarks.tables import markdown, mean_and_spread, write_page


def test_a_table_has_a_rule_under_its_heads():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_spread_is_the_sample_standard_deviation_and_one_value_has_none():
    assert mean_and_spread([1.0, 2.0, 4.5]) == "2.5 ± 1.8"
    assert mean_and_spread([3.0]) == "3.0"


def test_a_page_is_written_anew_but_for_its_findings(tmp_path):
    page = tmp_path / "page.md"
    write_page(page, "# Old")
    assert page.read_text() == "# Old\n\n## Findings\n"
    page.write_text(page.read_text() + "\n- What somebody saw.\n")
    write_page(page, "# New")
    assert page.read_text() == "# New\n\n## Findings\n\n- What somebody saw.\n"
