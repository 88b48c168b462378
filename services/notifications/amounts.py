"""Amounts of money as people write them."""

from typing import Final

_DIGITS: Final = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF"), 0),
    **dict.fromkeys(("UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Currencies whose minor unit is not a hundredth: ISO 4217, list one, "minor unit"."""


def format_amount(minor_units: int, currency_code: str) -> str:
    """`format_amount(1999, "EUR")` is `"19.99 EUR"`, `format_amount(1999, "JPY")` `"1999 JPY"`."""
    digits = _DIGITS.get(currency_code, 2)
    if digits == 0:
        return f"{minor_units} {currency_code}"
    whole, part = divmod(minor_units, 10**digits)
    return f"{whole}.{part:0{digits}} {currency_code}"
