"""The algorithm on the host, by hand: a scripted model stands in for what completes sentences."""

import numpy as np

from tests.small_models import tiny_tokenizer
from vla_jax.recipes.corruption import Corruption
from vla_jax.rollout.completions import Beginning

TOKENIZER = tiny_tokenizer()
SEED = (3,)


def ids(text):
    return tuple(TOKENIZER(f" {text}", add_special_tokens=False)["input_ids"])


def text(tokens):
    return TOKENIZER.decode(list(tokens)).strip()


class Scripted:
    """Completes every beginning with what is written for its sentence, and remembers what it was asked."""

    def __init__(self, *says):
        self.says, self.asked = says, []

    def __call__(self, attempt, beginnings):
        self.asked.append((attempt, list(beginnings)))
        return [self.says[beginning.number] for beginning in beginnings]

    @property
    def tries(self):
        return [attempt for attempt, _ in self.asked]


class Script:
    """Similarities, one call after the other."""

    def __init__(self, *values):
        self.values, self.compared = list(values), []

    def __call__(self, texts, others):
        self.compared.append((list(texts), list(others)))
        return np.array(self.values.pop(0))


def draws(record, attempt, sentence):
    """(ξ, the generator that the cut is drawn from), as the algorithm's lines 11 and 14 draw them."""
    rng = np.random.default_rng([*SEED, record, attempt, sentence])
    return rng.random(), rng


CHOSEN = "There is a cup and a dog. There is also a cat."
FIRST, SECOND = ids("There is a cup and a dog."), ids("There is also a cat.")


def test_a_response_of_two_sentences_by_hand():
    complete, similarity = Scripted(ids("horse."), ids("two apples.")), Script([0.5])
    (made,) = Corruption(TOKENIZER, similarity)([FIRST + SECOND], [7], complete, SEED)

    places = [
        int(draws(7, 1, number)[1].integers(1, len(sentence) - 1, endpoint=True))
        for number, sentence in enumerate((FIRST, SECOND))
    ]
    assert 1 <= places[0] < len(FIRST) and 1 <= places[1] < len(SECOND)
    # Each sentence stands behind the true ones before it, not behind what was made of them.
    ((attempt, asked),) = complete.asked
    assert attempt == 1
    assert asked == [
        Beginning(0, 0, FIRST[: places[0]], False),
        Beginning(0, 1, FIRST + SECOND[: places[1]], False),
    ]
    expected = FIRST[: places[0]] + ids("horse.") + SECOND[: places[1]] + ids("two apples.")
    assert made.tokens == expected and made.text == text(expected)
    assert (made.tries, made.similarity) == (1, 0.5)
    assert [(cut.start, cut.kept, cut.exchanged) for cut in made.cuts] == [
        (0, FIRST[: places[0]], False),
        (len(FIRST), SECOND[: places[1]], False),
    ]
    assert similarity.compared == [([made.text], [CHOSEN])]


def test_half_of_the_answers_are_exchanged_and_what_follows_keeps_the_true_answer():
    chosen, records = ids("Yes, there is a cup.") + SECOND, 200
    complete = Scripted(ids("no dog."), ids("horse."))
    made = Corruption(TOKENIZER, lambda texts, others: np.zeros(len(texts)))(
        [chosen] * records, list(range(records)), complete, SEED
    )
    first = [response.cuts[0] for response in made]
    for record, cut in enumerate(first):
        assert cut.exchanged == (draws(record, 1, 0)[0] >= 0.5)
        assert text(cut.kept).startswith("No" if cut.exchanged else "Yes")
    exchanged = sum(cut.exchanged for cut in first)
    assert abs(exchanged - records / 2) < 3 * (records / 4) ** 0.5
    assert not any(response.cuts[1].exchanged for response in made)
    # What follows an exchanged answer still stands behind the true one.
    ((_, asked),) = complete.asked
    answer = ids("Yes, there is a cup.")
    assert all(each.tokens[: len(answer)] == answer for each in asked if each.number == 1)


