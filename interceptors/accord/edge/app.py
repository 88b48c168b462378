"""The edge as an ASGI application: what comes in is bounded, authorised and sent on."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc import StatusCode
from starlette.middleware.cors import CORSMiddleware

from accord._log import log
from accord.edge import grpc_web, rest, sse
from accord.edge.auth import Authenticator, Caller, check_scopes, refused
from accord.edge.calls import Endpoint, Metadata, Users
from accord.edge.fanout import Hub
from accord.edge.headers import ALLOWED, EXPOSED, carried, request_id, timeout, traced
from accord.edge.http import Gone, Request, Scope, bounded, encoded
from accord.edge.limits import EdgeLimits, Places, RateLimits, who
from accord.edge.problem import EdgeError, failure
from accord.edge.routes import Route, Router
from accord.edge.streams import Writer, stream
from accord.errors import ServiceError
from accord.mesh import Mesh

_VERBS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_PROBLEM: Final = b"application/problem+json"


class Edge:
    """An ASGI application that serves the RPCs with a route to callers outside of the mesh.

    Belongs to one event loop. Its streams end with `close`, which is to be called before a server
    waits for its connections; the mesh is the caller's to close.
    """

    routes: Mapping[str, Route]
    """By method as it travels, "/pkg.Service/Method"."""

    def __init__(
        self,
        mesh: Mesh,
        routes: Iterable[Route],
        *,
        targets: Mapping[str, str] | None = None,
        authenticator: Authenticator | None = None,
        cors_origins: Sequence[str] = (),
        limits: EdgeLimits | None = None,
        mounts: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What is served.

        Args:
            mesh: makes the calls; for users, if it has an identity that may issue tokens for them.
            routes: see `routes_of`.
            targets: full names of services -> targets of the mesh; one that is missing is a target
                of its own name.
            authenticator: of callers; None: nobody has a token that is believed, so that only
                public routes can be called.
            cors_origins: whose pages browsers may let call, "https://shop.example"; none by itself.
            limits: see `EdgeLimits`.
            mounts: other ASGI applications by the beginning of their paths, such as "/graphql".
                They get bounded bodies and headers, and authorise by themselves: see `caller`.
            clock: monotonic, of rate limits.

        Raises:
            ValueError: the mesh has no such target.
        """
        found, self._limits = tuple(routes), limits or EdgeLimits()
        self._domain = mesh.name
        self._authenticator = authenticator
        self._users = Users(mesh.identity)
        self._endpoints = {
            route.method: Endpoint(
                route, mesh, (targets or {}).get(route.service, route.service), self._limits
            )
            for route in found
        }
        self.routes = MappingProxyType({route.method: route for route in found})
        self._router = Router(found)
        self._rates = RateLimits(found, self._limits.rate, clock)
        self._requests = Places(self._limits.requests, self._limits.requests)
        self._streams = Places(self._limits.streams, self._limits.streams_each)
        self._hub = Hub()
        self._mounts = dict(mounts or {})
        self._http: Any = self._serve
        if cors_origins:
            self._http = CORSMiddleware(
                self._serve,
                allow_origins=tuple(cors_origins),
                allow_methods=_VERBS,
                allow_headers=ALLOWED,
                expose_headers=EXPOSED,
            )

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            raise ValueError(f"an edge serves HTTP, and no {scope['type']}")
        await self._http(scope, receive, send)

    # For what is mounted.

    async def caller(self, scope: Scope) -> Caller | None:
        """Who sends a request; None: nobody says so. Raises ServiceError: the token is invalid."""
        return await self._caller(Request(scope))

    def permit(self, scope: Scope, caller: Caller | None, route: Route) -> None:
        """That a caller may call an RPC now, by its scopes and rate. Raises ServiceError."""
        if not route.public:
            check_scopes(caller, route.scopes)
        self._rates.admit(route, caller, scope)

    def metadata(self, scope: Scope, caller: Caller | None) -> Metadata:
        """What goes with calls that are made for a request: user, trace and request id."""
        headers = Request(scope).headers
        return (*carried({}, request_id(headers)), *traced(headers), *self._users.metadata(caller))

    async def close(self) -> None:
        """End all streams, in order: their readers may come again."""
        self._hub.close()

    # HTTP.

    async def _caller(self, request: Request) -> Caller | None:
        given = request.headers.get("authorization")
        if given is not None and self._authenticator is None:
            raise refused("TOKEN_KEY", "cannot be verified here")
        if self._authenticator is None:
            return None
        return await self._authenticator.authenticate(given)

    async def _authorised(self, request: Request, endpoint: Endpoint) -> Caller | None:
        """Who calls, if he may: for all protocols. Raises EdgeError."""
        caller = await self._caller(request)
        self.permit(request.scope, caller, endpoint.route)
        return caller

    async def _serve(self, scope: Scope, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        request.id = request_id(request.headers)
        try:
            request.check(self._limits)
            if (mounted := self._mounted(scope["path"])) is not None:
                receive = bounded(request.headers, receive, self._limits)
                await mounted(scope, receive, _noting(request))
            elif (kind := grpc_web.kind_of(request)) is not None:
                await self._grpc_web(request, kind)
            else:
                await self._rest(request)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not request.gone or task is None or task.uncancel():
                raise
        except Gone:
            pass
        except (grpc.RpcError, ServiceError) as error:
            await self._failed(request, error)
        except Exception as error:
            log(logging.ERROR, "a request failed", error=error, request=request.id)
            await self._failed(request, error)

    def _mounted(self, path: str) -> Any:
        for prefix, app in self._mounts.items():
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return app
        return None

    async def _failed(self, request: Request, error: Exception) -> None:
        if request.started:  # there is no way to say it but by the connection's end
            raise error
        found = failure(error, self._domain)
        kind = grpc_web.kind_of(request)
        if kind is not None:
            writer = grpc_web.FrameWriter(kind, self._domain)
            await request.answer(200, writer.trailers(found), kind.encode())
            return
        if "connection" in found.headers:
            await request.discard(self._limits.body)
        headers = [*encoded(found.headers), (b"cache-control", b"no-store")]
        body = found.problem(request.path, request.id)
        await request.answer(found.http, body, _PROBLEM, headers)

    async def _rest(self, request: Request) -> None:
        verb = "GET" if request.verb == "HEAD" else request.verb
        route, values, others = self._router.find(verb, request.path)
        if route is None or (route.streaming and request.verb == "HEAD"):
            raise self._lost(request, others)
        endpoint = self._endpoints[route.method]
        caller = await self._authorised(request, endpoint)
        rest.check(endpoint, request)
        metadata = carried(request.headers, request.id)
        seconds = timeout(request.headers, "request-timeout")
        message = await rest.message_of(endpoint, request, values, self._limits)
        if route.streaming:
            sse.resume(request, message, route)
            writer = sse.EventWriter(request, self._domain)
            await self._stream(request, endpoint, message, caller, metadata, seconds, writer)
            return
        metadata += self._users.metadata(caller)
        with self._requests.place(""):
            await rest.unary(endpoint, request, message, metadata, seconds)

    def _lost(self, request: Request, others: set[str]) -> EdgeError:
        """What is told of a path that has no route for this verb."""
        allowed = others | ({"HEAD"} if "GET" in others else set())
        if request.path in self._endpoints:
            if request.verb == "POST":
                text, headers = "its type is one of gRPC-Web", {"accept": "application/grpc-web"}
                code = StatusCode.INVALID_ARGUMENT
                return EdgeError(415, code, "UNSUPPORTED_MEDIA_TYPE", text, headers)
            allowed = {"POST"}
        if not allowed and request.verb != "HEAD":
            return EdgeError(404, StatusCode.NOT_FOUND, "NO_ROUTE", "there is no such route")
        headers = {"allow": ", ".join(sorted(allowed or {"GET"}))}
        text = f"there is no {request.verb} here"
        return EdgeError(405, StatusCode.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", text, headers)

    async def _grpc_web(self, request: Request, kind: str) -> None:
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            raise EdgeError(404, StatusCode.UNIMPLEMENTED, "NO_ROUTE", "there is no such route")
        writer = grpc_web.FrameWriter(kind, self._domain)
        caller = await self._authorised(request, endpoint)
        metadata = carried(request.headers, request.id)
        seconds = timeout(request.headers, "grpc-timeout")
        body = await request.body(self._limits)
        message = grpc_web.message_of(body, kind, endpoint.route.request)
        if endpoint.route.streaming:
            await self._stream(request, endpoint, message, caller, metadata, seconds, writer)
            return
        metadata += self._users.metadata(caller)
        with self._requests.place(""):
            found, _ = await endpoint.answer(request, message, metadata, seconds)
        await request.answer(200, writer.message(found) + writer.end(None), kind.encode())

    async def _stream(
        self,
        request: Request,
        endpoint: Endpoint,
        message: Message,
        caller: Caller | None,
        metadata: Metadata,
        seconds: float | None,
        writer: Writer,
    ) -> None:
        def fresh() -> Metadata:
            return metadata + self._users.metadata(caller)

        with self._streams.place(who(caller, request.scope)):
            await stream(
                endpoint, self._hub, request, message, caller, fresh, seconds, self._limits, writer
            )


def _noting(request: Request) -> Any:  # ASGI's send
    """`send` of what is mounted, which notes that an answer has begun."""

    async def send(message: Any) -> None:
        request.started = True
        await request.send(message)

    return send
