"""Generate the typed Python code of all contracts; `--check` only compares.

protos/accord/** goes into the library (`interceptors/accord`), protos/shop/**
into the clients (`generated/shop`), with the OpenAPI document of what is
reached from outside (`openapi.json`) and the reference of all (`reference.html`).
The only generator there is: CI compares, so a second one would only ever disagree.

Validation rules (`buf.validate`) stay in the generated descriptors as bytes,
but the import of `buf/validate/validate.proto` is removed from them: two copies
of that file in one process crash at import, and a user may well bring another
(docs/decisions/007).
"""

import argparse
import base64
import contextlib
import re
import shutil
import sys
import tempfile
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
RULES = "buf/validate/validate.proto"
# Where the generated code of each root package lives.
TARGETS = {"accord": ROOT / "interceptors" / "accord", "shop": ROOT / "generated" / "shop"}
OPENAPI = "openapi.json"
REFERENCE = "reference.html"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", OPENAPI, REFERENCE)


def _protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit("protoc failed; `buf lint` says more")


def _contracts() -> list[str]:
    files = (path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    return sorted(name for name in files if name.split("/")[0] in TARGETS)


def _compiled() -> descriptor_pb2.FileDescriptorSet:
    with tempfile.NamedTemporaryFile() as everything:
        _protoc(
            f"-I{PROTOS}",
            f"-I{WELL_KNOWN}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={everything.name}",
            *_contracts(),
        )
        return descriptor_pb2.FileDescriptorSet.FromString(Path(everything.name).read_bytes())


def _describe(work: Path) -> Path:
    """Compile the contracts and take the import of the rules out of them."""
    everything = work / "contracts.binpb"
    kept = [file for file in _compiled().file if file.name != RULES]
    for file in kept:
        if RULES in file.dependency:
            file.dependency.remove(RULES)
    everything.write_bytes(descriptor_pb2.FileDescriptorSet(file=kept).SerializeToString())
    return everything


def generate(out: Path) -> None:
    """Write the generated code of every contract below `out`."""
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as work:
        image = _describe(Path(work))
        contracts = _contracts()
        _protoc(
            f"--descriptor_set_in={image}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--python_out={out}",
            f"--mypy_out=quiet:{out}",
            *contracts,
        )
        services = [name for name in contracts if "\nservice " in (PROTOS / name).read_text()]
        _protoc(
            f"--descriptor_set_in={image}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out=quiet,only_async:{out}",
            *services,
        )
    for module in out.rglob("*_pb2.py"):
        for package in module.relative_to(out).parents:
            (out / package / "__init__.py").touch()
    (out / "__init__.py").unlink()


def document(clients: Path) -> None:
    """Write OpenAPI of what is reached from outside, and the reference.

    Contracts with a mistake leave both as they are.
    """
    # Not before the code of the vocabulary is that of today: it is read with it.
    from accord_checks import Refused
    from accord_checks.export import openapi
    from accord_checks.export.reference import page
    from accord_checks.export.resolved_contracts import ResolvedContracts

    project = tomllib.loads((ROOT / "generated" / "pyproject.toml").read_text())["project"]
    try:
        contracts = ResolvedContracts(_compiled())
    except Refused as refused:
        print(f"{OPENAPI} and {REFERENCE} stay: {refused}", file=sys.stderr)
        for name in (OPENAPI, REFERENCE):
            shutil.copyfile(TARGETS["shop"] / name, clients / name)
        return
    made = openapi.export(contracts, title="Shop", release=project["version"])
    (clients / OPENAPI).write_text(made)
    (clients / REFERENCE).write_text(page.export(contracts, title="Contracts of the shop"))


def _generated(root: Path) -> Iterator[Path]:
    for pattern in GENERATED:
        yield from (path.relative_to(root) for path in root.rglob(pattern))


def drift(fresh: Path, committed: Path) -> list[str]:
    """Say how the committed code differs from freshly generated code."""
    there, here = set(_generated(fresh)), set(_generated(committed))
    both = sorted(there & here)
    return [
        *(f"missing: {committed / path}" for path in sorted(there - here)),
        *(f"left over: {committed / path}" for path in sorted(here - there)),
        *(
            f"differs: {committed / path}"
            for path in both
            if _unpacked(fresh / path) != _unpacked(committed / path)
        ),
    ]


def _unpacked(file: Path) -> bytes:
    """What a file says, with what the reference has compressed: not all zlibs do it alike."""
    data = re.compile(rb'(?<=id="data">)[\w+/=]+')
    return data.sub(lambda found: zlib.decompress(base64.b64decode(found[0])), file.read_bytes())


def install(fresh: Path, committed: Path) -> None:
    """Replace the committed generated code below `committed`."""
    for path in list(_generated(committed)):
        (committed / path).unlink()
    for path in (*fresh.rglob("*.py*"), *fresh.glob(OPENAPI), *fresh.glob(REFERENCE)):
        target = committed / path.relative_to(fresh)
        if target.name == "__init__.py" and target.exists():
            continue  # The library's own __init__ files are written by hand.
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (committed / "py.typed").touch()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    check = parser.parse_args().check
    findings: list[str] = []
    with contextlib.ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generate(out)
        if not check:
            install(out / "accord", TARGETS["accord"])
        document(out / "shop")
        for name, committed in TARGETS.items():
            if check:
                findings += drift(out / name, committed)
            else:
                install(out / name, committed)
    for finding in findings:
        print(finding, file=sys.stderr)
    if findings:
        print("the generated code is not that of the contracts: run `make generate`")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
