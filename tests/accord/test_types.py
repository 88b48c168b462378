"""Types across gRPC's seam: how often the library's code looks away, and that it says why."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import accord

ROOT = Path(accord.__file__).parent
SERVICES = ROOT.parents[1] / "services"


@dataclass(frozen=True)
class Bound:
    """What the files of one part of the library may hold."""

    files: tuple[str, ...]
    """Patterns."""
    per_thousand: float = 10
    """`Any`, `cast`, `type: ignore` and bare `object` together, per 1,000 lines."""
    untyped: int | None = None
    """`Any`; None: as many as the other bound allows."""


BOUNDS: Final = {
    "client": Bound(("client/*.py",), untyped=0),
    "aio, client": Bound(("aio/client_*.py",)),
    "sync, client": Bound(("sync/client_*.py", "sync/timers.py")),
    "server": Bound(("server/*.py",), per_thousand=5, untyped=0),
    "aio, server": Bound(("aio/server*.py",)),
    "sync, server": Bound(("sync/server*.py", "sync/mesh.py")),
    "what users touch": Bound(
        ("mesh.py", "context.py", "errors.py", "error_details.py", "interfaces.py")
    ),
    "admin": Bound(("admin/*.py",)),
    "telemetry": Bound(("telemetry/*.py",), per_thousand=5),
    "testing": Bound(("testing/*.py",), per_thousand=20),
}
WORDS: Final = frozenset({"Any", "cast", "object"})


def _quoted(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The words in annotations, and in types given to `cast`, that are written as text."""
    for node in ast.walk(tree):
        types: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            types = [node.returns, *(found.annotation for found in ast.walk(node.args)
                                     if isinstance(found, ast.arg))]  # fmt: skip
        elif isinstance(node, ast.AnnAssign):
            types = [node.annotation]
        elif isinstance(node, ast.Call):
            types = list(node.args[:1])
        elif isinstance(node, ast.Subscript):
            types = [node.slice]
        for found in types:
            for text in ast.walk(found) if found is not None else ():
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    try:
                        parsed = ast.parse(text.value, mode="eval")
                    except SyntaxError:
                        continue
                    for name in ast.walk(parsed):
                        if isinstance(name, ast.Name) and name.id in WORDS:
                            yield name.id, text.lineno


def looks_away(source: str) -> list[tuple[str, int]]:
    """Each word that leaves a type open, and its line; imports do not count."""
    tree = ast.parse(source)
    imports = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    found = set(_quoted(tree))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.NAME and token.string in WORDS and line not in imports:
            found.add((f"{token.string} at {token.start[1]}", line))
        elif token.type == tokenize.COMMENT and token.string.startswith("# type: ignore"):
            found.add(("type: ignore", line))
    return sorted(found, key=lambda item: item[1])


def _says_why(lines: list[str], line: int) -> bool:
    """Whether a line, or the one above it, has a comment beside `type: ignore`."""
    here = lines[line - 1].partition("#")[2]
    if "type: ignore" in here:
        here = here.partition("#")[2]
    return bool(here.strip()) or lines[line - 2].lstrip().startswith("#")


@pytest.mark.parametrize("part", BOUNDS)
def test_types_are_stated(part: str) -> None:
    """Few types are left open, and each of them has its reason in a comment."""
    bound = BOUNDS[part]
    files = [file for pattern in bound.files for file in sorted(ROOT.glob(pattern))]
    assert files
    number = total = untyped = 0
    for file in files:
        source = file.read_text()
        lines = source.splitlines()
        found = looks_away(source)
        for word, line in found:
            assert _says_why(lines, line), f"{file}:{line}: {word} without a reason"
        number += len(found)
        untyped += sum(word.startswith("Any") for word, _ in found)
        total += len(lines)
    assert number <= bound.per_thousand * total / 1000, f"{number} in {total} lines"
    assert bound.untyped is None or untyped <= bound.untyped


def test_servicers_are_typed() -> None:
    """A request can be followed into the shop's own code by its type."""
    for file in SERVICES.glob("*/servicer.py"):
        assert not [word for word, _ in looks_away(file.read_text()) if word.startswith("Any")], (
            file
        )


def test_what_is_counted() -> None:
    """Words count in code and in quoted types, and not in imports, comments and documentation."""
    source = '''
from typing import Any, cast
"""Any object."""  # Any
x: Any = cast("Any", 1)  # type: ignore[misc]
def f(y: "list[object]") -> object: ...
'''
    words = [word.partition(" ")[0] for word, _ in looks_away(source)]
    assert sorted(words) == ["Any", "Any", "cast", "object", "object", "type:"]
    assert not _says_why(["", "x = 1  # type: ignore[misc]"], 2)
    assert _says_why(["", "x = 1  # type: ignore[misc]  # the stubs are wrong"], 2)
    assert _says_why(["    # the stubs are wrong", "x = 1  # type: ignore[misc]"], 2)
