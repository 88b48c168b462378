"""What may import what."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import accord

ROOT = Path(accord.__file__).parent


def _imports(file: Path) -> set[str]:
    """Names of the modules that a file imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _all(folder: str = "") -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _loaded(statement: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after a statement."""
    script = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    return set(json.loads(done.stdout))


def test_library_does_not_know_the_shop() -> None:
    """`accord` imports neither services nor the shop's clients nor the command line."""
    for file in _all():
        roots = {name.partition(".")[0] for name in _imports(file)}
        assert not roots & {"services", "shop", "shopctl", "tests", "tools"}, file


FLOORS: Final = (
    # Each may import what stands on the floors below it, and its own folder.
    {"_log"},
    {"policies", "_files", "v1", "ops", "protos"},
    {"contract", "interfaces"},
    {"context"},
    {"errors"},
    {"telemetry", "stores", "identity"},
    {"client", "server"},
    {"xds"},
    {"aio", "sync", "admin"},
    {"mesh"},
    {"edge", "testing"},
)
"""The rooms of the library, from the ground up: folders, and files that stand alone."""


def _room(module: str) -> str:
    """The room of a module, "accord.client.call" -> "client"; "" for the library itself."""
    return module.split(".")[1] if module.startswith("accord.") else ""


def _modules() -> dict[str, Path]:
    """All modules of the library but generated ones and the entrance, by name."""
    return {
        ".".join(("accord", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for file in _all()
        if "_pb2" not in file.name and file != ROOT / "__init__.py"
    }


def test_arrows_point_down() -> None:
    """Rooms import from lower floors only; those of one floor do not know each other."""
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for module, file in _modules().items():
        here = _room(module)
        for name in _imports(file):
            there = _room(name)
            if there in floor_of and there != here:
                assert floor_of[there] < floor_of[here], f"{module} imports {name}"


def test_policies_are_pure() -> None:
    """`accord.policies` imports nothing of gRPC, asyncio, protobuf, time or randomness."""
    impure = {"grpc", "google", "asyncio", "time", "random", "socket", "os", "opentelemetry"}
    for file in _all("policies"):
        assert not {name.partition(".")[0] for name in _imports(file)} & impure, file


def test_engine_has_no_io() -> None:
    """The engine decides without gRPC, asyncio or a clock of its own."""
    roots = {name.partition(".")[0] for name in _imports(ROOT / "client/call.py")}
    assert not roots & {"grpc", "asyncio", "time", "random"}


def test_only_drivers_touch_calls() -> None:
    """What both drivers share knows no event loop and no thread but a lock."""
    for folder in ("client", "server", "contract", "telemetry"):
        for file in _all(folder):
            assert not any(name.startswith("grpc.aio") for name in _imports(file)), file


def test_no_sdk() -> None:
    """Nothing imports the OpenTelemetry SDK; the API is all that is needed."""
    for file in _all():
        assert not any(name.startswith("opentelemetry.sdk") for name in _imports(file)), file
    assert not any(name.startswith("opentelemetry.sdk") for name in _loaded("import accord.mesh"))


def test_import_is_light() -> None:
    """`import accord` loads none of its own parts, no gRPC, no protobuf."""
    loaded = _loaded("import accord")
    assert not {name for name in loaded if name.partition(".")[0] in ("grpc", "google")}
    assert {"accord"} == {name for name in loaded if name.partition(".")[0] == "accord"}


def test_policies_load_no_grpc() -> None:
    """A policy can be used where gRPC is not installed."""
    loaded = _loaded(
        "import accord.policies.deadline, accord.policies.resume, accord.policies.idempotency"
    )
    assert "grpc" not in loaded


def test_public_names() -> None:
    """`__all__` is sorted, and everything in it can be had."""
    assert sorted(accord.__all__) == accord.__all__
    for name in accord.__all__:
        assert getattr(accord, name) is not None
    assert set(accord.__all__) <= set(dir(accord))
