"""Postal addresses on the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode

if TYPE_CHECKING:
    from shop.common.v1.address_pb2 import Address

StreetOption = Annotated[str, typer.Option("--street", help="Street and number.")]
CityOption = Annotated[str, typer.Option("--city", help="City.")]
PostalCodeOption = Annotated[str, typer.Option("--postal-code", help="Postal code.")]
CountryOption = Annotated[
    str, typer.Option("--country", metavar="CC", help="ISO 3166 code of two letters, e.g. DE.")
]


def build(*, name: str, street: str, city: str, postal_code: str, country: str) -> "Address | None":
    """The address that the options make up, for `name`; None when none of them is given.

    Raises:
        CommandError: only some of what makes an address is given.
    """
    from shop.common.v1.address_pb2 import Address

    if not (street or city or postal_code or country):
        return None
    needed = {"--street": street, "--city": city, "--country": country}
    missing = [option for option, value in needed.items() if not value]
    if missing:
        raise CommandError(f"an address also needs {' and '.join(missing)}", ExitCode.USAGE)
    return Address(
        name=name, line1=street, city=city, postal_code=postal_code, country_code=country.upper()
    )


def show(address: "Address") -> str:
    """An address in one line."""
    place = f"{address.postal_code} {address.city}".strip()
    parts = (address.name, address.line1, address.line2, place, address.country_code)
    return ", ".join(part for part in parts if part)
