"""How much of the server's side is untyped, by folder."""

import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import accord

ROOT: Final = Path(accord.__file__).parent

OPEN: Final = frozenset({"Any", "cast", "object"})
"""Names that switch type checks off, or say nothing; so does the comment `type: ignore`."""

BOUNDS: Final = {
    ("server/*.py",): 5,
    ("aio/server*.py",): 10,
    ("sync/server*.py", "sync/mesh.py"): 10,
    ("mesh.py", "context.py", "errors.py", "interfaces.py"): 10,
    ("admin/*.py",): 10,
    ("telemetry/*.py",): 0,
    ("testing/*.py",): 20,
}
"""Files -> how many of these there may be in a thousand lines."""


def _source(patterns: tuple[str, ...]) -> dict[Path, str]:
    found = {file: file.read_text() for pattern in patterns for file in ROOT.glob(pattern)}
    assert found
    return found


def _open(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is left open, but for imports."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.line.lstrip().startswith(("import ", "from ")):
            continue
        if token.type == tokenize.NAME and token.string in OPEN:
            yield token.start[0], token.string
        elif token.type == tokenize.COMMENT and "type: ignore" in token.string:
            yield token.start[0], "type: ignore"


@pytest.mark.parametrize("patterns", BOUNDS)
def test_few_open_types(patterns: tuple[str, ...]) -> None:
    """GRPC's seam is typed, but where gRPC or its stubs say nothing."""
    sources = _source(patterns)
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file, source in sources.items()
        for line, name in _open(source)
    ]
    lines = sum(source.count("\n") for source in sources.values())
    assert len(found) * 1000 <= BOUNDS[patterns] * lines, found


def test_no_any() -> None:
    """What decides about a call knows the types of all that it works with."""
    for file, source in _source(("server/*.py",)).items():
        assert not [line for line, name in _open(source) if name == "Any"], file


@pytest.mark.parametrize("patterns", BOUNDS)
def test_reasons(patterns: tuple[str, ...]) -> None:
    """Each has its reason in a comment, on its line or on the one above."""
    for file, source in _source(patterns).items():
        lines = ["", *source.splitlines()]
        for line, name in _open(source):
            said = lines[line].replace("# type: ignore", "").partition("#")[2]
            above = lines[line - 1].strip().startswith("#")
            assert said or above, f"{file.relative_to(ROOT)}:{line}: {name}"
