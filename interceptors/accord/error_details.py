"""The parts of an error, and how much of them a status holds."""

from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

MAX_MESSAGE: Final = 1024
"""Bytes of a status message in UTF-8. Trailers are bounded by the peer, to 8 KiB by default."""

# On the wire a byte of a message takes up to three (percent-encoding), three bytes of details take
# four (base64, which some peers count), and the rest needs a few hundred: 8 KiB in all.
MAX_DETAILS: Final = 3500
WRAPPING: Final = 100

M = TypeVar("M", bound=Message)

Remade = tuple[Callable[..., Exception], tuple[Any, ...], dict[str, Any]]  # as `pickle` has it


@dataclass(frozen=True, slots=True)
class Precondition:
    """A condition that the state of the system did not meet (google.rpc.PreconditionFailure)."""

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class Resource:
    """What an error is about (google.rpc.ResourceInfo)."""

    type: str
    name: str
    description: str = ""


def about(resource: Resource | None, what: str) -> str:
    """The message of an error about a resource."""
    if resource is None:
        return ""
    if not isinstance(resource, Resource):
        raise TypeError(f"a resource is an accord.Resource(type, name), not {resource!r}")
    return f"{resource.type} {resource.name!r} {what}"


def cut(message: str) -> str:
    """As much of a message as a status holds; what is no character becomes a question mark."""
    return message.encode(errors="replace")[:MAX_MESSAGE].decode(errors="ignore")


def bounded(detail: Message, items: MutableSequence[M], status: Message) -> Message:
    """A detail with as many of its items as fit into a status: some say more than none."""
    room = MAX_DETAILS - WRAPPING - status.ByteSize()
    while len(items) > 1 and detail.ByteSize() > room:
        del items[-1]
    return detail


def remade(error: Exception) -> Remade:
    """For `__reduce__`: an error is copied without its constructor, which takes other arguments."""
    return Exception.__new__, (type(error), *error.args), vars(error)
