"""Versions of events: how what was written with another meaning is read by today's code.

An event's version (`accord.v1.event`) rises when its meaning changes. A field that is only added
raises nothing: who does not know it passes over it. So an event of the reader's own version is read
as it is, an older one is taken up step by step, and a newer one is not read at all (`TooNew`):
what it means is known only to who has been upgraded.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from accord import event_policy

M = TypeVar("M", bound=Message)

Step = Callable[[Any], None]
"""Makes an event of one version, in today's message, into one of the next; in place."""


class TooNew(Exception):
    """An event was written by a newer version of the code, which alone can read it."""


class Upcasters:
    """What a service knows of older versions of the events that it reads.

    Args:
        steps: event -> what makes version 1 into 2, 2 into 3 and so on, up to today's.
    """

    def __init__(
        self, steps: Mapping[type[Message], Sequence[Step]] = MappingProxyType({})
    ) -> None:
        self._steps = dict(steps)
        for kind in self._steps:
            self.check(kind)

    def check(self, kind: type[Message]) -> int:
        """The version of an event that is read here.

        Raises:
            ValueError: the message is no event, or some older version of it cannot be read.
        """
        policy, steps = event_policy(kind), len(self._steps.get(kind, ()))
        name = kind.DESCRIPTOR.full_name
        if policy is None:
            raise ValueError(f"{name} is no event")
        if steps != policy.version - 1:
            raise ValueError(
                f"{name} is of version {policy.version}: {policy.version - 1} upcasters lead to it,"
                f" not {steps}"
            )
        return policy.version

    def read(self, kind: type[M], version: int, payload: bytes) -> M:
        """An event of some version as one of today's.

        Raises:
            TooNew: the version is newer than today's.
            DecodeError: the payload is no such message.
            ValueError: as `check`, or there is no such version.
        """
        today = self.check(kind)
        if version > today:
            raise TooNew(
                f"{kind.DESCRIPTOR.full_name} of version {version} is newer than what is known"
                f" here, version {today}: upgrade, then try again"
            )
        if version < 1:
            raise ValueError(f"{kind.DESCRIPTOR.full_name} has no version {version}")
        event = kind.FromString(payload)
        for step in self._steps.get(kind, ())[version - 1 :]:
            step(event)
        return event


AS_WRITTEN: Final = Upcasters()
"""For events that have had one version so far."""
