"""The threads of a server, which know how long what they do has waited for them."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


USUAL: Final = sys.getswitchinterval()
SWITCH: Final = min(0.001, USUAL)
"""Seconds after which a thread that works lets another one have the interpreter."""

FEW: Final = 100
"""Calls, waiting ones included, up to which it counts: a crowd is woken as often as well."""


class _Thread(local):
    waited = 0.0
    """Seconds between the submission and the beginning of what this thread does."""


THREAD: Final = _Thread()


class Pool(ThreadPoolExecutor):
    """One that tells its threads, by `THREAD.waited`; 0 in threads of other pools."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As its base."""
        came = time.monotonic()

        def run() -> T:
            THREAD.waited = time.monotonic() - came
            return fn(*args, **kwargs)

        return super().submit(run)


def share(calls: int) -> None:
    """Have threads share the interpreter in smaller parts while there are few calls.

    The thread with which gRPC takes calls in needs it four times for each. If it waits for `USUAL`
    seconds each time, 50 calls a second get in, and others wait where nobody sees them.
    """
    if (calls <= FEW) != (sys.getswitchinterval() < USUAL):
        sys.setswitchinterval(SWITCH if calls <= FEW else USUAL)
