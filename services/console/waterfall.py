"""What happened when: a row for each, with a bar where it was done and dots where it waited."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from accord_runtime.telemetry.trace_tree import milliseconds
from services.console.html import Html, el, join, table

WIDTH: Final = 1000
HEIGHT: Final = 14
MAX_ROWS: Final = 400


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that happened. Times are nanoseconds since 1970."""

    what: str
    kind: str
    """event, saga, mail, handled or called."""
    start: int
    end: int
    status: str = ""
    waited: int = 0
    """Nanoseconds for which it lay before it began."""
    depth: int = 0
    notes: tuple[str, ...] = ()
    bad: bool = False


def waterfall(caption: str, bars: Sequence[Bar], begin: int, end: int) -> Html:
    """The rows; all that are on one page have the same `begin` and `end`."""
    heads = ("What", f"0 to {milliseconds(end - begin)}", "Began", "Took", "Waited", "Status")
    rows = [
        (
            el("span", bar.what, class_=f"depth d{min(bar.depth, 9)}"),
            _drawn(bar, begin, max(1, end - begin)),
            milliseconds(bar.start - begin),
            milliseconds(bar.end - bar.start) if bar.kind != "event" else "",
            milliseconds(bar.waited) if bar.waited else "",
            join(
                el(
                    "span",
                    f"▲ {bar.status}" if bar.bad else bar.status,
                    class_="bad" if bar.bad else None,
                ),
                [el("small", note) for note in bar.notes],
            ),
        )
        for bar in bars[:MAX_ROWS]
    ]
    more = el("p", f"{len(bars) - MAX_ROWS} more are not shown.") if len(bars) > MAX_ROWS else None
    return join(
        el("div", table(caption, heads, rows, "Nothing is known of that."), class_="waterfall"),
        more,
    )


def _drawn(bar: Bar, begin: int, length: int) -> Html:
    def x(at: int) -> float:
        return round((at - begin) * WIDTH / length, 1)

    start, end = x(bar.start), x(bar.end)
    lay = x(bar.start - bar.waited)
    waited = (
        el("line", x1=lay, x2=start, y1=HEIGHT / 2, y2=HEIGHT / 2, class_="waited")
        if bar.waited
        else None
    )
    # What took no time can be seen, too.
    shown = max(4.0, end - start)
    done = el("rect", x=min(start, WIDTH - shown), y=2, width=shown, height=HEIGHT - 4,
              class_=f"bar {'bad' if bar.bad else bar.kind}")  # fmt: skip
    return el("svg", waited, done, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none",
              class_="time", aria_hidden="true")  # fmt: skip
