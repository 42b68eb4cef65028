"""What a server's answers cost."""

import threading
from collections.abc import Mapping

from vla_jax.rewards.judging import JudgeError


class Spending:
    """Counts tokens and what they cost, for all threads together.

    Args:
      input_price, output_price: of a million tokens, in any one currency.
      limit: what may be spent; 0 sets no limit.
      tokens: counted already, in and out.
    """

    def __init__(
        self,
        input_price: float = 0.0,
        output_price: float = 0.0,
        limit: float = 0.0,
        tokens: tuple[int, int] = (0, 0),
    ):
        self._prices = (input_price, output_price)
        self._limit = limit
        self._tokens = tokens
        self._requests = 0
        self._lock = threading.Lock()

    @property
    def cost(self) -> float:
        """So far, in the currency of the prices."""
        return sum(price * count for price, count in zip(self._prices, self._tokens, strict=True)) / 1e6

    def request(self) -> None:
        """Counts a request about to be sent.

        Raises:
          JudgeError: where all that may be spent has been.
        """
        with self._lock:
            if self._limit and self.cost >= self._limit:
                raise JudgeError(
                    f"the judge has cost {self.cost:.2f}, of {self._limit:.2f} that it may; what it said is "
                    "kept, raise rewards.judge.max_cost to go on"
                )
            self._requests += 1

    def reply(self, tokens: tuple[int, int]) -> None:
        """Counts the tokens of a reply, in and out."""
        with self._lock:
            self._tokens = (self._tokens[0] + tokens[0], self._tokens[1] + tokens[1])

    def figures(self) -> Mapping[str, float]:
        """For the log. Requests are this process's, tries that failed among them; tokens and cost are of all
        replies in the cache."""
        with self._lock:
            return {
                "judge_requests": self._requests,
                "judge_input_tokens": self._tokens[0],
                "judge_output_tokens": self._tokens[1],
                "judge_cost": self.cost,
            }
