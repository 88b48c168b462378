"""Where Envoy differs from `accord.edge`: the table of docs/exports.md, which alone says it."""

from typing import Final, NamedTuple

from tests.contracts.export.support import ROOT


class Difference(NamedTuple):
    """How one case ends."""

    embedded: str
    envoy: str


def _read() -> dict[str, Difference]:
    page = (ROOT / "docs" / "exports.md").read_text()
    _, _, table = page.partition("| | `accord.edge` | Envoy | |\n|---|---|---|---|\n")
    rows = (line.strip("| ").split(" | ") for line in table.partition("\n\n")[0].splitlines())
    return {case: Difference(one.strip("`"), two.strip("`")) for case, one, two, *_ in rows}


DIFFERENCES: Final = _read()
