"""Calls into the mesh: a route with what is made once for all its calls, and for whom they are."""

import time
from collections import OrderedDict
from typing import Any, Final

from google.protobuf.message import Message

from accord.edge.auth import Caller
from accord.edge.headers import within
from accord.edge.http import Request
from accord.edge.limits import EdgeLimits
from accord.edge.routes import Route
from accord.edge.transcoding import Transcoder
from accord.identity import Identity
from accord.identity.users import USER_KEY, issue
from accord.mesh import Mesh

Metadata = tuple[tuple[str, str], ...]

NOTICED: Final = 0.02
"""Seconds after which a call looks whether its client is still there: most are over by then."""

_FRESH: Final = 20.0
"""Seconds for which a user's token is used again, of the sixty that it lives."""

_USERS: Final = 10_000
"""Users whose tokens are kept."""


class Users:
    """Issues the tokens by which services know for whom a call is made."""

    def __init__(self, identity: Identity | None) -> None:
        """`identity`: who issues them; None: nobody, and calls are nobody's but the edge's."""
        self._identity = identity
        self._kept: OrderedDict[tuple[str, frozenset[str]], tuple[float, Metadata]] = OrderedDict()

    def metadata(self, caller: Caller | None) -> Metadata:
        """What says for whom a call is made."""
        if caller is None or self._identity is None:
            return ()
        key, now = (caller.subject, caller.roles), time.monotonic()
        known = self._kept.get(key)
        if known is not None and now < known[0]:
            return known[1]
        token = issue(self._identity.bundle, caller.subject, sorted(caller.roles))
        made: Metadata = ((USER_KEY, token),)
        self._kept[key] = now + _FRESH, made
        self._kept.move_to_end(key)
        if len(self._kept) > _USERS:
            self._kept.popitem(last=False)
        return made


class Endpoint:
    """A route, and the RPC behind it."""

    def __init__(self, route: Route, mesh: Mesh, target: str, limits: EdgeLimits) -> None:
        """Raises ValueError: the mesh has no such target."""
        self.route = route
        channel = mesh.channel(target, route.service)
        make: Any = channel.unary_stream if route.streaming else channel.unary_unary
        self.call = make(
            route.method,
            request_serializer=route.request.SerializeToString,
            response_deserializer=route.response.FromString,
        )
        self.transcoder = Transcoder(route.request, route.fields)
        self.cached = route.policy.cache is not None and route.verb == "GET"
        bounded = route.streaming or route.policy.timeout is not None
        self._timeout = None if bounded else limits.timeout

    async def answer(
        self, request: Request, message: Message, metadata: Metadata, seconds: float | None
    ) -> tuple[Message, Any]:  # gRPC's
        """The response, and its trailers if it may be kept. Raises as the call does.

        `seconds`: that the client gives it. The call ends when the client goes away.
        """
        with request.watched(NOTICED), within(request.headers, seconds):
            call = self.call(message, metadata=metadata, timeout=self._timeout)
            found = await call
            return found, await call.trailing_metadata() if self.cached else None