def test_an_answer_of_one_word_keeps_its_exchanged_word_and_else_is_made_anew():
    complete, (word,) = Scripted(()), ids("Yes")
    made = Corruption(TOKENIZER, lambda texts, others: np.zeros(len(texts)))(
        [(word,)] * 20, list(range(20)), complete, SEED
    )
    kept = {response.cuts[0].exchanged: text(response.cuts[0].kept) for response in made}
    assert kept == {True: "No", False: ""}


def test_cuts_reach_from_the_first_token_to_the_last_but_one():
    complete = Scripted(ids("horse."))
    made = Corruption(TOKENIZER, lambda texts, others: np.zeros(len(texts)))(
        [SECOND] * 300, list(range(300)), complete, SEED
    )
    kept = [len(response.cuts[0].kept) for response in made]
    assert set(kept) == set(range(1, len(SECOND)))
    # Uniform: chi-square, five degrees of freedom or so, far in its tail.
    expected = 300 / (len(SECOND) - 1)
    assert sum((kept.count(n) - expected) ** 2 / expected for n in set(kept)) < 25


def test_what_means_the_same_is_made_anew_with_new_cuts_until_the_last_try_goes_unguided():
    complete = Scripted(ids("horse."), ids("dog."))
    similarity = Script([0.97, 0.2, 1.0], [0.99, 0.96], [0.98], [0.97], [1.0])
    made = Corruption(TOKENIZER, similarity, tries=5, similar=0.97)(
        [FIRST + SECOND, SECOND, SECOND], [1, 2, 3], complete, SEED
    )
    # 0.97 is not below 0.97.
    assert [response.tries for response in made] == [5, 1, 2]
    assert [response.similarity for response in made] == [1.0, 0.2, 0.96]
    assert complete.tries == [1, 2, 3, 4, 5]
    assert [sorted({each.row for each in asked}) for _, asked in complete.asked] == [
        [0, 1, 2],
        [0, 2],
        [0],
        [0],
        [0],
    ]
    assert complete.asked[-1][1] == [Beginning(0, 0, (), whole=True)]
    assert made[0].tokens == ids("horse.") and made[0].cuts == ()
    beginnings = [tuple(asked) for _, asked in complete.asked[:4]]
    assert len(set(beginnings)) > 1


def test_a_single_try_is_guided_and_kept_whatever_it_means():
    complete = Scripted(ids("horse."))
    (made,) = Corruption(TOKENIZER, Script([1.0]), tries=1)([SECOND], [1], complete, SEED)
    assert not complete.asked[0][1][0].whole
    assert (made.tries, made.similarity) == (1, 1.0) and made.cuts


def test_what_is_compared_is_what_is_kept():
    complete, similarity = Scripted(ids("horse."), ids("two apples.")), Script([0.5])
    whole = Corruption(TOKENIZER, lambda texts, others: np.zeros(len(texts)))
    (long,) = whole([FIRST + SECOND], [7], complete, SEED)
    (short,) = Corruption(TOKENIZER, similarity, longest=4)([FIRST + SECOND], [7], complete, SEED)
    assert short.tokens == long.tokens[:4] and short.cuts == long.cuts
    assert similarity.compared == [([short.text], [CHOSEN])] and short.text == text(long.tokens[:4])


def test_a_record_s_draws_do_not_depend_on_its_neighbours():
    def cuts(chosen, records):
        corrupt = Corruption(TOKENIZER, lambda texts, others: np.zeros(len(texts)))
        made = corrupt(chosen, records, Scripted(ids("dog."), ids("dog.")), SEED)
        return {record: response.cuts for record, response in zip(records, made, strict=True)}

    together = cuts([FIRST + SECOND, SECOND], [4, 5])
    assert cuts([SECOND], [5]) == {5: together[5]}


def test_no_responses_are_none():
    assert Corruption(TOKENIZER, Script())([], [], Scripted(), SEED) == []
