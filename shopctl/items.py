"""Items of an order, as written on the command line."""

from dataclasses import dataclass

from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode


@dataclass(frozen=True, slots=True)
class WantedItem:
    """What is ordered. `price` is None for whatever the shop asks for it right now."""

    sku: str
    quantity: int
    price: str | None


def parse(text: str) -> WantedItem:
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
