"""The engine's call, for callers in many threads."""

from threading import RLock
from typing import Any

from accord.client import call
from accord.client.decisions import Again, Failure, Raise, Refuse, Send


class Call(call.Call):
    """Decides under the lock of its mesh: counters and tables have none of their own."""

    __slots__ = ("_lock",)

    def __init__(self, lock: "RLock", *args: Any, **kwargs: Any) -> None:
        """As `call.Call`; `lock` is shared by all calls of a mesh."""
        self._lock = lock
        with lock:
            super().__init__(*args, **kwargs)

    def lookup(self, request: Any, *, principal: str, at_least: int) -> Any:
        """See `call.Call`."""
        with self._lock:
            return super().lookup(request, principal=principal, at_least=at_least)

    def keep(self, answer: Any, *, size: int, position: int) -> None:
        """See `call.Call`."""
        with self._lock:
            super().keep(answer, size=size, position=position)

    def admit(self) -> Send | Refuse:
        """See `call.Call`."""
        with self._lock:
            return super().admit()

    def hedge_delay(self) -> float | None:
        """See `call.Call`."""
        with self._lock:
            return super().hedge_delay()

    def admit_hedge(self) -> Send | None:
        """See `call.Call`."""
        with self._lock:
            return super().admit_hedge()

    def accepted(self, send: Send) -> None:
        """See `call.Call`."""
        with self._lock:
            super().accepted(send)

    def succeeded(self, send: Send) -> None:
        """See `call.Call`."""
        with self._lock:
            super().succeeded(send)

    def released(self, send: Send, *, lost: bool = False) -> None:
        """See `call.Call`."""
        with self._lock:
            super().released(send, lost=lost)

    def recorded(self, send: Send, failure: Failure) -> None:
        """See `call.Call`."""
        with self._lock:
            super().recorded(send, failure)

    def failed(self, send: Send, failure: Failure) -> Again | Raise:
        """See `call.Call`."""
        with self._lock:
            return super().failed(send, failure)
