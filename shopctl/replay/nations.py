"""TPC-H's 25 nations as ISO 3166-1 alpha-2 codes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

COUNTRY_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ALGERIA": "DZ",
        "ARGENTINA": "AR",
        "BRAZIL": "BR",
        "CANADA": "CA",
        "CHINA": "CN",
        "EGYPT": "EG",
        "ETHIOPIA": "ET",
        "FRANCE": "FR",
        "GERMANY": "DE",
        "INDIA": "IN",
        "INDONESIA": "ID",
        "IRAN": "IR",
        "IRAQ": "IQ",
        "JAPAN": "JP",
        "JORDAN": "JO",
        "KENYA": "KE",
        "MOROCCO": "MA",
        "MOZAMBIQUE": "MZ",
        "PERU": "PE",
        "ROMANIA": "RO",
        "RUSSIA": "RU",
        "SAUDI ARABIA": "SA",
        "UNITED KINGDOM": "GB",
        "UNITED STATES": "US",
        "VIETNAM": "VN",
    }
)
"""Name in the table `nation` -> country code."""
