"""Calls of a mesh with an identity: by xDS, with mutual TLS, on real servers."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

import accord
from accord.identity import Identity
from accord.xds import TargetState, XdsError
from accord.xds import addresses as names
from accord.xds import plane as planes
from accord.xds.client import CONFIG
from accord.xds.health import HealthWatch
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, eventually, failure
from tests.accord.xds.kit import (
    ID,
    NOT_SERVING,
    SERVING,
    People,
    backend,
    called,
    until_only,
    until_seen,
)


async def test_a_call_is_made_by_mutual_tls(
    driver: Driver, caller: Identity, orders: Identity
) -> None:
    """A target is called by its name, over TLS, and its server knows the caller."""
    seen: list[str] = []
    async with backend(orders, "a") as server:
        server.fails = lambda: bool(seen.append(accord.current().principal))  # type: ignore[union-attr, func-returns-value]
        mesh = accord.Mesh("caller", targets={"orders": server.address}, identity=caller)
        assert (await driver.stub(mesh, "orders").Unary(Message())).text == "a"
        assert seen == [f"{ID}caller"]
        assert [(each.target, dict(each.route.weights)) for each in mesh.routed()] == [
            ("orders", {"v1": 1})
        ]
        await mesh.close()


async def test_another_server_is_not_called(
    driver: Driver, caller: Identity, orders: Identity
) -> None:
    """A server whose certificate is good, but another's, gets no call, and the error says why."""
    async with backend(orders, "a") as server:
        mesh = accord.Mesh("caller", targets={"payments": server.address}, identity=caller)
        began = time.monotonic()
        error = await failure(driver.stub(mesh, "payments").Unary(Message()))
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert "SANs from certificate did not match" in error.message
        assert time.monotonic() - began < 1.5
        assert server.calls == 0
        await mesh.close()


async def test_nobody_there_is_unavailable(driver: Driver, caller: Identity) -> None:
    """A target that nobody listens on fails at once, with its address in the error."""
    mesh = accord.Mesh("caller", targets={"orders": "127.0.0.1:1"}, identity=caller)
    error = await failure(driver.stub(mesh, "orders").Unary(Message()))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert "127.0.0.1:1" in error.message
    await mesh.close()


LEAVING = """
import asyncio, sys
import accord
from accord.identity import Identity
from tests.accord.kit import Message, Stub

async def main():
    mesh = accord.Mesh("caller", identity=Identity.from_folder(sys.argv[1]),
                       targets={"orders": sys.argv[2]}, health_checks={"orders"})
    print((await Stub(mesh.channel("orders")).Unary(Message())).text)
    print((await asyncio.to_thread(Stub(mesh.sync.channel("orders")).Unary, Message())).text)

asyncio.run(main())
"""


async def test_a_process_ends_without_closing(people: People, orders: Identity) -> None:
    """The threads of the control plane keep no process from ending."""
    async with backend(orders, "a", healthy=True) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LEAVING, people.issue("caller"), server.address),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, out.split()) == (0, [b"a", b"a"])


async def test_two_meshes_with_other_addresses(caller: Identity, orders: Identity) -> None:
    """Meshes of one process that know a target by different addresses do not mix them up."""
    async with backend(orders, "a") as one, backend(orders, "b") as two:
        meshes = [
            accord.Mesh("caller", targets={"orders": each.address}, identity=caller)
            for each in (one, two)
        ]
        answers = [(await Stub(m.channel("orders")).Unary(Message())).text for m in meshes]
        assert answers == ["a", "b"]
        for mesh in meshes:
            await mesh.close()


async def test_endpoints_are_balanced(driver: Driver, caller: Identity, orders: Identity) -> None:
    """Several addresses of a target are called in turn, as without an identity."""
    async with backend(orders, "a") as one, backend(orders, "b") as two:
        both = f"ipv4:{one.address},{two.address}"
        mesh = accord.Mesh("caller", targets={"orders": both}, identity=caller)
        stub = driver.stub(mesh, "orders")
        await eventually(lambda: mesh.routed()[0].endpoints.get("v1"))
        await until_seen(stub, "a", "b")
        assert await called(stub, 20) == {"a": 10, "b": 10}
        await mesh.close()


