"""Finds out, before anything starts, which ports are taken."""

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from services.topology import HOST
from shopctl.program import Program


@dataclass(frozen=True, slots=True)
class TakenPort:
    """A port that a program needs and cannot have."""

    program: str
    purpose: str
    port: int


def taken(programs: Iterable[Program]) -> list[TakenPort]:
    """The ports of `programs` that something else listens on."""
    return [
        TakenPort(program.name, purpose, port)
        for program in programs
        for purpose, port in program.ports.items()
        if not _is_free(port)
    ]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that linger in TIME_WAIT after a restart are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
