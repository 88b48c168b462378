"""Streams: server-sent events, one call upstream for many readers, and those who go away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import accord
from accord.edge import EdgeLimits, streams
from accord.edge.fanout import MAX_EVENTS, Hub
from tests.accord.edge.kit import Served, Update, echo, over_a_port, serving
from tests.accord.kit import eventually


class Feed:
    """What a test has the service say to all who watch."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.opened: list[int] = []
        self.open = 0
        self.ended = False
        self.error: Exception | None = None
        self._news = asyncio.Condition()

    async def say(self, *texts: str, end: bool = False, error: Exception | None = None) -> None:
        async with self._news:
            for text in texts:
                self.said.append(Update(sequence=len(self.said) + 1, text=text))
            self.ended, self.error = end, error
            self._news.notify_all()

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.after > len(self.said):
            raise accord.OutOfRange("SEQUENCE_IN_FUTURE")
        if request.parcel_id == "none":
            raise accord.NotFound("NO_SUCH_PARCEL")
        self.opened.append(request.after)
        self.open += 1
        at = request.after
        try:
            while True:
                for message in self.said[at:]:
                    at += 1
                    yield message
                if self.error is not None:
                    raise self.error
                if self.ended:
                    return
                async with self._news:
                    if at == len(self.said) and not self.ended and self.error is None:
                        await self._news.wait()
        finally:
            self.open -= 1


class Events:
    """What a client reads of one stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.comments = 0
        self._lines = answer.aiter_lines()

    async def next(self) -> dict[str, str]:
        """The next event: its fields; none: the stream has ended."""
        found: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                if not line and found:
                    return found
                name, _, value = line.partition(": ")
                if name:
                    found[name] = value
                elif line:
                    self.comments += 1
        return found


@asynccontextmanager
async def watching(tmp_path: Path, feed: Feed, **edge: Any) -> AsyncIterator[tuple[Served, Any]]:
    """An edge over a port before a feed, and what opens streams of it."""
    async with (
        serving(tmp_path, {"Watch": feed.watch, "List": feed.watch}, **edge) as served,
        over_a_port(served.edge) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):

        @asynccontextmanager
        async def opened(path: str = "/v1/parcels/7/updates", **headers: str) -> Any:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            found = {**served.bearer("parcels:read"), **named}
            async with client.stream("GET", path, headers=found) as answer:
                yield Events(answer)

        yield served, opened


async def test_last_event_id_goes_on(tmp_path: Path) -> None:
    """Only what is behind it comes; who has seen all of an ended stream gets 204."""
    feed = Feed()
    await feed.say("a", "b", end=True)
    async with watching(tmp_path, feed) as (_, opened):
        async with opened(last_event_id="1") as events:
            assert (await events.next())["id"] == "2"
        async with opened(last_event_id="2") as events:
            assert events.answer.status_code == 204
        async with opened(last_event_id="3") as events:
            assert events.answer.status_code == 400
            assert "SEQUENCE_IN_FUTURE" in (await events.answer.aread()).decode()
        for wrong in ("x", "-1", "9223372036854775808"):
            async with opened(last_event_id=wrong) as events:
                assert events.answer.status_code == 400


async def test_the_first_error_is_a_status_and_a_later_one_an_event(tmp_path: Path) -> None:
    """Who watches what does not exist gets 404; what fails later is told as the problem."""
    feed = Feed()
    async with watching(tmp_path, feed) as (_, opened):
        async with opened("/v1/parcels/none/updates") as events:
            assert events.answer.status_code == 404
            assert json.loads(await events.answer.aread())["reason"] == "NO_SUCH_PARCEL"
        await feed.say("a")
        async with opened() as events:
            assert (await events.next())["id"] == "1"
            await feed.say(error=accord.FailedPrecondition("LOST", "it is lost"))
            failed = await events.next()
            assert failed["event"] == "error"
            assert json.loads(failed["data"])["reason"] == "LOST"
            assert await events.next() == {}


async def test_a_quiet_stream_begins_and_stays_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer does not wait for ever for a first message, and comments keep it alive."""
    monkeypatch.setattr(streams, "FIRST", 0.05)
    feed = Feed()
    async with (
        watching(tmp_path, feed, limits=EdgeLimits(keepalive=0.05)) as (_, opened),
        opened() as events,
    ):
        assert events.answer.status_code == 200
        told = asyncio.create_task(events.next())
        await eventually(lambda: events.comments > 2)
        await feed.say("a")
        assert (await told)["id"] == "1"


