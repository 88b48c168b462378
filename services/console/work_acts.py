"""What is done to work and sagas, one or many: shown first, then done for a reason."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc

from accord.ops.v1 import saga_pb2, work_pb2
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from accord_runtime.grpc.ids import uuid7
from services.console.access import Session
from services.console.html import Html, el, join, table, url
from services.console.page import Page, Refused, confirm, confirmed, field, first, form
from services.console.services import Services
from services.console.watch import said_of
from services.console.work_page import (
    ACTS,
    STATES,
    WORK_HEADS,
    age_of,
    line_of,
    number_of,
    work_rows,
)

PATIENCE: Final = 30.0
"""Seconds after which the rest of a bulk is left, and said to be."""

_BULK: Final = {
    "retry": ("RetryWorkMatching", work_pb2.RetryWorkMatchingRequest),
    "discard": ("DiscardWorkMatching", work_pb2.DiscardWorkMatchingRequest),
}
_SAGAS: Final = {
    "saga-retry": ("RetrySaga", saga_pb2.RetrySagaRequest),
    "saga-skip": ("SkipStep", saga_pb2.SkipStepRequest),
    "saga-compensate": ("CompensateSaga", saga_pb2.CompensateSagaRequest),
    "saga-abandon": ("AbandonSaga", saga_pb2.AbandonSagaRequest),
}

Given = Mapping[str, list[str]]


def _targets(services: Services, given: Given) -> dict[str, list[str]]:
    """Ids by service. Raises Refused."""
    found: dict[str, list[str]] = {}
    for each in given.get("id", ()):
        name, _, of = each.partition(":")
        if name not in services.names or not of:
            raise Refused("there is no such service", 404)
        found.setdefault(name, []).append(of)
    return found


def _filters(services: Services, given: Given) -> dict[str, work_pb2.WorkFilter]:
    """Which work of which service is meant. Raises Refused."""
    if not first(given, "all"):
        ids = _targets(services, given)
        if not ids:
            raise Refused("nothing is ticked")
        # What is named is meant, however it stands.
        return {name: work_pb2.WorkFilter(work_ids=each[:200]) for name, each in ids.items()}
    meant = work_pb2.WorkFilter(
        state=number_of(given, "state", STATES, "parked"),  # type: ignore[arg-type]
        queue=line_of(given, "queue"),
        error=line_of(given, "error"),
    )
    meant.min_age.FromSeconds(age_of(given))
    of = first(given, "service")
    return {name: meant for name in services.names if of in ("", name)}


async def page(services: Services, given: Given, session: Session) -> Page:
    """What would be done, and the form to do it. Raises Refused."""
    act = first(given, "do")
    if act in _SAGAS:
        rows = [(of, name) for name, ids in _targets(services, given).items() for of in ids]
        count, shown = len(rows), table("Sagas", ("Saga", "Service"), rows, "None is named.")
    elif act in _BULK:
        count, shown = await _dry_run(services, given, session, act)
    else:
        raise Refused(f"do is one of {', '.join(ACTS)}")
    kept = [
        el("input", type="hidden", name=name, value=value)
        for name in ("do", "all", "id", "step", "service", "state", "queue", "error", "min_age")
        for value in given.get(name, ())
    ]
    speed = field("How many a second at most", "per_second", 20, type="number", min=1, max=1000)
    what = f"{ACTS[act]}: {count}"
    asked = (
        kept,
        speed if act == "retry" and count > 1 else None,
        confirmed(what, f"Yes, all {count}."),
    )
    parts = (shown, form(session, url("work", "act"), *asked, key=True) if count else el("p"))
    return Page(what, "work", parts)


async def _dry_run(
    services: Services, given: Given, session: Session, act: str
) -> tuple[int, Html]:
    rpc, kind = _BULK[act]
    rows, count, passed_over = [], 0, 0
    problems = []
    for name, meant in _filters(services, given).items():
        request = kind(filter=meant, dry_run=True, reason="dry run", page_size=20)
        try:
            said = await services.act(session, name, WorkServiceStub, rpc, request, uuid7())
        except grpc.RpcError as error:
            problems.append(el("li", f"{name}: {said_of(error)}"))
            continue
        count += said.matching
        passed_over += said.passed_over
        rows += work_rows({name: said.items}, act=False)
    caption = f"{count} match; the first of them"
    note = (
        f"{passed_over} are passed over: they are being tried, or are a saga's."
        if passed_over
        else ""
    )
    shown = table(caption, WORK_HEADS, rows, "Nothing matches any more.")
    return count, join(
        shown, el("p", note), el("ul", problems, class_="problem") if problems else None
    )


async def act(services: Services, given: Given, session: Session) -> str:
    """Do it; returns what came of it. Raises Refused."""
    what, reason, key = first(given, "do"), confirm(given), first(given, "key") or uuid7()
    done, problems = 0, []
    if what in _BULK:
        speed = first(given, "per_second", "20")
        per_second = int(speed) if speed.isdecimal() and len(speed) < 5 else 20
        for name, meant in _filters(services, given).items():
            try:
                async for number in _batches(
                    services, session, name, what, meant, reason, key, per_second
                ):
                    done += number
            except grpc.RpcError as error:
                problems.append(f"{name}: {said_of(error)}")
            except TimeoutError:
                problems.append(f"{name}: there is more, which takes longer; act again")
    elif what in _SAGAS:
        for name, request in _requests(services, given, what, reason):
            own = f"{key}-{request.saga_id}"[:128]
            try:
                await services.act(session, name, SagaServiceStub, _SAGAS[what][0], request, own)
                done += 1
            except grpc.RpcError as error:
                problems.append(f"{request.saga_id}: {said_of(error)}")
    else:
        raise Refused(f"do is one of {', '.join(ACTS)}")
    return "; ".join([f"{ACTS[what]}: {done} done", *problems])


def _requests(
    services: Services, given: Given, what: str, reason: str
) -> Iterator[tuple[str, Any]]:
    step = {"step": first(given, "step")} if what == "saga-skip" else {}
    for name, ids in _targets(services, given).items():
        for of in ids:
            yield name, _SAGAS[what][1](saga_id=of, reason=reason, **step)


async def _batches(
    services: Services, session: Session, name: str, what: str, meant: work_pb2.WorkFilter,
    reason: str, key: str, per_second: int,
) -> Any:  # fmt: skip
    """Batch after batch, each in a transaction; how many each was. Raises TimeoutError."""
    rpc, kind = _BULK[what]
    ends = time.monotonic() + PATIENCE
    request = kind(filter=meant, reason=reason, page_size=100)
    if isinstance(request, work_pb2.RetryWorkMatchingRequest):
        request.per_second = per_second
    number = 0
    while True:
        own = f"{key}-{name}-{number}"
        said = await services.act(session, name, WorkServiceStub, rpc, request, own)
        yield len(said.items)
        if not said.next_page_token:
            return
        pause = said.pause.ToNanoseconds() / 1e9 if what == "retry" else 0.0
        if time.monotonic() + pause > ends:
            raise TimeoutError
        await asyncio.sleep(pause)
        request.page_token, number = said.next_page_token, number + 1
