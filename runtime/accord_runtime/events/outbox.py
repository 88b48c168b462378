"""Appends events, and wakes whoever waits for them once they are committed."""

import time
from collections.abc import Callable

from google.protobuf.message import Message

from accord_runtime.database import Tx
from accord_runtime.events import record as events
from accord_runtime.events.notifier import Hub
from accord_runtime.events.publisher import Relay
from accord_runtime.events.record import Event


class Outbox:
    """Where the transactions of a service leave their events."""

    def __init__(self, relay: Relay, hub: Hub, clock: Callable[[], float] = time.time) -> None:
        self._relay = relay
        self._hub = hub
        self._clock = clock

    def append(self, tx: Tx, event: Message, *, sequence: int, causation_id: str = "") -> Event:
        """Write an event with the transaction; see `events.append` for the arguments."""
        written = events.append(
            tx, event, sequence=sequence, now=self._clock(), causation_id=causation_id
        )
        tx.after_commit(self._relay.wake)
        tx.after_commit(lambda: self._hub.changed(written.key))
        return written
