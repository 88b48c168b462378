"""Live policy, from a file and through a real broker: every replica follows, also after an outage.

The deadlines are what is promised: a second for any change, five after a broker's outage.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from nats.js.kv import KeyValue

from accord.ops.v1 import audit_pb2, mesh_pb2
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.v1 import policy_pb2
from accord_runtime.admin.policy_store import BUCKET
from accord_runtime.process import running
from accord_runtime.service import Runtime
from services.customers.servicer import SERVICE
from tests.support.mesh import settings_of
from tests.support.nats import NatsServer
from tests.support.wait import until

METHOD = "shop.customers.v1.CustomerService/GetCustomer"
OTHER = "shop.customers.v1.CustomerService/ListCustomers"

PROMPT = 1.0
"""Seconds in which a change is in force."""
AFTER_OUTAGE = 5.0
"""Seconds in which it is when the broker has just come back."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two processes of one service, as far as live policy is concerned, and their broker."""

    broker: NatsServer
    pair: tuple[Runtime, Runtime]

    def timeouts(self) -> list[float | None]:
        """What a call of METHOD may take, in each."""
        found = [replica.mesh.control.overrides.policy(f"/{METHOD}") for replica in self.pair]
        return [policy.timeout for policy in found]

    async def agree(self, timeout: float | None, seconds: float) -> None:
        """Wait until both have this timeout."""
        wanted = [timeout, timeout]
        await until(lambda: self.timeouts() == wanted, f"a timeout of {timeout} s", seconds=seconds)


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    broker = NatsServer(tmp_path / "nats")
    await broker.start()
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
    first, second = (settings_of("customers", home, nats_url=broker.url) for home in homes)
    try:
        async with running(SERVICE, first) as one, running(SERVICE, second) as other:
            yield Replicas(broker, (one, other))
    finally:
        broker.kill()


def override(seconds: float) -> mesh_pb2.Override:
    timeout = Duration()
    timeout.FromNanoseconds(round(seconds * 1e9))
    return mesh_pb2.Override(policy=policy_pb2.MethodPolicy(timeout=timeout))


def document(seconds: float) -> str:
    return json.dumps({"policy": {"timeout": f"{seconds}s"}})


async def bucket_of(jetstream: Any) -> KeyValue:
    """The bucket; made by whichever process comes first."""

    async def there() -> bool:
        return f"KV_{BUCKET}" in [info.config.name for info in await jetstream.streams_info()]

    await until(there, "the bucket", seconds=10.0)
    found: KeyValue = await jetstream.key_value(BUCKET)
    return found


async def state_of(replica: Runtime) -> mesh_pb2.GetStateResponse:
    async with grpc.aio.insecure_channel(replica.settings.address) as channel:
        operator: Any = MeshServiceStub(channel)
        found: mesh_pb2.GetStateResponse = await operator.GetState(mesh_pb2.GetStateRequest())
        return found


async def test_what_one_is_told_all_do(replicas: Replicas) -> None:
    """An override set by RPC on one replica is in force on the other within a second.

    It is in the audit records of the replica that was asked.
    """
    before = replicas.timeouts()[0]
    async with grpc.aio.insecure_channel(replicas.pair[0].settings.address) as channel:
        operator: Any = MeshServiceStub(channel)
        request = mesh_pb2.SetOverrideRequest(method=METHOD, override=override(0.7), reason="slow")
        await operator.SetOverride(request)
        await replicas.agree(0.7, PROMPT)
        await operator.ClearOverride(mesh_pb2.ClearOverrideRequest(method=METHOD, reason="over"))
        await replicas.agree(before, PROMPT)
        audit: Any = AuditServiceStub(channel)
        page = await audit.ListAudit(audit_pb2.ListAuditRequest(target=METHOD))
        assert len(page.records) == 2


