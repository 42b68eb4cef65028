"""The source that a configuration names."""

import json

import numpy as np
import pytest
from PIL import Image

from vla_jax.data import CHOSEN, REJECTED, DataError, Object
from vla_jax.data.mixture import Mixture
from vla_jax.data.published import Published
from vla_jax.data.sources import SOURCES, corpus, open_evaluation, open_source
from vla_jax.data.world import EvaluationWorld, PreferenceWorld, SupervisedWorld, WorldConfig

WORLD = WorldConfig(image_size=32)


def section(**changed):
    """A configuration's `data` section."""
    defaults = {
        "source": "world_preference",
        "path": "",
        "images": "",
        "mixture": (),
        "box_format": "xyxy_pixels",
        "on_bad_record": "error",
        "size": 20,
        "flip_labels": False,
    }
    return defaults | changed


@pytest.fixture
def file(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    line = {"image": "a.png", "question": "Zebra?", "chosen": "A quokka.", "rejected": "A zebra."}
    line["boxes"] = {"zebra": [1, 2, 3, 4]}
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(line)}\n{{broken\n")
    return tmp_path / "pairs.jsonl"


@pytest.mark.smoke
@pytest.mark.parametrize(
    "name, kind, roles",
    [
        ("world_supervised", SupervisedWorld, {CHOSEN}),
        ("world_preference", PreferenceWorld, {CHOSEN, REJECTED}),
    ],
)
def test_the_worlds_are_opened_by_name(name, kind, roles):
    source = open_source(section(source=name), WORLD)
    assert isinstance(source, kind) and len(source) == 20 and name in SOURCES
    assert set(source[0].responses) == roles and source[0].image.shape == (32, 32, 3)


def test_flipped_labels_swap_answers_of_the_same_scenes():
    plain, flipped = (open_source(section(flip_labels=flip), WORLD) for flip in (False, True))
    swapped = [
        (plain[i].responses[CHOSEN], plain[i].responses[REJECTED])
        == (flipped[i].responses[REJECTED], flipped[i].responses[CHOSEN])
        for i in range(20)
    ]
    assert 0 < sum(swapped) < 20
    np.testing.assert_array_equal(plain[0].image, flipped[0].image)


def test_a_file_is_opened_with_its_box_format(file):
    data = section(source="preference_folder", path=str(file), box_format="xywh_pixels")
    source = open_source(data, WORLD)
    assert isinstance(source, Published) and len(source) == 2
    assert source[0].objects == (Object("zebra", (1.0, 2.0, 4.0, 6.0)),)
    with pytest.raises(DataError, match="line 2"):
        source[1]


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"data.source is 'coco'; choose one of {', '.join(SOURCES)}"):
        open_source(section(source="coco"), WORLD)


def test_an_unknown_way_with_bad_records_is_refused():
    with pytest.raises(ValueError, match="data.on_bad_record is 'ignore'; choose one of error, skip"):
        open_source(section(on_bad_record="ignore"), WORLD)


def test_evaluation_is_on_held_out_scenes_or_on_the_users_own_file(file):
    held_out = open_evaluation(section(), WORLD, 7)
    assert isinstance(held_out, EvaluationWorld) and len(held_out) == 7
    own = open_evaluation(
        section(source="preference_folder", path=str(file), box_format="xywh_pixels"), WORLD, 7
    )
    assert isinstance(own, Published)
    scenes = open_evaluation(section(source="packed", path="/nowhere"), WORLD, 7, of_world=True)
    assert isinstance(scenes, EvaluationWorld) and len(scenes) == 7


def test_a_tokenizer_is_trained_on_the_world_and_on_the_file(file):
    world = list(corpus(section(), WORLD))
    assert len(world) > 500
    both = list(corpus(section(source="preference_folder", path=str(file), box_format="xywh_pixels"), WORLD))
    assert both == [*world, "Zebra?", "A quokka.", "A zebra."]


# --- mixtures ----------------------------------------------------------------------------------------


def test_a_mixture_of_files_has_their_records_and_weights(file):
    other = file.with_name("other.jsonl")
    other.write_text(file.read_text())
    parts = (
        {"source": "preference_folder", "path": str(file), "box_format": "xywh_pixels"},
        {"source": "trl", "path": str(other), "weight": 5},
    )
    source = open_source(section(source="mixture", mixture=parts), WORLD)
    assert isinstance(source, Mixture) and len(source) == 4
    assert [part.weight for part in source.parts] == [2.0, 5.0]
    assert source[0].responses[CHOSEN] == "A quokka." and source.object_names() == {"zebra"}


@pytest.mark.parametrize(
    "parts, problem",
    [
        ((), "data.mixture is empty"),
        (({"source": "trl"},), "a part that is no file"),
        (({"source": "world_tags", "path": "a"},), "a part that is no file"),
        (({"source": "trl", "path": "a", "share": 3},), "a part with 'share'"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(parts, problem):
    with pytest.raises(ValueError, match=problem):
        open_source(section(source="mixture", mixture=parts), WORLD)
