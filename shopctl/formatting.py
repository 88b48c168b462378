"""How messages, money, addresses and items are written on the command line, and read from it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shopctl.errors import CommandError, ExitCode

# ISO 4217, column "minor unit", where it is not 2.
_DECIMALS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
}


def format_json(message: Message, **more: str) -> str:
    """One line of protobuf's JSON, with the field names of the contract, and `more` before them.

    Fields that are not set are there with their default, so that scripts can rely on them; an
    int64 is a string, as protobuf prescribes.
    """
    fields = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps({**more, **fields})


class Columns:
    """The columns of a list: name -> width at least, negative for what is aligned to the right."""

    def __init__(self, **widths: int) -> None:
        self._widths = widths.values()
        self.heading = self.line(*(name.replace("_", " ") for name in widths))

    def line(self, *cells: str) -> str:
        """A row; no row is cut."""
        return "  ".join(
            f"{cell:>{-width}}" if width < 0 else f"{cell:<{width}}"
            for cell, width in zip(cells, self._widths, strict=True)
        ).rstrip()


def format_fields(**values: str) -> list[str]:
    """One `name  value` line each; empty values are left out."""
    width = max(map(len, values))
    return [
        f"{name.replace('_', ' '):<{width}}  {value}" for name, value in values.items() if value
    ]


def format_time(stamp: Timestamp) -> str:
    """Local date and time to the second; `-` when it is not set."""
    if not stamp.seconds:
        return "-"
    return stamp.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def to_duration(time: timedelta) -> Duration:
    """A time as it is sent."""
    found = Duration()
    found.FromTimedelta(time)
    return found


def format_seconds(duration: Duration) -> str:
    """`0.25 s`, `12.3 s`, `120 s`."""
    seconds = duration.ToNanoseconds() / 1e9
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def enum_name(known: Iterable[tuple[str, int]], number: int) -> str:
    """`PENDING` for ORDER_STATUS_PENDING; the number of one that this version does not know.

    `known` are the names and numbers of the enum, from its `items()`.
    """
    names = {value: name for name, value in known}
    return names.get(number, str(number)).removeprefix(names[0].removesuffix("UNSPECIFIED"))


def _decimals(currency: str) -> int:
    """Digits after the point of an ISO 4217 currency: 0, 2 or 3."""
    return next((count for count, codes in _DECIMALS.items() if currency in codes.split()), 2)


def parse_money(text: str, currency: str) -> Money:
    """An amount such as `19.99`.

    Raises:
        CommandError: it is no positive amount of that currency.
    """
    try:
        minor = Decimal(text).scaleb(_decimals(currency))
    except InvalidOperation:
        minor = Decimal("NaN")
    if not minor.is_finite() or minor <= 0 or minor != minor.to_integral_value():
        raise CommandError(
            f"{text!r} is not a price in {currency}: expected a number above 0 with at most "
            f"{_decimals(currency)} digits after the point",
            ExitCode.USAGE,
        )
    return Money(minor_units=int(minor), currency_code=currency)


def format_money(amount: Money) -> str:
    """`19.99 EUR`."""
    digits = _decimals(amount.currency_code)
    return f"{Decimal(amount.minor_units).scaleb(-digits):.{digits}f} {amount.currency_code}"


def build_address(
    *, name: str, street: str, city: str, postal_code: str, country: str
) -> Address | None:
    """The address that the options make up, for `name`; None when none of them is given.

    Raises:
        CommandError: only some of what makes an address is given.
    """
    if not (street or city or postal_code or country):
        return None
    needed = {"--street": street, "--city": city, "--country": country}
    missing = [option for option, value in needed.items() if not value]
    if missing:
        raise CommandError(f"an address also needs {' and '.join(missing)}", ExitCode.USAGE)
    return Address(
        name=name, line1=street, city=city, postal_code=postal_code, country_code=country.upper()
    )


def format_address(address: Address) -> str:
    """An address in one line."""
    place = f"{address.postal_code} {address.city}".strip()
    parts = (address.name, address.line1, address.line2, place, address.country_code)
    return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class WantedItem:
    """What is ordered. `price` is None for whatever the shop asks for it right now."""

    sku: str
    quantity: int
    price: str | None


def parse_item(text: str) -> WantedItem:
    """`SKU`, `SKU:QTY` or `SKU:QTY:PRICE`.

    Raises:
        CommandError: it is not of that form.
    """
    sku, *rest = text.split(":")
    quantity = rest[0] if rest else "1"
    if not sku or len(rest) > 2 or not quantity.isdecimal() or not int(quantity):
        raise CommandError(
            f"--item {text!r} is not of the form SKU:QTY[:PRICE], e.g. tea:2 or tea:2:4.50",
            ExitCode.USAGE,
        )
    return WantedItem(sku, int(quantity), rest[1] if len(rest) == 2 else None)
