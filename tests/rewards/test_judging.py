"""The order in which responses are shown, and the judges that need no server."""

import math
from collections import Counter
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rewards.local_server import better, comparison
from vla_jax.rewards import Comparison, JudgeConfig, JudgeError, Verdict, check_present, opened_judge, tally
from vla_jax.rewards.annotating import INSTRUCTIONS, prompt
from vla_jax.rewards.blind import BlindJudge
from vla_jax.rewards.function_judge import FunctionJudge
from vla_jax.rewards.judging import is_swapped, shown
from vla_jax.rewards.reading import Reading

NUMBERS = range(400)


def preferred(verdicts):
    return [verdict.preferred for verdict in verdicts]


@dataclass(frozen=True)
class Always:
    """A judge that goes by the order alone."""

    number: int

    def __call__(self, asked):
        for place, _ in enumerate(asked):
            yield place, Reading(self.number)


# --- the order ---------------------------------------------------------------------------------------


def test_either_response_is_shown_first_half_of_the_time():
    swaps = sum(is_swapped(comparison(number), seed=0) for number in NUMBERS)
    # Four standard deviations of a fair coin.
    assert abs(swaps - len(NUMBERS) / 2) < 4 * math.sqrt(len(NUMBERS) / 4)


def test_the_longer_response_is_shown_first_half_of_the_time_too():
    firsts = sum(is_swapped(comparison(i), seed=3) == bool(better(i)) for i in NUMBERS)
    assert abs(firsts - len(NUMBERS) / 2) < 4 * math.sqrt(len(NUMBERS) / 4)


def test_another_seed_draws_another_order_and_the_same_seed_the_same():
    orders = [[is_swapped(comparison(i), seed) for i in NUMBERS] for seed in (0, 1, 0)]
    assert orders[0] == orders[2]
    agree = np.mean(np.array(orders[0]) == np.array(orders[1]))
    assert 0.35 < agree < 0.65


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text(), st.integers(0, 2**31))
def test_exchanging_the_responses_shows_the_same(first, second, seed):
    image = np.zeros((2, 2, 3), np.uint8)
    one, other = Comparison(image, "?", first, second), Comparison(image, "?", second, first)
    assert shown(one, is_swapped(one, seed), {}).key == shown(other, is_swapped(other, seed), {}).key


def test_the_key_is_of_everything_that_the_answer_depends_on():
    one = comparison(0)
    other_image = one.image.copy()
    other_image[0, 0, 0] ^= 1
    keys = [
        shown(one, False, {"model": "a"}).key,
        shown(one, True, {"model": "a"}).key,
        shown(one, False, {"model": "b"}).key,
        shown(Comparison(other_image, one.question, one.first, one.second), False, {"model": "a"}).key,
        shown(Comparison(one.image, "Who?", one.first, one.second), False, {"model": "a"}).key,
        shown(Comparison(one.image.reshape(5, 4, 3), one.question, one.first, one.second), False, {}).key,
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == shown(comparison(0), False, {"model": "a"}).key


def test_the_order_is_undone():
    verdicts = BlindJudge("first", Always(1), {})([comparison(i) for i in NUMBERS])
    assert preferred(verdicts) == [int(is_swapped(comparison(i), 0)) for i in NUMBERS]
    opposite = BlindJudge("second", Always(2), {})([comparison(i) for i in NUMBERS])
    assert preferred(opposite) == [1 - one for one in preferred(verdicts)]


def test_a_judge_that_goes_by_the_order_shows_in_the_log():
    comparisons = [comparison(i) for i in NUMBERS]
    assert tally(BlindJudge("first", Always(1), {})(comparisons))["judge_prefers_shown_first"] == 1.0
    assert tally(BlindJudge("second", Always(2), {})(comparisons))["judge_prefers_shown_first"] == 0.0


def test_ties_and_what_could_not_be_read_are_counted_apart():
    verdicts = [Verdict(0), Verdict(1, swapped=True), Verdict(1), Verdict(None), Verdict(None, "?", "unread")]
    assert tally(verdicts) == pytest.approx(
        {"judge_ties": 0.2, "judge_unreadable": 0.2, "judge_prefers_shown_first": 2 / 3}
    )
    assert tally([]) == {"judge_ties": 0.0, "judge_unreadable": 0.0}


def test_a_judge_that_leaves_one_out_is_named():
    def forgetful(asked):
        yield 0, Reading(1)

    with pytest.raises(JudgeError, match="forgetful: 1 of 2 comparisons were not judged"):
        BlindJudge("forgetful", forgetful, {})([comparison(0), comparison(1)])


# --- checkpoints, reward models, functions ------------------------------------------------------------


def test_a_checkpoint_is_given_the_papers_prompt(tmp_path):
    opened, prompts = [], []

    def generate(folder, most):
        opened.append((folder, most))

        def answer(images, questions):
            prompts.extend(questions)
            assert [image.shape for image in images] == [(4, 5, 3)] * len(questions)
            halves = [question.split("Response 1: ")[1].split("\n\nResponse 2: ") for question in questions]
            return [f"Response {1 + (len(b) > len(a))} is better." for a, b in halves]

        return answer

    config = JudgeConfig(kind="checkpoint", model="runs/judge", max_new_tokens=64)
    with opened_judge(config, workdir=tmp_path, generate=generate) as judge:
        verdicts = judge([comparison(i) for i in range(6)])
    assert preferred(verdicts) == [better(i) for i in range(6)]
    assert opened == [("runs/judge", 64)] and list(judge.spent) == []
    assert all(text.startswith(INSTRUCTIONS) for text in prompts) and len(set(prompts)) == 6
    assert not list(tmp_path.iterdir())


def test_responses_with_braces_stand_in_the_prompt_as_they_are():
    asked = shown(Comparison(np.zeros((1, 1, 3), np.uint8), "{a}?", "{0}", "{first}"), False, {})
    assert prompt(asked).endswith("Question: {a}?\n\nResponse 1: {0}\n\nResponse 2: {first}")


def longer(comparisons):
    """Prefers the longer response."""
    return [int(len(one.second) > len(one.first)) for one in comparisons]


def undecided(comparisons):
    """Prefers none."""
    return [None] * len(comparisons)


def silent(comparisons):
    """Says too little."""
    return []


SAYS = {
    "nothing": None,
    "a list": [[0]],
    "a column": np.array([[0]]),
    "an array of JAX": jnp.array([0]),
    "a number": 0,
    "a word": ["first"],
    "NaN": [math.nan],
    "too much": [0, 1],
}


@pytest.mark.parametrize("said", SAYS.values(), ids=SAYS)
def test_a_function_that_says_something_else_is_named(said):
    judge = BlindJudge("odd", FunctionJudge("odd:f", lambda comparisons: said), {})
    with pytest.raises(JudgeError, match="odd:f was given 1 comparisons and said .*; return 0, 1 or None"):
        judge([comparison(0)])


def test_a_function_is_asked_and_what_it_said_is_kept(tmp_path):
    comparisons = [comparison(i) for i in range(20)]
    for _ in range(2):
        with opened_judge(JudgeConfig(kind=f"{__name__}:longer"), workdir=tmp_path) as judge:
            assert preferred(judge(comparisons)) == [better(i) for i in range(20)]
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 20
    with opened_judge(JudgeConfig(kind=f"{__name__}:undecided"), workdir=tmp_path) as judge:
        assert Counter(verdict.tie for verdict in judge(comparisons)) == {True: 20}


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (f"{__name__}:absent", ValueError, r"rewards\.judge\.kind is .*cannot be imported"),
        ("no_such_module:f", ValueError, "cannot be imported"),
        (f"{__name__}:NUMBERS", ValueError, "which is no function"),
        (f"{__name__}:silent", JudgeError, r"was given 1 comparisons and said \[\]; return 0, 1 or None"),
    ],
)
def test_a_function_that_cannot_judge_is_named(kind, error, message, tmp_path):
    with (
        pytest.raises(error, match=message),
        opened_judge(JudgeConfig(kind=kind), workdir=tmp_path) as judge,
    ):
        judge([comparison(0)])