async def test_outage_of_the_broker(replicas: Replicas, caplog: pytest.LogCaptureFixture) -> None:
    """What was in force stays while the broker is away; five seconds after it all follow again."""
    async with replicas.broker.jetstream() as jetstream:
        await (await bucket_of(jetstream)).put(METHOD, document(0.7).encode())
        await replicas.agree(0.7, PROMPT)
    replicas.broker.kill()
    await until(lambda: "live policy cannot be read" in caplog.text, "the outage to be noticed")
    assert replicas.timeouts() == [0.7, 0.7]

    await replicas.broker.start()
    async with replicas.broker.jetstream() as jetstream:
        bucket = await bucket_of(jetstream)
        await bucket.put(METHOD, document(0.8).encode())
        await replicas.agree(0.8, AFTER_OUTAGE)
        await bucket.put(METHOD, document(0.9).encode())
        await replicas.agree(0.9, PROMPT)


async def test_refused_override(replicas: Replicas, caplog: pytest.LogCaptureFixture) -> None:
    """An override that cannot be in force changes nothing, is logged once and is shown."""
    one, _ = replicas.pair
    refused = [
        ("does not parse", "{"),
        ("longer than zero", document(0)),
        ("floor", document(0.001)),
        ("cannot be changed", '{"policy": {"allow": ["*"]}}'),
    ]
    async with replicas.broker.jetstream() as jetstream:
        bucket = await bucket_of(jetstream)
        await bucket.put(METHOD, document(0.7).encode())
        await replicas.agree(0.7, PROMPT)
        for problem, text in refused:
            caplog.clear()
            await bucket.put(METHOD, text.encode())

            def shown(replica: Runtime = one) -> list[str]:
                return [item.problem for item in replica.mesh.control.overrides.refused()]

            await until(lambda: any(problem in each for each in shown()), problem, seconds=PROMPT)  # noqa: B023
            # Looked at again, because something else has changed.
            await bucket.put(OTHER, json.dumps({"dark": ["DARK_POLICY_RETRY"]}).encode())
            await until(lambda: f"/{OTHER}" in one.mesh.control.overrides.methods(), "the other")
            await bucket.delete(OTHER)
            await until(lambda: f"/{OTHER}" not in one.mesh.control.overrides.methods(), "no other")

            (found,) = (await state_of(one)).refused
            assert (found.method, found.source) == (METHOD, mesh_pb2.SOURCE_LIVE)
            assert problem in found.problem
            assert replicas.timeouts() == [0.7, 0.7]
            said = [record for record in caplog.records if record.levelno >= logging.ERROR]
            assert len(said) == len(replicas.pair)
        await bucket.put(METHOD, document(0.8).encode())
        await replicas.agree(0.8, PROMPT)
    assert not (await state_of(one)).refused


async def test_policy_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A policy file is followed within a second, without a broker; a bad one changes nothing."""
    async with running(SERVICE, settings_of("customers", tmp_path)) as replica:
        overrides = replica.mesh.control.overrides

        def timeout() -> float | None:
            return overrides.policy(f"/{METHOD}").timeout

        def write(text: str) -> None:
            (tmp_path / "new").write_text(text)
            (tmp_path / "new").rename(tmp_path / "policy.json")

        before = timeout()
        write(f'{{"{METHOD}": {document(0.7)}}}')
        await until(lambda: timeout() == 0.7, "the file", seconds=PROMPT)
        for text, method in (
            ("no JSON", ""),
            (f'{{"{METHOD}": {document(0)}}}', METHOD),
        ):
            caplog.clear()
            write(text)
            await until(lambda: bool(overrides.refused()), "the refusal", seconds=PROMPT)
            await until(lambda: overrides.refused()[0].method == method, "it", seconds=PROMPT)  # noqa: B023
            (found,) = (await state_of(replica)).refused
            assert (found.method, found.source) == (method, mesh_pb2.SOURCE_FILE)
            assert timeout() == 0.7
            assert caplog.text.count("an override was refused") == 1
        (tmp_path / "policy.json").unlink()
        await until(lambda: timeout() == before, "the contract", seconds=PROMPT)
        assert not (await state_of(replica)).refused
        await asyncio.sleep(0)
