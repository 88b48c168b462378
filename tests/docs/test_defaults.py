"""The README's table of every default that differs from gRPC's."""

import re

from accord import mesh
from tests.docs.pages import ROOT
from tests.docs.test_policies import value_of

Row = tuple[str, str]


def table() -> dict[Row, str]:
    """What differs, of whom: its value."""
    page = (ROOT / "README.md").read_text()
    lines = page.split("<!-- defaults -->\n")[1].split("<!-- end -->")[0].splitlines()[2:]
    rows: dict[Row, str] = {}
    for line in lines:
        of, what, value = (cell.strip(" `") for cell in line.split("|")[1:4])
        for side in ("channels", "servers") if of == "both" else (of,):
            rows[side, what] = value
    return rows


def test_no_option_of_grpc_is_set_in_silence() -> None:
    """Each option of channels and of servers has its row, and no row is made up."""
    named = {row: value for row, value in table().items() if row[1].startswith("grpc.")}
    assert named.pop(("channels", "grpc.service_config")) == "derived"
    sides = {"channels": mesh._CHANNEL_OPTIONS, "servers": mesh._SERVER_OPTIONS}
    assert named == {
        (side, name): str(value) for side, options in sides.items() for name, value in options
    }


def test_numbers_of_the_table_are_those_of_the_code() -> None:
    """Those that are the library's own."""
    places = {what: value for (_, what), value in table().items() if re.match(r"server\.", what)}
    assert len(places) == 3
    for place, value in places.items():
        assert value_of(place) == float(value), place
