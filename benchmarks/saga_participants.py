"""A server process with three participants of a saga that do nothing; prints its port."""

import asyncio

import grpc.aio
import uvloop

PARTICIPANTS = ("reserve", "charge", "ship")
SERVICE = "benchmarks.Participants"


async def _main() -> None:
    async def act(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(act)
    handlers = dict.fromkeys(PARTICIPANTS, handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
