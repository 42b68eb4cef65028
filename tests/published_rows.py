"""Three rows or more of every published layout, field by field as the sets have them.

Images are the files of `published_files.image_folder`; where a set embeds them, `embed` does.
"""

import json

from tests.published_files import HEIGHT, WIDTH, embedded, said

ASPECTS = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")


def _annotations(*ratings):
    return {
        aspect: {"Rating": rating, "Rationale": "Because."}
        for aspect, rating in zip(ASPECTS, ratings, strict=True)
    }


def _rated(*answers):
    return [
        {"model": f"model {i}", "response": response, "annotations": _annotations(*ratings)}
        for i, (response, *ratings) in enumerate(answers)
    ]


def _vlfeedback(name, *answers):
    return {
        "id": name,
        "prompt": "What is it?",
        "models": [f"model {i}" for i in range(len(answers))],
        "img_path": "a.png",
        "completions": _rated(*answers),
    }


VLFEEDBACK = [
    _vlfeedback("svit-1", ("A cat.", "5", "5", "5"), ("A dog.", "3", "4", "2"), ("A hat.", "N/A", "1", "1")),
    _vlfeedback("svit-1", ("A mat.", "4", "4", "4"), ("A rat.", "5", "5", "4")),
    _vlfeedback("lrv-2", *((f"{i} cats.", str(i), "3", "3") for i in (1, 2, 3, 4))),
]


def _povid(name, *turns):
    """The last answer is hallucinated in the twin."""
    return {
        "id": name,
        "image": f"/authors/data/coco/train2014/{name}.png",
        "conversations": said(*turns),
        "rejected_conversations": said(*turns[:-1], f"{turns[-1]} And a ghost."),
    }


POVID = [
    _povid("a", "<image>\nWhat is it?", "A cat."),
    _povid("b", "What is it?\n<image>", "A cat.", "Why?", "It purrs."),
    _povid("b", "<image>\nHow?", "So."),
]


def _corrected(number):
    texts = {"question": f"What is {number}?", "chosen": 'A "cat".', "rejected": "A dog."}
    return {
        "ds_name": "RLHF-V",
        "image": "a.png",
        "text": json.dumps(texts),
        "origin_dataset": "COCO",
        "origin_split": json.dumps({"model": "muffin", "type": "detailed_description"}),
        "idx": number,
        "image_path": "images/a.png",
    }


RLHF_V = [_corrected(number) for number in range(3)]


def _ranked(number):
    return {
        "ds_name": "RLAIF-V",
        "image": "a.png",
        "question": f"What is {number}?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "origin_dataset": "LVIS",
        "origin_split": "{}",
        "idx": str(number),
        "image_path": "images/a.png",
    }


RLAIF_V = [_ranked(number) for number in range(3)]

LLAVA_INSTRUCT = [
    {
        "id": "9",
        "image": "coco/000000000009.png",
        "conversations": said("What?\n<image>", "A.", "Why?", "B."),
    },
    {"id": "9", "image": "coco/000000000009.png", "conversations": said("<image>\nHow?", "C.")},
    {"id": "wqDbl", "model": "", "conversations": said("Write a poem.", "No.")},
]


def _people(name, turns, preferred):
    return {
        "id": name,
        "image": "a.png",
        "conversations": turns,
        "output_1": {"from": "llava", "value": "It purrs."},
        "output_2": {"from": "llava", "value": "It barks."},
        "preference": preferred,
        "hallucination": preferred == 2,
    }


LLAVA_RLHF = [
    _people("000000329126", said("<image>\nWhat?", "A cat.", "Why?"), 1),
    _people("000000329126", [said("<image>\nWhat?", "A cat.", "Why?")], 2),
    _people("000000000009", said("<image>\nHow?"), 1),
]


def _laid_out(prompt):
    return {"img_path": "a.png", "prompt": prompt, "chosen": "A cat.", "rejected": "A dog."}


MDPO = [
    _laid_out("<image>\nWhat is it?"),
    _laid_out("USER: <image>\nWhat is it? ASSISTANT:"),
    _laid_out("USER: <image>\nWho? ASSISTANT: A cat.</s>USER: Why? ASSISTANT:"),
]
LPOI = [_laid_out(f"USER: <image>\nWhat is {number}? ASSISTANT:") for number in range(3)]


