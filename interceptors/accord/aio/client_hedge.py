"""The race between an attempt and its backup request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from accord.client.call import Call
from accord.client.decisions import Failure, Send
from accord.client.request import failure_from

Start = Callable[[Send], Awaitable[Any]]
"""Makes an attempt and returns gRPC's call object."""


async def race(call: Call, send: Send, rpc: Any, delay: float, start: Start) -> tuple[Send, Any]:
    """The attempt whose end decides: the first answer, or the last failure.

    Nothing has been reported of the winner; the loser has been cancelled and reported. If this is
    cancelled, all attempts are.
    """
    first, running = send, [(send, rpc)]
    try:
        await _first(running, delay)
        if rpc.done():
            return send, rpc
        backup = call.admit_hedge()
        if backup is not None:
            try:
                running.append((backup, await start(backup)))
            except BaseException:
                call.released(backup)
                raise
        while True:
            await _first(running, None)
            send, rpc = next(pair for pair in running if pair[1].done())
            if len(running) == 1:
                break
            failure = await _failure(rpc)
            if failure is None or failure.code not in call.route.transient:
                break
            running.remove((send, rpc))
            call.recorded(send, failure)
    except BaseException:
        for other, loser in running:
            loser.cancel()
            if other is not first:  # which is the caller's to report
                call.released(other)
        raise
    for other, loser in running:
        if loser is not rpc:
            loser.cancel()
            call.released(other, lost=True)
    return send, rpc


async def _first(running: list[tuple[Send, Any]], timeout: float | None) -> None:
    """Wait until one of them is done, or for `timeout` seconds: by a future, without a task."""
    if any(rpc.done() for _, rpc in running):
        return
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake(*_: Any) -> None:
        if not woken.done():
            woken.set_result(None)

    for _, rpc in running:
        rpc.add_done_callback(wake)
    timer = loop.call_later(timeout, wake) if timeout is not None else None
    try:
        await woken
    finally:
        if timer is not None:
            timer.cancel()


async def _failure(rpc: Any) -> Failure | None:
    """How an attempt that has ended failed, or None."""
    try:
        await rpc
    except grpc.aio.AioRpcError as error:
        return failure_from(error)
    return None
