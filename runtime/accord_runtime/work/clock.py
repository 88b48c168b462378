"""The time by which work is due: the database's, which may be set."""

import logging
import time
from collections.abc import Callable
from typing import Final

from accord_runtime.database import Tx
from accord_runtime.work import ownership

log = logging.getLogger(__name__)

STEP: Final = 1.0
"""Seconds by which a clock must jump to be said to have been set."""


class DatabaseClock:
    """Unix seconds, as they were when they were last `read`, and by the monotonic clock since."""

    def __init__(self) -> None:
        # What the clock showed when the monotonic one showed zero.
        self._epoch = time.time() - time.monotonic()

    def __call__(self) -> float:
        """The time now."""
        return self._epoch + time.monotonic()

    def read(self, tx: Tx, stepped: Callable[[], None]) -> float:
        """The time now, from the database; that it was set is said, and `stepped` called for it."""
        monotonic = time.monotonic()
        epoch = (ownership.now(tx) if tx.postgres else time.time()) - monotonic
        step, self._epoch = epoch - self._epoch, epoch
        if abs(step) > STEP:
            log.warning("the clock was set by %+.1f s; work goes on by the new one", step)
            tx.after_commit(stepped)
        return epoch + monotonic
