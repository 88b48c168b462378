"""The pages of the policies: what they show parses, runs and is so."""

import re
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

import accord
from accord.contract import MethodPolicy
from accord.policies.types import Code
from accord.protos import include
from accord.v1 import policy_pb2
from tests.docs.pages import ROOT, blocks, missing, paste, section
from tests.support.mesh_process import MeshProcess, running_mesh
from tests.support.ports import free_offset

FOLDER = ROOT / "docs" / "policies"
INDEX = (FOLDER / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
del PAGES["README"]

SECTIONS = ("What it does", "Defaults", "See it working", "Answers", "Limits")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    """The shop, as `make up` starts it, on other ports."""
    with running_mesh(tmp_path_factory.mktemp("policies") / "mesh", free_offset()) as mesh:
        yield mesh


def fields(page: str) -> set[str]:
    """The fields of the contract that a page is about."""
    line = re.search(r"^Fields: (.*)$", page, re.MULTILINE)
    assert line is not None
    return set(re.findall(r"`(\w+)`", line[1].split(".")[0]))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_has_the_same_sections(name: str) -> None:
    """Whoever has read one page finds everything in the others, and each is in the index."""
    titles = re.findall(r"^## (.*)$", PAGES[name], re.MULTILINE)
    assert tuple(title for title in titles if title in SECTIONS) == SECTIONS
    assert f"]({name}.md)" in INDEX
    assert len(PAGES[name].splitlines()) <= 130


def test_every_field_of_the_vocabulary_has_a_page() -> None:
    """No option of `accord.v1.MethodPolicy` is without a page, and none is made up."""
    known = {field.name for field in policy_pb2.MethodPolicy.DESCRIPTOR.fields}
    assert set().union(*map(fields, PAGES.values())) == known


def compile_contract(snippet: str, package: str, folder: Path) -> list[MethodPolicy]:
    """The policies of a snippet's RPCs, compiled by protoc and read as a server reads them."""
    messages = {
        f"message {name} {{ string order_id = 1; int64 after_sequence = 2; int64 sequence = 3; }}"
        for name in re.findall(r"\((?:stream )?(\w+)\)", snippet)
    }
    folder.mkdir()
    (folder / f"{package}.proto").write_text(
        f'syntax = "proto3"; package {package}; import "accord/v1/policy.proto";'
        f" service Snippet {{\n{snippet}\n}} {' '.join(sorted(messages))}"
    )
    wellknown = Path(protoc.__file__).parent / "_proto"
    out = folder / "set"
    paths = (f"-I{folder}", f"-I{include()}", f"-I{wellknown}")
    assert protoc.main(["protoc", *paths, f"--descriptor_set_out={out}", f"{package}.proto"]) == 0
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        descriptor_pool.Default().Add(file)
    return list(accord.check_service(f"{package}.Snippet"))


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if fields(page)])
def test_contracts_are_valid(name: str, tmp_path: Path) -> None:
    """Each snippet compiles, contradicts nothing, and states the fields its page is about."""
    snippets = blocks(PAGES[name], "proto")
    assert snippets
    for number, snippet in enumerate(snippets):
        package = f"docs_{name.replace('-', '_')}_{number}"
        assert compile_contract(snippet, package, tmp_path / str(number))
    stated = "\n".join(snippets)
    for field in fields(PAGES[name]):
        assert f"{field}:" in stated


@pytest.mark.parametrize(
    ("page", "language"),
    [
        ("README.md", "proto"),
        ("docs/coming-from.md", "proto"),
        ("interceptors/README.md", "protobuf"),
    ],
)
def test_contracts_elsewhere_are_valid(page: str, language: str, tmp_path: Path) -> None:
    """Snippets of other pages, each of one RPC."""
    (snippet,) = blocks((ROOT / page).read_text(), language)
    package = f"docs_{Path(page).stem.replace('-', '_')}_{language}"
    assert compile_contract(snippet, package, tmp_path / "contract")


def defaults() -> list[tuple[str, str, str]]:
    """(page, value, where it is in the code) of every default that a page names."""
    rows = []
    for name, page in PAGES.items():
        for line in section(page, "Defaults").splitlines():
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            if len(cells) == 4 and re.fullmatch(r"`[\w.]+`", cells[2]):
                rows.append((name, cells[1], cells[2].strip("`")))
    return rows


def value_of(place: str) -> Any:
    """What the code says: a constant, or the default of a field."""
    parts = place.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(("accord", *parts[:length])))
        except ModuleNotFoundError:
            continue
        *owners, last = parts[length:]
        owner = reduce(getattr, owners, found)
        if isinstance(owner, type):
            field = owner.__dataclass_fields__[last]
            return field.default
        return getattr(owner, last)
    raise AssertionError(f"{place} is not in accord")


def plain(value: Any) -> Any:
    """A value of the code as a page writes it."""
    if isinstance(value, frozenset):
        value = None if not value else next(iter(value))
    if isinstance(value, Code):
        return value.name
    return () if value == () else value


def read(written: str) -> Any:
    """A value of a page, in seconds if it is a time."""
    if written == "none":
        return None
    if written == "empty":
        return ()
    number, _, unit = written.partition(" ")
    try:
        amount = float(number)
    except ValueError:
        return written
    return amount * {"ms": 0.001, "%": 0.01, "s": 1.0, "": 1.0}[unit]


@pytest.mark.parametrize(("name", "written", "place"), defaults())
def test_defaults_are_those_of_the_code(name: str, written: str, place: str) -> None:
    """A page names the default that the code has."""
    shown, said = read(written), plain(value_of(place))
    if written.endswith("%") and isinstance(said, int):
        said = said / 100
    if isinstance(shown, float):
        assert said == pytest.approx(shown), place
    else:
        assert said == shown, place


@pytest.mark.parametrize("name", PAGES)
def test_reasons_are_those_of_the_code(name: str) -> None:
    """Every reason that a page says a call is answered with is in the library or in a contract."""
    code = "".join(
        path.read_text()
        for folder in (ROOT / "interceptors" / "accord", ROOT / "protos" / "shop")
        for path in (*folder.rglob("*.py"), *folder.rglob("*.proto"))
    )
    for reason in re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", section(PAGES[name], "Answers")):
        assert f'"{reason}"' in code, reason


# The breaker's page leaves traces for a while: last.
@pytest.mark.parametrize("name", sorted(PAGES, key=lambda name: (name == "circuit-breaker", name)))
def test_see_it_working(name: str, mesh: MeshProcess) -> None:
    """Pasted beside a running shop, the commands print what the page shows."""
    (preamble,) = blocks(INDEX, "sh")
    shown = section(PAGES[name], "See it working")
    (script,), (output,) = blocks(shown, "sh"), blocks(shown, "text")
    printed = paste(preamble + script, mesh)
    lacking = missing(output, printed)
    assert lacking is None, f"not printed: {lacking}\n{printed}"
