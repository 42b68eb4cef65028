"""Sets that a model makes: whole, gone on with, refused, and read back with how they were made."""

import json
from dataclasses import replace

import jax
import pytest

from tests.small_models import tiny_model
from vla_jax.construct import responses
from vla_jax.construct.journal import Journal
from vla_jax.data import CHOSEN, REJECTED
from vla_jax.data.formats import named
from vla_jax.data.published import Published
from vla_jax.models import llava, parameters
from vla_jax.training.configuration import default_config
from vla_jax.training.one_pass import Answered

MODEL = tiny_model(vision={"image_size": 36})


def config_of(**changes):
    config = default_config()
    config.data.source, config.data.size = "world_preference", 6
    config.data.max_completion_length = 24
    config.train.batch_size = 4
    config.options.bdhs.threshold, config.options.bdhs.tries = 0.5, 2
    config.options.bdhs.sentence_tokens = 4
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(autouse=True)
def of_a_tiny_model(monkeypatch):
    monkeypatch.setattr(responses, "base_model", lambda config: MODEL)


def packed(folder):
    back = Published(folder, named("packed"))
    return [back[i] for i in range(len(back))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A set, its journal as it was when packing broke off, and what was said of it."""
    folder = tmp_path_factory.mktemp("whole")

    def full(*arguments, **more):
        raise OSError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "base_model", lambda config: MODEL)
        with patch.context() as broken, pytest.raises(OSError, match="no space"):
            broken.setattr(responses, "pack", full)
            responses.construct(config_of(), "bdhs", folder / "set")
        journal = (folder / "set.making/made.jsonl").read_text()
        said = responses.construct(config_of(), "bdhs", folder / "set")
    return folder / "set", journal, said


@pytest.mark.smoke
def test_every_record_comes_back_with_its_corrupted_answer_and_how_it_was_made(whole):
    folder, _, said = whole
    assert said.endswith("6 records; nothing was made of 0 others, 0 of them bad")
    records = packed(folder)
    assert len(records) == 6
    for record in records:
        assert set(record.responses) >= {CHOSEN, REJECTED, "corrupted"} and record.responses["corrupted"]
        made = record.provenance["corrupted"]
        assert made["recipe"] == "bdhs" and made["threshold"] == 0.5 and made["seed"] == 0
        assert 0 <= made["visible_image_tokens"] < made["image_tokens"] == 9
        assert made["tries"] in (1, 2) and made["guided"] == bool(made["cuts"])
        assert made["similarity_by"].startswith("lexical (stand-in")
        # What lies before the first cut is the chosen answer's.
        if made["guided"] and not made["cuts"][0][2]:
            ids = MODEL.tokenizer(record.responses[CHOSEN], add_special_tokens=False)["input_ids"]
            kept = MODEL.tokenizer.decode(ids[: made["cuts"][0][1]]).strip()
            assert kept and record.responses["corrupted"].startswith(kept)


def test_what_was_stopped_goes_on_to_the_same_set(whole, tmp_path, monkeypatch):
    folder, journal, _ = whole
    asked = []
    one_pass = responses.one_pass
    monkeypatch.setattr(
        responses, "one_pass", lambda run, todo, where: asked.extend(todo) or one_pass(run, todo, where)
    )
    lines = journal.splitlines(keepends=True)
    (tmp_path / "set.making").mkdir()
    # Killed in the middle of the fifth record's line.
    (tmp_path / "set.making/made.jsonl").write_text("".join(lines[:5]) + lines[5][:9])
    responses.construct(config_of(), "bdhs", tmp_path / "set")
    assert len(asked) == 2 and not (tmp_path / "set.making").exists()
    for ours, theirs in zip(packed(tmp_path / "set"), packed(folder), strict=True):
        assert (ours.key, ours.responses, ours.provenance) == (
            theirs.key,
            theirs.responses,
            theirs.provenance,
        )


def test_what_was_made_of_a_record_is_not_given_to_another_in_its_place(whole, tmp_path):
    _, journal, _ = whole
    begun, *rows = map(json.loads, journal.splitlines())
    indices = [row["index"] for row in rows]
    shifted = [{**row, "index": index} for row, index in zip(rows, indices[1:] + indices[:1], strict=True)]
    (tmp_path / "set.making").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in (begun, *shifted))
    (tmp_path / "set.making/made.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"has changed since made.jsonl was written; remove that file"):
        responses.construct(config_of(), "bdhs", tmp_path / "set")


def test_another_model_or_seed_does_not_go_on_with_it(whole, tmp_path):
    folder, journal, _ = whole
    (tmp_path / "set.making").mkdir()
    (tmp_path / "set.making/made.jsonl").write_text(journal)
    with pytest.raises(ValueError, match="begun with another model, other data or other options"):
        responses.construct(config_of(seed=1), "bdhs", tmp_path / "set")
    with pytest.raises(FileExistsError, match="exists; remove it"):
        responses.construct(config_of(), "bdhs", folder)


def test_what_is_made_can_stand_for_the_rejected_answer(whole, tmp_path):
    _, journal, _ = whole
    (tmp_path / "set.making").mkdir()
    (tmp_path / "set.making/made.jsonl").write_text(journal)
    responses.construct(config_of(), "bdhs", tmp_path / "set", as_rejected=True)
    made = {
        row["index"]: row["responses"]["corrupted"]
        for row in map(json.loads, journal.splitlines())
        if "index" in row
    }
    for record in packed(tmp_path / "set"):
        assert record.responses[REJECTED] in made.values() and "corrupted" not in record.responses
        assert REJECTED in record.provenance and REJECTED not in record.spans


def test_the_best_and_the_worst_answer_stand_for_the_pair_of_the_data(tmp_path, monkeypatch):
    table = llava.table(replace(MODEL.config, reward_head=True))
    head = parameters.initialise({"reward": table["reward"]}, jax.random.key(3))
    judge = replace(MODEL, config=replace(MODEL.config, reward_head=True), params={**MODEL.params, **head})
    monkeypatch.setattr(responses, "made_model", lambda config, wanted: judge)
    config = default_config()
    config.data.source, config.data.size, config.rewards.model = "world_preference", 4, "judge"
    config.data.max_completion_length, config.train.batch_size = 6, 4
    with pytest.raises(ValueError, match="best_of_n makes chosen, rejected; leave --as_rejected out"):
        responses.construct(config, "best_of_n", tmp_path / "set", as_rejected=True)
    responses.construct(config, "best_of_n", tmp_path / "set")
    for record in packed(tmp_path / "set"):
        assert len(set(record.provenance[CHOSEN]["rewards"])) > 1 and not record.spans
        assert record.responses[CHOSEN] != record.responses[REJECTED]


def test_a_record_of_which_nothing_was_made_is_left_out(tmp_path):
    journal = Journal(tmp_path / "made.jsonl", {"seed": 0})
    made = {4: Answered({"corrupted": "A dog."}, {"tries": 1}), 2: Answered({}, {})}
    journal.add(made, {4: "f4", 2: ""})
    again = Journal(tmp_path / "made.jsonl", {"seed": 0})
    assert again.made == journal.made and again.contents == {4: "f4", 2: ""}
    source = [f"record {i}" for i in range(5)]
    assert len(responses.WithResponses(source, again)) == 1
