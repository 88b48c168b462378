"""Live policy: layers, refusals, sources, and what changes while a server runs."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import accord
from accord import _files
from accord.contract import Dark, live_overrides
from accord.contract.live_overrides import (
    FileSource,
    Layer,
    OverrideRefused,
    Overrides,
    UnknownMethod,
    parse,
)
from accord.policies.types import Code
from tests.accord.kit import Message, eventually, failure, path
from tests.accord.server_kit import bare

FLOORED = "accordtest.v1.EchoService/Floored"
UNARY = "accordtest.v1.EchoService/Unary"


def put(overrides: Overrides, text: str, method: str = FLOORED, layer: Layer = Layer.LIVE) -> None:
    """Put a JSON document into force."""
    overrides.set(f"/{method}", parse(method, text), layer)


def test_contract_is_the_default() -> None:
    """Without overrides a method has the policy of its contract, the very same object."""
    overrides = Overrides()
    assert overrides.policy(path("Floored")) is accord.method_policy(path("Floored"))


def test_merged_field_by_field() -> None:
    """What an override does not state stays as in the contract, inside messages too."""
    overrides = Overrides()
    put(overrides, '{"policy": {"timeout": "1.5s", "retry": {"maxAttempts": 2}}}')
    policy = overrides.policy(path("Floored"))
    assert policy.timeout == 1.5
    assert policy.retry is not None
    assert policy.retry.max_attempts == 2
    assert policy.retry.codes == {Code.UNAVAILABLE, Code.ABORTED}
    assert overrides.policy(path("Floored")) is policy


def test_lists_are_replaced() -> None:
    """A list in an override replaces the contract's."""
    overrides = Overrides()
    put(overrides, '{"policy": {"retry": {"codes": ["STATUS_CODE_ABORTED"]}}}')
    policy = overrides.policy(path("Floored"))
    assert policy.retry is not None
    assert policy.retry.codes == {Code.ABORTED}


def test_layers() -> None:
    """Live policy wins over the file, the file over the contract; clearing uncovers the next."""
    overrides = Overrides()
    put(
        overrides,
        '{"policy": {"timeout": "1.8s"}, "dark": ["DARK_POLICY_HEDGE"]}',
        layer=Layer.FILE,
    )
    put(overrides, '{"policy": {"timeout": "1.2s"}}')
    assert overrides.policy(path("Floored")).timeout == 1.2
    assert overrides.policy(path("Floored")).dark == {Dark.HEDGE}
    overrides.clear(path("Floored"))
    assert overrides.policy(path("Floored")).timeout == 1.8
    overrides.clear(path("Floored"), Layer.FILE)
    assert overrides.policy(path("Floored")) is accord.method_policy(path("Floored"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "does not parse"),
        ("[]", "does not parse"),
        ('{"policy": {"timeot": "1s"}}', "does not parse"),
        ('{"policy": {"timeout": "soon"}}', "does not parse"),
        ('{"dark": ["EVERYTHING"]}', "does not parse"),
        ('{"dark": ["DARK_POLICY_UNSPECIFIED"]}', "dark"),
        ("[" * 5000, "does not parse"),
        ('{"policy": {"timeout": "0s"}}', "timeout: must be longer than zero"),
        ('{"policy": {"timeout": "0.5s"}}', "of 0.5 s is below the contract's floor of 1 s"),
        ('{"policy": {"retry": {"maxAttempts": 1}}}', "a single attempt is below"),
        ('{"policy": {"retry": {"maxAttempts": 99}}}', "retry.max_attempts"),
        ('{"policy": {"floor": {}}}', "floor: cannot be changed"),
        ('{"policy": {"allow": ["*"]}}', "allow: cannot be changed"),
        ('{"policy": {"idempotency": {"key": "KEY_NATURAL"}}}', "idempotency: cannot"),
        ('{"policy": {"maxDepth": 9}}', "max_depth"),
        ('{"policy": {"limit": {"rate": {"perSecond": "NaN"}}}}', "limit.rate.per_second"),
        ('{"policy": {"breaker": {"failurePercent": 101}}}', "breaker.failure_percent"),
        ('{"policy": {"attemptTimeout": "0.9s"}}', "an attempt_timeout of 0.9 s is below"),
        ('{"dark": ["DARK_POLICY_RETRY"]}', "no retry is made, and a single attempt is below"),
        ('{"policy": {"cache": {"ttl": "60s"}}}', "cache: only"),
    ],
)
def test_refused(text: str, problem: str, caplog: pytest.LogCaptureFixture) -> None:
    """What does not parse or goes below a floor is logged once, shown, and changes nothing."""
    overrides = Overrides()
    put(overrides, '{"policy": {"timeout": "1.5s"}}')
    with caplog.at_level(logging.ERROR, "accord"):
        for _ in range(3):
            overrides.replace({FLOORED: text}, Layer.LIVE)
    assert overrides.policy(path("Floored")).timeout == 1.5
    [refusal] = overrides.refused()
    assert (refusal.method, refusal.layer) == (FLOORED, Layer.LIVE)
    assert problem in refusal.problem
    assert len(caplog.records) == 1
    overrides.replace({FLOORED: '{"policy": {"timeout": "1.6s"}}'}, Layer.LIVE)
    assert overrides.refused() == []


