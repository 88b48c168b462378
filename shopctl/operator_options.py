"""Options of the commands for operators."""

import re
from datetime import timedelta
from typing import Annotated, Final

import typer

from services.topology import SERVICES

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"(\d{1,6})(ms|[smh])", re.ASCII)
_AGE: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)

NAMES: Final = tuple(SERVICES)
"""Services that an operator can ask."""


def check_name(name: str | None) -> str | None:
    """A name of a service, or none.

    Raises:
        typer.BadParameter: there is no such service.
    """
    if name and name not in NAMES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(NAMES)}")
    return name


def parse_age(text: str | timedelta) -> timedelta:
    """`90s`, `5m`, `2h` or `1d` as a duration, at most 3,650 days.

    Raises:
        typer.BadParameter: it is none of these.
    """
    if isinstance(text, timedelta):
        return text
    found = _AGE.fullmatch(text)
    age = found and timedelta(**{_UNITS[found[2]]: int(found[1])})
    if not age or age > timedelta(days=3650):
        raise typer.BadParameter(f"{text!r} is not an age such as 90s, 5m, 2h or 1d")
    return age


def parse_duration(text: str | timedelta) -> timedelta:
    """`200ms`, `2s`, `5m` or `1h` as a duration.

    Raises:
        typer.BadParameter: it is none of these.
    """
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(text)
    if not found:
        raise typer.BadParameter(f"{text!r} is not a time such as 200ms, 2s, 5m or 1h")
    number = int(found[1])
    return (
        timedelta(milliseconds=number)
        if found[2] == "ms"
        else timedelta(**{_UNITS[found[2]]: number})
    )


def serving(method: str) -> str:
    """The service that serves a method, by its full name.

    Raises:
        typer.BadParameter: it is not a method of the shop's own contracts.
    """
    package, _, rest = method.partition(".")
    name = rest.partition(".")[0]
    if package != "shop" or name not in NAMES or "/" not in method:
        raise typer.BadParameter(
            f"{method!r} is not a method such as shop.orders.v1.OrderService/GetOrder;"
            " of other contracts: --through SERVICE"
        )
    return name


ServiceOption = Annotated[
    str, typer.Option("--service", callback=check_name, metavar="NAME", help="Whose.")
]
AnyServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service",
        callback=check_name,
        metavar="NAME",
        show_default="every service",
        help="Of this service only.",
    ),
]
MethodArgument = Annotated[
    str,
    typer.Argument(metavar="METHOD", help="Full name, e.g. shop.orders.v1.OrderService/GetOrder."),
]
ThroughOption = Annotated[
    str | None,
    typer.Option(
        "--through",
        callback=check_name,
        metavar="NAME",
        show_default="the one that serves the method",
        help="The process that is asked to do it.",
    ),
]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why, for the audit record."),
]
AgeOption = Annotated[
    timedelta,
    typer.Option(
        "--min-age",
        parser=parse_age,
        metavar="AGE",
        show_default="any",
        help="Only what is at least this old: 90s, 5m, 2h, 1d.",
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
NO_AGE: Final = timedelta()
