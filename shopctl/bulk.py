"""Retrying many items: shown first, and when told to go, done by the service, batch after batch.

A batch is one transaction, with an audit record for each item. So a run that is cut off has done
what it has printed, and the same command finds the rest.
"""

import asyncio
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Final

import typer

from accord.ops.v1 import work_pb2 as pb
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from shopctl.client import Shop
from shopctl.errors import CommandError

KEYS: Final = 200
"""Keys that a filter names at most."""


async def retry(
    shop: Shop,
    service: str,
    filters: Sequence[pb.WorkFilter],
    show: Callable[[pb.WorkItem], None],
    *,
    reason: str,
    rate: int,
    key: str,
    go: bool,
) -> None:
    """Retry what the filters find, at most `rate` a second; unless told to `go`, show some of it.

    Each batch has an idempotency key of its own, made of `key`. What is being tried right now is
    passed over.

    Raises:
        CommandError: the service does not answer; the rest is left as it was.
    """
    requests = [
        pb.RetryWorkMatchingRequest(filter=each, reason=reason, per_second=rate, dry_run=True)
        for each in filters
    ]

    async def batch(
        request: pb.RetryWorkMatchingRequest, name: str
    ) -> pb.RetryWorkMatchingResponse:
        rpc = "RetryWorkMatching"
        found = await shop.change(service, WorkServiceStub, rpc, request, f"{key}/{name}")
        assert isinstance(found, pb.RetryWorkMatchingResponse)
        return found

    found = [await batch(request, f"{number}/shown") for number, request in enumerate(requests)]
    total = sum(each.matching for each in found)
    if not total:
        typer.echo("nothing to retry found", err=True)
        return
    if not go:
        for item in [item for each in found for item in each.items][:10]:
            show(item)
        how = shlex.join(["shopctl", *sys.argv[1:], "--go"])
        typer.echo(f"{total} to retry in {total / rate:.0f} s or more: {how}", err=True)
        return
    done = passed_over = 0
    for number, request in enumerate(requests):
        request.dry_run, more = False, True
        while more:
            try:
                answer = await batch(request, f"{number}/{request.page_token}")
            except CommandError as error:
                text = f"{done} of {total} are retried; the same command finds the rest"
                raise CommandError(f"{text}: {error}", error.code) from None
            for item in answer.items:
                show(item)
            done += len(answer.items)
            passed_over += answer.passed_over
            request.page_token = answer.next_page_token
            more = bool(request.page_token)
            await asyncio.sleep(answer.pause.ToNanoseconds() / 1e9)
    others = f"; {passed_over} are being tried right now" if passed_over else ""
    typer.echo(f"{done} of {total} are retried{others}", err=True)
