"""For whom calls are made: the edge says it to services by tokens of its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import jwt

import accord
from accord.edge import Caller, calls, fanout
from accord.edge.calls import Users
from accord.edge.fanout import Hub
from accord.identity import Identity
from accord.identity.users import USER_KEY
from tests.accord.edge.kit import Update, serving
from tests.accord.identity.authority import Authority
from tests.accord.kit import eventually


def caller(subject: str = "17", *roles: str) -> Caller:
    return Caller(subject, frozenset(), frozenset(roles), 2e9)


async def test_a_token_for_each_user(tmp_path: Path, monkeypatch: Any) -> None:
    """It is issued again before it is old, and for nobody there is none."""
    folder = Authority().issue("spiffe://test.internal/edge").write(tmp_path)
    identity = Identity.from_folder(folder)
    try:
        users = Users(identity)
        ((key, token),) = users.metadata(caller("17", "clerk"))
        found = jwt.decode(token, options={"verify_signature": False})
        assert (key, found["sub"], found["roles"]) == (USER_KEY, "17", ["clerk"])
        assert users.metadata(caller("17", "clerk")) == ((key, token),)
        assert users.metadata(caller("17")) != ((key, token),)
        assert users.metadata(None) == ()
        monkeypatch.setattr(calls, "_FRESH", -1.0)
        fresh = Users(identity)
        assert fresh.metadata(caller()) != fresh.metadata(caller())
    finally:
        identity.close()
    assert Users(None).metadata(caller()) == ()


async def test_a_stream_outlives_the_token_of_its_user(monkeypatch: Any) -> None:
    """One whose token has worn out is opened again with a new one, behind the last message."""
    monkeypatch.setattr(fanout, "_WORN", 0.0)
    opened: list[int] = []

    class Call:
        def __init__(self, after: int) -> None:
            opened.append(after)
            self.after = after

        async def __aiter__(self) -> AsyncIterator[Any]:
            yield Update(sequence=self.after + 1)
            await asyncio.sleep(0)
            if len(opened) < 3:
                raise_unauthenticated()
            await asyncio.Event().wait()

        def cancel(self) -> None:
            pass

    with Hub().reading("k", Call, 0, "sequence") as reader:
        found: list[int] = []
        while len(found) < 3:
            found += [each.token for each in await reader.read(20) or ()]
        assert (found, opened) == ([1, 2, 3], [0, 1, 2])
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


def raise_unauthenticated() -> None:
    nothing = grpc.aio.Metadata()
    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, nothing, nothing, "", "")


async def test_an_edge_that_is_refused_names_nobody(tmp_path: Path) -> None:
    """What services say of the edge's own identity is not told outside."""

    async def find(request: Any, context: Any) -> Any:
        raise accord.PermissionDenied("NOT_ALLOWED", "spiffe://test.internal/edge may not")

    async with serving(tmp_path, {"FindParcels": find}) as served:
        answer = await served.http.get("/v1/parcels")
        assert answer.status_code == 403
        assert "spiffe" not in answer.text
