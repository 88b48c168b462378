"""A server process with a certificate, or without, that answers with what it was asked.

Given the folder of its identity, or "-"; prints its port.
"""

import sys
from typing import Any

import uvloop

import accord
from accord.identity import Identity
from tests.accord.kit import handlers


async def _echo(request: Any, context: Any) -> Any:
    return request


async def _main(folder: str) -> None:
    identity = None if folder == "-" else Identity.from_folder(folder)
    server = accord.Mesh("orders", identity=identity).server()
    server.add_generic_rpc_handlers((handlers({"Retried": _echo}),))
    if identity is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
