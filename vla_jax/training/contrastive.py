"""Contrastive pretraining: gives a model's own vision tower a text half, so that it can verify words.

A LLaVA reads its CLIP below the last layer. So the model's tower stays to the bit, and what is trained stands
on it: a last layer or more, the projections, and the text tower. What CLIP learnt from captions of the web,
the small tower of the built-in world learns from tags: images beside names of what is in them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

import inflect
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from vla_jax.data import Record, Source
from vla_jax.data.schema import decoded
from vla_jax.data.sources import Tail, open_source
from vla_jax.data.tokenizer import train_text_tokenizer
from vla_jax.data.world import WorldConfig
from vla_jax.interop import Model
from vla_jax.interop.clip_folder import Clip
from vla_jax.models import clip, parameters
from vla_jax.models.clip import ClipConfig, TextTowerConfig
from vla_jax.models.parameters import Params
from vla_jax.objectives import contrastive
from vla_jax.training.optimizer import OptimizerConfig, make_optimizer
from vla_jax.training.step import Trained
from vla_jax.views import normalise

# Records whose names the text tokenizer is trained on.
_CORPUS_RECORDS = 500


def default_contrastive_config() -> ConfigDict:
    """All fields of a contrastive pretraining, with the text tower that suits the small models."""
    text = TextTowerConfig(
        hidden_size=64, intermediate_size=256, num_layers=2, num_heads=2, max_positions=24, unroll=True
    )
    optimizer = OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_ratio=0.1, weight_decay=0.01)
    return ConfigDict(
        {
            # Of parameters, of what is read when, and of the built-in world.
            "seed": 0,
            # The tokenizer decides the size of the vocabulary and the end of a text.
            "text": {k: v for k, v in asdict(text).items() if k not in ("vocab_size", "end_id")},
            "max_vocab_size": 512,
            "projection_size": 64,
            "top_layers": 1,  # of the vision tower, above those that the model has
            "data": {
                "source": "world_tags",
                "path": "",
                "images": "",
                "box_format": "xyxy",
                "size": 20_000,
                "flip_labels": False,
                "mixture": (),
                "on_bad_record": "error",
            },
            "world": {k: v for k, v in asdict(WorldConfig()).items() if k not in ("seed", "image_size")},
            "steps": 400,
            "batch_size": 64,
            "held_out": 200,  # records behind those of `data.size` that it is measured on
            "optimizer": asdict(optimizer),
        }
    )


def pretrain(config: ConfigDict, model: Model, progress: Callable[[float], object] | None = None) -> Clip:
    """A text half for the vision tower of a model, both trained on images and names of what is in them.

    Args:
      config: see `default_contrastive_config`.
      model: whose tower, image processor and pixel statistics it starts from.
      progress: called with the loss of every step.

    Raises:
      ValueError: where the tower is not CLIP's, or a record names no object.
    """
    source = open_tagged(config, model)
    tokenizer = train_text_tokenizer(
        (name for index in range(min(_CORPUS_RECORDS, len(source))) for name in names_of(source[index])),
        config.text.max_positions,
        config.max_vocab_size,
    )
    vision = model.config.vision
    shape = ClipConfig(
        replace(vision, num_layers=vision.num_layers + config.top_layers),
        TextTowerConfig(vocab_size=len(tokenizer), end_id=tokenizer.eos_token_id, **config.text.to_dict()),
        config.projection_size,
    )
    table = clip.table(shape)
    fresh, own = parameters.initialise(table, jax.random.key(config.seed)), model.params["vision"]
    top = jax.tree.map(lambda layers: layers[vision.num_layers :], fresh["vision"]["layers"])
    trained: Params = {**fresh, "vision": {"layers": top, "post_norm": fresh["vision"]["post_norm"]}}
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer.to_dict()), config.steps, table)
    state = optimizer.init(Trained(None, trained))
    for step in range(config.steps):
        random = np.random.default_rng([config.seed, step])
        records = [source[int(index)] for index in random.integers(len(source), size=config.batch_size)]
        texts = [_text(names_of(record), random) for record in records]
        images = np.stack([model.processor(decoded(record, "data"))[0] for record in records])
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="np")["input_ids"]
        trained, state, loss = _update(shape, optimizer, own, trained, state, images, tokens)
        if progress is not None:
            progress(float(loss))
    return Clip(shape, _whole(own, trained), tokenizer, model.processor)


def _whole(own: Params, trained: Params) -> Params:
    """The parameters of a CLIP: the model's own tower, and what is trained upon it."""
    layers = jax.tree.map(lambda *parts: jnp.concatenate(parts), own["layers"], trained["vision"]["layers"])
    return {**trained, "vision": {**own, **trained["vision"], "layers": layers}}


def open_tagged(config: ConfigDict, model: Model, held_out: bool = False) -> Source:
    """The images with names that it is trained on, or, of the built-in world, as many behind them."""
    size = model.config.vision.image_size
    world = WorldConfig(seed=config.seed, image_size=size, **config.world.to_dict())
    data = config.data.to_dict()
    if not held_out:
        return open_source(data, world)
    return Tail(open_source({**data, "size": config.data.size + config.held_out}, world), config.data.size)


def names_of(record: Record) -> list[str]:
    """What is in a record's image, each once, and in the plural where it is there several times.

    Raises:
      ValueError: where the record names nothing.
    """
    names = [found.name for found in record.objects if found.name]
    if not names:
        raise ValueError(f"{record.key}: names no object; contrastive pretraining needs images with names")
    engine = inflect.engine()
    return [engine.plural_noun(name) if names.count(name) > 1 else name for name in dict.fromkeys(names)]


def _text(names: Sequence[str], random: np.random.Generator) -> str:
    """One of the names half of the time, else several of them, in random order."""
    count = 1 if random.random() < 0.5 else random.integers(1, len(names) + 1)
    return ", ".join(random.permutation(names)[:count])


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3, 4))
def _update(
    config: ClipConfig,
    optimizer: optax.GradientTransformation,
    own: Params,
    trained: Params,
    state: optax.OptState,
    images: UInt8[Array, "b y x 3"],
    tokens: Int[Array, "b t"],
) -> tuple[Params, optax.OptState, Float[Array, ""]]:
    vision = config.vision
    pixels = normalise(images, vision.pixel_mean, vision.pixel_std)

    def loss(trained: Params) -> Float[Array, ""]:
        params = _whole(jax.lax.stop_gradient(own), trained)
        logits = clip.logits_per_image(
            params,
            clip.image_embeddings(params, config, pixels),
            clip.text_embeddings(params, config, tokens),
        )
        return contrastive(logits).mean()

    value, gradients = jax.value_and_grad(loss)(trained)
    updates, state = optimizer.update(Trained(None, gradients), state, Trained(None, trained))
    return optax.apply_updates(Trained(None, trained), updates).params, state, value