@pytest.mark.parametrize("layer", list(Layer))
@pytest.mark.parametrize(
    "method", ["accord.ops.v1.MeshService/GetState", "grpc.health.v1.Health/Check"]
)
def test_out_of_reach(method: str, layer: Layer) -> None:
    """No source changes what an operator needs to take a change back."""
    overrides = Overrides()
    overrides.replace({method: '{"policy": {"timeout": "0.001s"}}'}, layer)
    assert not overrides.methods()
    assert overrides.policy(f"/{method}") is accord.method_policy(f"/{method}")
    assert [(it.method, it.layer) for it in overrides.refused()] == [(method, layer)]


def test_refusal_names_method_and_field() -> None:
    """A refusal says for which method it is, and which field is wrong."""
    with pytest.raises(OverrideRefused, match=r"^timeout: must be longer than zero") as caught:
        put(Overrides(), '{"policy": {"timeout": "0s"}}')
    assert caught.value.method == FLOORED


def test_refusal_below_the_floor_is_a_sentence() -> None:
    """Who goes below a floor is told what he would set and what the contract allows at least."""
    with pytest.raises(OverrideRefused) as caught:
        put(Overrides(), '{"policy": {"timeout": "0.1s"}}')
    assert str(caught.value) == "a timeout of 0.1 s is below the contract's floor of 1 s"


def test_no_retries_without_floor() -> None:
    """One attempt means no retries, where the contract has no floor."""
    overrides = Overrides()
    put(overrides, '{"policy": {"retry": {"maxAttempts": 1}}}', UNARY)
    assert overrides.policy(path("Unary")).retry is None


def test_method_of_others() -> None:
    """An override of a method that the process does not know waits without a complaint."""
    overrides = Overrides()
    with pytest.raises(UnknownMethod):
        put(overrides, "{}", "strange.v1.Service/Method")
    overrides.replace({"strange.v1.Service/Method": "{}"}, Layer.LIVE)
    assert overrides.refused() == []
    assert overrides.policy("/strange.v1.Service/Method").timeout is None


