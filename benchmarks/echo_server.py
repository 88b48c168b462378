"""A server process that answers with what it was asked; prints its port.

Bare, with accord and telemetry off, sampled out or on, with opentelemetry-instrumentation-grpc, or
with OpenTelemetry's SDK called by hand.
"""

import sys
from typing import Any

import grpc.aio
import uvloop

import accord
from tests.accord.kit import handlers


async def _echo(request: Any, context: Any) -> Any:
    return request


def _server(kind: str, state: str) -> grpc.aio.Server:
    if state != "off":
        from benchmarks import recording

        recording.install(state)
    if kind == "accord":
        return accord.Mesh("callee").server()
    if kind in ("bare", "by hand"):
        return grpc.aio.server()
    from opentelemetry.instrumentation.grpc import aio_server_interceptor

    interceptor = aio_server_interceptor()  # type: ignore[no-untyped-call]
    return grpc.aio.server(interceptors=[interceptor])


async def _main(kind: str, state: str) -> None:
    server = _server(kind, state)
    handler: Any = _echo
    if kind == "by hand":
        from benchmarks import by_hand

        handler = by_hand.handler(_echo)
    server.add_generic_rpc_handlers((handlers({"Retried": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
