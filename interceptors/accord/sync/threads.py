"""The threads of a server, which know how long what they do has waited for them."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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
