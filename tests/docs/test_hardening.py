"""The page that names a test for each finding names tests that exist."""

import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/hardening.md").read_text()


def _named() -> list[tuple[str, str]]:
    """File and test; a name without a file belongs to the file before it."""
    file, found = "", []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`", PAGE):
        file = path or file
        if path or name:
            found.append((file, name))
    return found


@pytest.mark.parametrize(("file", "name"), _named())
def test_is_there(file: str, name: str) -> None:
    """Neither a file nor a test in it has gone, or was renamed."""
    text = (ROOT / file).read_text()
    assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)
