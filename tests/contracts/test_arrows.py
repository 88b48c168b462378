"""What the checks of contracts may import, and what may import them."""

import ast
from pathlib import Path

import accord
import accord_checks

ROOT = Path(accord_checks.__file__).parent
ALLOWED = ("accord.contract", "accord.policies", "accord.protos", "accord.v1")
"""Parts of the library that the checks use: no driver, no mesh."""


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def _imports(file: Path) -> set[str]:
    """Names that a file imports: at the top, inside functions, for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_of_the_library_only_the_contract_is_used() -> None:
    """The checks read contracts: nothing of the drivers, of the mesh, of services or the shop."""
    for file in MODULES.values():
        for name in _imports(file):
            root = name.partition(".")[0]
            assert root not in {"grpc", "services", "shop", "shopctl", "tests", "tools"}, file
            if root == "accord":
                assert any(f"{name}.".startswith(f"{part}.") for part in ALLOWED), (file, name)


def test_the_library_does_not_know_its_checks() -> None:
    """`accord` works where the checks are not installed."""
    for file in Path(accord.__file__).parent.rglob("*.py"):
        assert not [name for name in _imports(file) if name.startswith("accord_checks")], file


def test_lint_and_breaking_do_not_know_each_other() -> None:
    """Rules see contracts; plugin and commands see rules; exports see neither."""
    families = ("lint_rules", "breaking_rules", "export")
    for module, file in MODULES.items():
        own = [family for family in families if f".{family}" in module]
        if own:
            for name in _imports(file):
                used = name.split(".")
                assert used[0] != "accord_checks" or used[1] not in {*families} - {*own}, file
