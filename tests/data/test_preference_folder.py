"""The JSON-lines reader: every accepted form of a record, and one line of advice for every malformed one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.shared_data import shared
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, DataError, Encoder, Object
from vla_jax.data.formats.preference_folder import BOX_FORMATS, format_with
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.key_object import NAMED
from vla_jax.data.published import Published
from vla_jax.data.schema import decoded

WIDTH, HEIGHT = 40, 20
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
LINE = {"image": "images/a.png", "question": "What is it?", "chosen": "A cat.", "rejected": "A dog."}
CAT, DOG = (2.0, 4.0, 20.0, 10.0), (10.0, 0.0, 40.0, 20.0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "images" / "a.png")
    return tmp_path


def write(folder: Path, *lines) -> Path:
    """A JSON-lines file; dicts are dumped, bytes are written as they are."""
    path = folder / "pairs.jsonl"
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + b"\n")
    return path


def read(folder: Path, *lines, **options):
    return Published(write(folder, *lines), format_with(**options))


def only(folder: Path, line, **options):
    return read(folder, line, **options)[0]


def without(*fields, **changed):
    return {k: v for k, v in LINE.items() if k not in fields} | changed


# --- what is accepted --------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_line_becomes_a_record(folder):
    record = only(folder, LINE)
    assert (record.key, record.question) == ("line 1", "What is it?")
    assert record.responses == {CHOSEN: "A cat.", REJECTED: "A dog."}
    assert record.objects == () and record.further_turns == ()
    np.testing.assert_array_equal(record.image, PIXELS)


def test_records_keep_their_line_numbers_over_blank_lines(folder):
    source = read(folder, LINE, b"", b"  ", without(chosen="Two."))
    assert [source[i].key for i in range(len(source))] == ["line 1", "line 4"]


@pytest.mark.parametrize(
    "fields",
    [
        without("image", images=["images/a.png"]),
        without(image=["images/a.png"]),
        without("question", prompt="<image>\nWhat is it?"),
        without("question", prompt="What is it? <image>"),
    ],
    ids=["images", "image as a list", "prompt, image first", "prompt, image last"],
)
def test_other_names_of_image_and_question(folder, fields):
    record = only(folder, fields)
    assert record.question == "What is it?" and record.image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "mode, kind", [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png")]
)
def test_images_of_any_mode_become_rgb(folder, mode, kind):
    Image.fromarray(PIXELS).convert(mode).save(folder / "images" / f"b.{kind}")
    image = only(folder, without(image=f"images/b.{kind}")).image
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_line_ends_of_both_worlds_are_read(folder, newline):
    path = folder / "pairs.jsonl"
    path.write_bytes(newline.join([json.dumps(LINE).encode()] * 3))
    assert len(Published(path, format_with())) == 3


def test_a_byte_order_mark_is_no_part_of_the_first_line(folder):
    assert len(read(folder, b"\xef\xbb\xbf" + json.dumps(LINE).encode(), LINE)) == 2


def test_unicode_is_kept(folder):
    line = without(chosen="Eine Kätzin 猫.\u2028Ja.")
    record = only(folder, json.dumps(line, ensure_ascii=False).encode())
    assert record.responses[CHOSEN] == "Eine Kätzin 猫.\u2028Ja."


cat_box, dog_box = list(map(int, CAT)), list(map(int, DOG))


@pytest.mark.parametrize(
    "fields, objects",
    [
        ({}, []),
        ({"objects": ["cat"]}, [("cat", None)]),
        ({"boxes": None, "objects": None}, []),
        ({"boxes": [cat_box, dog_box]}, [("", CAT), ("", DOG)]),
        ({"boxes": [cat_box, dog_box], "objects": ["cat", "dog"]}, [("cat", CAT), ("dog", DOG)]),
        ({"boxes": [cat_box], "objects": ["cat", "dog"]}, [("", CAT), ("cat", None), ("dog", None)]),
        ({"boxes": [{"box": cat_box, "name": "cat"}]}, [("cat", CAT)]),
        ({"boxes": [{"bbox": cat_box, "category": "cat"}]}, [("cat", CAT)]),
        ({"boxes": [{"bbox": cat_box, "label": "cat"}]}, [("cat", CAT)]),
        ({"boxes": [{"box": cat_box, "object": "cat"}]}, [("cat", CAT)]),
        ({"boxes": [{"box": cat_box}]}, [("", CAT)]),
        ({"boxes": [{"box": cat_box, "name": "cat"}, dog_box]}, [("cat", CAT), ("", DOG)]),
        ({"boxes": {"cat": cat_box, "dog": dog_box}}, [("cat", CAT), ("dog", DOG)]),
        ({"boxes": {"cat": [cat_box, dog_box]}}, [("cat", CAT), ("cat", DOG)]),
        ({"boxes": {"cat": cat_box}, "objects": ["cat", "dog"]}, [("cat", CAT), ("dog", None)]),
    ],
)
def test_every_form_of_boxes(folder, fields, objects):
    assert only(folder, LINE | fields).objects == tuple(Object(name, box) for name, box in objects)


# --- masks -------------------------------------------------------------------------------------------

RING, CORNER = np.zeros((2, HEIGHT, WIDTH), bool)
RING[4:12, 6:20] = True
RING[6:10, 10:14] = False
CORNER[15:, 33:] = True
CORNER[15:18, 33:37] = False


def compressed(mask):
    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}


def counted(mask):
    """Lengths of the runs down the columns, beginning with what is not the object."""
    edges = np.flatnonzero(np.diff([0, *mask.ravel(order="F"), 0]))
    runs = np.diff([0, *edges, mask.size])
    return {"size": [HEIGHT, WIDTH], "counts": (runs if runs[-1] else runs[:-1]).tolist()}


def painted(folder, mask, name="ring.png", white=255, mode="L"):
    """A file of the mask beside the images."""
    Image.fromarray((mask * white).astype(np.uint8)).convert(mode).save(folder / "images" / name)
    return f"images/{name}"


@pytest.mark.smoke
@pytest.mark.parametrize(
    "written",
    [
        lambda folder: compressed(RING),
        lambda folder: counted(RING),
        lambda folder: painted(folder, RING),
        lambda folder: painted(folder, RING, white=1),
        lambda folder: painted(folder, RING, mode="RGB"),
        lambda folder: painted(folder, RING, "RING.PNG", mode="1"),
    ],
    ids=["compressed runs", "runs", "png", "png of 0 and 1", "png in colour", "png of one bit"],
)
def test_every_form_of_a_mask_says_the_same_pixels(folder, written):
    (found,) = only(folder, without(masks=[written(folder)], objects=["cat"])).objects
    assert (found.name, found.box, found.mask.dtype) == ("cat", None, bool)
    np.testing.assert_array_equal(found.mask, RING)


def test_a_mask_in_the_last_column_is_read_to_its_end(folder):
    for written in (compressed(CORNER), counted(CORNER)):
        np.testing.assert_array_equal(only(folder, without(masks=[written])).objects[0].mask, CORNER)


ring, corner = compressed(RING), compressed(CORNER)


@pytest.mark.parametrize(
    "fields, objects",
    [
        ({"masks": [ring]}, [("", None, RING)]),
        ({"masks": None}, []),
        ({"masks": [ring, corner], "objects": ["cat", "dog"]}, [("cat", None, RING), ("dog", None, CORNER)]),
        ({"masks": [{"mask": ring, "name": "cat"}]}, [("cat", None, RING)]),
        ({"masks": {"cat": ring, "dog": corner}}, [("cat", None, RING), ("dog", None, CORNER)]),
        ({"masks": {"cat": [ring, corner]}}, [("cat", None, RING), ("cat", None, CORNER)]),
        ({"masks": {"cat": ring}, "objects": ["cat", "dog"]}, [("cat", None, RING), ("dog", None, None)]),
        ({"masks": [None, corner], "objects": ["cat", "dog"]}, [("dog", None, CORNER), ("cat", None, None)]),
        # Two lists go together by place.
        ({"boxes": [cat_box, dog_box], "masks": [ring, corner]}, [("", CAT, RING), ("", DOG, CORNER)]),
        ({"boxes": [cat_box, dog_box], "masks": [None, corner]}, [("", CAT, None), ("", DOG, CORNER)]),
        ({"boxes": [None, dog_box], "masks": [ring, corner]}, [("", None, RING), ("", DOG, CORNER)]),
        ({"boxes": [{"box": cat_box, "name": "cat"}], "masks": [ring]}, [("cat", CAT, RING)]),
        ({"boxes": [cat_box], "masks": [{"mask": ring, "name": "cat"}]}, [("cat", CAT, RING)]),
        # What has names in another way goes together by name.
        (
            {"boxes": {"cat": cat_box, "dog": dog_box}, "masks": {"dog": corner, "cat": ring}},
            [("cat", CAT, RING), ("dog", DOG, CORNER)],
        ),
        (
            {"boxes": [cat_box, dog_box], "objects": ["cat", "dog"], "masks": {"dog": corner}},
            [("cat", CAT, None), ("dog", DOG, CORNER)],
        ),
        (
            {"boxes": {"cat": [cat_box, dog_box]}, "masks": {"cat": [None, ring], "dog": corner}},
            [("cat", CAT, None), ("cat", DOG, RING), ("dog", None, CORNER)],
        ),
    ],
)
def test_masks_belong_to_the_object_at_their_place_or_of_their_name(folder, fields, objects):
    found = only(folder, LINE | fields).objects
    assert [(o.name, o.box) for o in found] == [(name, box) for name, box, _ in objects]
    for made, (_, _, mask) in zip(found, objects, strict=True):
        assert (made.mask is None) == (mask is None)
        assert mask is None or np.array_equal(made.mask, mask)


def test_the_mask_of_the_object_an_answer_names_reaches_the_encoded_record(folder):
    processor = ImageProcessor((HEIGHT, WIDTH))
    encoder = Encoder(tiny_tokenizer(), processor, 4, (CHOSEN, REJECTED), masks=True)
    encoded = encoder.encode(only(folder, without(masks={"dog": corner, "cat": ring})))
    np.testing.assert_array_equal(encoded.mask, RING)
    np.testing.assert_array_equal(encoded.box, [6, 4, 20, 12])
    assert encoded.box_origin == NAMED


MALFORMED_MASKS = {
    "masks without an image": (without("image", masks=[ring]), "masks and names no image", "add 'image'"),
    "masks no list": (without(masks=ring), "has 'masks' that is no list", "write [{"),
    "fewer masks than boxes": (
        without(boxes=[cat_box, dog_box], masks=[ring]),
        "has 2 boxes and 1 masks",
        "write null where an object has only one of them",
    ),
    "fewer masks of a name": (
        without(boxes={"cat": [cat_box, dog_box]}, masks={"cat": ring}),
        "has 2 boxes and 1 masks of 'cat'",
        "write null where an object has only one of them",
    ),
    "another name's mask": (
        without(boxes=[{"box": cat_box, "name": "cat"}], masks=[{"mask": ring, "name": "dog"}]),
        "a mask of 'dog' at the place of the box of 'cat'",
        "put them in one order",
    ),
    "a place of neither": (
        without(boxes=[cat_box, None], masks=[ring, None]),
        "a box that is not four numbers: None",
        "write [x0",
    ),
    "a name and no mask": (without(masks=[{"name": "cat"}]), "a mask that is neither run lengths", "write {"),
    "a mask of numbers": (without(masks=[[0, 1]]), "a mask that is neither run lengths", "or its path"),
    "a jpeg": (without(masks=["images/a.jpg"]), "names a mask that is no PNG", "save it as PNG"),
    "a missing png": (
        without(masks=["gone.png"]),
        "an image that is missing: .*gone.png",
        "restore the file",
    ),
    "a png outside": (without(masks=["../a.png"]), "names an image outside of", "give a path below"),
    "another size": (
        without(masks=[ring | {"size": [WIDTH, HEIGHT]}]),
        r"a mask of \[height, width\] \[40, 20\] in an image of \[20, 40\]",
        "make it as large as the image",
    ),
    "no size": (without(masks=[ring | {"size": 800}]), "a mask of .* 800 in an image", "make it as large"),
    "nothing covered": (without(masks=[compressed(RING & False)]), "a mask that covers nothing", "correct"),
}
# Of run lengths that end early pycocotools makes a mask whose rest is what lay in memory.
MALFORMED_MASKS |= {
    f"counts {counts!r:.20}": (
        without(masks=[{"size": [HEIGHT, WIDTH], "counts": counts}]),
        "a mask whose run lengths are not those of 20 x 40 pixels",
        "as pycocotools.mask.encode gives them",
    )
    for counts in (
        "",
        "0000",
        "garbage",
        "\u732b",
        ring["counts"][:-3],
        [],
        [10, 5],
        [900],
        [-1, 801],
        ["a"],
        5,
    )
}


@pytest.mark.parametrize("case", MALFORMED_MASKS)
def test_a_malformed_mask_is_refused_when_it_is_read(folder, case):
    refused(folder, *MALFORMED_MASKS[case])


def test_a_png_of_another_size_than_the_image_is_refused(folder):
    path = painted(folder, RING[:, :30])
    refused(folder, without(masks=[path]), r"a mask of .* \(20, 30\) in an image of \[20, 40\]", "make it as")


@pytest.mark.parametrize(
    "box_format, box",
    [
        ("xyxy_pixels", [2, 4, 20, 10]),
        ("xywh_pixels", [2, 4, 18, 6]),
        ("xyxy_normalised", [0.05, 0.2, 0.5, 0.5]),
    ],
)
def test_every_box_format_says_the_same(folder, box_format, box):
    (found,) = only(folder, without(boxes=[box]), box_format=box_format).objects
    assert found.box == pytest.approx(CAT)
    assert box_format in BOX_FORMATS


def test_a_box_may_leave_the_image_by_a_pixel_of_rounding(folder):
    (found,) = only(folder, without(boxes=[[-0.5, 0, 40.5, 20.9]])).objects
    assert found.box == (-0.5, 0.0, 40.5, 20.9)


def test_texts_and_names_are_given_without_opening_an_image(folder):
    lines = [without(image="gone.png", objects=["cat", "dog"]), without("question", prompt="<image>Why?")]
    source = read(folder, *lines)
    assert list(source.texts()) == ["What is it?", "A cat.", "A dog.", "Why?", "A cat.", "A dog."]
    assert source.object_names() == {"cat", "dog"}


def test_real_photographs_are_read_whole():
    path = shared("photos") / "preference.jsonl"
    source = Published(path, format_with())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(source) == len(lines) > 0
    for index, line in enumerate(lines):
        record = source[index]
        assert record.key == f"line {index + 1}"
        assert (record.question, record.responses[CHOSEN]) == (line["question"], line["chosen"])
        assert [o.name for o in record.objects] == line["objects"]
        assert record.image.ndim == 3 and min(record.image.shape[:2]) > 100 and record.image.std() > 1


# --- what is refused ---------------------------------------------------------------------------------


def refused(folder, line, problem, remedy, **options):
    """Reads `line` as the second of a file, all of it, and checks the one-line error."""
    with pytest.raises(DataError) as caught:
        source = read(folder, LINE, line, **options)
        assert len(source) == 2
        decoded(source[1], source.name)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'pairs.jsonl'}, line 2: ")
    assert re.search(problem, caught.value.problem) and remedy in caught.value.remedy
    assert "\n" not in message


MALFORMED = {
    "truncated line": (json.dumps(LINE).encode()[:-20], "is not valid JSON", "complete or remove the line"),
    "a list": (b"[1, 2]", "is no JSON object", "write {"),
    "not UTF-8": (
        json.dumps(LINE).encode().replace(b"cat", b"c\xe4t"),
        "is not UTF-8",
        "save the file as UTF-8",
    ),
    "no chosen": (without("chosen"), "has no field 'chosen'", "add 'chosen'"),
    "no rejected": (without("rejected"), "has no field 'rejected'", "add 'rejected'"),
    "empty rejected": (without(rejected=" "), "has an empty 'rejected'", "give it a text"),
    "chosen no text": (without(chosen=["A cat."]), "has a 'chosen' that is no text", "write it as a string"),
    "no question": (without("question"), "has no field 'question'", "add the user's question"),
    "empty question": (without(question=""), "has no field 'question'", "add the user's question"),
    "prompt without <image>": (
        without("question", prompt="What is it?"),
        "has a 'prompt' with 0 <image> placeholders for 1 images",
        "write <image> once an image in 'prompt'",
    ),
    "prompt with two": (
        without("question", prompt="<image> What? <image>"),
        "has a 'prompt' with 2 <image> placeholders for 1 images",
        "write <image> once an image in 'prompt'",
    ),
    "prompt that asks nothing": (
        without("question", prompt="<image>\n"),
        "has no field 'question' \\(or 'prompt'\\)",
        "add the user's question",
    ),
    "question with <image>": (
        without(question="<image> What?"),
        "has <image> in 'question'",
        "remove <image>",
    ),
}
MALFORMED |= {
    "boxes without an image": (
        without("image", boxes=[[1, 2, 3, 4]]),
        "boxes and names no image",
        "add 'image'",
    ),
    "image out of the folder": (without(image="../a.png"), "names an image outside of", "data.images"),
    "absolute image": (without(image="/etc/a.png"), "names an image outside of", "data.images"),
    "folder itself": (without(image="images/.."), "names an image outside of", "below the folder"),
    "image is a number": (without(image=5), "an image that is neither a path nor bytes", "write its path"),
    "ten megabytes": (without(chosen="A cat. " * 1_500_000), "of 10,500,000 characters", "keep it below"),
    "half a surrogate": (without(chosen="A \ud800 cat."), "is no Unicode text", "correct it"),
    "missing image": (without(image="images/b.png"), "an image that is missing: .*b.png", "restore the file"),
    "folder as image": (without(image="images"), "an image that cannot be read", "replace the file"),
    "objects no list": (without(objects="cat"), "has 'objects' that is no list of names", "write ["),
    "boxes no list": (without(boxes="0 0 4 4"), "has 'boxes' that is no list", "write [["),
    "box of three": (without(boxes=[[1, 2, 3]]), "a box that is not four numbers", "write [x0, y0, x1, y1]"),
    "box of words": (without(boxes=[["1", 2, 3, 4]]), "a box that is not four numbers", "write [x0"),
    "box of nothing": (without(boxes=[{"name": "cat"}]), "a box that is not four numbers", "write [x0"),
    "box not finite": (
        without(boxes=[[0, 0, float("nan"), 4]]),
        "a box that is not four numbers",
        "write [x0",
    ),
    "empty box": (without(boxes=[[5, 5, 5, 9]]), "is empty or leaves its 40x20 image", "data.box_format"),
    "box outside": (without(boxes=[[5, 5, 60, 9]]), "is empty or leaves its 40x20 image", "data.box_format"),
    "normalised box": (without(boxes=[[0.1, 0.2, 0.5, 0.9]]), "a box within 1 pixel", "xyxy_normalised"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_line_is_refused_when_it_is_read(folder, case):
    refused(folder, *MALFORMED[case])


def test_malformed_lines_do_not_keep_others_from_being_read(folder):
    source = read(folder, *(line for line, _, _ in MALFORMED.values()), LINE)
    assert len(source) == len(MALFORMED) + 1
    assert source[len(MALFORMED)].responses[CHOSEN] == "A cat."
    assert list(source.texts())[-3:] == ["What is it?", "A cat.", "A dog."]


def test_an_id_that_stood_before_is_refused_with_its_place(folder):
    source = read(folder, LINE | {"id": "a"}, LINE | {"id": "b"}, LINE, LINE | {"id": "a"}, LINE)
    assert [source[i].key for i in (0, 1, 2, 4)] == ["line 1", "line 2", "line 3", "line 5"]
    with pytest.raises(DataError, match="line 4: has the 'id' of line 1; give each record one of its own"):
        source[3]


def test_records_may_have_no_image_or_several(folder):
    none, two = read(folder, without("image"), without("image", images=["images/a.png"] * 2))
    assert none.images == () and len(two.images) == 2
    np.testing.assert_array_equal(two.images[1].pixels(), PIXELS)


def test_pixel_boxes_read_as_shares_are_refused(folder):
    refused(
        folder, without(boxes=[cat_box]), "leaves its 40x20 image", "box_format", box_format="xyxy_normalised"
    )


def jpeg(folder):
    Image.fromarray(PIXELS).save(folder / "whole.jpg")
    return (folder / "whole.jpg").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        lambda folder: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        lambda folder: jpeg(folder)[: len(jpeg(folder)) // 2],
        lambda folder: (folder / "images" / "a.png").read_bytes()[:100],
        lambda folder: b"",
    ],
    ids=["html saved as jpg", "truncated jpeg", "truncated png", "empty file"],
)
def test_a_file_that_is_no_whole_image_is_refused_by_name(folder, content):
    (folder / "images" / "b.jpg").write_bytes(content(folder))
    refused(
        folder, without(image="images/b.jpg"), r"an image that cannot be read: .*b\.jpg", "replace the file"
    )


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_records_is_refused(folder, content):
    (folder / "pairs.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="pairs.jsonl, .*: there is no usable record in it; "):
        Published(folder / "pairs.jsonl", format_with())


def test_a_file_that_is_not_there_is_refused_by_name(folder):
    with pytest.raises(DataError, match="absent.jsonl, data.path: there is no such file; give the path"):
        Published(folder / "absent.jsonl", format_with())


def test_an_unknown_box_format_is_refused_with_the_known_ones(folder):
    with pytest.raises(ValueError, match="xyxy_pixels, xywh_pixels, xyxy_normalised"):
        read(folder, LINE, box_format="cxcywh")


# --- names -------------------------------------------------------------------------------------------


def test_names_beside_boxes_count_and_those_of_bad_records_do_not(folder):
    source = read(
        folder,
        without(objects=["cat"], boxes=[{"box": CAT, "name": "beret"}, CAT]),
        without(boxes={"dog": DOG}),
        without(objects="cat"),
        without(objects=5),
        LINE,
    )
    assert source.object_names() == {"cat", "beret", "dog"}


def test_a_png_broken_in_the_middle_is_refused_by_name(folder):
    """PIL raises SyntaxError there, which is no OSError."""
    file = folder / "images" / "b.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (220, 220, 3), np.uint8)).save(file)
    content = file.read_bytes()
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    file.write_bytes(content[:second] + bytes(4) + content[second + 4 :])
    with pytest.raises(DataError, match=r"pairs.jsonl, line 1: .*b\.png"):
        decoded(only(folder, without(image="images/b.png")), f"{folder}/pairs.jsonl")
