"""A server's key: in an environment variable and in the request's header, and nowhere else.

No object holds it, so that none can print, pickle or dump it; it is read anew for every request, and taken
out of whatever the server says, since servers quote what they refuse.
"""

import os
import re

import requests

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# What a header can carry; anything else requests would refuse, and quote.
_KEY = re.compile(r"[!-~]+")


def check_variable(variable: str) -> None:
    """Refuses what is no name of an environment variable: it may be a key, set by mistake.

    Raises:
      ValueError: without quoting it.
    """
    if variable and not _VARIABLE.fullmatch(variable):
        raise ValueError(
            "rewards.judge.key_variable must name an environment variable (capitals, digits, _), and never "
            "be the key itself; what it is set to is not shown, in case it is"
        )


class EnvironmentKey(requests.auth.AuthBase):
    """Signs requests with the key in an environment variable.

    Args:
      variable: its name; "" sends no key.

    Raises:
      ValueError: where the variable holds no key; its value is not quoted.
    """

    def __init__(self, variable: str):
        self._variable = variable
        if variable and not _KEY.fullmatch(self._key):
            raise ValueError(
                f"the environment variable {variable} holds no key; export it, or set "
                "rewards.judge.key_variable='' for a server that needs none"
            )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sets the header; called by requests, which would otherwise look for a key in .netrc."""
        if self._variable:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def hidden(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._key, "[key]") if self._key else text

    @property
    def _key(self) -> str:
        return os.environ.get(self._variable, "").strip() if self._variable else ""
