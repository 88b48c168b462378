"""The shop's edge as an ASGI application: the contracts' routes, and a few pages beside them."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module, resources
from typing import Any, Final

from starlette.responses import JSONResponse, Response

import accord
from accord.edge import Authenticator, Edge, routes_of
from services.edge.console import Console
from services.edge.health import Health
from services.edge.routes import TARGETS

Scope = Any  # as ASGI has it: libraries disagree about its type

_USUAL: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Headers of every answer that does not say otherwise."""

_AWAY: Final = (*_USUAL, (b"retry-after", b"1"))
"""Of a 503: what is away is started again within seconds."""


class App:
    """Answers everything that comes in at the edge's port. Belongs to one event loop."""

    def __init__(
        self,
        mesh: accord.Mesh,
        authenticator: Authenticator,
        origins: Sequence[str] = (),
        *,
        development: bool = False,
        console: str = "",
    ) -> None:
        """`origins`, `development`: see `EdgeSettings`; `console`: its address, if it has one."""
        self._console = Console(console)
        # What is not the contracts', and is served by others.
        mounts = {"/graphql": self._graphql, **({"/console": self._console} if console else {})}
        routes = routes_of(*TARGETS)
        self.edge = Edge(
            mesh,
            routes,
            targets=TARGETS,
            authenticator=authenticator,
            cors_origins=origins,
            mounts=mounts,
        )
        self._mesh, self._development = mesh, development
        self._health = Health(mesh, {route.service: TARGETS[route.service] for route in routes})
        self._draining = False
        self._openapi = _openapi()
        self._making = asyncio.Lock()
        self._made: Any = None
        self._index = {
            "routes": [
                {
                    "method": route.verb,
                    "path": route.path,
                    "rpc": route.method[1:],
                    "scopes": route.scopes,
                    "public": route.public,
                    "stream": route.streaming,
                }
                for route in routes
            ],
            "links": {
                "openapi": "/openapi.json",
                "health": "/healthz",
                "documentation": "docs/edge.md",
                "graphql": "/graphql",
            },
        }
        self._pages: Mapping[str, Callable[[Scope], Awaitable[Response]]] = {
            "/": self._root,
            "/healthz": self._healthz,
            "/livez": self._livez,
            "/openapi.json": self._describe,
        }

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """ASGI."""

        async def secured(message: Scope) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                usual = _AWAY if message["status"] == 503 else _USUAL
                names = {name.lower() for name, _ in given}
                given += [each for each in usual if each[0] not in names]
                message = {**message, "headers": given}
            await send(message)

        page = self._pages.get(scope["path"]) if scope["type"] == "http" else None
        if page is None:
            await self.edge(scope, receive, secured)
        elif scope["method"] in ("GET", "HEAD"):
            await (await page(scope))(scope, receive, secured)
        else:
            await problem(405, allow="GET, HEAD")(scope, receive, secured)

    async def drain(self) -> None:
        """Say that it is about to end, and end all streams."""
        self._draining = True
        await self._console.close()
        await self.edge.close()

    async def _root(self, _: Scope) -> Response:
        return JSONResponse(self._index)

    async def _healthz(self, scope: Scope) -> Response:
        """Whether it can do what it is for: each service that routes lead to serves."""
        if away := () if self._draining else await self._health.away():
            return problem(503, f"{', '.join(away)}: no answer, or not serving")
        return await self._livez(scope)

    async def _livez(self, _: Scope) -> Response:
        """Whether it takes requests at all."""
        if self._draining:
            return problem(503, "draining")
        return JSONResponse({"status": "serving"})

    async def _describe(self, scope: Scope) -> Response:
        if self._openapi is None:
            return problem(404)
        tag = f'"{hashlib.sha256(self._openapi).hexdigest()[:32]}"'
        headers = {"etag": tag, "cache-control": "no-cache", "access-control-allow-origin": "*"}
        asked = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        known = {each.strip().removeprefix("W/") for each in asked.decode("latin-1").split(",")}
        if known & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(self._openapi, media_type="application/json", headers=headers)

    async def _graphql(self, scope: Scope, receive: Any, send: Any) -> None:
        """Loaded when somebody asks it first: it takes a third of the memory of all the rest."""
        async with self._making:
            if self._made is None:
                module = await asyncio.to_thread(import_module, "services.edge.graphql")
                self._made = module.graphql_app(
                    self._mesh, self.edge, development=self._development
                )
        await self._made(scope, receive, send)


def problem(status: int, detail: str = "", **headers: str) -> Response:
    """Problem JSON (RFC 9457); `_` in names of headers stands for `-`."""
    said = {"type": "about:blank", "status": status, **({"detail": detail} if detail else {})}
    return JSONResponse(
        said,
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        "application/problem+json",
    )


def _openapi() -> bytes | None:
    """The description of all routes; None: it was not generated."""
    file = resources.files("shop") / "openapi.json"
    return file.read_bytes() if file.is_file() else None
