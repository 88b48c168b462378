"""What all pages have in common: their frame, and the parts of their forms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from accord_runtime.grpc.ids import uuid7
from services.console.access import Session
from services.console.html import Child, Html, el, join, text, url

PAGES: Final = (("", "Mesh"), ("orders", "Orders"), ("work", "Work"))
"""Path and title of what the navigation leads to."""

PROBLEM: Final = "problem"
"""The part that says why what is live is not."""


class Live(NamedTuple):
    """A part of a page that follows what happens. It has no form: it is the same for everybody."""

    id: str
    html: Html


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says."""

    title: str
    here: str
    """Path of the page in the navigation that it belongs to."""
    parts: Sequence[Html | Live]
    every: float = 2.0
    """Seconds between two looks at what is live."""
    status: int = 200

    @property
    def live(self) -> dict[str, Html]:
        """What is live, by id."""
        return {part.id: part.html for part in self.parts if isinstance(part, Live)}


class Refused(Exception):
    """What was asked for is not done; the text says why."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def document(page: Page, session: Session | None, where: str, notice: str = "") -> Html:
    """A whole page; `where` is its own path and query."""
    body = [
        el("div", part.html, id=part.id) if isinstance(part, Live) else part for part in page.parts
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{page.title} - console"),
        el("link", rel="stylesheet", href=url("static", "console.css")),
        el("link", rel="icon", href=url("static", "icon.svg")),
        el("script", src=url("static", "console.js"), defer=True),
    )
    said = el("p", notice, class_="notice", role="status") if notice else None
    title = el("h1", page.title)
    problem = el("div", id=PROBLEM) if page.live else None
    main = el("main", title, said, problem, body, id="main", tabindex=-1)
    live = url("live", of=where) if page.live else None
    bar = el("a", "Skip to content", href="#main", class_="skip"), _header(page, session)
    frame = el("html", head, el("body", bar, main, data_live=live), lang="en")
    return Html(f"<!doctype html>{frame}")


def _header(page: Page, session: Session | None) -> Html:
    if session is None:
        return el("header", el("strong", "Console"))
    links = [
        el("a", title, href=url(path), aria_current="page" if path == page.here else None)
        for path, title in PAGES
    ]
    connection = el("span", "live" if page.live else "", id="connection", role="status")
    who = el("span", f"{session.user} ({session.role})")
    leave = form(session, url("logout"), el("button", "Log out"))
    return el(
        "header",
        el("nav", links, aria_label="Console"),
        connection,
        el("div", who, leave, class_="who"),
    )


def form(session: Session, action: str, *children: Child, key: bool = False) -> Html:
    """A form that changes something: of this session, and under one idempotency key."""
    hidden = [el("input", type="hidden", name="csrf", value=session.csrf)]
    if key:
        hidden.append(el("input", type="hidden", name="key", value=uuid7()))
    return el("form", hidden, children, method="post", action=action)


def field(
    label: str, name: str, value: object = "", hint: str = "", **more: str | bool | int
) -> Html:
    """A labelled input."""
    said = el("small", hint, id=f"hint-{name}") if hint else None
    described = f"hint-{name}" if hint else None
    box = el("input", name=name, value=str(value), aria_describedby=described, **more)
    return el("label", el("span", label), box, said)


def area(label: str, name: str, value: str, rows: int = 4) -> Html:
    """A labelled input of several lines."""
    return el("label", el("span", label), el("textarea", text(value), name=name, rows=rows))


def choice(label: str, name: str, options: Mapping[str, str], value: str = "") -> Html:
    """A labelled choice of one: value -> what is shown."""
    shown = [
        el("option", said, value=each, selected=each == value) for each, said in options.items()
    ]
    return el("label", el("span", label), el("select", shown, name=name))


def flag(label: str, name: str, value: str = "1", checked: bool = False, **more: bool) -> Html:
    """A box to tick."""
    return el(
        "label", el("input", type="checkbox", name=name, value=value, checked=checked, **more),
        el("span", label), class_="flag",
    )  # fmt: skip


def confirmed(button: str, sure: str) -> Html:
    """The end of a form that acts: why, yes, and the button."""
    return join(
        field("Reason, for the audit record", "reason", required=True, maxlength=500),
        flag(sure, "sure", required=True),
        el("button", button),
    )


def confirm(given: Mapping[str, list[str]]) -> str:
    """The reason of a form that ends with `confirmed`. Raises Refused."""
    reason = " ".join(first(given, "reason").split())
    if not reason:
        raise Refused("say why, for the audit record")
    if not first(given, "sure"):
        raise Refused("tick the box that says what will happen")
    return reason[:500]


def first(given: Mapping[str, list[str]], name: str, usual: str = "") -> str:
    """The first value of a name in a query or a form."""
    return (given.get(name) or [usual])[0].strip()
