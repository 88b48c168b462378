"""Work that no process serves: that of a queue which only another version of the service knows.

It waits for a process that does, for some are being started again or rolled out. After a while it
is parked, where an operator sees it.
"""

import logging
from collections.abc import Collection
from typing import Final

from accord_runtime.database import Tx
from accord_runtime.work import table

log = logging.getLogger(__name__)

UNSERVED: Final = 60.0
"""Seconds without a process that serves a queue after which its work is parked."""

EVERY: Final = 5.0
"""Seconds between looks at the table."""

MOST: Final = 1000
"""Rows that are parked at a time."""


class Unserved:
    """What one process sees of it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # by queue
        self._looked = 0.0

    def look(self, tx: Tx, own: Collection[str], now: float) -> list[str]:
        """The queues with work that nobody has served for too long; `own` are served here."""
        if not 0 <= now - self._looked < EVERY:
            self._looked = now
            found = self._found(tx, own)
            self._since = {queue: self._since.get(queue, now) for queue in found}
        return [queue for queue, since in self._since.items() if now >= since + UNSERVED]

    def _found(self, tx: Tx, own: Collection[str]) -> set[str]:
        replicas = [row["queues"] for row in tx.all("SELECT queues FROM replica")]
        # A replica of the version before does not say what it serves: it may be any of them.
        if not all(replicas):
            return set()
        return _queues(tx) - {*own, *"\n".join(replicas).splitlines()}

    def park(self, tx: Tx, own: Collection[str], now: float) -> None:
        """Park their work."""
        if self.look(tx, own, now):
            self._looked = 0.0  # Somebody may have come since.
        for queue in self.look(tx, own, now):
            why = f"no process serves queue {queue!r}; retry it when one does"
            for row in tx.all(_WAITING, {"queue": queue}):
                attempts = row["attempts"] + 1
                history = table.noted(row["history"], now, attempts, why)
                tx.execute(_PARK, {"id": row["id"], "attempts": attempts, "history": history})
                log.error("%s %s is parked: %s", queue, row["key"], why)


_WAITS: Final = "FROM work WHERE queue = :queue AND state = 'ready' AND lease_until = 0 LIMIT"
_ANY: Final = f"SELECT 1 {_WAITS} 1"
_WAITING: Final = f"SELECT id, key, attempts, history {_WAITS} {MOST}"
_PARK: Final = (
    "UPDATE work SET state = 'parked', attempts = :attempts, history = :history WHERE id = :id"
)


def _queues(tx: Tx) -> set[str]:
    """The queues with work that waits."""
    found: set[str] = set()
    queue: str | None = ""
    # From one to the next by the index: there may be much work, and there are few queues.
    while queue is not None:
        queue = tx.value("SELECT MIN(queue) FROM work WHERE queue > :queue", {"queue": queue})
        if queue is not None and tx.one(_ANY, {"queue": queue}) is not None:
            found.add(queue)
    return found
