"""Deliveries to real receivers on loopback, by a real service on both databases."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trustme
from aiohttp import web

import accord
from accord.errors import ServiceError
from accord_runtime.grpc.ids import uuid7
from services.notifications.webhooks import sender, steps
from shop.notifications.v1 import webhooks_pb2 as pb
from shop.orders.v1 import events_pb2
from tests.runtime.work.support import parked_items
from tests.services.notifications.webhooks.bench import CONFIRMED, Bench, bench, confirmed
from tests.services.notifications.webhooks.receiver import Receiver, Request, receiving, says
from tests.support.clock import Clock
from tests.support.wait import until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, as often as usual."""
    monkeypatch.setattr(steps, "DELAYS", (0.02,) * len(steps.DELAYS))


@pytest.fixture
async def at_work(tmp_path: Path, shop_database: str) -> AsyncIterator[Bench]:
    async with bench(tmp_path, database_url=shop_database) as found:
        yield found


async def test_an_event_is_delivered(at_work: Bench, receiver: Receiver) -> None:
    """What is sent passes somebody else's verifier; its id follows from event and webhook."""
    webhook_id, secret = await at_work.create(receiver.url)
    order_id = uuid7()
    event_id = await at_work.happens(confirmed(order_id), 7)
    await at_work.idle()

    (request,) = receiver.requests
    content = request.verify(secret)
    assert (content["type"], content["event_id"]) == (CONFIRMED, event_id)
    assert request.told == (order_id, 7)
    assert content["data"]["total"] == {"minor_units": "1999", "currency_code": "EUR"}
    assert request.headers["content-type"] == "application/json"
    with pytest.raises(Exception, match="signature"):
        request.verify("whsec_" + "A" * 44)
    (delivery,) = await at_work.deliveries(webhook_id)
    assert (delivery.message_id, delivery.event_id) == (request.id, event_id)
    assert (delivery.state, delivery.status) == (pb.DELIVERY_STATE_DELIVERED, 200)


async def test_a_condition_decides(at_work: Bench, receiver: Receiver) -> None:
    """Only events of the wanted types are sent, and only when the condition holds."""
    await at_work.create(receiver.url, "event.total.minor_units >= 5000", (CONFIRMED,))
    small, large = uuid7(), uuid7()
    await at_work.happens(confirmed(small, cents=4999))
    await at_work.happens(confirmed(large, cents=5000))
    await at_work.happens(events_pb2.OrderPaid(order_id=large), 2)
    await at_work.idle()
    assert [request.told for request in receiver.requests] == [(large, 1)]


async def test_order_is_kept_per_order(at_work: Bench, receiver: Receiver) -> None:
    """An event that fails is sent again under its id before the next of its order; others go on."""
    webhook_id, _ = await at_work.create(receiver.url)
    stuck, other = uuid7(), uuid7()
    failing = asyncio.Event()

    async def answer(request: Request) -> web.StreamResponse:
        fails = request.told == (stuck, 1) and not failing.is_set()
        return web.Response(status=500 if fails else 204)

    receiver.answer = answer
    for sequence in (1, 2, 3):
        await at_work.happens(events_pb2.OrderPaid(order_id=stuck), sequence)
    for sequence in (1, 2):
        await at_work.happens(events_pb2.OrderPaid(order_id=other), sequence)
    await until(lambda: [r.told for r in receiver.requests].count((stuck, 1)) > 2, "retries")
    await until(lambda: (other, 2) in [r.told for r in receiver.requests], "the other order")
    assert (stuck, 2) not in [r.told for r in receiver.requests]
    (first,) = [
        d for d in await at_work.deliveries(webhook_id) if (d.key, d.sequence) == (stuck, 1)
    ]
    assert (first.state, first.status) == (pb.DELIVERY_STATE_WAITING, 500)
    assert first.attempts > 1
    assert first.error == "the receiver answered 500"
    failing.set()
    await at_work.idle()
    told = [r.told[1] for r in receiver.requests if r.told[0] == stuck]
    assert told == sorted(told)
    assert told[-2:] == [2, 3]
    assert len({r.id for r in receiver.requests if r.told == (stuck, 1)}) == 1


async def test_a_slow_receiver_holds_nobody_up(at_work: Bench, receiver: Receiver) -> None:
    """A receiver that takes for ever has its share; behind two hundred of its, another gets all."""
    async with receiving() as slow:
        go = asyncio.Event()

        async def wait(request: Request) -> web.StreamResponse:
            await go.wait()
            return web.Response()

        slow.answer = wait
        await at_work.create(slow.url, "event.total.minor_units == 1", (CONFIRMED,))
        await at_work.create(receiver.url, "event.total.minor_units == 2", (CONFIRMED,))
        for _ in range(200):
            await at_work.happens(confirmed(cents=1))
        for _ in range(20):
            await at_work.happens(confirmed(cents=2))
        await until(lambda: len(receiver.requests) == 20, "the fast one")
        assert slow.most_at_once == steps.PER_WEBHOOK
        go.set()
        await at_work.idle()
        assert len(slow.requests) == 200


