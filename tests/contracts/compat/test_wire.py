"""Over the wire: released clients against today's servers, today's clients against released ones.

For every RPC of the released contracts, whatever they are by then: see `rows`.
"""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import pytest

from accord_runtime.grpc.ids import uuid7
from tests.contracts.compat.client import running_client
from tests.contracts.compat.rows import ROWS
from tests.contracts.compat.servers import servers
from tests.contracts.compat.version import Version
from tests.contracts.compat.world import World
from tests.support.shop import ALL
from tools import fixtures, releases

OLD_CLIENT: Final = "released client, today's servers"
NEW_CLIENT: Final = "today's client, released servers"
TODAY: Final = "today's client and servers"
"""For RPCs that are not released yet."""

RELEASED: Final = {
    f"{service.full_name}/{method.name}"
    for image in list(map(releases.image_of, releases.released().values()))[-1:]
    for file in fixtures.Contracts(image.read_bytes()).files
    if f"{file.package}.".startswith(fixtures.OWN)
    for service in file.services_by_name.values()
    for method in service.methods
}

_ORIGINS: Final = """
import accord, services, shop
print(accord.__file__, services.__file__, shop.__file__)
"""


@pytest.fixture(scope="module")
def worlds(
    old: Version, new: Version, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, World]]:
    """A shop for each direction."""
    found = {}
    with ExitStack() as stack:
        for direction, client, server in ((OLD_CLIENT, old, new), (NEW_CLIENT, new, old)):
            home = tmp_path_factory.mktemp("shop")
            shop = stack.enter_context(servers(home, server))
            calling, repeating = (
                stack.enter_context(running_client(version, shop.targets, home))
                for version in (client, server)
            )
            found[direction] = World(shop, calling, repeating)
            found[direction].prepare()
            if server is new:
                found[TODAY] = World(shop, repeating)
        yield found


@pytest.mark.parametrize("which", ["old", "new"])
def test_a_version_runs_its_own_code(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Library, clients and servers of a version are its own, and never those of another."""
    version: Version = request.getfixturevalue(which)
    done = subprocess.run(
        version.command("-c", _ORIGINS),
        cwd=tmp_path,
        env=version.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for origin in done.stdout.split():
        assert any(Path(origin).is_relative_to(root) for root in version.roots)


def test_every_rpc_has_a_row(worlds: Mapping[str, World]) -> None:
    """Every RPC, released or not, has to be driven."""
    assert ROWS.keys() == RELEASED | worlds[TODAY].client.rpcs


@pytest.mark.parametrize(
    ("direction", "rpc"),
    [
        (direction, rpc)
        for direction in (OLD_CLIENT, NEW_CLIENT, TODAY)
        for rpc in ROWS
        if (rpc in RELEASED) == (direction != TODAY)
    ],
)
def test_rpc(worlds: Mapping[str, World], direction: str, rpc: str) -> None:
    """The RPC answers as the contract says, refusals included, and a key works for both clients."""
    ROWS[rpc](worlds[direction])


@pytest.mark.parametrize("direction", [OLD_CLIENT, NEW_CLIENT])
def test_orders_end_as_they_should(worlds: Mapping[str, World], direction: str) -> None:
    """What the tests above have begun in the background comes to its end."""
    worlds[direction].settle()


@pytest.mark.parametrize("direction", [OLD_CLIENT, NEW_CLIENT])
def test_an_rpc_of_another_version_is_unimplemented(
    worlds: Mapping[str, World], direction: str
) -> None:
    """What only newer contracts have is refused so that a client can tell it from a failure."""
    with grpc.insecure_channel(worlds[direction].servers.targets["orders"]) as channel:
        call = channel.unary_unary(
            "/shop.orders.v1.OrderService/OfTheFuture", lambda raw: raw, lambda raw: raw
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_todays_new_rpcs_are_unimplemented_by_released_servers(
    worlds: Mapping[str, World],
) -> None:
    """Today's client gets that answer for each RPC that was not released yet."""
    world = worlds[NEW_CLIENT]
    for rpc in world.client.rpcs - RELEASED:
        name = rpc.split(".")[1]
        target = name if name in ALL else "orders"
        if target not in world.servers.running:
            continue  # A service that came later: there is nobody to ask.
        answer = world.start(rpc, {}, target=target, key=uuid7()).end()
        assert answer.code == "UNIMPLEMENTED", answer
