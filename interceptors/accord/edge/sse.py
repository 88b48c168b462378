"""Server streams as server-sent events.

`id` is the resume token of the contract, by which `Last-Event-ID` goes on; `data` is the message.
A stream that ends says so by an event `end`, one that fails by an event `error` with the problem.
Source: the HTML standard, 9.2.
"""

from typing import Final

from google.protobuf.message import Message
from grpc import StatusCode

from accord.edge.fanout import Event
from accord.edge.http import Request
from accord.edge.printing import to_json
from accord.edge.problem import EdgeError, failure
from accord.edge.routes import Route
from accord.policies.types import small_number

EVENTS: Final = "text/event-stream"

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # of nginx, which would keep events until it has many
)


class EventWriter:
    """Writes one stream."""

    form = EVENTS
    keepalive = b": keepalive\n\n"

    def __init__(self, request: Request, domain: str) -> None:
        self._request = request
        self._domain = domain

    async def begin(self, request: Request, *, empty: bool) -> bool:
        """Status and headers; 204 for who has seen all: it tells a browser to come no more."""
        if empty and "last-event-id" in request.headers:
            await request.begin(204, ())
            await request.write(b"", more=False)
            return False
        await request.begin(200, _HEADERS)
        return True

    def event(self, event: Event) -> bytes:
        """A message."""
        head = f"id: {event.token}\n" if event.token else ""
        return f"{head}data: {to_json(event.message)}\n\n".encode()

    def end(self, error: BaseException | None) -> bytes:
        """The last event."""
        if error is None:
            return b"event: end\ndata: {}\n\n"
        request = self._request
        problem = failure(error, self._domain).problem(request.path, request.id)
        return b"event: error\ndata: " + problem + b"\n\n"


def resume(request: Request, message: Message, route: Route) -> None:
    """Have the request of an RPC go on behind the last event that a client has seen.

    Raises EdgeError: what it says is no id of an event.
    """
    given = request.headers.get("last-event-id")
    if not given or route.policy.resume is None:
        return
    try:
        setattr(message, route.policy.resume.request_field, small_number(given, 19))
    except (TypeError, ValueError):
        text = "last-event-id is none of this stream"
        code = StatusCode.INVALID_ARGUMENT
        raise EdgeError(400, code, "INVALID_HEADER", text) from None
