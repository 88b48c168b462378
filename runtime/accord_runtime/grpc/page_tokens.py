"""Pages of a list, and their tokens: where the list goes on.

A token is opaque to callers and good for the filters it was given out for. It
is not a secret: it holds the last id of the page before.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from accord.errors import InvalidArgument

DEFAULT_SIZE = 50
"""Rows of a page when the caller does not say."""

_VERSION = 1

R = TypeVar("R")


class PageRequest(Protocol):
    """What the request for a page says of it."""

    page_size: int
    page_token: str


class Page:
    """The page that a request asks for.

    Args:
        request: the request.
        filters: what its token must have been given out for.

    Raises:
        InvalidArgument: the token was not given out for these filters.
    """

    def __init__(self, request: PageRequest, **filters: str) -> None:
        self._filters = filters
        self._size = page_size(request.page_size)
        self.last = decode_token(filters, request.page_token)
        """The last row of the page before; None for the first page."""
        self.most = self._size + 1
        """Rows to read: one more than asked for shows whether there is a next page."""

    def cut(
        self,
        found: list[R],
        id_of: Callable[[R], str],
        *,
        most: int | None = None,
    ) -> tuple[list[R], str]:
        """The rows of this page, of all that were read, and the token of the next.

        Args:
            found: up to `self.most` rows.
            id_of: what a token holds of a row.
            most: rows that fit, if fewer than asked for.
        """
        rows = found[: self._size if most is None else min(most, self._size)]
        return rows, encode_token(self._filters, id_of(rows[-1])) if len(found) > len(rows) else ""


def page_size(asked: int) -> int:
    """Rows to return for a `page_size` of a request; its upper bound is in the contract."""
    return asked or DEFAULT_SIZE


def encode_token(filters: Mapping[str, str], last: str) -> str:
    """The token for the page after the row `last`."""
    raw = json.dumps([_VERSION, _digest(filters), last]).encode()
    return base64.urlsafe_b64encode(raw).decode()


def decode_token(filters: Mapping[str, str], token: str) -> str | None:
    """The last row of the page before; None for the first page.

    Raises:
        InvalidArgument: the token was not given out for these filters.
    """
    if not token:
        return None
    try:
        version, digest, last = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(("page_token", "is not a token of this list")) from error
    if version != _VERSION or digest != _digest(filters):
        raise InvalidArgument(("page_token", "was given out for other filters"))
    # A forged id may hold what no database can store, such as half a surrogate pair.
    if not isinstance(last, str) or not last.isascii() or not last.isprintable():
        raise InvalidArgument(("page_token", "is not a token of this list"))
    return last


def _digest(filters: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(filters.items())).encode()).hexdigest()[:16]
