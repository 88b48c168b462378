"""A server process that answers with what it was asked, bare or with accord; prints its port."""

import sys
from typing import Any

import grpc.aio
import uvloop

import accord
from tests.accord.kit import handlers


async def _echo(request: Any, context: Any) -> Any:
    return request


async def _main(kind: str) -> None:
    server = accord.Mesh("callee").server() if kind == "accord" else grpc.aio.server()
    server.add_generic_rpc_handlers((handlers({"Unary": _echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
