"""The services of the shop, as they are started: each serves its RPCs, and none to a stranger."""

import asyncio
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord_runtime.process import running
from accord_runtime.service import Service
from services import topology
from services.notifications.mailer import SERVICE as MAILER
from shopctl.certs.authority import Authority
from tests.security.descriptors import RPCS, Rpc
from tests.support.mesh import settings_of

SERVICES: list[Service] = [
    *(import_module(f"services.{name}.servicer").SERVICE for name in topology.SERVICES),
    MAILER,
]


def own(service: Service) -> list[Rpc]:
    """What a service serves by its contracts; all serve the operator's and gRPC's own."""
    sagas = service.name == "orders"
    return [
        rpc
        for rpc in RPCS
        if rpc.method.containing_service.full_name in service.contracts
        or (
            rpc.path.startswith(("/accord.ops.", "/grpc.channelz.", "/grpc.reflection."))
            and (sagas or "SagaService" not in rpc.path)
        )
    ]


def test_every_contract_is_served_once() -> None:
    """Each RPC of the shop's contracts is one service's."""
    served = [contract for service in SERVICES for contract in service.contracts]
    wanted = {each.path.split("/")[1] for each in RPCS if each.path.startswith("/shop.")}
    assert sorted(served) == sorted(wanted)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_a_stranger_may_call_nothing(service: Service, tmp_path: Path) -> None:
    """A certificate that no contract knows is refused at each RPC: it is served, and guarded."""
    authority = Authority(tmp_path / "certs")
    authority.prepare([service.name, "stranger"])
    stranger = authority.pair("stranger")
    assert stranger is not None
    roots = (authority.folder / "stranger" / "ca.crt").read_bytes()
    credentials = grpc.ssl_channel_credentials(roots, stranger.key_pem, stranger.chain_pem)
    settings = replace(
        settings_of(service.name, tmp_path), identity=authority.folder / service.name
    )
    async with (
        running(service, settings),
        grpc.aio.secure_channel(settings.address, credentials) as channel,
    ):

        async def answer(rpc: Rpc) -> str:
            call: Any = channel.unary_unary(rpc.path, bytes, bytes)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=20)
            found = accord.failure_of(caught.value)
            assert found is not None
            return found.reason

        called = own(service)
        found = await asyncio.gather(*map(answer, called))
    assert dict(zip([each.path for each in called], found, strict=True)) == {
        each.path: "NOT_ALLOWED" for each in called
    }
