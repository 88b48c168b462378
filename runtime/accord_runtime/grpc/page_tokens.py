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
from accord_runtime.database import Params, Row, Tx
from accord_runtime.database.interface import NO_PARAMS

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
        self.last = decode_token(filters, request.page_token)
        """The last row of the page before; None for the first page."""
        self.size = request.page_size or DEFAULT_SIZE
        self.most = self.size + 1
        """Rows to read: one more than asked for shows whether there is a next page."""

    def cut(
        self, found: list[R], id_of: Callable[[R], str], most: int | None = None
    ) -> tuple[list[R], str]:
        """The rows of this page, of all that were read, and the token of the next.

        Args:
            found: up to `self.most` rows.
            id_of: what a token holds of a row.
            most: rows that fit, if fewer than asked for.
        """
        rows = found[: self.size if most is None else min(most, self.size)]
        return rows, self.token(id_of(rows[-1])) if len(found) > len(rows) else ""

    def token(self, last: str) -> str:
        """The token of the page that begins behind `last`."""
        return encode_token(self._filters, last)

    def read(
        self,
        tx: Tx,
        select: str,
        key: str,
        *where: str,
        params: Params = NO_PARAMS,
        equal: Params = NO_PARAMS,
        newest_first: bool = False,
        fitting: Callable[[list[Row]], int] | None = None,
    ) -> tuple[list[Row], str]:
        """This page of a table, and the token of the next.

        `select` ends with the table. `key` is the column that orders the rows; no two of them share
        a value. `params` are those of the conditions in `where`; `equal`: column -> value that it
        must have, an empty one stands for any. `fitting` says how many of some rows, the first of
        them, make a page.
        """
        conditions = [*where, *(f"{column} = :{column}" for column in equal if equal[column])]
        if self.last is not None:
            conditions.append(f"{key} {'<' if newest_first else '>'} :last")
        found = tx.all(
            select
            + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
            + f" ORDER BY {key}{' DESC' if newest_first else ''} LIMIT :most",
            {**params, **equal, "last": self.last, "most": self.most},
        )
        return self.cut(found, lambda row: str(row[key]), fitting(found) if fitting else None)


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