def _message(role, words, images=0):
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": words}]}


def _answers(prompt):
    return {
        role: [*prompt, _message("assistant", words)]
        for role, words in (("chosen", "A cat."), ("rejected", "A dog."))
    }


TRL = [
    {"id": 0, "prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog.", "images": ["a.png"]},
    {"id": 1, "prompt": [_message("user", "What is it?", 2)], "images": ["a.png", "b.png"], **_answers([])},
    {"id": 2, "images": ["a.png"], **_answers([_message("user", "What is it?", 1)])},
]

_SQUARE = [[2, 3], [10, 3], [10, 8], [2, 8]]


def _implicit(*queries):
    shapes = [
        {"label": "target", "points": _SQUARE, "shape_type": "polygon"},
        {"label": "ignore", "points": [[12, 3], [14, 3], [14, 8]], "shape_type": "polygon"},
    ]
    return {"text": list(queries), "is_sentence": len(queries) == 1, "shapes": shapes}


REASON_SEG = [_implicit("What purrs?"), _implicit("the one", "that purrs"), _implicit("What eats mice?")]

_BOX = {
    "segmentation": [[float(side) for corner in _SQUARE for side in corner]],
    "category_name": "box",
    "rephrased_name": "the brown box",
    "bbox": [2.0, 3.0, 8.0, 5.0],
}
_RUNS = {
    "segmentation": {"size": [HEIGHT, WIDTH], "counts": [45, 5, HEIGHT * WIDTH - 50]},
    "category_name": "plate",
}


def _several(**where):
    return {
        **where,
        "height": HEIGHT,
        "width": WIDTH,
        "ann_list": [_BOX, _RUNS],
        "questions": ["What do I eat from?", "Name both."],
        "answers": [[_RUNS], [_BOX, _RUNS]],
        "text_answers": ["From {seg}.", "A box {seg} and {seg}."],
    }


MUSE = [
    _several(file_name="a.png"),
    _several(file_name="coco/000000000009.png"),
    _several(coco_url="http://images.cocodataset.org/train2017/b.png"),
]

FOLDER = [
    {"id": i, "image": "a.png", "question": "What?", "chosen": "A cat.", "rejected": "A dog."}
    for i in range(2)
] + [
    {
        "id": 2,
        "images": ["b.png"],
        "question": "What?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "objects": ["cat"],
        "boxes": [[1, 2, 9, 8]],
        "masks": [{"size": [HEIGHT, WIDTH], "counts": [45, 5, HEIGHT * WIDTH - 50]}],
    }
]

# set -> (layout, rows)
PUBLISHED = {
    "VLFeedback": ("vlfeedback", VLFEEDBACK),
    "POVID": ("povid", POVID),
    "RLHF-V": ("rlhf_v", RLHF_V),
    "RLAIF-V": ("rlaif_v", RLAIF_V),
    "LLaVA-Instruct": ("llava_instruct", LLAVA_INSTRUCT),
    "LLaVA-RLHF": ("llava_rlhf", LLAVA_RLHF),
    "mDPO": ("mdpo", MDPO),
    "LPOI": ("mdpo", LPOI),
    "TRL": ("trl", TRL),
    "ReasonSeg": ("reason_seg", REASON_SEG),
    "MUSE": ("muse", MUSE),
    "ours": ("preference_folder", FOLDER),
}


def as_columns(rows):
    """VLFeedback's rows as its parquet shards have them: completions as a dict of lists, images embedded."""
    return [
        {key: value for key, value in row.items() if key != "img_path"}
        | {"image": embedded(), "completions": _columns(row["completions"])}
        for row in rows
    ]


def _columns(items):
    return {
        key: _columns([item[key] for item in items]) if isinstance(value, dict) else [i[key] for i in items]
        for key, value in items[0].items()
    }


def embed(rows):
    """Rows with their images inside, as parquet shards have them."""
    return [row | {"image": embedded()} for row in rows]
