"""The client of a version, as a test sees it: an `agent` process that calls what it is told."""

import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.contracts.compat import agent
from tests.contracts.compat.version import Version

PATIENCE: Final = 30.0
"""Seconds to wait for one message."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call has ended."""

    code: str
    """Name of the status code."""
    reason: str
    """Reason of the failure's ErrorInfo."""
    detail: str
    fields: Sequence[str]
    """The fields that were complained about."""
    messages: Sequence[Json]
    """The responses that were not read before."""


class Call:
    """A call that is under way."""

    def __init__(self, client: "Client", number: int) -> None:
        self._client = client
        self._number = number
        self.lines: queue.Queue[Json] = queue.Queue()

    def message(self) -> Json:
        """The next response."""
        line = self._line()
        assert "message" in line, line
        message: Json = line["message"]
        return message

    def send(self, request: Json) -> None:
        """One more request."""
        self._client.write({"id": self._number, "send": request})

    def close(self) -> None:
        """No more requests."""
        self._client.write({"id": self._number, "close": True})

    def cancel(self) -> None:
        """Give it up."""
        self._client.write({"id": self._number, "cancel": True})

    def end(self) -> Answer:
        """Read to the end."""
        messages = []
        while "message" in (line := self._line()):
            messages.append(line["message"])
        return Answer(line["code"], line["reason"], line["detail"], line["fields"], messages)

    def _line(self) -> Json:
        try:
            return self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no answer within {PATIENCE} s") from None


class Client:
    """Calls services with the generated clients and the library of one version."""

    def __init__(self, version: Version, targets: Mapping[str, str], folder: Path) -> None:
        self._numbers = itertools.count()
        self._calls: dict[int, Call] = {}
        with (folder / f"client-{version.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                version.command(agent.__file__, json.dumps(dict(targets))),
                cwd=folder,
                env=version.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        first = json.loads(self._process.stdout.readline() or "{}")
        self.rpcs: frozenset[str] = frozenset(first.get("rpcs", ()))
        """Every RPC that this version knows."""
        for package in ("accord", "shop"):
            # The developer's environment has today's packages, too.
            origin = Path(first[package])
            assert any(origin.is_relative_to(root) for root in version.roots), origin
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(
        self,
        rpc: str,
        *requests: Json,
        target: str,
        key: str | None = None,
        timeout: float | None = None,
        open: bool = False,  # noqa: A002
    ) -> Call:
        """Begin a call.

        Args:
            rpc: e.g. "shop.orders.v1.OrderService/GetOrder".
            requests: as JSON; one, unless the client streams.
            target: name of the process to call.
            key: idempotency key.
            timeout: seconds; the contract's by default.
            open: more requests will follow.
        """
        number = next(self._numbers)
        call = self._calls[number] = Call(self, number)
        order: Json = {"id": number, "rpc": rpc, "target": target, "requests": requests}
        if key is not None:
            order["key"] = key
        if timeout is not None:
            order["timeout"] = timeout
        if open:
            order["open"] = True
        self.write(order)
        return call

    def ready(self, target: str) -> Call:
        """Begin to wait for a connection to a process; it ends when there is one."""
        number = next(self._numbers)
        call = self._calls[number] = Call(self, number)
        self.write({"id": number, "ready": target})
        return call

    def write(self, order: Json) -> None:
        """Tell the agent something."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._calls[said.pop("id")].lines.put(said)


@contextmanager
def running_client(version: Version, targets: Mapping[str, str], folder: Path) -> Iterator[Client]:
    """A client for as long as the block lasts."""
    client = Client(version, targets, folder)
    try:
        yield client
    finally:
        client.stop()
