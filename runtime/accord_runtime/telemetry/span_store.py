"""The spans of a service, kept in its own database: what a flow did, over restarts and collectors.

A span that has ended waits in memory, and is written with others once a second: in transactions of
their own, a row per trace. What is written is bounded by rows and by age, what waits by number:
beyond it spans are dropped, and counted. A process that is killed loses the last second.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import metrics

from accord_runtime.database import Database, DatabaseError, Row, Tx, among
from accord_runtime.grpc.ids import uuid7

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

log = logging.getLogger(__name__)

MIGRATIONS: Final = [
    """
    CREATE TABLE spans (
        id TEXT NOT NULL PRIMARY KEY,
        trace_id TEXT NOT NULL,
        spans TEXT NOT NULL
    )
    """,
    "CREATE INDEX spans_trace ON spans (trace_id, id)",
]

MAX_ROWS: Final = 20_000
"""Rows of a service: of one trace each, and of up to `BATCH` spans."""

MAX_AGE: Final = 7 * 24 * 3600.0
"""Seconds for which a span is kept at most."""

MAX_WAITING: Final = 10_000
"""Spans that wait to be written."""

BATCH: Final = 100
"""Spans that are written in one transaction."""

WRITE: Final = 1.0
"""Seconds between writes."""

SWEEP: Final = 60.0
"""Seconds between removals of what is too old or too much."""

ROWS: Final = 10
"""Rows of a trace that are read where many traces are looked at: its latest."""

MAX_TEXT: Final = 256
"""Characters of the value of an attribute."""

MAX_ATTRIBUTES: Final = 32
MAX_EVENTS: Final = 64

Attributes = Mapping[str, object]


class EndedSpan(Protocol):
    """A span that has ended. Times are nanoseconds since 1970; a parent of 0 is none."""

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    kind: str
    """`CLIENT`, `SERVER`, `PRODUCER`, `CONSUMER` or `INTERNAL`."""
    start: int
    end_time: int
    error: bool

    @property
    def attributes(self) -> Attributes:
        """What was said of it."""

    @property
    def events(self) -> Sequence[tuple[str, int, Attributes]]:
        """Name, time and attributes."""

    @property
    def links(self) -> Sequence[tuple[int, int]]:
        """Trace and span that it is linked to."""


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span as it is read again; ids are hexadecimal, and attributes text."""

    place: str
    """In the order in which the spans of a trace were written."""
    span_id: str
    parent_id: str
    name: str
    kind: str
    start: int
    end: int
    error: bool
    attributes: Mapping[str, str]
    events: Sequence[tuple[str, int, Mapping[str, str]]]
    links: Sequence[tuple[str, str]]


class SpanStore:
    """The spans of one process, on their way to its database. Spans may end in any thread."""

    def __init__(self, most: int = MAX_ROWS, waiting: int = MAX_WAITING) -> None:
        self._most = most
        self._room = waiting
        self._waiting: deque[EndedSpan] = deque()
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dropped = 0
        """Spans for which there was no room."""

    def keep(self, span: EndedSpan) -> None:
        """Have a span written that has ended, if there is room."""
        if len(self._waiting) >= self._room:
            self.dropped += 1
        else:
            self._waiting.append(span)
            if self._loop is not None and not self._some.is_set():
                with suppress(RuntimeError):  # The loop has ended.
                    self._loop.call_soon_threadsafe(self._some.set)

    async def serve(self, database: Database) -> None:
        """Write until cancelled."""
        metrics.get_meter("accord_runtime").create_observable_counter(
            "accord.spans.dropped",
            [lambda _: [metrics.Observation(self.dropped)]],
            "{span}",
            "Spans that were not kept: more ended than could be written.",
        )
        swept, self._loop = 0.0, asyncio.get_running_loop()
        while True:
            if not self._waiting:
                self._some.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP):
                        await self._some.wait()
            await asyncio.sleep(WRITE)
            # What cannot be written waits for the next time, as long as there is room.
            with suppress(DatabaseError):
                await self.write(database)
                if time.monotonic() - swept >= SWEEP:
                    swept = time.monotonic()
                    await database.write(
                        partial(trim, most=self._most, before=time.time() - MAX_AGE)
                    )

    async def write(self, database: Database) -> None:
        """Write what waits. Raises DatabaseError: it waits on."""
        async with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    await database.write(partial(_insert, rows=_rows(batch)))
                except DatabaseError:
                    self._waiting.extendleft(reversed(batch))
                    raise

    async def close(self, database: Database) -> None:
        """Write what waits, if the database takes it."""
        with suppress(DatabaseError):
            await self.write(database)

    def processor(self) -> "SpanProcessor":
        """What a TracerProvider of the SDK tells of its spans."""
        from opentelemetry.sdk.trace import SpanProcessor

        keep = self.keep

        class Keeper(SpanProcessor):
            def on_end(self, span: "ReadableSpan") -> None:
                keep(_OfSdk(span))

        return Keeper()


