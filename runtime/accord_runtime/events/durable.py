"""The durable consumer on the broker from which an inbox receives.

It lives in the broker's memory: where to go on is decided by the receiver's database, and to write
it down at each message would be a quarter of what the broker does. After a restart it is made anew.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError

ACK_WAIT: Final = 30.0
"""Seconds after which a message that was not acknowledged comes again."""


async def find(jetstream: JetStreamContext, stream: str, name: str) -> ConsumerInfo | None:
    """How it stands; None: there is none."""
    with suppress(NotFoundError):
        info: ConsumerInfo = await jetstream.consumer_info(stream, name)
        return info
    return None


def acknowledged(info: ConsumerInfo) -> int:
    """The stream's sequence up to which all is acknowledged."""
    assert info.ack_floor is not None
    return info.ack_floor.stream_seq


def delivered(info: ConsumerInfo) -> int:
    """How many messages it has sent."""
    assert info.delivered is not None
    return info.delivered.consumer_seq


def fits(info: ConsumerInfo, subjects: Sequence[str], start: int) -> bool:
    """Whether it is as `make` makes it, goes on behind `start`, and has no message out."""
    config = info.config
    return (
        not info.num_ack_pending
        and acknowledged(info) == start
        and sorted(config.filter_subjects or [config.filter_subject or ""]) == sorted(subjects)
        and config.ack_policy == AckPolicy.ALL
        and bool(config.mem_storage)
    )


async def make(
    jetstream: JetStreamContext,
    stream: str,
    name: str,
    subjects: Sequence[str],
    *,
    start: int,
    unacked: int,
) -> None:
    """Make it, whether there is one or not: from behind `start`, with so many messages out."""
    with suppress(NotFoundError):
        await jetstream.delete_consumer(stream, name)
    config = ConsumerConfig(
        durable_name=name,
        filter_subjects=list(subjects),
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=start + 1,
        ack_policy=AckPolicy.ALL,
        ack_wait=ACK_WAIT,
        max_ack_pending=unacked,
        max_deliver=-1,
        mem_storage=True,
    )
    await jetstream.add_consumer(stream, config)
