"""Whether the control plane of a fleet is there: gRPC goes on without it, and tells nobody."""

import logging
import time
from threading import Event, Thread
from typing import Final

import grpc

from accord._log import log
from accord.identity import Identity

INTERVAL: Final = 5.0
"""Seconds between two looks."""
PATIENCE: Final = 2.0
"""Seconds that it has to take a connection and say its first word."""
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own, each time


class Presence:
    """Looks until it is closed, by connections with the certificate of their moment, or plain."""

    def __init__(self, address: str, identity: Identity | None) -> None:
        self._address = address
        self._identity = identity
        self._since: float | None = None
        self.closed = Event()
        Thread(target=self._run, name="accord-xds-presence", daemon=True).start()

    @property
    def problem(self) -> str:
        """That it is away, and for how long; "": it was there when last looked for."""
        if (since := self._since) is None:
            return ""
        away = f"the control plane {self._address} has been away for {time.monotonic() - since:.0f}"
        return f"{away} s; what it said last holds"

    def _run(self) -> None:
        while not self.closed.is_set():
            began, there = time.monotonic(), self._look()
            if not self.closed.is_set() and there is not (self._since is None):
                self._since = None if there else began
                level, says = (logging.INFO, "there again") if there else (logging.WARNING, "away")
                log(level, f"the control plane is {says}", address=self._address)
            self.closed.wait(INTERVAL)

    def _look(self) -> bool:
        if self._identity is None:
            channel = grpc.insecure_channel(self._address, _OPTIONS)
        else:
            now = self._identity.bundle
            shown = grpc.ssl_channel_credentials(now.roots, now.key, now.certificate)
            channel = grpc.secure_channel(self._address, shown, _OPTIONS)
        with channel:
            try:
                grpc.channel_ready_future(channel).result(PATIENCE)
            except grpc.FutureTimeoutError:
                return False
            return True
