"""Consistency tokens: what state of a thing a caller has seen, so that it is shown no older one.

A server says in the trailer `accord-consistency` which thing its answer shows, or has changed, and
in which state: `orders/01a1fd97=7` is the seventh of what is called "orders/01a1fd97". Numbers of
one thing only grow; names are compared and nothing else. A caller remembers the highest number, and
sends it as metadata of the same name with calls that must show that state at least (Zanzibar's
"zookie", https://research.google/pubs/pub48190 section 2.4, of one thing and readable).
"""

from typing import Final, NamedTuple

from accord.policies.types import small_number

CONSISTENCY_KEY: Final = "accord-consistency"

MAX_NAME: Final = 200
"""Characters of the name of a thing."""

DIGITS: Final = 19
"""Those of the largest int64; what is longer is no token."""


class Token(NamedTuple):
    """A state of a thing that has been seen."""

    of: str
    position: int

    def __str__(self) -> str:
        return f"{self.of}={self.position}"


def read_token(value: str | bytes | None) -> Token | None:
    """The token that a header or trailer holds; None: it holds none."""
    if not isinstance(value, str) or len(value) > MAX_NAME + 1 + DIGITS:
        return None
    of, _, number = value.rpartition("=")
    position = small_number(number, DIGITS)
    if not of or len(of) > MAX_NAME or position is None:
        return None
    return Token(of, position)
