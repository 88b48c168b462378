"""What the shop, the runtime and the library may import of each other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import accord

ROOT: Final = Path(__file__).resolve().parent.parent
RUNTIME: Final = ROOT / "runtime"
PACKAGES: Final = {
    "accord_runtime": RUNTIME / "accord_runtime",
    "services": ROOT / "services",
}
SERVICES: Final = sorted(path.parent.name for path in PACKAGES["services"].glob("*/__main__.py"))

BELOW: Final = {
    "accord_runtime": {"accord"},
    "services": {"accord", "accord_runtime", "shop"},
}
"""Package -> packages of the repository that it may import, itself aside."""

OURS: Final = {"accord", "accord_checks", "accord_runtime", "services", "shop", "shopctl", "tests"}

PUBLIC: Final = (
    "accord.admin",
    "accord.contract",
    "accord.errors",
    "accord.hooks",
    "accord.interfaces",
    "accord.mesh",
    "accord.operations",
    "accord.ops",
    "accord.overrides",
    "accord.policies",
    "accord.testing",
    "accord.v1",
)
"""Modules and packages of the library that others may import from."""


def files(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def module(file: Path, package: str) -> str:
    parts = file.relative_to(PACKAGES[package].parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(file: Path) -> Iterator[str]:
    """Full names of what a file imports, at the top, inside functions or for types only."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_down(package: str) -> None:
    """`shopctl -> services -> accord_runtime -> accord`, and nothing points up."""
    for file in files(package):
        roots = {name.partition(".")[0] for name in imports(file)} & OURS
        assert roots <= BELOW[package] | {package}, file


@pytest.mark.parametrize("service", SERVICES)
def test_services_do_not_know_each_other(service: str) -> None:
    """A service imports of `services` only itself and the table of names and ports."""
    allowed = (f"services.{service}.", "services.topology")
    for file in (PACKAGES["services"] / service).rglob("*.py"):
        for name in imports(file):
            assert not name.startswith("services.") or name.startswith(allowed), (file, name)


def test_the_runtime_knows_no_word_of_the_shop() -> None:
    """Not a name, not a comment: whoever takes the runtime has another shop."""
    for file in files("accord_runtime"):
        text = file.read_text()
        for word in ("shop", "services/", "services.runtime", *SERVICES):
            if word not in ("orders", "notifications"):
                assert word not in text, (file, word)


@pytest.mark.parametrize("package", PACKAGES)
def test_only_public_names_of_the_library(package: str) -> None:
    """What is not promised may move: runtime and services do without it."""
    for file in files(package):
        for name in imports(file):
            if name.partition(".")[0] == "accord":
                part, _, last = name.rpartition(".")
                known = name == "accord" or (part == "accord" and last in accord.__all__)
                assert known or f"{name}.".startswith(tuple(f"{each}." for each in PUBLIC)), (
                    file,
                    name,
                )


def test_no_circles() -> None:
    """No module imports itself by way of others; imports for types only count."""
    paths = {module(file, package): file for package in PACKAGES for file in files(package)}
    graph: dict[str, set[str]] = {}
    for name, file in paths.items():
        found: set[str] = set()
        for imported in imports(file):
            target = imported if imported in paths else imported.rpartition(".")[0]
            # A package that is imported for one of its modules is not what is meant.
            if target in paths and target != name and not name.startswith(f"{target}."):
                found.add(target)
        graph[name] = found
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