class Store:
    """A store in memory that breaks on demand."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}
        self.changed = asyncio.Event()
        self.broken = False

    async def watch(self) -> AsyncIterator[Mapping[str, str]]:
        while True:
            if self.broken:
                raise ConnectionError("away")
            self.changed.clear()
            yield dict(self.documents)
            await self.changed.wait()

    async def put(self, method: str, document: str) -> None:
        if self.broken:
            raise ConnectionError("away")
        self.documents[method] = document
        self.changed.set()

    async def delete(self, method: str) -> None:
        self.documents.pop(method, None)
        self.changed.set()


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_store_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    """A change reaches the process at once, an outage keeps what was in force, then it goes on."""
    overrides, store = Overrides(), Store()
    following = asyncio.create_task(overrides.follow(store))
    await store.put(UNARY, '{"policy": {"timeout": "1s"}}')
    await eventually(lambda: overrides.policy(path("Unary")).timeout == 1.0)
    with caplog.at_level(logging.WARNING, "accord"):
        store.broken = True
        store.changed.set()
        await eventually(lambda: len(caplog.records) == 1)
        store.documents.clear()
        assert overrides.policy(path("Unary")).timeout == 1.0
        store.broken = False
        await eventually(lambda: overrides.policy(path("Unary")).timeout == 2.0)
    await stop(following)


async def test_file_is_followed(tmp_path: Path) -> None:
    """A policy file applies to a running process; a garbled one changes nothing and is shown."""
    overrides, file = Overrides(), tmp_path / "policy.json"
    source = FileSource(file)
    following = asyncio.create_task(overrides.follow(source, Layer.FILE))
    file.write_text(json.dumps({UNARY: {"policy": {"timeout": "1s"}}}))
    await eventually(lambda: overrides.policy(path("Unary")).timeout == 1.0)
    file.write_text("{")
    await eventually(lambda: len(overrides.refused()) == 1)
    assert overrides.policy(path("Unary")).timeout == 1.0
    file.unlink()
    await eventually(lambda: overrides.policy(path("Unary")).timeout == 2.0)
    await eventually(lambda: overrides.refused() == [])
    await stop(following)


async def test_file_is_read_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged file is not read again; of the same size and within a moment, it is."""
    reads, read = 0, live_overrides._Reader._text

    def counted(reader: live_overrides._Reader) -> str | None:
        nonlocal reads
        reads += 1
        return read(reader)

    looks, stamp, later = 0, _files.stamp, 0.0

    def looked(path: Path) -> object:
        nonlocal looks
        looks += 1
        return stamp(path)

    clock = SimpleNamespace(
        time=lambda: time.time() + later, sleep=time.sleep, monotonic=time.monotonic
    )
    monkeypatch.setattr(live_overrides._Reader, "_text", counted)
    monkeypatch.setattr(live_overrides, "stamp", looked)
    monkeypatch.setattr(_files, "time", clock)
    monkeypatch.setattr(_files, "INTERVAL", 0.001)
    file = tmp_path / "policy.json"
    documents = FileSource(file).watch()
    assert await anext(documents) == {}
    (tmp_path / "written").write_text('{"a": 0}')
    (tmp_path / "written").rename(file)  # it is read at any moment, and never half of it
    assert (await anext(documents))["a"] == "0"
    for digit in 2 * "123456789":
        with file.open("r+") as there:
            there.write(f'{{"a": {digit}}}')
        async with asyncio.timeout(5):
            assert (await anext(documents))["a"] == digit
    waiting = asyncio.ensure_future(anext(documents))
    later = 1.1  # for a second after a change it is read again
    seen = looks
    await eventually(lambda: looks > seen + 2)
    before, seen = reads, looks
    await eventually(lambda: looks > seen + 20)
    assert reads == before
    waiting.cancel()


async def test_applies_to_a_running_server() -> None:
    """A live rate limit is enforced on the next call, and gone with the next one after that."""

    async def answer(request: Any, context: Any) -> Any:
        return request

    async with bare({"Unary": answer}) as served:
        overrides = served.mesh.control.overrides
        await served.stub.Unary(Message())
        put(overrides, '{"policy": {"limit": {"rate": {"perSecond": 0.01, "burst": 1}}}}', UNARY)
        await served.stub.Unary(Message())
        assert (await failure(served.stub.Unary(Message()))).reason == "RATE_LIMITED"
        overrides.clear(path("Unary"))
        await served.stub.Unary(Message())
