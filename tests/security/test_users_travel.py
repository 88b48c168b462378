"""The end user of a call in the library: who is told, where it goes, and what is kept for whom."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.context import without_user
from accord.identity import Identity
from accord.identity.users import USER_KEY, issue
from shopctl.certs.authority import Authority
from tests.accord.drivers import running
from tests.accord.identity.kit import served
from tests.accord.kit import Message, Stub, failure

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Identity]]:
    authority = Authority(tmp_path_factory.mktemp("travel") / "certs")
    names = ("edge", "orders", "payments")
    authority.prepare(names)
    found = {name: Identity.from_folder(authority.folder / name) for name in names}
    yield found
    for identity in found.values():
        identity.close()


def shown(identity: Identity) -> grpc.ChannelCredentials:
    """What a client shows with an identity."""
    bundle = identity.bundle
    return grpc.ssl_channel_credentials(bundle.roots, bundle.key, bundle.certificate)


def of(identities: dict[str, Identity], user: str) -> Metadata:
    """Metadata of the edge's calls for a user."""
    return ((USER_KEY, issue(identities["edge"].bundle, user, ["customer"])),)


async def whom(request: Any, context: Any) -> Any:
    """Answers who calls, and for whom."""
    call = accord.current()
    assert call is not None
    user = "nobody" if call.user is None else call.user.id
    return Message(text=f"{call.principal.rpartition('/')[2]} for {user}")


@asynccontextmanager
async def calling(address: str, identity: Identity) -> AsyncIterator[Stub]:
    """A bare client with an identity."""
    async with grpc.aio.secure_channel(address, shown(identity)) as channel:
        yield Stub(channel)


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_handler_knows_for_whom_it_is_called(
    kind: str, identities: dict[str, Identity]
) -> None:
    """The user is the token's, the caller the certificate's; a bad token is UNAUTHENTICATED."""
    async with running(kind) as driver:
        mesh = accord.Mesh("orders", identity=identities["orders"])
        async with (
            served(driver, mesh, identities["orders"], {"Unary": whom}) as address,
            calling(address, identities["edge"]) as stub,
        ):
            answer = await stub.Unary(Message(), metadata=of(identities, "17"))
            assert answer.text == "edge for 17"
            assert (await stub.Unary(Message())).text == "edge for nobody"
            refused = await failure(stub.Unary(Message(), metadata=((USER_KEY, "a.b.c"),)))
            assert (refused.code, refused.reason) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "TOKEN_MALFORMED",
            )


async def test_without_an_identity_nobody_looks(identities: dict[str, Identity]) -> None:
    """A mesh without certificates believes no token, and refuses none."""
    async with running("aio") as driver, driver.bare({"Unary": whom}) as plain:
        for metadata in (of(identities, "17"), ((USER_KEY, "garbage"),)):
            answer = await plain.stub.Unary(Message(), metadata=metadata)
            assert answer.text == "anonymous for nobody"


async def test_it_goes_down_nested_calls(identities: dict[str, Identity]) -> None:
    """What a handler calls is for its user, unless it says otherwise; detached work is not."""
    async with running("aio") as driver:
        payments = accord.Mesh("payments", identity=identities["payments"])
        async with served(driver, payments, identities["payments"], {"Unary": whom}) as address:
            orders = accord.Mesh("orders", identity=identities["orders"])
            stub = Stub(orders.channel(address, credentials=shown(identities["orders"])))

            async def relay(request: Any, context: Any) -> Any:
                said = [(await stub.Unary(Message())).text]
                with without_user():
                    said.append((await stub.Unary(Message())).text)
                with accord.detach():
                    said.append((await stub.Unary(Message())).text)
                said.append((await stub.Unary(Message(), metadata=of(identities, "18"))).text)
                return Message(text=", ".join(said))

            async with (
                served(driver, orders, identities["orders"], {"Unary": relay}) as first,
                calling(first, identities["edge"]) as edge,
            ):
                answer = await edge.Unary(Message(), metadata=of(identities, "17"))
            await driver.close(orders)
    assert answer.text == "orders for 17, orders for nobody, orders for nobody, orders for 18"


async def test_answers_are_kept_for_one_user(identities: dict[str, Identity]) -> None:
    """An edge that keeps answers gives nobody what was kept for another user."""
    async with running("aio") as driver:
        mesh = accord.Mesh("orders", identity=identities["orders"])
        async with served(driver, mesh, identities["orders"], {"Cached": whom}) as address:
            edge = accord.Mesh("edge", identity=identities["edge"])
            stub = Stub(edge.channel(address, credentials=shown(identities["edge"])))
            mine, others = of(identities, "17"), of(identities, "18")
            said = [
                (await stub.Cached(Message(), metadata=metadata)).text
                for metadata in (mine, mine, others, (), mine)
            ]
            [route] = edge.snapshot().routes
            await driver.close(edge)
    assert said == ["edge for 17", "edge for 17", "edge for 18", "edge for nobody", "edge for 17"]
    assert (route.cache_hits, route.cache_misses) == (2, 3)
