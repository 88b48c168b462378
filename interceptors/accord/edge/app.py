"""The edge as an ASGI application: what comes in is bounded, authorised and sent on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from accord.edge.auth import Authenticator, Caller
from accord.edge.limits import EdgeLimits
from accord.edge.routes import Route
from accord.mesh import Mesh

Scope = dict[str, Any]


class Edge:
    """An ASGI application that serves the RPCs with a route to callers outside of the mesh.

    Belongs to one event loop. It ends with `close`, or with the lifespan of its server; the mesh is
    the caller's to close.
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
        """

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """ASGI."""

    async def caller(self, scope: Scope) -> Caller | None:
        """Who sends a request; None: nobody says so. Raises ServiceError: the token is invalid."""
        raise NotImplementedError

    def permit(self, scope: Scope, caller: Caller | None, route: Route) -> None:
        """That a caller may call an RPC now, by its scopes and rate. Raises ServiceError."""
        raise NotImplementedError

    def metadata(self, scope: Scope, caller: Caller | None) -> tuple[tuple[str, str], ...]:
        """What goes with calls that are made for a request: user, trace and request id."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all streams."""
