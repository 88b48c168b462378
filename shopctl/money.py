"""Amounts of money, as people write them."""

from decimal import Decimal, InvalidOperation
from typing import Final

from shop.common.v1.money_pb2 import Money
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode

# ISO 4217, column "minor unit", where it is not 2.
_DECIMALS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
}


def decimals(currency: str) -> int:
    """Digits after the point of an ISO 4217 currency: 0, 2 or 3."""
    return next((count for count, codes in _DECIMALS.items() if currency in codes.split()), 2)


def parse(text: str, currency: str) -> Money:
    """An amount such as `19.99`.

    Raises:
        CommandError: it is no positive amount of that currency.
    """
    try:
        minor = Decimal(text).scaleb(decimals(currency))
    except InvalidOperation:
        minor = Decimal("NaN")
    if not minor.is_finite() or minor <= 0 or minor != minor.to_integral_value():
        raise CommandError(
            f"{text!r} is not a price in {currency}: expected a number above 0 with at most "
            f"{decimals(currency)} digits after the point",
            ExitCode.USAGE,
        )
    return Money(minor_units=int(minor), currency_code=currency)


def show(amount: Money) -> str:
    """`19.99 EUR`."""
    digits = decimals(amount.currency_code)
    return f"{Decimal(amount.minor_units).scaleb(-digits):.{digits}f} {amount.currency_code}"
