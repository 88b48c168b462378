"""The listing is the architecture: sizes, circles, folders that say what they hold, tests."""

import ast
import graphlib
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]

PACKAGES: Final = {
    "interceptors/accord": "tests/accord",
    "runtime/accord_runtime": "tests/runtime",
    "contracts/accord_checks": "tests/contracts",
    "services": "tests/services",
    "shopctl": "tests/shopctl",
}
"""Package -> where its tests are."""

LONGEST: Final = 400
"""Lines of a file that need no reason."""

CROWD: Final = 5
"""Files of a folder that need no README."""


def modules(package: str) -> list[Path]:
    """The hand-written modules of a package."""
    return [file for file in sorted((ROOT / package).rglob("*.py")) if "_pb2" not in file.name]


def name_of(file: Path, package: str) -> str:
    """The name under which a module is imported."""
    parts = file.relative_to((ROOT / package).parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", PACKAGES)
def test_files_can_be_read_in_one_go(package: str) -> None:
    """No file has more than 400 lines unless its docstring says why it is long."""
    for file in modules(package):
        text = file.read_text()
        if len(text.splitlines()) > LONGEST:
            reason = ast.get_docstring(ast.parse(text)) or ""
            assert "lines" in reason, f"{file.relative_to(ROOT)} is long, and does not say why"


def test_no_circle() -> None:
    """No module imports itself, straight or through others; TYPE_CHECKING imports count."""
    files = {name_of(file, package): file for package in PACKAGES for file in modules(package)}
    files.pop("accord")  # the entrance: it imports names when they are first used
    arrows: dict[str, set[str]] = {}
    for module, file in files.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= names if names <= files.keys() else {*names, node.module}
        arrows[module] = {name for name in found if name in files and name != module}
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("package", PACKAGES)
def test_crowded_folders_say_what_is_in_them(package: str) -> None:
    """A folder of more than five modules has a README of a few lines."""
    folders = {file.parent for file in modules(package)}
    for folder in folders:
        mine = [file for file in folder.glob("*.py") if "_pb2" not in file.name]
        if len([file for file in mine if not file.name.startswith("__")]) > CROWD:
            assert (folder / "README.md").exists(), folder.relative_to(ROOT)


def _named(module: Path, readme: Path) -> bool:
    """Whether a README of tests names a module, by its path from there, or its whole folder."""
    text = readme.read_text()
    names = {module.as_posix(), module.with_suffix("").as_posix(), module.name, module.stem}
    folders = {f"{folder.as_posix()}/" for folder in module.parents if folder != Path()}
    return any(f"`{name}`" in text for name in names | folders)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_test(package: str) -> None:
    """Its test stands at the mirrored path, or a README on the way there says which one it is."""
    top = ROOT / PACKAGES[package]
    missing = []
    for file in modules(package):
        module = file.relative_to(ROOT / package)
        mirror = (top / module).parent
        if file.name.startswith("__") or (mirror / f"test_{module.stem}.py").exists():
            continue
        readmes = [
            readme
            for folder in (mirror, *mirror.parents)
            if folder.is_relative_to(top) and (readme := folder / "README.md").exists()
        ]
        if not any(_named((top / module).relative_to(each.parent), each) for each in readmes):
            missing.append(module.as_posix())
    assert not missing


def _pages() -> list[Path]:
    """What says where things are: beside the modules, beside their tests, and in docs."""
    folders = (*PACKAGES, *PACKAGES.values())
    found = [file for folder in folders for file in (ROOT / folder).rglob("README.md")]
    return [*found, ROOT / "docs" / "library.md"]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(page: Path) -> None:
    """A module that a page names is there."""
    there = [
        file.as_posix() for folder in (*PACKAGES, "tests") for file in (ROOT / folder).rglob("*.py")
    ]
    for name in re.findall(r"`([\w./]+\.py)`", page.read_text()):
        path = name.rpartition("../")[2]
        assert any(file.endswith(f"/{path}") for file in there), name
