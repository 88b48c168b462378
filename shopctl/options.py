"""Options and arguments that several commands share, and what they are checked with."""

import os
import pkgutil
import re
import uuid
from contextlib import suppress
from datetime import timedelta
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from accord_runtime.settings import targets
from services.topology import MAX_OFFSET, MIN_OFFSET
from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor.programs import SERVICES

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

# How an order is seen through, as in the contract.
Fulfilment = Literal["orchestrated", "choreographed"]
FulfilmentOption = Annotated[
    Fulfilment, typer.Option(help="By a saga of orders, or by the events of all services.")
]

DEFAULT_HOME: Final = Path(".mesh")
NO_AGE: Final = timedelta()

_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"(\d{1,6})(ms|[smh])", re.ASCII)
_PASSWORD: Final = re.compile(r"//[^/@]*:[^/]*@|password=")
_AGE: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)


def services() -> tuple[str, ...]:
    """The services of the shop, and what else `MESH_TARGETS` names, such as a mailer."""
    with suppress(ValueError):  # Which is said when it is used.
        elsewhere = targets(os.environ.get("MESH_TARGETS", ""))
        return tuple(dict.fromkeys((*SERVICES, *elsewhere)))
    return SERVICES


def _check_service(name: str | None) -> str | None:
    """A name of a service, or none.

    Raises:
        typer.BadParameter: there is no such service.
    """
    if name and name not in services():
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(services())}")
    return name


def parse_age(text: str | timedelta) -> timedelta:
    """`90s`, `5m`, `2h` or `1d` as a duration, at most 3,650 days.

    Raises:
        typer.BadParameter: it is none of these.
    """
    age = _parse(_AGE, text)
    if age is None or age > timedelta(days=3650):
        raise typer.BadParameter(f"{text!r} is not an age such as 90s, 5m, 2h or 1d")
    return age


def parse_duration(text: str | timedelta) -> timedelta:
    """`200ms`, `2s`, `5m` or `1h` as a duration.

    Raises:
        typer.BadParameter: it is none of these.
    """
    duration = _parse(_DURATION, text)
    if duration is None:
        raise typer.BadParameter(f"{text!r} is not a time such as 200ms, 2s, 5m or 1h")
    return duration


def _parse(form: re.Pattern[str], text: str | timedelta) -> timedelta | None:
    if isinstance(text, timedelta):
        return text  # a default is given to the parser, too
    found = form.fullmatch(text)
    return found and timedelta(**{_UNITS[found[2]]: int(found[1])})


def service_of(method: str) -> str:
    """The service that serves a method, by its full name.

    Raises:
        typer.BadParameter: it is not a method of the shop's own contracts.
    """
    package, _, rest = method.partition(".")
    name = rest.partition(".")[0]
    if package != "shop" or name not in SERVICES or "/" not in method:
        raise typer.BadParameter(
            f"{method!r} is not a method such as shop.orders.v1.OrderService/GetOrder;"
            " of other contracts: --through SERVICE"
        )
    return name


def complete_service(incomplete: str) -> list[str]:
    """The services that a word may become, for the shell."""
    return [name for name in SERVICES if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """The methods of the shop's contracts that a word may become, for the shell."""
    import shop  # only what completes a word waits for all contracts

    return [name for name in _methods(shop) if name.startswith(incomplete)]


def find_method(wanted: str) -> "MethodDescriptor":
    """A method of a contract of the shop or of its operators, by its full name or the end of one.

    Raises:
        typer.BadParameter: there is none, or several.
    """
    every = contracts()
    found = [name for name in every if f".{name}".endswith((f".{wanted}", f"/{wanted}"))]
    if len(found) != 1:
        near = found or get_close_matches(wanted, every, 3, 0.5)
        raise typer.BadParameter(
            f"{wanted!r} is {'several methods' if found else 'no method'} of the contracts"
            + (f"; there is {', '.join(near)}" if near else "")
        )
    return every[found[0]]


def contracts() -> "dict[str, MethodDescriptor]":
    """All methods of the contracts of the shop and of its operators, by full name."""
    import accord.ops.v1
    import shop

    return {**_methods(shop), **_methods(accord.ops.v1)}


def _methods(package: ModuleType) -> dict[str, "MethodDescriptor"]:
    return {
        f"{service.full_name}/{method.name}": method
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if module.name.endswith("_pb2")
        for service in import_module(module.name).DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="MESH_HOME", help="Folder with the state of the shop."),
]


def _without_password(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """Everybody on the host can read the arguments of a process, and nobody its environment."""
    source = context.get_parameter_source(str(parameter.name))
    if source is not None and source.name == "COMMANDLINE" and _PASSWORD.search(value):
        raise CommandError(
            "other users of this host can read the arguments of a process: "
            "give a URL with a password by DATABASE_URL",
            ExitCode.USAGE,
        )
    return value


DatabaseUrlOption = Annotated[
    str,
    typer.Option(
        callback=_without_password,
        envvar="DATABASE_URL",
        show_envvar=True,
        help="postgresql://... for a schema per service; default is a file per service.",
    ),
]
OffsetOption = Annotated[
    int,
    typer.Option(
        "--port-offset",
        envvar="MESH_PORT_OFFSET",
        min=0,
        max=MAX_OFFSET,
        help=f"Move all ports by this much, {MIN_OFFSET} at least.",
    ),
]
ShopOffsetOption = Annotated[
    int | None,
    typer.Option(
        "--port-offset",
        envvar="MESH_PORT_OFFSET",
        min=0,
        max=MAX_OFFSET,
        show_default="as it was started",
        help="Where the shop listens.",
    ),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        callback=lambda key: key or str(uuid.uuid4()),
        show_default="a new one",
        help="Idempotency key: a command that is repeated with the same key has one effect.",
    ),
]
IdOnlyOption = Annotated[bool, typer.Option("--id", help="Print the id and nothing else.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
StreetOption = Annotated[str, typer.Option("--street", help="Street and number.")]
CityOption = Annotated[str, typer.Option("--city", help="City.")]
PostalCodeOption = Annotated[str, typer.Option("--postal-code", help="Postal code.")]
CountryOption = Annotated[
    str, typer.Option("--country", metavar="CC", help="ISO 3166 code of two letters, e.g. DE.")
]
ServiceOption = Annotated[
    str,
    typer.Option(
        "--service",
        callback=_check_service,
        autocompletion=complete_service,
        metavar="NAME",
        help="Whose.",
    ),
]
AnyServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service",
        callback=_check_service,
        autocompletion=complete_service,
        metavar="NAME",
        show_default="every service",
        help="Of this service only.",
    ),
]
MethodArgument = Annotated[
    str,
    typer.Argument(
        autocompletion=complete_method,
        metavar="METHOD",
        help="Full name, e.g. shop.orders.v1.OrderService/GetOrder.",
    ),
]
ThroughOption = Annotated[
    str | None,
    typer.Option(
        "--through",
        callback=_check_service,
        autocompletion=complete_service,
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
StuckOption = Annotated[
    Literal["parked", "ready"],
    typer.Option("--state", help="Without ID: what is parked, or what waits for its next attempt."),
]
ErrorOption = Annotated[
    str, typer.Option("--error", metavar="TEXT", help="Only what has failed last with this text.")
]
RateOption = Annotated[
    int, typer.Option("--rate", min=1, max=1000, help="How many a second at most.")
]
GoOption = Annotated[bool, typer.Option("--go", help="Retry what is found; else it is shown.")]
