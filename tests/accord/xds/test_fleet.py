"""A control plane that serves a fleet, and what holds while it is away or answers nonsense."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Resource

import accord
from accord.identity import Identity
from accord.xds import ControlPlane, Route, RouteError, presence, resources
from accord.xds.resources import CLUSTER, ENDPOINTS
from accord.xds.server import Server
from tests.accord.kit import Message, Stub, eventually, failure
from tests.accord.xds.kit import ID, People, backend, called, from_process, joined


def write(file: Path, **routes: object) -> None:
    """Replace a file of routes."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(routes))
    new.replace(file)


@asynccontextmanager
async def fleet(people: People, routes: Path, listen: str) -> AsyncIterator[Any]:
    """`python -m accord.xds` in a process; it has begun to serve."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "accord.xds", "--listen", listen, "--routes", routes,
        "--identity", people.issue("xds"), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert b"serves" in await asyncio.wait_for(process.stdout.readline(), 20)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def _address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_callers_go_where_their_identity_says(
    people: People, orders: Identity, tmp_path: Path
) -> None:
    """Over mutual TLS, the caller with identity A goes to version 2, and B to version 1."""
    file, at = tmp_path / "routes.json", _address()
    async with backend(orders, "one") as one, backend(orders, "two") as two:
        write(
            file,
            orders={
                "versions": {"v1": one.address, "v2": two.address},
                "weights": {"v1": 1},
                "rules": [{"identities": [f"{ID}a"], "weights": {"v2": 1}}],
            },
        )
        async with fleet(people, file, at):
            for name, answer in (("a", "two"), ("b", "one")):
                found, errors = await from_process(people.issue(name), at)
                assert found == {answer: 4}, errors


async def test_a_change_is_pushed_and_outlives_the_control_plane(
    people: People,
    caller: Identity,
    orders: Identity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A changed file holds within a second; when the control plane is killed, the last does."""
    monkeypatch.setattr(presence, "INTERVAL", 0.2)
    file, at = tmp_path / "routes.json", f"unix:{tmp_path}/xds"
    async with backend(orders, "one") as one, backend(orders, "two") as two:
        write(file, orders={"versions": {"v1": one.address}})
        async with fleet(people, file, at) as process:
            mesh = accord.Mesh("caller", identity=caller, control_plane=at)
            stub = Stub(await joined(mesh, "orders"))
            assert (await stub.Unary(Message())).text == "one"
            write(file, orders={"versions": {"v1": two.address}})
            began = time.monotonic()
            while (await stub.Unary(Message())).text != "two":
                assert time.monotonic() - began < 1.0
            process.kill()
            await process.wait()
            await eventually(mesh.route_problems)
            assert await called(stub, 100) == {"two": 100}
        write(file, orders={"versions": {"v1": one.address}})
        async with fleet(people, file, at):  # and it is found again
            async with asyncio.timeout(20):
                while (await stub.Unary(Message())).text != "one":
                    pass
            await eventually(lambda: not mesh.route_problems())
        await mesh.close()


async def test_garbage_changes_nothing(caller: Identity, orders: Identity, tmp_path: Path) -> None:
    """What gRPC cannot use of a control plane's answer is refused, and the last state holds."""
    plane, garbage = ControlPlane("shop.internal", routes=None), False
    async with backend(orders, "a") as server:
        assert plane.add("orders", Route({"v1": server.address})) == "orders"

        def find(kind: str, name: str, caller: str) -> Resource | None:
            if garbage and kind in (CLUSTER, ENDPOINTS):
                return Resource(type_url=kind, value=b"\xff\xffnot a message")
            return resources.named(kind, name, plane._targets, caller)

        ads = Server(f"unix:{tmp_path}/xds", find)
        mesh = accord.Mesh("caller", identity=caller, control_plane=f"unix:{tmp_path}/xds")
        stub = Stub(await joined(mesh, "orders"))
        assert await called(stub, 5) == {"a": 5}
        garbage = True
        ads.push()
        await eventually(ads.refusals)
        assert await called(stub, 50) == {"a": 50}
        garbage = False
        ads.push()
        await eventually(lambda: not ads.refusals())
        assert await called(stub, 5) == {"a": 5}
        await mesh.close()
        ads.stop()


async def test_first_start_without_control_plane(caller: Identity, tmp_path: Path) -> None:
    """A process whose control plane was never there is told so in the error of its calls."""
    mesh = accord.Mesh("caller", identity=caller, control_plane=f"unix:{tmp_path}/none")
    error = await failure(Stub(await joined(mesh, "orders")).Unary(Message()))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert "xDS channel for server unix:" in error.message
    await mesh.close()


async def test_a_wrong_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of routes that is wrong is refused at the start; later it is a problem, said once."""
    file = tmp_path / "routes.json"
    write(file, orders={"versions": {"v1": "127.0.0.1:1"}, "weight": {}})
    with pytest.raises(RouteError, match=r"orders\.weight: is no field; did you mean 'weights'"):
        ControlPlane("shop.internal", routes=file)
    write(file, orders={"versions": {"v1": "127.0.0.1:1"}})
    plane = ControlPlane("shop.internal", routes=file)
    plane.serve(f"unix:{tmp_path}/xds", None, "")
    file.write_text("{")
    await eventually(plane.problems)
    assert "does not parse" in plane.problems()[0]
    assert [each.target for each in plane.state()] == ["orders"]
    write(file, orders={"versions": {"v1": "127.0.0.1:2"}})
    await eventually(lambda: not plane.problems())
    assert plane.state()[0].endpoints == {"v1": (("127.0.0.1", 2),)}
    plane.stop()
    said = [each for each in caplog.records if "not obeyed" in each.message]
    assert len(said) == 1
