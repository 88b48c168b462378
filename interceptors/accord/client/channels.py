"""The channels of a mesh: made once, then kept, for as long as there are their credentials.

Credentials are renewed by new ones, and nobody can ask for the channel of those that are forgotten.
It is left to those who have stubs of it, and gRPC closes it with the last of these and its calls.
"""

from collections.abc import Callable, Hashable
from threading import RLock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import grpc

C = TypeVar("C")
"""A channel of one kind of gRPC."""


class Channels(Generic[C]):
    """Safe under threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._plain: dict[Hashable, C] = {}
        self._secure: WeakKeyDictionary[grpc.ChannelCredentials, dict[Hashable, C]]
        self._secure = WeakKeyDictionary()
        self._open: WeakSet[C] = WeakSet()

    def find(
        self, credentials: grpc.ChannelCredentials | None, key: Hashable, make: Callable[[], C]
    ) -> C:
        """The channel of `key`; it is made if there is none, for which others wait."""
        with self._lock:
            kept = self._plain if credentials is None else self._secure.setdefault(credentials, {})
            channel = kept.get(key)
            if channel is None:
                channel = kept[key] = make()
                self._open.add(channel)
            return channel

    def clear(self) -> list[C]:
        """All that are open, to be closed."""
        with self._lock:
            found = list(self._open)
            for kept in (self._plain, self._secure, self._open):
                kept.clear()
        return found
