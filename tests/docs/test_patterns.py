"""The page of patterns: every row has a command that there is, a test and code that exist."""

import re
import shlex
from typing import Final

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_commands import PROGRAMS

PAGE: Final = (ROOT / "docs/patterns.md").read_text()
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split(" |")]
    for line in PAGE.splitlines()
    if re.match(r"\| [SAEXM]\d+ \|", line)
]
COUNTS: Final = {"S": 13, "A": 15, "E": 3, "X": 5, "M": 3}


def _quoted(cell: str) -> str:
    found = re.fullmatch(r"`(.*)`", cell)
    assert found is not None, cell
    return found[1]


def test_every_pattern_has_a_row() -> None:
    """None is left out, and none is there twice."""
    wanted = [f"{kind}{number + 1}" for kind, most in COUNTS.items() for number in range(most)]
    assert [row[0] for row in ROWS] == wanted


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(row: list[str]) -> None:
    """It can be tried, it is tested, and its code is there; or it says that it is yet to come."""
    _, _, use, _, see, test, code = row
    assert use
    if see.startswith("not yet"):
        assert not test
        assert not code
        return
    words = shlex.split(_quoted(see))
    if words[0] == "python":
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    else:
        PROGRAMS[words[0]](words[1:])
    file, _, name = _quoted(test).partition("::")
    text = (ROOT / file).read_text()
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), name
    assert (ROOT / _quoted(code)).is_file()
