"""A server's key: in an environment variable and in the request's header, and nowhere else.

No object holds it, so that none can print, pickle or dump it; it is read anew for every request, and taken
out of whatever the server says, since servers quote what they refuse, as it is or escaped.
"""

import html
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

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
      ValueError: where the variable holds no key; neither its name nor its value is quoted.
    """

    def __init__(self, variable: str):
        self._variable = variable
        if variable and not _KEY.fullmatch(self._key):
            raise ValueError(
                "the environment variable that rewards.judge.key_variable names holds no key; export it, or "
                "set rewards.judge.key_variable='' for a server that needs none; the name is not shown, in "
                "case it is a key"
            )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sets the header; called by requests, which would otherwise look for a key in .netrc."""
        if self._variable:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def hidden(self, text: str) -> str:
        """The text without the key, in whatever case and escaped for whatever it was quoted in."""
        if not self._key:
            return text
        first, rest = self._key[0], self._key[1:]
        # A run of backslashes is looked at once, from its beginning, and not from each of them.
        pattern = _spellings(first, r"(?<!\\)") + "".join(map(_spellings, rest))
        return re.sub(pattern, "[key]", text, flags=re.IGNORECASE)

    @contextmanager
    def kept_out_of(self, *names: str) -> Iterator[None]:
        """Loggers of others, which quote what a server sends, hide the key meanwhile, and tracebacks.

        Args:
          names: theirs.
        """

        def without_key(record: logging.LogRecord) -> bool:
            record.msg, record.args, record.exc_info = self.hidden(record.getMessage()), (), None
            return True

        loggers = [logging.getLogger(name) for name in names]
        for logger in loggers:
            logger.addFilter(without_key)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(without_key)

    @property
    def _key(self) -> str:
        return os.environ.get(self._variable, "").strip() if self._variable else ""


def _spellings(character: str, before_backslashes: str = "") -> str:
    """A pattern of a character as it is and as JSON, a URL and HTML escape it, once or several times."""
    code = ord(character)
    return (
        rf"(?:{before_backslashes}\\*{re.escape(character)}|{before_backslashes}\\+u{code:04x}|%(?:25)*{code:02x}"
        rf"|&(?:amp;)*(?:#0*{code}|#x0*{code:x}|{re.escape(html.escape(character).strip('&;'))});)"
    )
