"""Work queues: commands that each one of several processes shall carry out, whoever has time.

An event is a fact for everybody, kept for ever; a command is a wish to one, and gone when somebody
has it. `command_sender` keeps a command in the sender's database until `command_receiver` has it in
the receiver's. In between the broker holds it, in one stream per queue: bounded, refusing what is
new, without an age at which it would drop anything. docs/queues.md says when to use which.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from accord_runtime.events.broker import DUPLICATE_WINDOW, Broker

DELAYS: Final = (0.0, 1.0)
"""Seconds before each retry: three attempts, then it is parked."""

ACK_WAIT: Final = 30.0
"""Seconds after which the broker gives a command to somebody else that was not acknowledged."""


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """What a queue holds, and how much. One database sends to it, any number take from it."""

    name: str
    command: type[Message]
    """The only type of its messages."""
    key: str
    """The command's field with its id, a UUID: who gets it twice recognises it."""
    max_messages: int
    """Commands that may wait to be taken; a new one is refused then."""
    ttl: float
    """Seconds that a command may wait to be taken; then it is parked."""
    prefetch: int
    """Commands that a receiver's database has taken and not done, at most; parked ones are done."""
    delays: Sequence[float] = DELAYS
    """Seconds before each retry; then it is parked."""
    levels: Sequence[str] = ("normal",)
    """Its priorities, the most urgent first."""
    concurrency: int = 16
    """Commands of a level that a process carries out at a time."""

    @property
    def stream(self) -> str:
        """Its stream on the broker."""
        return f"QUEUE_{self.name.upper()}"

    def subject(self, level: str) -> str:
        """Where commands of a level are published."""
        return f"queue.{self.name}.{level}"

    def work(self, level: str) -> str:
        """The executor's queue of the commands of a level that were taken."""
        return f"{self.name}:{level}"

    async def ensure(self, broker: Broker, jetstream: JetStreamContext) -> StreamInfo:
        """Make the stream and its consumers, unless they are there; what the broker says of it."""
        try:
            info = await jetstream.stream_info(self.stream)
        except NotFoundError:
            info = await jetstream.add_stream(
                StreamConfig(
                    name=self.stream,
                    subjects=[self.subject("*")],
                    retention=RetentionPolicy.WORK_QUEUE,
                    storage=StorageType.FILE,
                    max_msgs=self.max_messages,
                    discard=DiscardPolicy.NEW,
                    duplicate_window=DUPLICATE_WINDOW,
                )
            )
        await broker.ensure_copies(jetstream, info)
        for level in self.levels:
            with suppress(NotFoundError):
                await self.consumer(jetstream, level)
                continue
            await jetstream.add_consumer(
                self.stream,
                ConsumerConfig(
                    durable_name=level,
                    filter_subject=self.subject(level),
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=ACK_WAIT,
                    max_deliver=-1,
                ),
            )
        return info

    async def consumer(self, jetstream: JetStreamContext, level: str) -> ConsumerInfo:
        """What the broker says of the consumer of a level, which all receivers share."""
        info: ConsumerInfo = await jetstream.consumer_info(self.stream, level)
        return info
