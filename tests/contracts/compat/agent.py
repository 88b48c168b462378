"""A client of one version, told by JSON lines on its standard input what to call.

It runs as a program of its own, with the generated clients and the library of the version that
`PYTHONPATH` names, and imports nothing else: what it does, a user of that version could do.

Orders, one a line; `id` is the caller's number for the call:

    {"id", "rpc", "target", "requests", "key"?, "timeout"?, "open"?}   `open`: more requests follow
    {"id", "send"}, {"id", "close"}, {"id", "cancel"}                  one more; no more; give it up
    {"id", "ready"}                                                    wait for a target to serve

Answers: {"id", "message"} for each response, then {"id", "code", "reason", "detail", "fields"}.
The first line says where the packages come from.
"""

import asyncio
import functools
import json
import pkgutil
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

import grpc
from google.protobuf import json_format, symbol_database
from google.protobuf.message import Message

import accord
import accord.ops
import shop

Say = Callable[[dict[str, Any]], None]


def methods() -> dict[str, tuple[Any, Any]]:
    """Name of every RPC -> its descriptor, and the class of its stub."""
    found = {}
    for package in (accord.ops, shop):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("_pb2"):
                continue
            for service in import_module(module.name).DESCRIPTOR.services_by_name.values():
                stub = getattr(import_module(f"{module.name}_grpc"), f"{service.name}Stub")
                for method in service.methods:
                    found[f"{service.full_name}/{method.name}"] = (method, stub)
    return found


class Call:
    """One call."""

    def __init__(self, order: dict[str, Any], method: Any, stub: Any, say: Say) -> None:
        self._id = order["id"]
        self._say = say
        self._method = method
        self._requests: asyncio.Queue[Message | None] = asyncio.Queue()
        for request in order["requests"]:
            self.send(request)
        if not order.get("open"):
            self.close()
        options: dict[str, Any] = {}
        if "key" in order:
            options["metadata"] = accord.idempotency_key(order["key"])
        if "timeout" in order:
            options["timeout"] = order["timeout"]
        self._open = functools.partial(getattr(stub, method.name), **options)
        self.task = asyncio.create_task(self._run())

    def send(self, request: dict[str, Any]) -> None:
        """One more request."""
        kind = symbol_database.Default().GetSymbol(self._method.input_type.full_name)
        self._requests.put_nowait(json_format.ParseDict(request, kind()))

    def close(self) -> None:
        """No more requests."""
        self._requests.put_nowait(None)

    async def _run(self) -> None:
        end: dict[str, Any] = {"code": "OK", "reason": "", "detail": "", "fields": []}
        try:
            streams = self._method.client_streaming
            call = self._open(self._stream() if streams else await self._requests.get())
            if self._method.server_streaming:
                async for message in call:
                    self._message(message)
            else:
                self._message(await call)
        except asyncio.CancelledError:
            end["code"] = "CANCELLED"
        except grpc.RpcError as error:
            failure = accord.failure_of(error)
            assert failure is not None
            end["code"], end["reason"] = failure.code.name, failure.reason
            end["detail"] = failure.message
            end["fields"] = [violation.field for violation in failure.violations]
        except Exception:
            end["code"], end["detail"] = "CRASHED", traceback.format_exc()
        self._say({"id": self._id, **end})

    async def _stream(self) -> AsyncIterator[Message]:
        while (request := await self._requests.get()) is not None:
            yield request

    def _message(self, message: Message) -> None:
        said = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        self._say({"id": self._id, "message": said})


async def ready(order: dict[str, Any], mesh: accord.Mesh, say: Say) -> None:
    """Tell when the channel to a target has a connection."""
    await mesh.channel(order["ready"]).channel_ready()
    say({"id": order["id"], "code": "OK", "reason": "", "detail": "", "fields": []})


async def main(targets: dict[str, str]) -> None:
    """Do as told until standard input ends."""

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    mesh = accord.Mesh("compat", targets=targets)
    known = methods()
    stubs: dict[tuple[str, str], Any] = {}
    calls: dict[int, Call] = {}
    waiting = []
    say({"accord": accord.__file__, "shop": shop.__file__, "rpcs": sorted(known)})
    while line := await reader.readline():
        order = json.loads(line)
        if "rpc" in order and order["rpc"] not in known:
            end = {"code": "UNKNOWN_RPC", "reason": "", "detail": order["rpc"], "fields": []}
            say({"id": order["id"], **end})
        elif "rpc" in order:
            method, stub = known[order["rpc"]]
            target = (order["target"], method.containing_service.full_name)
            if target not in stubs:
                stubs[target] = stub(mesh.channel(order["target"]))
            calls[order["id"]] = Call(order, method, stubs[target], say)
        elif "ready" in order:
            waiting.append(asyncio.create_task(ready(order, mesh, say)))
        elif "send" in order:
            calls[order["id"]].send(order["send"])
        elif "close" in order:
            calls[order["id"]].close()
        else:
            calls[order["id"]].task.cancel()
    await mesh.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
