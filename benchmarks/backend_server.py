"""A server process that answers after 20 ms, and after ten times as long from SIGUSR1 on.

Prints its port.
"""

import asyncio
import signal
from typing import Any

import accord
from tests.accord.kit import handlers

WORK = 0.02
"""Seconds of waiting for an answer."""


async def _main() -> None:
    work = WORK

    def slow() -> None:
        nonlocal work
        work = 10 * WORK

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, slow)

    async def answer(request: Any, context: Any) -> Any:
        await asyncio.sleep(work)
        return request

    server = accord.Mesh("callee").server()
    server.add_generic_rpc_handlers(
        (handlers(dict.fromkeys(("Unary", "Retried", "Hedged"), answer)),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
