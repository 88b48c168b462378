"""The page *Work*: what waits in queues, sagas on their way, and what is parked."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from accord.ops.v1 import saga_pb2, work_pb2
from accord.ops.v1.saga_pb2_grpc import SagaServiceStub
from accord.ops.v1.work_pb2_grpc import WorkServiceStub
from services.console import formatting as fmt
from services.console.access import Session
from services.console.html import Child, Html, el, facts, join, table, url
from services.console.page import Live, Page, Refused, choice, field, first
from services.console.services import Services

STATES: Final = {
    fmt.name(name, "WORK_STATE_"): number for name, number in work_pb2.WorkState.items()
}
PHASES: Final = {
    fmt.name(name, "SAGA_PHASE_"): number for name, number in saga_pb2.SagaPhase.items()
}
ACTS: Final = {
    "retry": "Try again",
    "discard": "Discard",
    "saga-retry": "Try the step again",
    "saga-skip": "Skip the step",
    "saga-compensate": "Compensate: undo what was done",
    "saga-abandon": "Abandon: leave all as it stands",
}
"""What can be done to work and to sagas."""

MAX_ROWS: Final = 50
"""Rows of a list, of each service."""

_AGE: Final = re.compile(r"(\d{1,6})([smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_STATE_KINDS: Final = {"parked": "bad", "ready": "idle", "leased": "good"}
_PHASE_KINDS: Final = {"forward": "good", "backward": "warn", "abandoned": "bad"}
_OF_NUMBER: Final[Mapping[int, str]] = {number: name for name, number in STATES.items()}
_OF_PHASE: Final[Mapping[int, str]] = {number: name for name, number in PHASES.items()}


def age_of(given: Mapping[str, list[str]]) -> int:
    """Seconds of `90s`, `5m`, `2h` or `1d`; 0 of nothing. Raises Refused."""
    text = first(given, "min_age")
    found = _AGE.fullmatch(text)
    if text and not found:
        raise Refused(f"{text!r} is not an age such as 90s, 5m, 2h or 1d")
    return min(int(found[1]) * _UNITS[found[2]], 315_360_000) if found else 0


def number_of(
    given: Mapping[str, list[str]], name: str, known: Mapping[str, int], usual: str
) -> int:
    """The number of a member of an enum, by the word that pages have for it. Raises Refused."""
    said = first(given, name, usual)
    if said not in known:
        raise Refused(f"{name} is one of {', '.join(known)}")
    return known[said]


def line_of(given: Mapping[str, list[str]], name: str) -> str:
    """A word of a filter, as services take it."""
    return "".join(filter(str.isprintable, first(given, name)))[:200]


async def page(services: Services, given: Mapping[str, list[str]], session: Session | None) -> Page:
    """The page, filtered as `given` says."""
    of = [name for name in given.get("service", ()) if name in services.names]
    state = number_of(given, "state", STATES, "parked")
    wanted = work_pb2.ListWorkRequest(
        page_size=MAX_ROWS,
        state=state,  # type: ignore[arg-type]
        queue=line_of(given, "queue"),
        error=line_of(given, "error"),
    )
    wanted.min_age.FromSeconds(age_of(given))
    asked = saga_pb2.ListSagasRequest(
        page_size=MAX_ROWS,
        phase=number_of(given, "phase", PHASES, "unspecified"),  # type: ignore[arg-type]
        work_state=number_of(given, "stands", STATES, "unspecified"),  # type: ignore[arg-type]
        newest_first=True,
    )
    asked.min_age.FromSeconds(age_of(given))
    queues, away = await services.everywhere(
        WorkServiceStub, "GetQueues", work_pb2.GetQueuesRequest(), of
    )
    alive = [name for name in of or services.names if name not in away]
    work, more = await services.everywhere(WorkServiceStub, "ListWork", wanted, alive)
    counts, _ = await services.everywhere(
        SagaServiceStub, "GetSagaCounts", saga_pb2.GetSagaCountsRequest(), alive
    )
    sagas, _ = await services.everywhere(SagaServiceStub, "ListSagas", asked, list(counts))
    parts = (
        Live("away", _away(away | more)),
        el("h2", "Queues"),
        Live("queues", _queues(queues)),
        el("h2", "Background work"),
        _filter(services, given),
        Live("work", _work(work, act=True)),
        _bulk(given) if session is not None and session.role == "operator" else el("p"),
        el("h2", "Sagas"),
        Live("counts", _counts(counts)),
        Live("sagas", _sagas(sagas)),
    )
    return Page("Work", "work", parts, every=3.0)


def _away(problems: Mapping[str, str]) -> Html:
    lines = [el("li", fmt.state(name, "bad"), f" {why}") for name, why in problems.items()]
    return el("ul", lines, class_="problem") if lines else join()


def _filter(services: Services, given: Mapping[str, list[str]]) -> Html:
    every = {"": "every service", **{name: name for name in services.names}}
    shown = (
        choice("Service", "service", every, first(given, "service")),
        choice("Work", "state", _words(STATES), first(given, "state", "parked")),
        field("Queue", "queue", first(given, "queue"), maxlength=200),
        field("Error has", "error", first(given, "error"), maxlength=200),
        field("Older than, as 90s or 2h", "min_age", first(given, "min_age"), maxlength=7, size=8),
        choice("Sagas", "phase", _words(PHASES), first(given, "phase", "unspecified")),
        choice("Their work", "stands", _words(STATES), first(given, "stands", "unspecified")),
        el("button", "Filter"),
    )
    return el("form", shown, action=url("work"), class_="filter", role="search")


def _words(known: Iterable[str]) -> dict[str, str]:
    return {name: "any" if name == "unspecified" else name for name in known}


def _bulk(given: Mapping[str, list[str]]) -> Html:
    """What is done with those that are ticked, or with all that the filter finds."""
    filters = [
        el("input", type="hidden", name=name, value=first(given, name))
        for name in ("service", "state", "queue", "error", "min_age")
        if first(given, name)
    ]
    shown = (
        filters,
        choice("With work", "do", {name: ACTS[name] for name in ("retry", "discard")}),
        el("button", "Those that are ticked"),
        el("button", "All that match", name="all", value="1"),
        el("small", "Nothing is done yet: you see first what it would be."),
    )
    return el("form", shown, action=url("work", "act"), id="act", class_="filter")


def _queues(found: Mapping[str, work_pb2.GetQueuesResponse]) -> Html:
    rows = [
        (
            name, each.queue,
            f"{each.waiting}" + (f" of {each.max_waiting}" if each.max_waiting else ""),
            each.in_flight,
            fmt.state(str(each.parked), "bad") if each.parked else 0,
            fmt.duration(each.oldest_age) if each.HasField("oldest_age") else "",
            each.refused, each.problem,
        )
        for name, answer in found.items()
        for each in answer.queues
        if each.waiting or each.in_flight or each.parked or each.refused or each.problem
    ]  # fmt: skip
    heads = ("Service", "Queue", "Waiting", "Tried now", "Parked", "Oldest", "Refused", "Problem")
    return table("Queues that have work", heads, rows, "All queues are empty.")


def work_rows(found: Mapping[str, Iterable[work_pb2.WorkItem]], *, act: bool) -> list[list[Child]]:
    """Items of work as rows; with `act` they can be ticked for the form of that id."""
    rows: list[list[Child]] = []
    for name, items in found.items():
        for each in items:
            word = _OF_NUMBER[each.state]
            link = el("a", each.work_id, href=url("work", name, each.work_id))
            of, label = f"{name}:{each.work_id}", f"tick {each.work_id}"
            box = el("input", type="checkbox", name="id", value=of, form="act", aria_label=label)
            row = (name, each.queue, each.key, fmt.state(word, _STATE_KINDS.get(word, "idle")))
            age = fmt.age(each.created_at)
            first_cell = join(box, " ", link) if act else link
            rows.append([first_cell, *row, each.attempts, age, each.last_error[:200]])
    return rows


WORK_HEADS: Final = ("Work", "Service", "Queue", "Key", "State", "Attempts", "Age", "Last error")


def _work(found: Mapping[str, work_pb2.ListWorkResponse], *, act: bool) -> Html:
    rows = work_rows({name: answer.items for name, answer in found.items()}, act=act)
    more = any(answer.next_page_token for answer in found.values())
    note = el("p", f"The oldest {MAX_ROWS} of each service are shown.") if more else None
    return join(table("Background work", WORK_HEADS, rows, "No work is like this."), note)


def _counts(found: Mapping[str, saga_pb2.GetSagaCountsResponse]) -> Html:
    rows = [
        (each.definition, name, _phase(each.phase), each.count,
         fmt.state(str(each.parked), "bad") if each.parked else 0)
        for name, answer in found.items()
        for each in answer.counts
    ]  # fmt: skip
    heads = ("Saga", "Service", "Phase", "How many", "Parked")
    return table("Sagas: all under way, and those that ended today", heads, rows, "There are none.")


def _sagas(found: Mapping[str, saga_pb2.ListSagasResponse]) -> Html:
    rows = [
        (
            el("a", each.saga_id, href=url("saga", name, each.saga_id)), each.definition,
            _phase(each.phase), each.step, _stands(each.work_state), fmt.age(each.created_at),
            each.last_error[:200],
        )
        for name, answer in found.items()
        for each in answer.sagas
    ]  # fmt: skip
    heads = ("Saga", "Kind", "Phase", "Step", "Its work", "Age", "Last error")
    return table("Sagas, newest first", heads, rows, "No saga is like this.")


def _phase(number: int) -> Html:
    word = _OF_PHASE[number]
    return fmt.state(word, _PHASE_KINDS.get(word, "idle"))


def _stands(number: int) -> Child:
    word = _OF_NUMBER[number]
    return fmt.state(word, _STATE_KINDS.get(word, "idle")) if number else ""


def _acts(
    session: Session | None, service: str, target: str, acts: Iterable[str], **more: str
) -> Html:
    if session is None or session.role != "operator":
        return el("p", "Acting needs the role operator.")
    links = [
        el("a", ACTS[act], href=url("work", "act", do=act, id=f"{service}:{target}", **more))
        for act in acts
    ]
    return el("p", links, class_="acts")


async def item(services: Services, service: str, work_id: str, session: Session | None) -> Page:
    """One item of work. Raises Refused."""
    _check(services, service)
    found: Any = await services.read(
        service, WorkServiceStub, "GetWork", work_pb2.GetWorkRequest(work_id=work_id)
    )
    each = found.item
    behind = el("a", found.held_up_by, href=url("work", service, found.held_up_by))
    about = facts(
        service=service,
        queue=each.queue,
        key=each.key,
        state=_stands(each.state),
        attempts=each.attempts,
        enqueued=fmt.when(each.created_at),
        due=fmt.when(each.due_at),
        tried_last_by=found.owner,
        waits_behind=behind if found.held_up_by else "",
        wait_behind_it=found.behind or "",
        trace=found.traceparent,
        given=el("code", found.payload[:2000].decode(errors="replace")),
    )
    history = [(fmt.when(fail.at), fail.attempt, fail.error) for fail in found.history]
    parts = (
        Live(
            "item",
            join(
                about,
                table("Failures", ("When", "Attempt", "Error"), history, "It has not failed."),
            ),
        ),
        _acts(session, service, work_id, ("retry", "discard")),
    )
    return Page(f"Work {work_id}", "work", parts)


async def saga(services: Services, service: str, saga_id: str, session: Session | None) -> Page:
    """One saga. Raises Refused."""
    _check(services, service)
    request = saga_pb2.GetSagaRequest(saga_id=saga_id)
    found: Any = await services.read(service, SagaServiceStub, "GetSaga", request)
    each = found.saga
    order = el("a", "its order", href=url("orders", saga_id))
    about = facts(
        kind=f"{each.definition}, version {each.version}",
        phase=_phase(each.phase),
        step=each.step,
        cancelled="yes" if each.cancelled else "",
        began=fmt.when(each.created_at),
        changed=fmt.when(each.updated_at),
        see=order if service == "orders" else "",
    )
    steps = [
        (fmt.when(done.at), done.step, _phase(done.phase), done.outcome) for done in found.history
    ]
    work = work_rows({service: [found.work]} if found.HasField("work") else {}, act=False)
    ended = each.phase not in (PHASES["forward"], PHASES["backward"])
    acts = () if ended else [act for act in ACTS if act.startswith("saga-")]
    parts = (
        Live("saga", join(
            about,
            table("Steps", ("When", "Step", "Way", "Outcome"), steps, "No step has ended yet."),
            table("Its next work", WORK_HEADS, work, "It has ended: there is no work."),
        )),
        _acts(session, service, saga_id, acts, step=each.step),
    )  # fmt: skip
    return Page(f"Saga {saga_id}", "work", parts)


def _check(services: Services, service: str) -> None:
    if service not in services.names:
        raise Refused("there is no such service", 404)
