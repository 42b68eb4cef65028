"""Packing with verified key objects: what the model is shown, what becomes of a record, going on."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.construct import key_objects
from vla_jax.construct.decisions import Decisions
from vla_jax.construct.key_objects import KEEP_FIRST, pack_verified
from vla_jax.construct.without import Without
from vla_jax.data import CHOSEN, Object, Record
from vla_jax.data.formats import named
from vla_jax.data.images import Pixels
from vla_jax.data.published import Published
from vla_jax.rollout.verifying import Verdict
from vla_jax.training.configuration import default_config

MODEL = tiny_model(vision={"image_size": 36})


def config_of(recipe="lpoi", size=12):
    config = default_config()
    config.recipe = recipe
    config.data.source, config.data.size = "world_preference", size
    config.evaluation.max_new_tokens, config.evaluation.batch_size = 3, 4
    return config


class Replies:
    """A verifier that says what a rule makes of each record, and whom nobody has to load."""

    def __init__(self, rule):
        self.rule, self.asked = rule, 0

    def check(self, record):
        pass

    def __call__(self, records):
        self.asked += len(records)
        return [self.rule(record) for record in records]


def verified_by(monkeypatch, rule):
    replies = Replies(rule)
    monkeypatch.setattr(key_objects, "Without", lambda config, model: replies)
    return replies


def packed(folder):
    back = Published(folder, named("packed"))
    return [back[i] for i in range(len(back))]


def second_only(record):
    """Gives the right answer unless the second object in the order of the record is hidden."""
    return "Nothing." if record.key_object == 1 else record.responses[CHOSEN]


def test_a_record_is_packed_with_the_object_that_passed_and_left_out_where_none_did(tmp_path, monkeypatch):
    verified_by(monkeypatch, second_only)
    found = pack_verified(config_of(), MODEL, tmp_path / "packed")
    passed = Counter(record.key_object for record in packed(tmp_path / "packed"))
    assert passed == Counter({1: found.at_once + found.later, None: found.unknown}) and passed[1] > 0
    assert found.at_once + found.later + found.none + found.unknown == 12 and found.bad == 0
    assert found.later > 0 and found.packed == 12 - found.none
    nobody = verified_by(monkeypatch, lambda record: record.responses[CHOSEN])
    kept = pack_verified(config_of(), MODEL, tmp_path / "kept", KEEP_FIRST)
    assert kept.none == 12 - kept.unknown and kept.packed == 12 and kept.asked == nobody.asked
    assert {record.key_object for record in packed(tmp_path / "kept")} == {None}


def test_a_run_that_was_stopped_asks_only_about_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(key_objects, "_TOGETHER", 4)
    whole = verified_by(monkeypatch, second_only)
    expected = pack_verified(config_of(), MODEL, tmp_path / "whole")
    lines = (tmp_path / "whole.key_objects.jsonl").read_text().splitlines(keepends=True)
    # Killed in the middle of the sixth record's line.
    (tmp_path / "part.key_objects.jsonl").write_text("".join(lines[:6]) + lines[6][:2])
    rest = verified_by(monkeypatch, second_only)
    assert pack_verified(config_of(), MODEL, tmp_path / "part") == expected
    assert 0 < rest.asked < whole.asked
    assert (tmp_path / "part.key_objects.jsonl").read_text() == "".join(lines)
    for ours, theirs in zip(packed(tmp_path / "part"), packed(tmp_path / "whole"), strict=True):
        assert (ours.key, ours.key_object) == (theirs.key, theirs.key_object)


def test_what_was_decided_about_a_record_is_not_said_of_another_in_its_place(tmp_path, monkeypatch):
    verified_by(monkeypatch, second_only)
    pack_verified(config_of(), MODEL, tmp_path / "packed")
    lines = (tmp_path / "packed.key_objects.jsonl").read_text().splitlines()
    exchanged = [lines[0], *reversed(lines[1:])]
    (tmp_path / "other.key_objects.jsonl").write_text("".join(f"{line}\n" for line in exchanged))
    with pytest.raises(ValueError, match=r"has changed since other.key_objects.jsonl was written; remove"):
        pack_verified(config_of(), MODEL, tmp_path / "other")


def test_how_data_is_read_may_change_and_what_would_be_ignored_is_refused(tmp_path, monkeypatch):
    verified_by(monkeypatch, second_only)
    found = pack_verified(config_of(), MODEL, tmp_path / "packed")
    (tmp_path / "packed.key_objects.jsonl").rename(tmp_path / "again.key_objects.jsonl")
    config = config_of()
    config.data.threads = 2
    assert pack_verified(config, MODEL, tmp_path / "again") == found
    config.data.path = "nowhere"
    with pytest.raises(ValueError, match="data.path is set"):
        pack_verified(config, MODEL, tmp_path / "more")


def test_what_was_decided_for_other_data_is_refused(tmp_path, monkeypatch):
    verified_by(monkeypatch, second_only)
    pack_verified(config_of(), MODEL, tmp_path / "packed")
    (tmp_path / "packed.key_objects.jsonl").rename(tmp_path / "other.key_objects.jsonl")
    with pytest.raises(ValueError, match="decided by another model, or for other data"):
        pack_verified(config_of(size=13), MODEL, tmp_path / "other")
    with pytest.raises(FileExistsError, match="exists; remove it"):
        pack_verified(config_of(), MODEL, tmp_path / "packed")


def test_decisions_come_back_as_they_were_made(tmp_path):
    made = [Verdict(2, 1), None, Verdict(None, 3)]
    Decisions(tmp_path / "a.jsonl", {"model": 1}).add(made, ["f0", None, "f2"])
    again = Decisions(tmp_path / "a.jsonl", {"model": 1})
    assert again.made == made and again.contents == ["f0", None, "f2"]
    again.add([Verdict(0, 1)], ["f3"])
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1]) == [[0, 1], "f3"]


# --- what the model is shown -------------------------------------------------------------------------


def about(place, *boxes):
    image = Pixels(np.full((36, 36, 3), 200, np.uint8))
    objects = tuple(Object("cat", box) for box in boxes)
    return Record("key", (image,), "What?", {CHOSEN: "A cat."}, objects=objects, key_object=place)


def test_the_model_sees_the_last_view_of_the_object_in_question(monkeypatch):
    ask, shown = Without(config_of(), MODEL), []

    def answer(images, questions, max_new_tokens):
        shown.extend(images)
        return ["A cat."] * len(images)

    monkeypatch.setattr(type(ask._asked), "answer", lambda self, *given, **limits: answer(*given, **limits))
    boxes = (0.0, 0.0, 8.0, 12.0), (20.0, 20.0, 36.0, 30.0)
    outside = replace(about(0, boxes[0]), objects=(Object("cat", (36.0, 3.0, 36.0, 9.0)),))
    replies = ask([about(0, *boxes), outside, *[about(1, *boxes)] * 4])
    assert replies == ["A cat.", None, *["A cat."] * 4]
    for image, (x0, y0, x1, y1) in zip(shown, (boxes[0], *[boxes[1]] * 4), strict=True):
        hidden = np.zeros((36, 36), bool)
        hidden[int(y0) : int(y1), int(x0) : int(x1)] = True
        # Black, or the red of the outline.
        assert not image[hidden][:, 1:].any() and (image[~hidden] == 200).all()


@pytest.mark.smoke
def test_a_real_model_is_asked():
    boxes = (0.0, 0.0, 8.0, 12.0), (20.0, 20.0, 36.0, 30.0)
    replies = Without(config_of(), MODEL)([about(0, *boxes)])
    assert len(replies) == 1 and isinstance(replies[0], str)


def test_a_recipe_that_hides_no_key_object_and_a_verifier_with_tiles_are_refused():
    for recipe in ("dpo", "mdpo", "povid"):
        with pytest.raises(ValueError, match=f"'{recipe}' hides no key object; take one of adavip, lpoi"):
            Without(config_of(recipe), MODEL)
    tiled = replace(MODEL, config=replace(MODEL.config, anyres=True))
    with pytest.raises(ValueError, match="the verifier reads images in tiles"):
        Without(config_of(), tiled)
