"""How to connect to PostgreSQL: what a URL says, and what holds where it says nothing."""

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from accord_runtime.database.interface import DatabaseError

CONNECT_TIMEOUT = 3
"""Seconds to wait for a connection."""

_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": CONNECT_TIMEOUT,
    # A server that vanished without a word must not hold a thread for minutes.
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Connection parameters that a URL may override."""


def parameters(url: str) -> dict[str, Any]:
    """What a URL says of a connection.

    Raises:
        DatabaseError: it cannot be read. libpq quotes what it does not understand, which is as
            likely as not a part of the password; so nothing of that is told.
    """
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:
        found = None
    if found is None or "@" in str(found.get("host")):  # the second half of a password
        raise DatabaseError(
            "the database's URL cannot be read: expected postgresql://USER:PASSWORD@HOST:PORT/NAME,"
            " with each other sign of a password as % and two hexadecimal digits"
        )
    return found


def conninfo(url: str, service: str) -> str:
    """How a service connects to the server of a URL.

    Raises:
        DatabaseError: as `parameters`.
    """
    given = parameters(url)
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
    defaults.setdefault("application_name", service)
    return make_conninfo(url, **defaults)
