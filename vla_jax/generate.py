"""Asks a model about an image.

python -m vla_jax.generate --model=DIR --image=photo.jpg --question="What is in the picture?"
"""

import sys
from pathlib import Path

from absl import app, flags

from vla_jax.command_line import parse_flags, refuse_words
from vla_jax.data import Encoder
from vla_jax.data.images import UnreadableImageError, read_image
from vla_jax.interop import Model, load_model
from vla_jax.models.compute import Compute
from vla_jax.rollout import Answerer


def answerer(
    model: Model,
    max_prompt_length: int,
    batch_size: int = 1,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Answerer:
    """A model ready to be asked.

    Args:
      model: the model.
      max_prompt_length: most tokens of a prompt, the image's counted; prompts are padded to it.
      batch_size: questions answered at a time.
      compute: how the language model is computed.
    """
    encoder = Encoder(
        tokenizer=model.tokenizer,
        processor=model.processor,
        num_image_tokens=model.config.num_image_tokens,
        responses=(),
        max_prompt_length=max_prompt_length,
    )
    return Answerer(model.config, model.params, model.adapter, encoder, model.end_ids, batch_size, compute)


def most_image_tokens(model: Model) -> int:
    """The most tokens that an image takes of a prompt."""
    return answerer(model, 0).encoder.most_tiles_and_tokens()[1]


def main(argv: list[str]) -> None:
    """Command line."""
    refuse_words(argv)
    if not _TEMPERATURE.value and (_TOP_K.value or _TOP_P.value != 1):
        sys.exit("error: --top_k and --top_p would be ignored where --temperature is 0; set it above 0")
    try:
        model = load_model(Path(_MODEL.value or ""))
        pixels = read_image(Path(_IMAGE.value or ""))
        question = _QUESTION.value or ""
        # Room for the question, which has no more tokens than bytes, and a long template.
        asked = answerer(model, most_image_tokens(model) + 512 + len(question.encode()))
        (text,) = asked.answer(
            [pixels],
            [question],
            max_new_tokens=_MAX_NEW_TOKENS.value,
            temperature=_TEMPERATURE.value,
            top_k=_TOP_K.value,
            top_p=_TOP_P.value,
            num_beams=_NUM_BEAMS.value,
            stop=_STOP.value,
            seed=_SEED.value,
        )
    except UnreadableImageError as error:
        sys.exit(f"error: --image {error}; give a PNG or JPEG file")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(text)


if __name__ == "__main__":
    _MODEL = flags.DEFINE_string("model", None, "A model folder, or the workdir of a finished run.")
    _IMAGE = flags.DEFINE_string("image", None, "An image file.")
    _QUESTION = flags.DEFINE_string("question", None, "What to ask about it.")
    _MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "Where the answer is cut.", lower_bound=1)
    _TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 answers greedily.", lower_bound=0.0)
    _TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from so many likeliest tokens; 0: all.", lower_bound=0)
    _TOP_P = flags.DEFINE_float("top_p", 1.0, "Draw from the likeliest that hold this probability together.")
    _NUM_BEAMS = flags.DEFINE_integer("num_beams", 1, "More than 1: search for the likeliest.", lower_bound=1)
    _STOP = flags.DEFINE_multi_string("stop", [], "The answer ends before this; may be given several times.")
    _SEED = flags.DEFINE_integer("seed", 0, "Of the sampling.", lower_bound=-(2**63), upper_bound=2**63 - 1)
    flags.mark_flags_as_required(["model", "image", "question"])
    app.run(main, flags_parser=parse_flags)