async def test_bad_receivers(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redirects are not followed, cookies not kept, silence and endless answers cut short."""
    monkeypatch.setattr(sender, "TIMEOUT", 0.5)
    async with receiving() as other, bench(tmp_path) as at_work:
        webhook_id, _ = await at_work.create(receiver.url)

        async def test() -> pb.TestWebhookResponse:
            request = pb.TestWebhookRequest(webhook_id=webhook_id)
            key = accord.idempotency_key(uuid7())
            return await at_work.stub.TestWebhook(request, metadata=key)

        receiver.answer = says(302, location=other.url)
        assert (await test()).error == "the receiver answered 302"
        assert other.requests == []

        async def silent(request: Request) -> web.StreamResponse:
            await asyncio.sleep(5)
            return web.Response()

        receiver.answer = silent
        assert (await test()).error == "no answer in 0.5 s"

        async def endless(request: Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.set_cookie("session", "1")
            await response.prepare(request.raw)
            while True:
                await response.write(b"x" * 65536)

        receiver.answer = endless
        answer = await test()
        assert (answer.delivered, answer.status) == (True, 200)
        receiver.answer = says(200)
        assert (await test()).delivered
        assert "cookie" not in receiver.requests[-1].headers
        assert receiver.requests[-1].content["type"] == "webhook.test"


async def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver with a certificate that is trusted is told, one with any other is not."""
    trusted, stranger = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    answers = []
    async with bench(tmp_path) as at_work:
        for ca in (trusted, stranger):
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert("127.0.0.1").configure_cert(tls)
            async with receiving(tls) as receiver:
                webhook_id, _ = await at_work.create(receiver.url)
                request = pb.TestWebhookRequest(webhook_id=webhook_id)
                key = accord.idempotency_key(uuid7())
                answers.append(await at_work.stub.TestWebhook(request, metadata=key))
                assert len(receiver.requests) == (ca is trusted)
    assert [answer.delivered for answer in answers] == [True, False]
    assert "CERTIFICATE_VERIFY_FAILED" in answers[1].error


async def test_switched_off(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """A day of nothing but failures switches a webhook off, and says so; any success helps."""
    clock = Clock()
    async with bench(tmp_path, clock=clock) as at_work:
        receiver.answer = says(503)
        webhook_id, _ = await at_work.create(receiver.url)
        await at_work.happens(confirmed())
        await until(lambda: receiver.requests, "a failure")

        async def failing() -> bool:
            return (await at_work.get(webhook_id)).HasField("failing_since")

        await until(failing, "the failure to be noted")
        receiver.answer = says(200)
        await at_work.idle()
        assert not await failing()

        receiver.answer = says(503)
        clock.advance(steps.PATIENCE)  # The day begins with the first failure.
        await at_work.happens(confirmed())
        await until(failing, "the next failure to be noted")
        await at_work.happens(confirmed())
        clock.advance(steps.PATIENCE - 60)
        count = len(receiver.requests)
        await until(lambda: len(receiver.requests) > count + 2, "more failures")
        assert (await at_work.get(webhook_id)).state == pb.WEBHOOK_STATE_ACTIVE
        clock.advance(120)
        await at_work.idle()
        webhook = await at_work.get(webhook_id)
        assert webhook.state == pb.WEBHOOK_STATE_OFF
        assert webhook.reason.startswith("no delivery has succeeded for a day")
        assert f"webhook {webhook_id} is switched off" in caplog.text
        states = {each.state for each in (await at_work.deliveries(webhook_id))[:2]}
        assert states == {pb.DELIVERY_STATE_GIVEN_UP}
        count = len(receiver.requests)
        await at_work.happens(confirmed())
        await at_work.idle()
        assert len(receiver.requests) == count


async def test_parked(at_work: Bench, receiver: Receiver) -> None:
    """A delivery that fails while others succeed is parked in the end, and only its order waits."""
    webhook_id, _ = await at_work.create(receiver.url)
    bad = uuid7()

    async def answer(request: Request) -> web.StreamResponse:
        return web.Response(status=422 if request.told[0] == bad else 200)

    receiver.answer = answer
    await at_work.happens(events_pb2.OrderPaid(order_id=bad), 1)
    await at_work.happens(events_pb2.OrderPaid(order_id=bad), 2)

    async def parked() -> bool:
        return bool(await at_work.runtime.database.read(parked_items))

    await until(parked, "it to be parked")
    await at_work.happens(events_pb2.OrderPaid(order_id=uuid7()))
    await until(lambda: receiver.requests[-1].told[0] != bad, "another order")
    tried = [request for request in receiver.requests if request.told[0] == bad]
    assert len(tried) == len(steps.DELAYS) + 1
    second, first, *_ = sorted(
        (d for d in await at_work.deliveries(webhook_id) if d.key == bad),
        key=lambda d: -d.sequence,
    )
    assert (first.state, second.state) == (pb.DELIVERY_STATE_PARKED, pb.DELIVERY_STATE_WAITING)
    # Pausing gives both up; nothing of it is left to the operator.
    await at_work.update(webhook_id, state=pb.WEBHOOK_STATE_PAUSED)
    await at_work.idle()


async def test_gone(tmp_path: Path, receiver: Receiver) -> None:
    """A receiver that says that it is gone is not called again."""
    async with bench(tmp_path) as at_work:
        receiver.answer = says(410)
        webhook_id, _ = await at_work.create(receiver.url)
        await at_work.happens(confirmed())
        await at_work.idle()
        webhook = await at_work.get(webhook_id)
        assert (webhook.state, "gone" in webhook.reason) == (pb.WEBHOOK_STATE_OFF, True)
        assert len(receiver.requests) == 1


async def test_too_many_wait(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver for which too much waits is switched off, and what waited given up."""
    monkeypatch.setattr(steps, "MAX_WAITING", 10)
    async with bench(tmp_path) as at_work:
        receiver.answer = says(500)
        webhook_id, _ = await at_work.create(receiver.url)
        for _ in range(11):
            await at_work.happens(confirmed())
        await at_work.idle()
        webhook = await at_work.get(webhook_id)
        assert webhook.reason == "more than 10 deliveries waited for it"


async def test_pause_resume_rotate_delete(at_work: Bench, receiver: Receiver) -> None:
    """A pause keeps nothing; a new secret is used beside the old one; what is deleted is gone."""
    webhook_id, old = await at_work.create(receiver.url)
    paused = (await at_work.update(webhook_id, state=pb.WEBHOOK_STATE_PAUSED)).webhook
    assert paused.state == pb.WEBHOOK_STATE_PAUSED
    await at_work.happens(confirmed())
    await at_work.idle()
    await at_work.update(webhook_id, state=pb.WEBHOOK_STATE_ACTIVE)
    new = (await at_work.update(webhook_id, rotate_secret=True)).secret
    await at_work.happens(confirmed())
    await at_work.idle()
    (request,) = receiver.requests
    assert new != old
    assert request.verify(old) == request.verify(new)

    delete = pb.DeleteWebhookRequest(webhook_id=webhook_id)
    await at_work.stub.DeleteWebhook(delete, metadata=accord.idempotency_key(uuid7()))
    await at_work.happens(confirmed())
    await at_work.idle()
    assert len(receiver.requests) == 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await at_work.deliveries(webhook_id)
    assert ServiceError.from_rpc(raised.value).reason == "NOT_FOUND"
    tables = "SELECT (SELECT COUNT(*) FROM webhook) + (SELECT COUNT(*) FROM delivery)"
    assert await at_work.runtime.database.read(lambda tx: tx.value(tables)) == 0


async def test_lists(at_work: Bench, receiver: Receiver) -> None:
    """Webhooks and deliveries are listed newest first, page by page."""
    created = [(await at_work.create(receiver.url))[0] for _ in range(3)]
    page = await at_work.stub.ListWebhooks(pb.ListWebhooksRequest(page_size=2))
    request = pb.ListWebhooksRequest(page_size=2, page_token=page.next_page_token)
    rest = await at_work.stub.ListWebhooks(request)
    assert [w.webhook_id for w in (*page.webhooks, *rest.webhooks)] == created[::-1]
    events = [await at_work.happens(confirmed()) for _ in range(3)]
    await at_work.idle()
    assert [d.event_id for d in await at_work.deliveries(created[0])] == events[::-1]


async def test_old_deliveries_are_forgotten(tmp_path: Path, receiver: Receiver) -> None:
    """What came of a delivery is known for a week, and then no more."""
    clock = Clock()
    async with bench(tmp_path, clock=clock) as at_work:
        webhook_id, _ = await at_work.create(receiver.url)
        await at_work.happens(confirmed())
        await at_work.idle()
        clock.advance(steps.KEPT + 60)
        event_id = await at_work.happens(confirmed())
        await at_work.idle()
        assert [d.event_id for d in await at_work.deliveries(webhook_id)] == [event_id]


async def test_the_secret_is_nowhere(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer but the first, no log, no work and no delivery has the secret in it."""
    caplog.set_level(logging.DEBUG)
    async with bench(tmp_path) as at_work:
        webhook_id, secret = await at_work.create(receiver.url)
        receiver.answer = says(500)
        await at_work.happens(confirmed())
        await until(lambda: len(receiver.requests) > 2, "some failures")
        rows = await at_work.runtime.database.read(
            lambda tx: [*tx.all("SELECT * FROM work"), *tx.all("SELECT * FROM delivery")]
        )
        said = [
            str(await at_work.get(webhook_id)),
            str(await at_work.stub.ListWebhooks(pb.ListWebhooksRequest())),
            str(await at_work.deliveries(webhook_id)),
            repr(rows),
            caplog.text,
            *(str(request.headers) + request.body.decode() for request in receiver.requests),
        ]
        await at_work.update(webhook_id, state=pb.WEBHOOK_STATE_PAUSED)
    assert not [text for text in said if secret.removeprefix("whsec_") in text]
    assert rows
