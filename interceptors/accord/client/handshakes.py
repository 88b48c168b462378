"""TLS handshakes that fail: told in the log, with the side that has refused and why.

gRPC's server closes a connection whose certificate it does not accept without a word; why, it says
in its own process's log: "Handshake failed with error SSL_ERROR_SSL: ... certificate has expired".
"""

import logging
from typing import TYPE_CHECKING, Final

from accord._log import log
from accord.client import local_status
from accord.client.method_state import Target

if TYPE_CHECKING:
    from accord.identity import Identity

MINUTE: Final = 60.0
"""Seconds between two lines of one target."""

_LIBRARY: Final = "OPENSSL_internal:"


class HandshakeLog:
    """One per process."""

    def __init__(self, identity: "Identity | None") -> None:
        self._identity = identity

    def failed(self, target: Target, details: str, now: float) -> None:
        """A handshake with a target has failed; `details` of the status, `now` on a clock."""
        if now - target.told_at < MINUTE:
            return
        target.told_at = now
        _, _, reason = details.rpartition(_LIBRARY)
        reason = reason.removesuffix(": OK")
        by_server = local_status.turned_away(details) or "ALERT" in reason
        if by_server and self._identity is not None:
            found = self._identity
            reason = found.problem or f"it is shown {found.id}, serial {found.bundle.serial}"
        log(
            logging.WARNING,
            "a TLS handshake was refused by the server, whose log says why"
            if by_server
            else "a TLS handshake was refused by this process",
            target=target.name,
            reason=reason,
        )
