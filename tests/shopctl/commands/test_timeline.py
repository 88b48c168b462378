"""The timeline of a trace, from spans to text."""

from accord.ops.v1.trace_pb2 import Span, SpanEvent, SpanKind
from accord_runtime.telemetry import trace_tree
from accord_runtime.telemetry.trace_tree import Recorded
from shopctl.commands import trace


def span(
    number: int,
    parent: int,
    name: str,
    start: int,
    end: int,
    *,
    client: bool = False,
    status: str = "OK",
    events: tuple[SpanEvent, ...] = (),
    **attributes: str,
) -> Span:
    """A span; times in milliseconds."""
    kind = SpanKind.SPAN_KIND_CLIENT if client else SpanKind.SPAN_KIND_SERVER
    found = Span(
        span_id=f"{number:016x}",
        parent_span_id=f"{parent:016x}" if parent else "",
        name=f"shop.v1.Service/{name}",
        kind=kind,
        error=status != "OK",
        attributes={trace_tree.STATUS: status, **attributes},
        events=events,
    )
    found.start.FromMilliseconds(start)
    found.end.FromMilliseconds(end)
    return found


def attempt(at: int, seconds: float, status: str, **attributes: str) -> SpanEvent:
    """The end of an attempt."""
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    found = SpanEvent(
        name=trace_tree.ATTEMPT,
        attributes={trace_tree.STATUS: status, "accord.attempt.duration": str(seconds), **named},
    )
    found.at.FromMilliseconds(at)
    return found


TRIED = (
    attempt(20, 0.01, "UNAVAILABLE", accord__reason="BUSY", accord__retry__delay="0.06"),
    attempt(100, 0.02, "OK"),
)
SPANS = [
    Recorded("inventory", span(3, 2, "Reserve", 85, 95)),
    Recorded("orders", span(2, 1, "Reserve", 10, 100, client=True, events=TRIED)),
    Recorded("orders", span(1, 0, "Create", 0, 100)),
    Recorded("orders", span(4, 1, "Charge", 150, 200, client=True, status="UNKNOWN")),
]


def test_a_tree_in_the_order_of_calls() -> None:
    """Whatever the order in which services answer, a call stands below the one that made it."""
    lines = trace_tree.tree(SPANS)
    assert [(line.depth, line.recorded.span.span_id[-1]) for line in lines] == [
        (0, "1"),
        (1, "2"),
        (2, "3"),
        (1, "4"),
    ]


def test_the_background_is_apart() -> None:
    """What begins after the first call has ended is not part of its answer."""
    shown = trace_tree.synchronous(trace_tree.tree(SPANS))
    assert [line.recorded.span.span_id[-1] for line in shown] == ["1", "2", "3"]


def test_a_cause_that_is_gone_loses_nothing() -> None:
    """Spans whose parent is not known, or that name each other, are shown all the same."""
    lost = Recorded("payments", span(9, 8, "Charge", 5, 6))
    lines = trace_tree.tree([lost, *SPANS[:1]])
    assert {line.depth for line in lines} == {0}
    assert len(lines) == 2
    loop = [Recorded("a", span(1, 2, "A", 0, 1)), Recorded("a", span(2, 1, "B", 0, 1))]
    assert len(trace_tree.tree(loop)) == 2


def test_rendering() -> None:
    """Bars stand where the time went; attempts, waits and their reasons can be read."""
    lines = trace_tree.synchronous(trace_tree.tree(SPANS))
    text = trace.timeline(lines, colour=False, width=80)
    heading, create, called, first, second, handled = text.splitlines()
    assert "0 to 100.0 ms" in heading
    assert create.startswith("orders Create")
    assert "100.0 ms  OK" in create
    bar = called[called.index(trace.CALLED) : called.rindex(trace.CALLED) + 1]
    assert bar.strip(trace.CALLED) == trace.WAITED * len(bar.strip(trace.CALLED))
    assert trace.WAITED in bar
    assert first.strip() == "attempt 1 UNAVAILABLE BUSY 10.0 ms again after 60.0 ms"
    assert second.strip() == "attempt 2 OK 20.0 ms"
    assert handled.index(trace.HANDLED) > create.index(trace.HANDLED)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_where_it_lay() -> None:
    """What lay before it began has dots before its bar, and is summed up by what it waited for."""
    waiting = [
        Recorded("orders", span(1, 0, "Create", 0, 100)),
        Recorded("orders", span(2, 1, "x", 150, 160)),
        Recorded("orders", span(3, 2, "x", 200, 210, client=True)),
        Recorded("mailer", span(4, 3, "x", 250, 300)),
    ]
    lay = (("publish it", "0.05"), ("receive it", "0.05"), ("process it", "inf"))
    for each, (name, waited) in zip(waiting[1:], lay, strict=True):
        each.span.name = name
        each.span.attributes[trace_tree.LAY] = waited
    lines = trace_tree.tree(waiting)
    assert trace_tree.summary(lines) == (
        "end to end 300.0 ms; waited 50.0 ms to be published, 50.0 ms on the broker,"
        " 0.0 ms for work to begin"
    )
    _, _, published, received, handled = trace.timeline(lines, colour=False, width=100).splitlines()
    assert trace.WAITED + trace.HANDLED in published
    assert trace.WAITED + trace.HANDLED in received
    assert trace.WAITED not in handled


def test_terminals_do_not_obey_names() -> None:
    """A control character in a name is not printed."""
    bad = Recorded("orders", span(1, 0, "\x1b[2J", 0, 1))
    assert "\x1b" not in trace.timeline(trace_tree.tree([bad]), colour=False, width=80)