# --- settings ------------------------------------------------------------------------------------------

SERVER = {"kind": "server", "url": "http://localhost/v1", "model": "m"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "oracle"}, "kind is 'oracle'; choose one of reward_model, checkpoint, server, file"),
        ({"url": "http://localhost"}, r"rewards\.judge\.url is set, but kind='' would ignore it"),
        ({"kind": "checkpoint", "model": "a", "cache": "b"}, r"cache is set, but kind='checkpoint'"),
        ({"kind": "reward_model", "max_new_tokens": 3}, r"max_new_tokens is set, but kind='reward_model'"),
        ({"kind": "a:b", "timeout": 3.0}, r"timeout is set, but kind='a:b'"),
        ({"kind": "file", "model": "m", "requests": "a"}, r"kind='file' needs rewards\.judge\.replies"),
        ({"kind": "server", "model": "m"}, r"kind='server' needs rewards\.judge\.url"),
        ({"kind": "checkpoint"}, r"kind='checkpoint' needs rewards\.judge\.model"),
        ({**SERVER, "max_new_tokens": 0}, r"max_new_tokens is 0"),
        ({**SERVER, "length_field": "max"}, r"length_field is 'max'; choose max_tokens or max_completion"),
        ({**SERVER, "input_price": -1.0}, "prices and max_cost must be at least 0"),
        ({**SERVER, "max_cost": 1.0}, "max_cost needs prices"),
        ({**SERVER, "timeout": 0.0}, r"timeout is 0\.0; it must be above 0"),
        ({**SERVER, "temperature": float("nan")}, r"temperature is nan; it must be a number"),
    ],
)
def test_settings_that_would_be_ignored_or_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        JudgeConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "no_such_module:f"}, "cannot be imported"),
        ({"kind": "checkpoint", "model": "/nowhere"}, "model is '/nowhere', and there is no such folder"),
        ({**SERVER, "key_variable": "NO_KEY_IN_IT"}, "names holds no key"),
        ({**SERVER, "cache": "/tmp"}, "cache is '/tmp', a folder"),
    ],
)
def test_what_a_judge_lacks_is_found_before_it_is_opened(fields, message):
    check_present(JudgeConfig(kind="reward_model"))
    check_present(JudgeConfig(**SERVER))
    with pytest.raises(ValueError, match=message):
        check_present(JudgeConfig(**fields))


def test_a_checkpoint_without_a_sampler_is_refused(tmp_path):
    config = JudgeConfig(kind="checkpoint", model="runs/judge")
    with pytest.raises(ValueError, match="needs a sampler"), opened_judge(config, workdir=tmp_path):
        pass


@pytest.mark.parametrize("kind", ["", "reward_model"])
def test_no_kind_is_no_judge_of_words_nor_is_the_runs_reward_model(kind, tmp_path):
    with opened_judge(JudgeConfig(kind=kind), workdir=tmp_path) as judge:
        assert judge is None


def test_a_temperature_below_zero_and_another_length_field_change_what_is_sent():
    config = JudgeConfig(**SERVER, temperature=-1.0, length_field="max_completion_tokens", max_new_tokens=7)
    body = config.chat_model.body(shown(comparison(0), False, {}))
    assert "temperature" not in body and "max_tokens" not in body
    assert body["max_completion_tokens"] == 7
