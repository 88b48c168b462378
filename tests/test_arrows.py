"""What the shop, the runtime and the library may import of each other."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

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


def files(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


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
    """A service imports of `services` only itself, and what stands beside all of them."""
    beside = ("topology", "fulfilment", "http_server", "bearer_tokens")
    allowed = tuple(f"services.{name}" for name in (f"{service}.", *beside))
    for file in (PACKAGES["services"] / service).rglob("*.py"):
        for name in imports(file):
            assert not name.startswith("services.") or name.startswith(allowed), (file, name)


def test_the_runtime_knows_no_word_of_the_shop() -> None:
    """Not a name, not a comment: whoever takes the runtime has another shop."""
    for file in files("accord_runtime"):
        text = file.read_text()
        for word in ("shop", "services/", "services.runtime", *SERVICES):
            if word not in ("orders", "notifications", "edge", "console"):  # words of others, too
                assert word not in text, (file, word)
