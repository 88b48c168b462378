"""Idempotency: which calls are the same call, and whether they ask for the same thing.

A call is identified by its scope (principal, method, key) and recognised as a faithful repeat by
the fingerprint of its request. The interceptor looks up; the handler's own transaction writes the
record, so that it exists exactly when the effect does.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final, Protocol

MAX_KEY_LENGTH: Final = 255
"""Characters. Longer keys are refused, so that they fit any index."""

POLL_INTERVAL: Final = 0.050
"""Seconds between two looks at an answer that another process is working on."""

RETRY_AFTER: Final = 1.0
"""Seconds that a caller is told to wait when the first call did not finish in time."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Identity of a call: nobody can collide with another principal's or method's keys."""

    principal: str
    """Who acts, see `accord.CallContext.actor`: an edge calls for many users."""
    method: str
    key: str

    def item(self, index: int) -> "Scope":
        """The scope of one item of a client stream, counted from 0.

        The separator is a blank, which no caller's key can contain.
        """
        return replace(self, key=f"{self.key} {index}")


def key_problem(key: str) -> str | None:
    """What is wrong with a caller's key, or None: it is 1 to 255 visible ASCII characters."""
    if not key:
        return "must not be empty"
    if len(key) > MAX_KEY_LENGTH:
        return f"must not be longer than {MAX_KEY_LENGTH} characters"
    if not all("!" <= char <= "~" for char in key):
        return "must consist of visible ASCII characters"
    return None


class Serialisable(Protocol):
    """A protobuf message, as far as this module needs to know."""

    def SerializeToString(self, *, deterministic: bool) -> bytes:
        """The message's bytes."""
        ...


def fingerprint(method: str, request: Serialisable | bytes) -> bytes:
    """32 bytes that stand for a request of a method, the same for equal requests.

    A message is serialised deterministically, so that the order of its maps does not matter.
    """
    if not isinstance(request, bytes):
        request = request.SerializeToString(deterministic=True)
    digest = hashlib.sha256(method.encode())
    digest.update(b"\0")
    digest.update(request)
    return digest.digest()