async def test_one_call_for_all_who_watch(tmp_path: Path) -> None:
    """Readers of the same user share a call, whatever they have seen; another user has his own."""
    feed = Feed()
    await feed.say("a", "b")
    async with watching(tmp_path, feed) as (served, opened):
        other = served.bearer("parcels:read", sub="18")
        async with opened() as one, opened() as two, opened(last_event_id="1") as three:
            for events, seen in ((one, ["1", "2"]), (two, ["1", "2"]), (three, ["2"])):
                assert [(await events.next())["id"] for _ in seen] == seen
            assert feed.opened == [0]
            await feed.say("c")
            assert [(await each.next())["id"] for each in (one, two, three)] == ["3"] * 3
            async with opened(**other) as theirs:
                assert (await theirs.next())["id"] == "1"
                assert feed.opened == [0, 0]
            async with opened("/v1/parcels/8/updates") as elsewhere:
                assert (await elsewhere.next())["id"] == "1"
            await eventually(lambda: feed.open == 1)
        await eventually(lambda: feed.open == 0)
        assert len(served.edge._hub) == 0


async def test_who_goes_away_ends_the_call(tmp_path: Path) -> None:
    """The last reader takes the call upstream with him, of a stream and of a slow answer."""
    feed = Feed()
    await feed.say("a")
    async with watching(tmp_path, feed) as (_, opened):
        for path in ("/v1/parcels/7/updates", "/v1/updates"):
            async with opened(path) as events:
                await events.next()
                assert feed.open == 1
            await eventually(lambda: feed.open == 0)


async def test_who_goes_away_cancels_a_unary_call(tmp_path: Path) -> None:
    """A client that hangs up does not keep a service at work."""
    state: list[str] = []

    async def find(request: Any, context: Any) -> Any:
        state.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            state.append("cancelled")
            raise

    async with (
        serving(tmp_path, {"FindParcels": find}) as served,
        over_a_port(served.edge) as port,
        httpx.AsyncClient() as client,
    ):
        task = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/v1/parcels"))
        await eventually(lambda: state == ["begun"])
        task.cancel()
        await eventually(lambda: state == ["begun", "cancelled"])


async def test_the_token_and_the_deadline_end_a_stream(tmp_path: Path) -> None:
    """A stream lives no longer than the token it was opened with, nor than its client wants."""
    feed = Feed()
    await feed.say("a")
    async with watching(tmp_path, feed) as (served, opened):
        short = served.bearer("parcels:read", exp=time.time() + 1)
        async with opened(**short) as events:
            await events.next()
            failed = await events.next()
            assert json.loads(failed["data"])["reason"] == "TOKEN_EXPIRED"
        async with opened(request_timeout="0.5") as events, opened() as other:
            await events.next()
            failed = await events.next()
            assert json.loads(failed["data"])["code"] == "DEADLINE_EXCEEDED"
            await feed.say("b")
            assert [(await other.next())["id"] for _ in range(2)] == ["1", "2"]


