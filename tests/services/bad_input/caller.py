"""A client that sends whatever bytes it is given, and looks at what the services have kept."""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from accord.errors import ServiceError
from accord_runtime.grpc.ids import uuid7
from services import topology
from tests.services.bad_input.contract import RPCS, Rpc, class_of
from tests.support.shop import ALL, Shop

Metadata = tuple[tuple[str, str | bytes], ...]

PATIENCE: Final = 10.0
HOUSEKEEPING: Final = frozenset(
    {"idempotency", "work", "schema_migrations", "relay", "relay_marks", "inbox", "consumed"}
    | {"health", "notification", "spans"}
    | {"view_state", "view_key", "view_tail", "sale", "metric"}
    | {"ledger_transaction", "ledger_entry", "ledger_order"}
)
"""Tables that are not what a service is there to keep, or that no call writes.

Mails, views and the ledger follow from records of events: an audit finds them at any time, without
a broker, too.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a call."""

    code: grpc.StatusCode
    error: ServiceError
    """The failure with its details; meaningless if there was none."""
    responses: tuple[bytes, ...]
    seconds: float

    @property
    def fields(self) -> set[str]:
        """The fields that were complained about."""
        return {violation.field for violation in self.error.violations}

    @property
    def detailed(self) -> bool:
        """Whether it says who answered and why: it did not come from gRPC itself."""
        return bool(self.error.domain and self.error.reason)


class Caller:
    """Calls the services of a shop from outside.

    Args:
        shop: its services run in this process.
    """

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._log = _Complaints()
        self._channels = {
            name: grpc.insecure_channel(
                self.address(name), options=[("grpc.max_send_message_length", -1)]
            )
            for name in ALL
        }
        self._databases = {
            name: sqlite3.connect(f"file:{shop.home / name}.db?mode=ro", uri=True) for name in ALL
        }

    @property
    def complaints(self) -> list[str]:
        """What accord and asyncio have logged as errors: bugs, whatever the answer was."""
        return self._log.found

    def address(self, name: str) -> str:
        """`host:port` of a service."""
        return topology.address(name, self._shop.offset)

    def call(
        self,
        rpc: Rpc,
        *requests: Message | bytes,
        metadata: Metadata = (),
        timeout: float = PATIENCE,
        compression: grpc.Compression | None = None,
        most: int = 1000,
    ) -> Answer:
        """Call an RPC with any requests, of whatever kind it is; reads up to `most` responses."""
        raw = [each if isinstance(each, bytes) else each.SerializeToString() for each in requests]
        began = time.monotonic()
        # To the wire all four kinds of RPC are the same.
        call: Any = self._channels[rpc.process].stream_stream(f"/{rpc.name}", None, None)(
            iter(raw), timeout=timeout, metadata=metadata, compression=compression
        )
        responses: list[bytes] = []
        failure = ServiceError(grpc.StatusCode.OK, "OK")
        try:
            for response in call:
                responses.append(response)
                if len(responses) == most:
                    call.cancel()
        except grpc.RpcError as error:
            if len(responses) < most:
                failure = ServiceError.from_rpc(error)
        return Answer(failure.code, failure, tuple(responses), time.monotonic() - began)

    def do(self, name: str, request: Message, key: str = "") -> Any:
        """Call an RPC as it should be called, and return its response."""
        rpc = RPCS[name]
        metadata = (("idempotency-key", key or uuid7()),) if rpc.keyed else ()
        answer = self.call(rpc, request, metadata=metadata)
        assert answer.code is grpc.StatusCode.OK, answer
        return class_of(rpc.descriptor.output_type).FromString(answer.responses[0])

    def state(self) -> Mapping[str, str]:
        """Table -> digest of its rows, for all that the services keep."""
        return {
            f"{name}.{table}": _digest(database, table)
            for name, database in self._databases.items()
            for table in _tables(database)
        }

    def count(self, name: str, sql: str) -> int:
        """The number that a query of a service's database finds."""
        return int(self._databases[name].execute(sql).fetchone()[0])

    def close(self) -> None:
        """Let go of everything but the shop."""
        for channel in self._channels.values():
            channel.close()
        for database in self._databases.values():
            database.close()
        self._log.close()


class _Complaints(logging.Handler):
    """What accord and asyncio log as errors: bugs that an answer would hide."""

    LOGGERS = ("accord", "asyncio")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        for name in self.LOGGERS:
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))

    def close(self) -> None:
        for name in self.LOGGERS:
            logging.getLogger(name).removeHandler(self)
        super().close()


def _tables(database: sqlite3.Connection) -> Sequence[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows if name not in HOUSEKEEPING]


def _digest(database: sqlite3.Connection, table: str) -> str:
    rows = sorted(map(repr, database.execute(f"SELECT * FROM {table}")))
    return f"{len(rows)} rows {hashlib.sha256(repr(rows).encode()).hexdigest()}"
