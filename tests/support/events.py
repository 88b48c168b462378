"""What a service has published, and an outbox for code that is called without a process."""

from typing import Final

from google.protobuf.message import Message

from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import Outbox, of_key

OUTBOX: Final = Outbox(lambda: None, lambda key: None)
"""Where events are left; nobody is told."""


async def events_of(database: Database, key: str) -> list[Message]:
    """The events of a key, their numbers without a gap."""
    return await database.read(lambda tx: published(tx, key))


def published(tx: Tx, key: str) -> list[Message]:
    """The same, in a transaction."""
    found = of_key(tx, key)
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))
    return [event.message() for event in found]
