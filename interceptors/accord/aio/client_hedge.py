"""The race between an attempt and its backup request."""

import asyncio
from collections.abc import Sequence

from accord.aio.client_types import AioOutgoing, CallObject, Error, Response, Start
from accord.client.call import Attempt
from accord.client.request import failure_from
from accord.client.types import Req, Res


async def race(
    outgoing: AioOutgoing[Req, Res],
    start: Start[Req, Response[Res]],
    request: Req,
    attempt: Attempt,
    rpc: Response[Res],
    delay: float,
) -> tuple[Attempt, Response[Res]]:
    """The attempt whose end decides: the first answer, or the last failure.

    Nothing has been reported of the winner; the loser has been cancelled and reported. If this is
    cancelled, all attempts are.
    """
    call, begun, running = outgoing.call, attempt, [(attempt, rpc)]
    try:
        await first([rpc], delay)
        for wait in call.state.target.waits(call.turn):
            await asyncio.sleep(wait)
        if rpc.done():
            return attempt, rpc
        backup = call.admit_hedge()
        if backup is not None:
            with backup:
                running.append((backup, await start(outgoing.details_of(backup), request)))
        while True:
            await first([rpc for _, rpc in running], None)
            attempt, rpc = next(pair for pair in running if pair[1].done())
            if len(running) == 1:
                break
            try:
                await rpc
            except Error as error:
                failure = failure_from(error)
            else:
                break
            if failure.own or failure.code not in call.state.transient:
                break
            running.remove((attempt, rpc))
            attempt.recorded(failure, last=False)
    except BaseException:
        for other, loser in running:
            loser.cancel()
            if other is not begun:  # which is the caller's to report
                other.released()
        raise
    for other, loser in running:
        if loser is not rpc:
            loser.cancel()
            other.released(lost=True)
    return attempt, rpc


async def first(running: Sequence[CallObject], timeout: float | None) -> None:
    """Wait until one of them is done, or for `timeout` seconds: by a future, without a task."""
    if any(rpc.done() for rpc in running):
        return
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake(_: CallObject | None = None) -> None:
        if not woken.done():
            woken.set_result(None)

    for rpc in running:
        rpc.add_done_callback(wake)
    timer = loop.call_later(timeout, wake) if timeout is not None else None
    try:
        await woken
    finally:
        if timer is not None:
            timer.cancel()
