"""The page *Mesh*: who calls whom, how fast, what fails, and which circuit is open."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from accord.ops.v1 import mesh_pb2 as pb
from services import topology
from services.console import formatting as fmt
from services.console.contracts import declared_calls, methods, server_of
from services.console.edges import OPEN, Calls, calls_of, events_of, together
from services.console.html import Child, Html, el, join, table, url
from services.console.page import Live, Page
from services.console.topology_svg import Arrow, Node, draw
from services.console.watch import MeshWatch, Seen

_POSITIONS: Final = dict(pb.BreakerPosition.items())
_BREAKERS: Final[Mapping[int, str]] = {
    number: fmt.name(name, "BREAKER_POSITION_") for name, number in _POSITIONS.items() if number
}
_KINDS: Final = {"open": "bad", "bad": "bad", "good": "good", "idle": "idle"}


def page(watch: MeshWatch) -> Page:
    """The page, from what is known now."""
    calls = calls_of(watch.seen)
    legend = el(
        "p",
        "A line is calls: thick while there are some, with ▲ where calls fail, dashed where the ",
        "circuit is open, thin where the contract allows them and there are none. Dotted: events.",
        class_="legend",
    )
    parts = (
        Live("topology", el("div", _picture(watch.seen, calls), class_="scroll", tabindex=0,
                            role="region", aria_label="Topology")),
        legend,
        Live("services", _services(watch.seen)),
        Live("calls", calls_table(calls)),
        Live("events", _events(watch.seen)),
        _every(),
    )  # fmt: skip
    return Page("Mesh", "", parts, every=1.0)


@cache
def _every() -> Html:
    names = el("ul", (el("li", method_link(name)) for name in methods()), class_="methods")
    return el("details", el("summary", "All methods"), names)


@cache
def method_link(method: str) -> Html:
    """The way to the page of a method."""
    short = ".".join(method.split(".")[-1:])
    return el("a", short, href=f"{url('method')}/{method}", title=method)


def condition(seen: Seen) -> tuple[str, str]:
    """How a service is, in words and as a kind."""
    if seen.away_since:
        return f"away since {fmt.clock(seen.away_since)}", "bad"
    if not seen.at:
        return "not heard of yet", "idle"
    limit = seen.state.limit
    if limit.overloaded:
        return f"overloaded by {fmt.duration(limit.delay)}", "warn"
    return f"{limit.in_flight} calls at work", "good"


def _picture(seen: Mapping[str, Seen], calls: list[Calls]) -> Html:
    pairs = together(calls)
    names = dict.fromkeys((topology.EDGE, *topology.SERVICES))
    names |= dict.fromkeys(name for pair in pairs for name in pair)
    nodes = []
    for name in names:
        line, kind = condition(seen[name]) if name in seen else ("calls from outside", "idle")
        nodes.append(
            Node(name, line.replace(" UTC", ""), kind, f"#service-{name}" if name in seen else "")
        )
    arrows = [_arrow(each) for each in pairs.values()]
    arrows += [Arrow(*pair, "idle") for pair in sorted(declared_calls() - pairs.keys())]
    waiting = {(edge.source, name): edge for name, edge in events_of(seen)}
    for name, sources in topology.SOURCES.items():
        for source in sources:
            edge = waiting.get((source, name))
            late = f"{edge.waiting} waiting" if edge and edge.waiting else ""
            title = f"events of {source} to {name}" + (f": {late}" if late else "")
            arrows.append(Arrow(source, name, "event", late, title))
    return draw(nodes, arrows, "Calls and events between services")


def _arrow(calls: Calls) -> Arrow:
    parts, share = [], f"▲ {100 * calls.failures / max(1, calls.calls):.0f} %"
    if calls.breaker == OPEN:
        parts.append("circuit open")
    if calls.failures:
        parts.append(f"{share} failed" if calls.breaker != OPEN else share)
    if calls.calls:
        parts.append(fmt.rate(calls.calls, calls.window))
    if calls.p99 is not None and calls.calls:
        parts.append(f"p99 {fmt.seconds(calls.p99)}")
    said = ", ".join(parts) or "no calls"
    label = " · ".join(parts[:2])  # all of it is in the title, and in the table
    return Arrow(
        calls.caller,
        calls.callee,
        calls.kind,
        label,
        f"{calls.caller} calls {calls.callee}: {said}",
    )


def _services(seen: Mapping[str, Seen]) -> Html:
    return table(
        "Services",
        ("Service", "State", "Streams", "Retries left", "Circuits", "Faults", "Overrides"),
        (_service(name, each) for name, each in seen.items()),
        "No service is known.",
    )


def _service(name: str, seen: Seen) -> list[Child]:
    line, kind = condition(seen)
    state = seen.state
    shut = [
        each for each in state.breakers if each.position != _POSITIONS["BREAKER_POSITION_CLOSED"]
    ]
    faults = [each for each in state.methods if each.HasField("fault")]
    changed = [each for each in state.methods if each.HasField("override")]
    budget = min((each.balance for each in state.budgets), default=None)
    why = el("small", seen.problem) if seen.problem else None
    return [
        el("span", name, id=f"service-{name}"),
        join(fmt.state(line, kind), why),
        f"{state.limit.streams} of {state.limit.stream_limit}" if seen.at else "",
        budget if budget is not None else "",
        [
            el("div", fmt.state(f"{_BREAKERS[each.position]}: ", "bad"), method_link(each.method))
            for each in shut
        ]
        or ("all closed" if seen.at else ""),
        [el("div", fmt.state("", "warn"), method_link(each.method)) for each in faults],
        [el("div", method_link(each.method)) for each in changed]
        + [el("div", fmt.state(f"refused: {each.problem}", "bad")) for each in state.refused],
    ]


def calls_table(calls: list[Calls]) -> Html:
    """Calls of the last seconds, a row for each caller and method."""
    heads = ("From", "To", "Method", "Rate", "Failed", "p50", "p99", "p99 handled", "Circuit")
    shown = [each for each in calls if each.calls or each.breaker == OPEN]
    return table("Calls", heads, map(_row, shown), "Nobody has called in the last seconds.")


def _row(each: Calls) -> list[Child]:
    errors = ", ".join(f"{count} {code}" for code, count in sorted(each.errors.items()))
    return [
        each.caller,
        each.callee,
        method_link(each.method) if server_of(each.method) else each.method,
        fmt.rate(each.calls, each.window),
        fmt.state(errors, "bad" if each.failures else "idle") if errors else "none",
        *(
            "" if value is None else fmt.seconds(value)
            for value in (each.p50, each.p99, each.served_p99)
        ),
        fmt.state(_BREAKERS[each.breaker], _KINDS[each.kind]) if each.breaker else "",
    ]


def _events(seen: Mapping[str, Seen]) -> Html:
    rows = [
        (
            name, edge.source, edge.waiting,
            fmt.duration(edge.oldest_age) if edge.HasField("oldest_age") else "",
            edge.done, edge.failed, fmt.state(f"{edge.parked}", "bad") if edge.parked else 0,
        )
        for name, edge in events_of(seen)
    ]  # fmt: skip
    heads = ("Taken by", "Events of", "Waiting", "Oldest", "Handled", "Attempts failed", "Parked")
    return table("Events", heads, rows, "No service takes events, or none is heard of yet.")
