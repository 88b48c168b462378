"""Health is for everybody, on a port of its own, and nothing else is."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from accord.identity import Identity
from accord.ops.v1.health_pb2 import GetHealthRequest
from accord.ops.v1.health_pb2_grpc import HealthServiceStub
from accord.xds import presence
from accord_runtime.grpc.probes import PROBES
from accord_runtime.process import running
from accord_runtime.settings import Settings
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shopctl.certs.authority import Authority
from shopctl.supervisor import health
from shopctl.supervisor.health import State, check_of
from tests.runtime.little_service import service as little_service
from tests.support.mesh import settings_of
from tests.support.ports import free_port
from tests.support.telemetry import Metrics
from tests.support.wait import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    authority = Authority(tmp_path / "certs")
    authority.prepare(["little"])
    return replace(settings_of("little", tmp_path), identity=authority.folder / "little")


async def test_probes_need_no_certificate(settings: Settings) -> None:
    """Who has no certificate learns whether the service serves, until it ends, and no more."""
    async with grpc.aio.insecure_channel(settings.health_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # The types know of grpc.Channel only.
        async with running(little_service("little"), settings):
            for contract in ("", "shop.customers.v1.CustomerService"):
                asked = health_pb2.HealthCheckRequest(service=contract)
                assert (await health.Check(asked, timeout=5)).status == SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert (await watch.read()).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await CustomerServiceStub(channel).GetCustomer(GetCustomerRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert (await watch.read()).status == NOT_SERVING


async def test_watching_takes_no_place_from_probes(settings: Settings) -> None:
    """Of one client's watches more than so many are refused, and whoever probes is answered."""
    ours: list[Any] = []
    request, own = health_pb2.HealthCheckRequest(), [("grpc.use_local_subchannel_pool", 1)]
    async with (
        running(little_service("little"), settings),
        grpc.aio.insecure_channel(settings.health_address, own) as one,
        grpc.aio.insecure_channel(settings.health_address, own) as another,
    ):
        greedy: Any = health_pb2_grpc.HealthStub(one)  # the types know of grpc.Channel only
        modest: Any = health_pb2_grpc.HealthStub(another)
        for _ in range(2 * PROBES + 50):
            watch = greedy.Watch(request)
            if len(ours) < PROBES:
                assert (await watch.read()).status == SERVING
                ours.append(watch)
            else:
                with pytest.raises(grpc.aio.AioRpcError, match="ask by Check") as refused:
                    await watch.read()
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for health in (greedy, modest) * 10:
            assert (await health.Check(request, timeout=5)).status == SERVING
        ours.pop().cancel()

        async def welcome() -> bool:
            watch = modest.Watch(request, timeout=5)
            try:
                return bool((await watch.read()).status == SERVING)
            except grpc.aio.AioRpcError:
                return False

        await until(welcome, "the place of one that has ended")


async def test_what_is_without_certificates_has_it_where_it_is_asked_for(
    settings: Settings, tmp_path: Path
) -> None:
    """Without an identity health stays where it was; a port for it alone can be set."""
    plain = replace(settings, identity=None)
    assert plain.health_address == ""
    address = settings.health_address
    async with (
        running(little_service("little"), replace(plain, health=address)),
        grpc.aio.insecure_channel(address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status == SERVING


async def test_a_port_that_is_taken_is_said(settings: Settings) -> None:
    """Whoever probes somebody else's port would believe what that says: it does not start."""
    other = replace(settings, listen=settings.health_address, identity=None)
    async with running(little_service("little"), other):
        with pytest.raises(OSError, match=f"cannot listen on {settings.health_address}"):
            async with running(
                little_service("little"),
                replace(settings, database_url="sqlite:///" + str(settings.home / "second.db")),
            ):
                pass


def test_it_is_on_loopback() -> None:
    """A service that listens everywhere is probed on loopback, unless it is told otherwise."""
    base = settings_of("little", Path("x"))
    secure = replace(base, identity=Path("x"))
    assert replace(secure, listen="0.0.0.0:9051").health_address == "127.0.0.1:10051"
    assert replace(secure, listen="127.0.0.7:9051").health_address == "127.0.0.7:10051"


async def test_a_certificate_that_nobody_renews(settings: Settings, tmp_path: Path) -> None:
    """What is wrong with its files is said while it serves; once it has expired it does not."""
    authority = Authority(tmp_path / "certs")
    authority.prepare(["operator"])
    authority.issue(["little"], timedelta(seconds=12))
    operator = Identity.from_folder(authority.folder / "operator")
    shown = operator.bundle
    credentials = grpc.ssl_channel_credentials(shown.roots, shown.key, shown.certificate)
    named = [("grpc.ssl_target_name_override", "little")]
    async with (
        running(little_service("little"), settings),
        grpc.aio.insecure_channel(settings.health_address) as open_to_all,
        grpc.aio.secure_channel(settings.address, credentials, named) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(open_to_all)

        async def said() -> str:
            answer = await HealthServiceStub(channel).GetHealth(GetHealthRequest(), timeout=5)
            return answer.identity_problem

        async def status() -> int:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            return int(answer.status)

        assert await said() == ""
        (authority.folder / "little" / "tls.crt").write_text("half-wri")
        await until(said, "the problem")
        assert "tls.crt" in await said()
        assert await status() == SERVING

        async def ended() -> bool:
            return await status() == NOT_SERVING

        await until(ended, "the end of the certificate", seconds=40)
    operator.close()


@asynccontextmanager
async def control_plane(folder: Path, at: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m accord.xds` in a process, which is killed in the end."""
    (folder / "routes.json").write_text('{"orders": {"versions": {"v1": "127.0.0.1:1"}}}')
    words = ("--listen", at, "--routes", folder / "routes.json", "--identity", folder / "xds")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "accord.xds", *words, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert b"serves" in await asyncio.wait_for(process.stdout.readline(), 30)
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_control_plane_that_is_away(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While that of the fleet is killed status and metric say so, and the service serves on."""
    monkeypatch.setattr(presence, "INTERVAL", 0.2)
    metrics = Metrics(monkeypatch)
    authority = Authority(tmp_path / "certs")
    authority.prepare(["operator", "xds"])
    at = f"localhost:{free_port()}"
    ask = check_of("little", tmp_path)

    def gauge() -> list[float]:
        return [point.value for point in metrics.collect()["accord.routes.problem"].values()]

    async def says(there: bool) -> bool:
        found = await ask(settings.address, 5)
        assert found.state is State.SERVING, found
        return (found.reason == "") is there and gauge() == [0 if there else 1]

    monkeypatch.setattr(health, "distant", lambda *_: settings.health_address)
    async with running(little_service("little"), replace(settings, control_plane=at)) as runtime:
        runtime.mesh.channel("orders")
        async with control_plane(authority.folder, at):
            await until(lambda: says(True), "the control plane to be found")
        await until(lambda: says(False), "its end to be said")
        said = (await ask(settings.address, 5)).reason
        assert re.fullmatch(rf"the control plane {at} has been away for \d+ s; .* holds", said)
        async with control_plane(authority.folder, at):
            await until(lambda: says(True), "it to be there again")
