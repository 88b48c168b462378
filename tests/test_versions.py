"""The lowest versions that a wheel allows are those that are tried, and the same in all wheels."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TRIED: Final = dict(
    re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE)
)


def lowest(project: Path, *extras: str) -> Iterator[tuple[str, str]]:
    """Name and lowest version of what a project needs."""
    found = tomllib.loads(project.read_text())["project"]
    optional = found.get("optional-dependencies", {})
    needed = [*found["dependencies"], *(each for extra in extras for each in optional[extra])]
    for requirement in needed:
        if (bound := re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement)) is not None:
            yield bound[1], bound[2]


def same(bound: str, version: str) -> bool:
    """Whether a bound is this very version; "1.84" is 1.84.0."""
    return version in (bound, f"{bound}.0", f"{bound}.0.0")


def test_lowest_versions_are_tried() -> None:
    """`make lowest` installs what the library says it can live with."""
    bounds = dict(lowest(ROOT / "interceptors" / "pyproject.toml", "testing"))
    assert len(bounds) == 7
    assert {
        name: version for name, version in bounds.items() if not same(version, TRIED[name])
    } == {}


def test_other_wheels_ask_for_no_less() -> None:
    """Nor does the generated code want more of gRPC than the library does."""
    bounds = dict(lowest(ROOT / "interceptors" / "pyproject.toml"))
    for project in (ROOT / "pyproject.toml", *ROOT.glob("*/pyproject.toml")):
        for name, version in lowest(project):
            if name in ("grpcio", "protobuf"):
                assert version == bounds[name], project
    for generated in (
        *ROOT.glob("interceptors/**/*_pb2*.py"),
        *ROOT.glob("generated/**/*_pb2*.py"),
    ):
        text = generated.read_text()
        for stamp in re.findall(r"^# Protobuf Python Version: (.*)$", text, re.MULTILINE):
            assert stamp <= TRIED["protobuf"], generated
        for stamp in re.findall(r"^GRPC_GENERATED_VERSION = '(.*)'$", text, re.MULTILINE):
            assert stamp <= TRIED["grpcio"], generated
