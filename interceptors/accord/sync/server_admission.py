"""The wait for a place, of a call that is handled in a thread."""

from threading import Lock, RLock
from typing import Any

from accord.context import CallContext
from accord.policies.queue import Permit, Waiter
from accord.server import admission
from accord.server.state import Control


class Admission(admission.Admission):
    """Admits the calls of one method, under the lock of its mesh."""

    __slots__ = ("_lock",)

    def __init__(self, method: str, control: Control, lock: "RLock", **options: Any) -> None:
        """As `accord.server.admission.Admission`; `lock` is shared by all methods of a mesh."""
        super().__init__(method, control, **options)
        self._lock = lock

    def check(self, call: CallContext) -> None:
        """See `accord.server.admission.Admission`."""
        with self._lock:
            super().check(call)

    def enter(self, call: CallContext) -> Permit | None:
        """A permit, when there is a place; None without a limit.

        Raises ResourceExhausted or DeadlineExceeded. A permit is given back with `end`.
        """
        bell = Lock()
        bell.acquire()
        with self._lock:
            found = self.begin(call, bell.release)
        if not isinstance(found, Waiter):
            return found
        try:
            bell.acquire(timeout=self.patience(call))
        except BaseException:
            self.leave(found)
            raise
        with self._lock:
            return self.admitted(call, found)
