"""Layouts with masks: ReasonSeg and MUSE."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.published_files import HEIGHT, PIXELS, WIDTH, all_of, as_json, image_folder, read
from vla_jax.data import CHOSEN, DataError
from vla_jax.data.formats import named
from vla_jax.data.published import Published


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def square(x0, y0, x1, y1):
    """The corners of a rectangle of pixels, the last ones included."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def test_reason_seg_paints_large_shapes_first_and_leaves_flags_out(folder):
    shapes = [
        {"label": "target", "points": square(4, 4, 6, 6), "shape_type": "polygon"},
        {"label": "target", "points": square(2, 2, 20, 12), "shape_type": "polygon"},
        {"label": "ignore", "points": square(3, 3, 10, 10), "shape_type": "polygon"},
        {"label": "flag", "points": square(0, 0, 29, 19), "shape_type": "polygon"},
    ]
    row = {"text": ["the thing that purrs", "what eats mice?"], "is_sentence": True, "shapes": shapes}
    place = folder / "images"
    (place / "a.json").write_text(json.dumps(row))
    (place / "b.json").write_bytes(
        json.dumps(row | {"text": ["caf\u00e9?"]}, ensure_ascii=False).encode("cp1252")
    )
    records = all_of(Published(place, named("reason_seg")))
    assert [record.question for record in records] == [
        "the thing that purrs",
        "what eats mice?",
        "caf\u00e9?",
    ]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:13, 2:21] = 1
    expected[3:11, 3:11] = 255
    expected[4:7, 4:7] = 1
    for record in records:
        target, ignored = record.objects
        np.testing.assert_array_equal(target.mask, expected == 1)
        np.testing.assert_array_equal(ignored.mask, expected == 255)
        np.testing.assert_array_equal(record.image, PIXELS)
    assert len({record.key for record in records}) == 3


def test_muse_points_at_masks_in_the_order_of_the_answer(folder):
    from pycocotools import mask as coco

    disc = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(disc).ellipse((5, 5, 15, 15), fill=1)
    runs = coco.encode(np.asfortranarray(np.asarray(disc), np.uint8))
    polygon = {"segmentation": [[2.0, 3.0, 10.0, 3.0, 10.0, 8.0, 2.0, 8.0]], "category_name": "box"}
    polygon |= {"bbox": [2.0, 3.0, 8.0, 5.0]}
    round_thing = {
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()},
        "category_name": "plate",
        "rephrased_name": "the round thing",
    }
    row = {
        "file_name": "a.png",
        "height": HEIGHT,
        "width": WIDTH,
        "ann_list": [polygon, round_thing],
        "questions": ["What do I eat from?", "Name both."],
        "answers": [[round_thing], [polygon, round_thing]],
        "text_answers": ["From {seg}.", "A box {seg} and {seg}."],
    }
    by_url = {key: value for key, value in row.items() if key != "file_name"}
    by_url["coco_url"] = "http://images.cocodataset.org/train2017/b.png"
    first, second, *others = all_of(read("muse", as_json(folder, [row, by_url]), folder))
    assert len(others) == 2 and first.responses == {CHOSEN: "From {seg}."}
    assert [o.name for o in second.objects] == ["box", "the round thing"]
    assert second.objects[0].box == (2.0, 3.0, 10.0, 8.0)
    np.testing.assert_array_equal(first.objects[0].mask, np.asarray(disc))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[3:8, 2:10] = True
    np.testing.assert_array_equal(second.objects[0].mask, expected)
    np.testing.assert_array_equal(others[1].image, PIXELS)


def test_muse_with_fewer_masks_than_places_is_refused(folder):
    row = {"file_name": "a.png", "height": 20, "width": 30, "questions": ["What?"], "answers": [[]]}
    with pytest.raises(DataError, match=r"has 1 \{seg\} in answer 0 for 0 masks"):
        read("muse", as_json(folder, [row | {"text_answers": ["It is {seg}."]}]), folder)[0]


TRIANGLE = [2.0, 3.0, 10.0, 3.0, 10.0, 8.0]


@pytest.mark.parametrize(
    "changed, problem",
    [
        ({"height": 10**12}, "says that its image is 1000000000000 x 30 pixels, and it is 20 x 30"),
        ({"width": None}, "says that its image is 20 x None pixels"),
        ({"segmentation": [TRIANGLE[:4]]}, "what is no polygon"),
        ({"segmentation": [TRIANGLE[:5]]}, "what is no polygon"),
        ({"segmentation": [[*TRIANGLE[:5], 1e12]]}, "what is no polygon"),
        ({"segmentation": [[*TRIANGLE[:5], float("nan")]]}, "what is no polygon"),
        ({"segmentation": []}, "what is no polygon"),
        ({"segmentation": "RLE"}, "no polygons or run lengths"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-5, 605]}}, "run lengths are not those"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [600, 5]}}, "run lengths are not those"),
        ({"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, r"mask of \[height, width\]"),
        ({"bbox": [0, 0, 10**400, 1]}, "'bbox' that is no"),
    ],
)
def test_muse_refuses_what_compiled_code_would_stumble_on(folder, changed, problem):
    row = {"file_name": "a.png", "height": HEIGHT, "width": WIDTH, "questions": ["What?"]}
    row |= {key: value for key, value in changed.items() if key in row or key == "width"}
    annotation = {"segmentation": [TRIANGLE], "category_name": "box"}
    annotation |= {key: value for key, value in changed.items() if key not in row}
    row |= {"answers": [[annotation]], "text_answers": ["{seg}"]}
    with pytest.raises(DataError, match=problem):
        read("muse", as_json(folder, [row]), folder)[0]