async def test_names_are_looked_up_again(
    caller: Identity, orders: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of which the addresses change is followed; one that is lost keeps the last."""
    async with backend(orders, "a") as one, backend(orders, "b") as two:
        known: dict[str, list[str]] = {"orders.test": []}
        lost: list[str] = []
        monkeypatch.setattr(planes, "LOOK_UP", 0.05)

        def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            if host not in known:
                lost.append(host)
                raise OSError("no such name")
            return [(0, 0, 0, "", address) for address in known[host]]

        def at(address: str) -> tuple[str, int]:
            host, _, port = address.rpartition(":")
            return host, int(port)

        # The look-up gives addresses only: here they differ by their port.
        monkeypatch.setattr(
            names,
            "look_up",
            lambda listed: tuple(each[-1] for each in getaddrinfo(*listed[0])),  # type: ignore[index]
        )
        monkeypatch.setattr(planes, "look_up", names.look_up)
        known["orders.test"] = [at(one.address)]  # type: ignore[list-item]
        mesh = accord.Mesh("caller", targets={"orders": "dns:///orders.test:1"}, identity=caller)
        stub = Stub(mesh.channel("orders"))
        assert (await stub.Unary(Message())).text == "a"
        known["orders.test"] = [at(two.address)]  # type: ignore[list-item]
        async with asyncio.timeout(5):
            while (await stub.Unary(Message())).text != "b":
                pass
        del known["orders.test"]
        await eventually(lambda: len(lost) > 2)
        assert (await stub.Unary(Message())).text == "b"
        await mesh.close()


async def test_who_does_not_serve_is_left_out(
    driver: Driver, caller: Identity, orders: Identity
) -> None:
    """A server whose port for health says NOT_SERVING gets no calls until it says otherwise."""
    async with backend(orders, "a") as one, backend(orders, "b", healthy=True) as two:
        both = f"ipv4:{one.address},{two.address}"
        mesh = accord.Mesh(
            "caller", targets={"orders": both}, identity=caller, health_checks={"orders"}
        )
        stub = driver.stub(mesh, "orders")

        def out(state: TargetState) -> int:
            return len(state.unhealthy)

        await until_seen(stub, "a", "b")
        await two.health.set("", NOT_SERVING)
        await eventually(lambda: out(mesh.routed()[0]))
        await until_only(stub, "a")
        assert await called(stub, 20) == {"a": 20}
        await two.health.set("", SERVING)
        await until_seen(stub, "b")
        await mesh.close()


async def test_health_is_watched_when_the_loop_has_ended(orders: Identity) -> None:
    """A thread goes on for a loop that has ended, and nobody when the watch was stopped."""
    async with backend(orders, "b", healthy=True) as server:
        host, _, port = server.address.partition(":")
        at = (host, int(port))
        watch = HealthWatch(lambda: None)

        async def begin() -> None:
            watch.watch({at: ""})

        def threads() -> list[str]:
            return [each.name for each in threading.enumerate() if "accord-xds-health" in each.name]

        await begin()
        await server.health.set("", NOT_SERVING)
        await eventually(lambda: at in watch.unhealthy())
        assert not threads()
        watch.watch({})
        await server.health.set("", SERVING)
        await asyncio.to_thread(asyncio.run, begin())
        await eventually(threads)
        await server.health.set("", NOT_SERVING)
        await eventually(lambda: at in watch.unhealthy())
        watch.watch({})
        await eventually(lambda: not threads())


async def test_a_server_that_stops_warns_before(caller: Identity, orders: Identity) -> None:
    """A rolling stop, as the runtime makes it, fails none of the calls under way."""
    async with backend(orders, "a") as one, backend(orders, "b", healthy=True) as two:
        both = f"ipv4:{one.address},{two.address}"
        mesh = accord.Mesh(
            "caller", targets={"orders": both}, identity=caller, health_checks={"orders"}
        )
        stub = Stub(mesh.channel("orders"))
        await until_seen(stub, "a", "b")
        before = two.calls
        calling = asyncio.gather(*(called(stub, 400) for _ in range(10)))
        await eventually(lambda: two.calls > before)
        await two.health.set("", NOT_SERVING)
        await two.server.stop(2)
        found = await calling
        assert {text for each in found for text in each} <= {"a", "b"}
        await mesh.close()


async def test_settings_that_cannot_be_kept(caller: Identity, people: People) -> None:
    """What xDS cannot do is refused in one line, and so is a second identity."""
    with pytest.raises(ValueError, match="without an identity nobody obeys"):
        accord.Mesh("caller", routes="routes.json")
    with pytest.raises(ValueError, match="obey none"):
        accord.Mesh("caller", identity=caller, service_config={"methodConfig": []})
    mesh = accord.Mesh("caller", identity=caller, targets={"x": "dns://127.0.0.1:53/x:1"})
    with pytest.raises(ValueError, match="has a name, by which its server is known"):
        mesh.channel("127.0.0.1:1")
    with pytest.raises(ValueError, match="name server of its own"):
        mesh.channel("x")
    other = accord.Mesh("x", identity=people.identity("other"), targets={"y": "127.0.0.1:1"})
    with pytest.raises(XdsError, match="gRPC has one for all its channels"):
        other.channel("y")
    await mesh.close()
    await other.close()


SCRIPT = """
import asyncio, os, sys
import accord
from accord.identity import Identity

async def main():
    mesh = accord.Mesh("caller", identity=Identity.from_folder(sys.argv[1]),
                       targets={"orders": sys.argv[2]})
    try:
        mesh.channel("orders")
        print("made", os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"])
    except ValueError as error:
        print(error)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("given", "target", "said"),
    [
        ("{}", "127.0.0.1:1", "is set: a target is named by its control plane"),
        ("no json", "127.0.0.1:1", "is set: a target is named by its control plane"),
        ("{}", "xds:///orders", "made {}"),
        ('{"node": {"cluster": "accord/1"}}', "127.0.0.1:1", 'made {"xds_servers"'),
    ],
)
def test_bootstrap_of_the_user(people: People, given: str, target: str, said: str) -> None:
    """A bootstrap that the user has set is never overwritten; one that a parent left is."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, people.issue("caller"), target],
        env={**os.environ, CONFIG: given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said in done.stdout


def test_the_socket_is_of_its_user_alone(caller: Identity) -> None:
    """Nobody else on the host can ask the control plane in a process."""
    mesh = accord.Mesh("caller", identity=caller, targets={"orders": "127.0.0.1:1"})
    mesh.channel("orders")
    bootstrap = json.loads(os.environ[CONFIG])
    socket = Path(bootstrap["xds_servers"][0]["server_uri"].removeprefix("unix:"))
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert socket.stat().st_mode & 0o777 == 0o600
    asyncio.run(mesh.close())
