"""Live policy through a real broker: every replica follows, also after an outage."""

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from accord.ops.v1 import audit_pb2, mesh_pb2
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.v1 import policy_pb2
from services.customers.service import SERVICE
from services.runtime.serve import running
from tests.accord.kit import eventually
from tests.support.mesh import settings_of
from tests.support.nats import NatsServer

METHOD = "shop.customers.v1.CustomerService/GetCustomer"


def _override(nanos: int) -> mesh_pb2.SetOverrideRequest:
    timeout = Duration(nanos=nanos)
    return mesh_pb2.SetOverrideRequest(
        method=METHOD,
        override=mesh_pb2.Override(policy=policy_pb2.MethodPolicy(timeout=timeout)),
        reason="slow database",
    )


async def test_replicas_follow(tmp_path: Path) -> None:
    """An override set on one replica is in force on the other, also after an outage.

    It is in the audit records of the replica that was asked.
    """
    broker = NatsServer(tmp_path / "nats")
    await broker.start()
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
    first, second = (settings_of("customers", home, nats_url=broker.url) for home in homes)
    try:
        async with running(SERVICE, first), running(SERVICE, second) as replica:
            overrides = replica.mesh.control.overrides

            def timeout() -> float | None:
                return overrides.policy(f"/{METHOD}").timeout

            before = timeout()
            async with grpc.aio.insecure_channel(first.address) as channel:
                operator: Any = MeshServiceStub(channel)
                await operator.SetOverride(_override(700_000_000))
                await eventually(lambda: timeout() == 0.7)
                await broker.restart()
                assert timeout() == 0.7
                async with asyncio.timeout(30):
                    done = False
                    while not done:
                        try:
                            await operator.SetOverride(_override(800_000_000))
                            done = True
                        except grpc.aio.AioRpcError:
                            await asyncio.sleep(0.05)  # the broker is not there yet
                await eventually(lambda: timeout() == 0.8, 30)
                clear = mesh_pb2.ClearOverrideRequest(method=METHOD, reason="over")
                await operator.ClearOverride(clear)
                await eventually(lambda: timeout() == before)
                audit: Any = AuditServiceStub(channel)
                page = await audit.ListAudit(audit_pb2.ListAuditRequest(target=METHOD))
                assert len(page.records) == 3
    finally:
        broker.kill()