class _OfSdk:
    """A span of the SDK as `EndedSpan`: what is needed of it, which is a fraction of its size."""

    def __init__(self, span: "ReadableSpan") -> None:
        context = span.context
        assert context is not None  # it was begun
        self.trace_id, self.span_id = context.trace_id, context.span_id
        self.parent_id = span.parent.span_id if span.parent is not None else 0
        self.name, self.kind = span.name, span.kind.name
        self.start, self.end_time = span.start_time or 0, span.end_time or 0
        self.error = not span.status.is_ok
        self.attributes: Attributes = dict(span.attributes or {})
        self.events = [
            (each.name, each.timestamp, dict(each.attributes or {})) for each in span.events
        ]
        self.links = [(each.context.trace_id, each.context.span_id) for each in span.links]


def _rows(spans: Iterable[EndedSpan]) -> list[tuple[str, str]]:
    """The rows of some spans: trace, and spans as JSON."""
    traces: dict[int, list[object]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(
            (
                f"{span.span_id:016x}",
                f"{span.parent_id:016x}" if span.parent_id else "",
                span.name[:MAX_TEXT],
                span.kind,
                span.start,
                span.end_time,
                span.error,
                _texts(span.attributes),
                [(name, at, _texts(said)) for name, at, said in span.events[:MAX_EVENTS]],
                [(f"{trace_id:032x}", f"{span_id:016x}") for trace_id, span_id in span.links],
            )
        )
    return [(f"{trace_id:032x}", json.dumps(kept)) for trace_id, kept in traces.items()]


def _texts(attributes: Attributes) -> dict[str, str]:
    found = list(attributes.items())[:MAX_ATTRIBUTES]
    return {name: value if type(value) is str and len(value) < MAX_TEXT else _text(value)
            for name, value in found}  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6f}" if isinstance(value, float) else str(value)[:MAX_TEXT]


def _insert(tx: Tx, rows: Sequence[tuple[str, str]]) -> None:
    for trace_id, spans in rows:
        tx.insert("spans", {"id": uuid7(), "trace_id": trace_id, "spans": spans})


def trim(tx: Tx, *, most: int, before: float) -> None:
    """Remove the rows of before a time, Unix seconds, and all but the newest `most`."""
    sql = "SELECT id FROM spans ORDER BY id DESC LIMIT 1 OFFSET :most"
    beyond = tx.value(sql, {"most": most}) or ""
    oldest = max(beyond + "!", _id_at(before))  # behind that id itself
    tx.execute("DELETE FROM spans WHERE id < :oldest", {"oldest": oldest})


def latest(
    tx: Tx, *, before: str, since: float, most: int
) -> list[tuple[str, str, list[StoredSpan]]]:
    """Traces by their latest row, newest first: its id, the trace's, and its spans.

    `before` is the id of a row that is newer than all of them, or empty. A trace whose latest row
    is older than `since`, Unix seconds, is left out, and what is beyond `most` of them. Of a trace
    with more than `ROWS` the others are not read.
    """
    found = tx.all(
        "SELECT id, trace_id FROM spans AS s WHERE id < :before AND id >= :since AND NOT EXISTS"
        " (SELECT 1 FROM spans AS later WHERE later.trace_id = s.trace_id AND later.id > s.id)"
        " ORDER BY id DESC LIMIT :most",
        {"before": before or "g", "since": _id_at(since), "most": most},
    )
    traces: dict[str, list[StoredSpan]] = {row["trace_id"]: [] for row in found}
    names, params = among("trace", traces)
    ranked = (
        "SELECT id, trace_id, spans, ROW_NUMBER() OVER (PARTITION BY trace_id ORDER BY id DESC)"
        f" AS place FROM spans WHERE trace_id IN ({names})"
    )
    sql = f"SELECT id, trace_id, spans FROM ({ranked}) AS ranked WHERE place <= :rows ORDER BY id"
    for row in tx.all(sql, {**params, "rows": ROWS}) if params else ():
        traces[row["trace_id"]] += _stored(row)
    return [(row["id"], row["trace_id"], traces[row["trace_id"]]) for row in found]


def _id_at(moment: float) -> str:
    """What the ids of rows of a time, Unix seconds, begin with."""
    stamp = f"{int(max(0.0, moment) * 1000):012x}"
    return f"{stamp[:8]}-{stamp[8:]}"


def _stored(row: Row) -> Iterator[StoredSpan]:
    kept: list[list[Any]] = json.loads(row["spans"])
    return (StoredSpan(f"{row['id']}/{number:02}", *span) for number, span in enumerate(kept))


def of_trace(tx: Tx, trace_id: str, *, after: str = "", most: int) -> list[StoredSpan]:
    """Up to `most` spans of a trace behind a `place`, in that order."""
    row_id = after.partition("/")[0]
    rows = tx.all(
        "SELECT id, spans FROM spans WHERE trace_id = :trace_id AND id >= :id"
        " ORDER BY id LIMIT :most",
        {"trace_id": trace_id, "id": row_id, "most": most + 1},
    )
    return [span for row in rows for span in _stored(row) if span.place > after][:most]
