"""The table's figures, the place where it writes them, and that it goes on where it was stopped."""

import json
from pathlib import Path

import pytest

from benchmarks import world_table
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


# --- the campaign ------------------------------------------------------------------------------------


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Runs the campaign in an empty place; training is a note of what was trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"{_BEGIN}old\n{_END}")
    trained = []

    def run(*arguments, stop_after=None):
        def start(command, check):
            folder = Path(next(part for part in command if part.startswith("--workdir=")).partition("=")[2])
            if (folder / "summary.json").is_file():
                return
            if stop_after is not None and len(trained) >= stop_after:
                raise KeyboardInterrupt
            trained.append((folder.name, command))
            folder.mkdir(parents=True)
            summary = {
                when: {**scores(len(trained)), "n": 500, "pope_n": 3000} for when in ("before", "after")
            }
            (folder / "summary.json").write_text(json.dumps({**summary, "steps": 200, "batch_size": 32}))

        monkeypatch.setattr(world_table.subprocess, "run", start)
        monkeypatch.setattr(
            world_table, "verified_pairs", lambda config, seed, runs, settings: runs / "pairs"
        )
        monkeypatch.setattr("sys.argv", ["world_table", *arguments])
        world_table.main()

    return run, trained, tmp_path


def test_a_campaign_that_was_stopped_goes_on_with_the_rest(campaign):
    run, trained, place = campaign
    arms = (*world_table.ARMS, *world_table.ABLATIONS)
    with pytest.raises(KeyboardInterrupt):
        run("--seeds=0,1", stop_after=len(arms) + 3)
    seeds = [name[-1] for name, _ in trained]
    assert seeds == ["0"] * len(arms) + ["1"] * 3  # one seed after the other
    run("--seeds=0,1", "--finished")
    page = (place / "docs/world_table.md").read_text()
    # Of every arm it says how many seeds it stands on: the base's is lpoi's.
    assert page.count("| 2 |\n") == 3 + 2 and page.count("| 1 |\n") > 3
    assert (place / "README.md").read_text() == f"{_BEGIN}old\n{_END}"

    run("--seeds=0,1")
    assert len(trained) == len({name for name, _ in trained}) == 2 * len(arms)
    assert "| 1 |\n" not in (place / "docs/world_table.md").read_text().partition("| lpoi, seed")[0]


def test_the_readme_is_written_by_a_whole_campaign_as_it_comes(campaign):
    run, trained, place = campaign
    run()
    assert len(trained) == 3 * len((*world_table.ARMS, *world_table.ABLATIONS))
    table = (place / "README.md").read_text()
    assert "| adavip |" in table and "old" not in table


def test_an_arm_with_verified_key_objects_trains_on_packed_pairs_and_is_measured_on_the_world(campaign):
    run, trained, _ = campaign
    run("--seeds=0")
    (command,) = (command for name, command in trained if name == "lpoi-key_object_verified-seed0")
    flags = dict(part.removeprefix("--config.").partition("=")[::2] for part in command[3:])
    assert flags["data.source"] == "packed" and flags["data.path"] == "runs/table/pairs"
    assert flags["evaluation.world"] == "True"
