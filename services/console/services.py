"""Calls of the console: of one service, or of all at once, and for whom."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc

import accord
from accord.identity import Identity
from services.console.access import Session
from services.console.watch import said_of

PATIENCE: Final = 2.0
"""Seconds that a service may take to answer what a page asks it."""

Stub = Callable[[grpc.aio.Channel], Any]


class Services:
    """The services of the mesh, as the console calls them."""

    def __init__(self, mesh: accord.Mesh, names: Iterable[str], identity: Identity | None) -> None:
        """`names`: targets of the mesh; `identity`: issues tokens for operators, if any."""
        self.mesh = mesh
        self.names = tuple(names)
        self._identity = identity

    async def read(self, service: str, stub: Stub, rpc: str, request: Any) -> Any:
        """The answer of one. Raises grpc.RpcError."""
        return await getattr(stub(self.mesh.channel(service)), rpc)(request, timeout=PATIENCE)

    async def everywhere(
        self, stub: Stub, rpc: str, request: Any, names: Iterable[str] = ()
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The answers by name, and why others gave none; who does not serve it is in neither."""
        asked = [name for name in names or self.names if name in self.names]
        said = await asyncio.gather(
            *(self.read(name, stub, rpc, request) for name in asked), return_exceptions=True
        )
        answers: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for name, each in zip(asked, said, strict=True):
            if not isinstance(each, BaseException):
                answers[name] = each
            elif not isinstance(each, grpc.RpcError):
                raise each
            elif each.code() is not grpc.StatusCode.UNIMPLEMENTED:
                problems[name] = said_of(each)
        return answers, problems

    async def act(
        self, session: Session, service: str, stub: Stub, rpc: str, request: Any, key: str
    ) -> Any:
        """The answer to what somebody does. Raises grpc.RpcError."""
        call = getattr(stub(self.mesh.channel(service)), rpc)
        return await call(request, metadata=self.metadata(session, key))

    def metadata(self, session: Session, key: str = "") -> tuple[tuple[str, str], ...]:
        """For whom a call is made, which the audit record names, and its idempotency key."""
        found = accord.idempotency_key(key) if key else ()
        if self._identity is None:
            return tuple(found)
        from accord.identity.users import USER_KEY, issue

        return (*found, (USER_KEY, issue(self._identity.bundle, session.user, [session.role])))
