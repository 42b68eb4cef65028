"""Completions as forks are what each beginning gives alone; neighbours, order and padding change nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_model, tiny_tokenizer
from vla_jax.models import llava
from vla_jax.rollout import completions
from vla_jax.rollout.choosing import Sampling
from vla_jax.rollout.completions import Beginning, Completions, Sight, Speaker

MODEL = tiny_model()
IMAGE, TOKENIZER = MODEL.config.image_token_id, tiny_tokenizer()
END = TOKENIZER.eos_token_id
RESPONSES = [(41, 42, 43, 44, 45, 46), (51, 52, 53), (61, 62, 63, 64), (71, 72)]
BEGINNINGS = [
    Beginning(0, 0, (41,), False),
    Beginning(0, 1, (41, 42, 43, 44), False),
    Beginning(0, 2, (41, 42, 43, 44, 45), False),
    Beginning(1, 0, (90, 52), False),  # not how its response begins: a sequence of its own
    Beginning(1, 1, (51, 52), False),
    Beginning(3, 0, (), False),
]
WHOLE = [Beginning(2, 0, (), True)]


@pytest.fixture(scope="module")
def asked():
    config = MODEL.config
    prompts = [[1, *[IMAGE] * 4, 30, 31], [1, *[IMAGE] * 4, 32], [1, *[IMAGE] * 4, 33], [1, *[IMAGE] * 4, 34]]
    tokens, mask = np.zeros((4, 8), np.int32), np.zeros((4, 8), bool)
    for row, prompt in enumerate(prompts):
        tokens[row, -len(prompt) :], mask[row, -len(prompt) :] = prompt, True
    pixels = jax.random.normal(jax.random.key(3), (4, 24, 24, 3))
    features = jax.jit(llava.image_features, static_argnums=1)(MODEL.params, config, pixels)
    hidden = np.zeros((4, 8), bool)
    hidden[0, 2:4] = hidden[2, 4:6] = hidden[3, 3:7] = True

    def sight(attempt):
        return Sight(features, jnp.array(~hidden if attempt == 1 else np.ones((4, 8), bool)))

    return Completions(
        Speaker(config, MODEL.params, None, TOKENIZER, (END,), see=lambda batch: features),
        tokens,
        mask,
        np.array([7, 8, 9, 10], np.uint32),
        RESPONSES,
        length=6,
        sight=sight,
        sentence=Sampling(5, (END, *range(100, 140)), temperature=1.0),
        whole=Sampling(8, (END,), temperature=1.0),
        key=jax.random.key(5),
    )


def test_forks_say_what_each_beginning_gives_alone(asked):
    beginnings = BEGINNINGS + WHOLE
    together = asked(1, beginnings)
    assert together == asked.plain(1, beginnings)
    assert len({len(tokens) for tokens in together}) > 1, "some should end early"
    # What ends a sentence is part of it; what ends a response is not.
    assert any(tokens[-1] in range(100, 140) for tokens in together[:-1])
    assert all(END not in tokens for tokens in together)


def test_neighbours_change_nothing(asked):
    together = asked(1, BEGINNINGS)
    assert asked(1, BEGINNINGS[::-1]) == together[::-1]
    assert asked(1, BEGINNINGS[3:4]) == together[3:4]


def test_every_try_draws_anew_and_sees_what_it_should(asked):
    blocked, again, seeing = asked(1, BEGINNINGS), asked(1, BEGINNINGS), asked(2, BEGINNINGS)
    assert blocked == again != seeing
    greedy = replace(asked, sentence=replace(asked.sentence, temperature=0.0))
    first, second = greedy(1, BEGINNINGS), greedy(2, BEGINNINGS)
    assert first[3:5] == second[3:5], "nothing is hidden from the second row"
    assert first != second


def test_sequences_are_shared_and_programs_are_few(asked, monkeypatch):
    read = []

    def counted(*arguments):
        read.append(arguments[4].shape)
        return prefill(*arguments)

    prefill = completions.prefill
    monkeypatch.setattr(completions, "prefill", counted)
    asked(1, BEGINNINGS)
    assert read == [(4, 14)]  # rows 0, 1 and 3, and row 1's own beginning
    read.clear()
    asked(1, BEGINNINGS[:3])
    assert read == [(1, 14)]  # a quarter suffices
    before = completions.decode._cache_size()
    asked(3, [*BEGINNINGS[:2], BEGINNINGS[4]])
    asked(4, BEGINNINGS)
    assert completions.decode._cache_size() - before <= 1
