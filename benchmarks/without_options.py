"""Overhead of a mesh that nobody has asked for anything: CPU against bare gRPC.

The contract states nothing and no telemetry is installed. Called from outside, and through a relay
that forwards what a call in a tree has: its deadline, its depth and its trace. The bare relay does
it by hand. Batches and ratios as in `call_overhead`.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
import grpc.aio
import uvloop

import accord
from benchmarks import harness
from benchmarks.call_overhead import Variant, cpu, interleaved, ratios, summary
from benchmarks.recording import Switch
from tests.accord.kit import Message

SERVICE: Final = "accordtest.v1.BareService"
TRACE: Final = (("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"),)
KINDS: Final = ("bare", "mesh")


def unary(channel: Any) -> Any:
    """The method, on a channel."""
    return channel.unary_unary(
        f"/{SERVICE}/Unary",
        request_serializer=Message.SerializeToString,
        response_deserializer=Message.FromString,
    )


def channel_to(kind: str, address: str) -> Any:
    """A channel, bare or of a mesh."""
    return grpc.aio.insecure_channel(address) if kind == "bare" else MESH.channel(address)


MESH: Final = accord.Mesh("any")


async def serve(kind: str, leaf: str = "") -> None:
    """A server process that echoes, or asks another one; prints its port."""
    server = grpc.aio.server() if kind == "bare" else MESH.server()
    call = unary(channel_to(kind, leaf)) if leaf else None

    async def handler(request: Any, context: Any) -> Any:
        if call is None:
            return request
        if kind == "mesh":
            return await call(request)
        headers = dict(context.invocation_metadata())
        metadata = (("accord-depth", "1"), ("traceparent", headers["traceparent"]))
        return await call(request, timeout=context.time_remaining(), metadata=metadata)

    method = grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=Message.FromString,
        response_serializer=Message.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Unary": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def run(rounds: int, calls: int) -> dict[str, object]:
    switch = Switch()
    async with AsyncExitStack() as stack:

        async def server(*arguments: str) -> tuple[int, str]:
            running = harness.server("benchmarks.without_options", "serve", *arguments)
            return await stack.enter_async_context(running)

        found: dict[str, Variant] = {}
        for kind in KINDS:
            leaf, address = await server(kind)
            relay, through = await server(kind, address)
            found[kind] = Variant(unary(channel_to(kind, address)), leaf)
            nested = unary(channel_to("bare", through))

            def traced(request: Any, timeout: float, call: Any = nested) -> Any:
                return call(request, timeout=timeout, metadata=TRACE)

            found[f"{kind}, nested"] = Variant(traced, relay, (leaf,))
        costs = await interleaved(found, switch, rounds, calls)
        await MESH.close()
    return {
        **{name: summary(costs[name]) for name in found},
        "CPU against bare": ratios(costs["mesh"], costs["bare"], cpu),
        "CPU against bare, nested": ratios(costs["mesh, nested"], costs["bare, nested"], cpu),
    }


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(*sys.argv[2:]))
        return
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--calls", type=int, default=400, help="per variant and round")
    given = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(given.rounds, given.calls))
    harness.report("without_options", figures, as_json=given.json)


if __name__ == "__main__":
    main()