async def test_a_slow_reader_is_cut_and_the_others_are_not(tmp_path: Path) -> None:
    """Who falls behind what is kept is told so, and goes on by his last event."""
    hub, feed = Hub(), Feed()

    class Call:
        def __init__(self, after: int) -> None:
            self.after = after

        def __aiter__(self) -> Any:
            return feed.watch(self, None)

        parcel_id = "7"

        def cancel(self) -> None:
            pass

    async def tokens(reader: Any, upto: int) -> list[int]:
        found: list[int] = []
        while len(found) < upto:
            found += [each.token for each in await reader.read(20)]
        return found

    with (
        hub.reading("k", Call, 0, "sequence") as fast,
        hub.reading("k", Call, 0, "sequence") as slow,
    ):
        await feed.say(*["x"] * 2 * MAX_EVENTS)
        assert await tokens(fast, 2 * MAX_EVENTS) == list(range(1, 2 * MAX_EVENTS + 1))
        with pytest.raises(accord.ServiceError, match="keep up"):
            await slow.read(1)
        with hub.reading("k", Call, 2 * MAX_EVENTS - 3, "sequence") as again:
            assert await tokens(again, 3) == [2 * MAX_EVENTS - 2 + n for n in range(3)]
            assert feed.opened == [0]
        with hub.reading("k", Call, 5, "sequence") as late:
            assert await tokens(late, 2 * MAX_EVENTS - 5) == list(range(6, 2 * MAX_EVENTS + 1))
            assert feed.opened == [0, 5]
    assert len(hub) == 0


async def test_a_long_list_waits_for_its_reader(tmp_path: Path) -> None:
    """A stream that cannot be resumed loses nothing: its call waits, and memory is bounded."""
    feed = Feed()
    await feed.say(*["x" * 1000] * 3000, end=True)
    async with watching(tmp_path, feed) as (served, opened), opened("/v1/updates") as events:
        await events.next()
        (upstream,) = served.edge._hub._all
        await asyncio.sleep(0.2)
        assert len(upstream.events) <= MAX_EVENTS
        count = 1
        while "data" in (event := await events.next()) and "event" not in event:
            count += 1
        assert count == 3000


async def test_close_ends_streams_in_order(tmp_path: Path) -> None:
    """Readers of an edge that stops are told to come again."""
    feed = Feed()
    await feed.say("a")
    async with watching(tmp_path, feed) as (served, opened), opened() as events:
        await events.next()
        await served.edge.close()
        failed = json.loads((await events.next())["data"])
        assert (failed["reason"], failed["status"]) == ("STOPPING", 503)


@pytest.mark.parametrize("limits", [EdgeLimits(streams=1), EdgeLimits(streams_each=1)])
async def test_there_is_room_for_so_many(tmp_path: Path, limits: EdgeLimits) -> None:
    """Beyond the bounds 503 says when to come again; a place that was left is free."""
    feed = Feed()
    await feed.say("a")
    async with watching(tmp_path, feed, limits=limits) as (served, opened):
        async with opened() as events:
            await events.next()
            async with opened() as refused:
                assert refused.answer.status_code == 503
                assert refused.answer.headers["retry-after"] == "1"
        await eventually(lambda: not served.edge._streams._taken)


async def test_a_slow_body_is_given_up(tmp_path: Path) -> None:
    """A client that sends a byte now and then gets 408, and others are served meanwhile."""
    limits = EdgeLimits(body_timeout=0.3)
    async with (
        serving(tmp_path, {"PutParcel": echo, "FindParcels": echo}, limits=limits) as served,
        over_a_port(served.edge) as port,
        httpx.AsyncClient() as client,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"PUT /v1/parcels/7 HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        await writer.drain()
        assert (await client.get(f"http://127.0.0.1:{port}/v1/parcels")).status_code == 200
        async with asyncio.timeout(20):
            assert b"408" in await reader.readline()
            assert b"BODY_TOO_SLOW" in await reader.read()
        writer.close()


async def test_a_reader_that_takes_nothing_is_cut(tmp_path: Path) -> None:
    """Its call ends although its connection stays, and others are served meanwhile."""
    feed = Feed()
    await feed.say(*["x" * 100_000] * 200)
    limits = EdgeLimits(write_timeout=0.3)
    async with (
        serving(tmp_path, {"List": feed.watch, "FindParcels": echo}, limits=limits) as served,
        over_a_port(served.edge) as port,
        httpx.AsyncClient() as client,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /v1/updates HTTP/1.1\r\nHost: e\r\n\r\n")
        await eventually(lambda: feed.opened)
        assert (await client.get(f"http://127.0.0.1:{port}/v1/parcels")).status_code == 200
        await eventually(lambda: feed.open == 0)
        writer.transport.abort()
