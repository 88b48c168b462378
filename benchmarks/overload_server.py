"""A server process with ten permits and a handler of 20 ms; prints its port."""

import asyncio
from typing import Any

import accord
from accord import Limits
from accord.policies.gradient import GradientPolicy
from tests.accord.kit import handlers

WORK = 0.020
PERMITS = 10


async def _work(request: Any, context: Any) -> Any:
    await asyncio.sleep(WORK)
    return request


async def _main() -> None:
    fixed = GradientPolicy(initial=PERMITS, minimum=PERMITS, maximum=PERMITS)
    mesh = accord.Mesh("callee", limits=Limits(fixed))
    server = mesh.server()
    server.add_generic_rpc_handlers((handlers({"Unary": _work}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
