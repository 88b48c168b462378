"""What a faulty server does with one attempt."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from accord.policies.types import Code


class Message(Protocol):
    """A protobuf message, as far as this module needs to know."""

    def SerializeToString(self) -> bytes:
        """The message's bytes."""
        ...


class End(Enum):
    """How an attempt ends that does not end with a status."""

    HANG = "hang"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt: wait `delay` seconds of real time, send `messages`, then end."""

    messages: tuple[Message, ...] = ()
    end: Code | End = Code.OK
    delay: float = 0.0
    message: str = ""
    reason: str = ""
    retry_after: float | None = None
    pushback: float | None = None


def reply(*messages: Message, delay: float = 0.0) -> Step:
    """Answer with these messages; an empty one if the method answers with one and none is given."""
    return Step(messages, delay=delay)


def fail(
    code: str,
    message: str = "scripted",
    *,
    after: tuple[Message, ...] = (),
    reason: str = "",
    retry_after: float | None = None,
    pushback: float | None = None,
    delay: float = 0.0,
) -> Step:
    """End with a status.

    Args:
        code: its name, e.g. "UNAVAILABLE".
        message: its text.
        after: messages sent before: a stream that breaks.
        reason: that of its ErrorInfo.
        retry_after: seconds, sent as google.rpc.RetryInfo.
        pushback: seconds, sent as `grpc-retry-pushback-ms`; negative: never again.
        delay: seconds before anything is sent.

    Raises:
        ValueError: there is no such code.
    """
    return Step(after, _code(code), delay, message, reason, retry_after, pushback)


def hang(*, after: tuple[Message, ...] = ()) -> Step:
    """Send nothing more, until the caller gives up."""
    return Step(after, End.HANG)


def drop(*, delay: float = 0.0) -> Step:
    """Cut the connection: the caller, and all other calls on it, see UNAVAILABLE.

    To cut a stream after messages that its reader is known to have, `hang` after them and call
    `FaultyServer.cut`: what is on its way when a connection breaks is lost.
    """
    return Step((), End.DROP, delay)


def step(item: Step | Message | str) -> Step:
    """The step that an item of a script stands for: a message answers, a code's name fails.

    Raises ValueError for a name that is no code.
    """
    if isinstance(item, Step):
        return item
    if not isinstance(item, str):
        return reply(item)
    code = _code(item)
    return reply() if code is Code.OK else fail(item)


def _code(name: str) -> Code:
    try:
        return Code[name]
    except KeyError:
        from accord.contract.names import meant  # late: pytest loads this module in every run

        hint = meant(name, Code.__members__)
        raise ValueError(f"{name!r} is not the name of a status code{hint}") from None
