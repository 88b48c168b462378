"""The wheels: what is in them, and that they stand alone."""

import os
import re
import subprocess
import tomllib
from dataclasses import replace
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

from grpc_tools import protoc

from accord.protos import include
from tests.contracts.consumer import Consumer, block
from tests.docs.pages import blocks
from tests.support.foreign import Foreign, compiled
from tests.support.nats import nats_server
from tests.support.ports import free_port, listens
from tests.support.wait import until
from tools import wheels

PACKAGES = {
    "accord": "accord",
    "accord_checks": "accord_checks",
    "accord_runtime": "accord_runtime",
    "accord_shop_clients": "shop",
}
"""Wheel -> the one package in it."""

MODULES = """
import importlib, pkgutil
import accord
names = [module.name for module in pkgutil.walk_packages(accord.__path__, "accord.")]
for name in names:
    extra = name.startswith(("accord.edge", "accord.identity", "accord.testing", "accord.xds"))
    if not name.endswith("__main__") and not extra:
        importlib.import_module(name)
print("\\n".join(names))
"""

STRANGERS = """
import importlib.util
shop = ("accord_runtime", "services", "shopctl", "tests", "tools")
for name in (*shop, "protovalidate", "nats", "psycopg"):
    assert importlib.util.find_spec(name) is None, name
"""

NO_CHECKS = """
import importlib.metadata, importlib.util
assert importlib.util.find_spec("accord_checks") is None
groups = {point.group for point in importlib.metadata.distribution("accord").entry_points}
assert groups == {"pytest11"}, groups
"""

LIGHT = """
import sys
import accord
heavy = {"asyncio", "grpc", "google.protobuf", "opentelemetry"} & set(sys.modules)
assert not heavy, heavy
assert "Mesh" in dir(accord)
"""


def names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def wheel(built: Path, name: str) -> Path:
    (found,) = built.glob(f"{name}-*.whl")
    return found


def test_wheels_hold_the_typed_packages_and_nothing_else(built: Path) -> None:
    """Each wheel has its package with py.typed and a licence, and no test, service or leftover."""
    for name, package in PACKAGES.items():
        files = names(wheel(built, name))
        assert f"{package}/py.typed" in files
        roots = {file.split("/")[0] for file in files}
        assert {root for root in roots if not root.endswith(".dist-info")} == {package}
        assert any(file.endswith("/licenses/LICENSE") for file in files)
        assert not [file for file in files if "test_" in file or "__pycache__" in file]


def test_the_vocabulary_is_in_the_library_and_the_rules_of_validation_are_not(built: Path) -> None:
    """`accord` brings its own .proto files; two copies of buf/validate would crash a process."""
    files = names(wheel(built, "accord"))
    assert "accord/protos/accord/v1/policy.proto" in files
    assert "accord/v1/policy_pb2.pyi" in files
    assert not [file for file in files if "validate" in file]


def test_one_version_everywhere(built: Path) -> None:
    """The repository and all wheels carry one version, and they need the library of it."""
    project = tomllib.loads((wheels.ROOT / "pyproject.toml").read_text())["project"]
    library, *others = (metadata(wheel(built, name)) for name in PACKAGES)
    assert library["Version"] == project["version"]
    for other in others:
        assert other["Version"] == library["Version"]
        needed = other.get_all("Requires-Dist", [])
        assert {f"accord{extra}=={library['Version']}" for extra in ("", "[identity]")} & {*needed}


def test_the_library_needs_nothing_of_the_shop(built: Path) -> None:
    """`accord` needs gRPC, its status and health, protobuf, the OpenTelemetry API: no SDK."""
    needed = metadata(wheel(built, "accord")).get_all("Requires-Dist", [])
    required = {line.split(">")[0].split("<")[0] for line in needed if "extra ==" not in line}
    grpc = {"grpcio", "grpcio-health-checking", "grpcio-status"}
    assert required == {*grpc, "protobuf", "opentelemetry-api"}


def test_builds_are_reproducible(built: Path, tmp_path: Path) -> None:
    """A second build has the same bytes."""
    for project in wheels.PROJECTS:
        again = wheels.build(project, tmp_path)
        assert again.read_bytes() == (built / again.name).read_bytes()


def test_the_library_stands_alone(library_user: Consumer) -> None:
    """Every module of `accord` imports where only its own requirements are installed."""
    library_user.run("-I", "-c", STRANGERS)
    library_user.run("-I", "-c", NO_CHECKS)
    assert "accord.mesh" in library_user.run("-I", "-c", MODULES).split()


def test_the_runtime_stands_alone(runtime_user: Consumer) -> None:
    """Every module of `accord_runtime` imports beside the library, without a word of the shop."""
    runtime_user.run(
        "-c",
        "import importlib.util\n"
        "for name in ('services', 'shop', 'shopctl', 'tests', 'tools'):\n"
        "    assert importlib.util.find_spec(name) is None, name",
    )
    modules = MODULES.replace("accord", "accord_runtime")
    assert "accord_runtime.process" in runtime_user.run("-I", "-c", modules).split()


def test_importing_the_library_is_light(library_user: Consumer) -> None:
    """`import accord` loads neither gRPC nor protobuf nor OpenTelemetry."""
    library_user.run("-I", "-c", LIGHT)


def test_own_contracts_with_the_library_alone(library_user: Consumer) -> None:
    """The README's example works: own contract, compiled with the wheel's vocabulary, then served.

    Its policy is in force: what the contract says is what the library reads.
    """
    readme = wheels.ROOT / "interceptors" / "README.md"
    contract = library_user.folder / "protos" / "parcels" / "v1" / "parcels.proto"
    contract.parent.mkdir(parents=True)
    contract.write_text(block(readme, "proto"))
    vocabulary = library_user.run("-m", "accord.protos").strip()
    assert Path(vocabulary).is_relative_to(library_user.python.parent.parent)
    well_known = Path(protoc.__file__).parent / "_proto"
    out = library_user.folder
    arguments = [f"-I{vocabulary}", f"-I{out / 'protos'}", f"-I{well_known}"]
    outputs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *arguments, *outputs, str(contract)]) == 0

    program = block(readme, "python").replace("127.0.0.1:9070", "unix:parcels.sock")
    (out / "program.py").write_text(program)
    assert library_user.run("program.py") == "Hamburg\n"

    read = (
        "import accord; from parcels.v1 import parcels_pb2;"
        "p = accord.method_policy('/parcels.v1.ParcelService/GetParcel');"
        "print(p.timeout, p.retry.max_attempts)"
    )
    assert library_user.run("-c", read) == "2.0 3\n"


async def test_the_smallest_service_with_the_runtime_alone(
    runtime_user: Consumer, tmp_path: Path
) -> None:
    """The runtime's README works: contract, service and caller, where only its wheel is.

    What it shows is what is printed, in this life of the service and, after `kill -9`, in the next.
    """
    readme = (wheels.ROOT / "runtime" / "README.md").read_text()
    contract, *fragments = blocks(readme, "proto")
    protos = tmp_path / "protos" / "acme" / "parcels" / "v1"
    protos.mkdir(parents=True)
    (protos / "parcels.proto").write_text(contract)
    compiled(tmp_path, tmp_path / "protos")
    event, calls = fragments
    messages = re.findall(r"\((\w+)\)", calls)
    (tmp_path / "fragments").mkdir()
    (tmp_path / "fragments" / "fragments.proto").write_text(
        'syntax = "proto3"; package acme.fragments.v1; import "accord/v1/policy.proto";'
        f"{event} service Snippet {{ {calls} }}" + "".join(f"message {m} {{}}" for m in messages)
    )
    compiled(tmp_path, tmp_path / "fragments")

    port = str(free_port())
    program, caller = (text.replace("9070", port) for text in blocks(readme, "python"))
    (tmp_path / "parcels.py").write_text(program.replace(f"{port} + offset", port))
    (tmp_path / "call.py").write_text(caller)
    (shown,) = blocks(readme, "text")
    here = replace(runtime_user, folder=tmp_path)
    for _ in range(2):
        service = subprocess.Popen(  # noqa: ASYNC220
            [runtime_user.python, "parcels.py"],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "MESH_INSECURE": "1",
                "NATS_URL": f"nats://127.0.0.1:{free_port()}",
            },
            stdout=subprocess.DEVNULL,
        )
        try:
            await until(lambda: listens(int(port)), "it to listen", seconds=60)
            assert here.run("call.py") == shown
        finally:
            service.kill()
            service.wait()


async def test_two_services_with_the_runtime_alone(runtime_user: Consumer, tmp_path: Path) -> None:
    """Those of docs/examples/runtime, with a real broker, where only the wheel of it is."""
    async with nats_server() as broker:
        foreign = Foreign(tmp_path / "acme", broker.url, runtime_user.python, {})
        try:
            for name in ("desk", "depot"):
                await foreign.start(name)
            desk, depot = "acme.desk.v1.DeskService", "acme.depot.v1.DepotService"
            taken = await foreign.call("desk", f"{desk}/SendParcel", "first", grams=900)

            async def told() -> bool:
                return bool((await foreign.call("depot", f"{depot}/GetParcel", **taken))["sent"])

            await until(told, "the depot to have been told", seconds=60)
            assert (await foreign.call("desk", f"{desk}/GetParcel", **taken))["state"] == "sent"
        finally:
            foreign.close()


def test_the_checkout_names_its_own_protos() -> None:
    """In a checkout, too, `accord.protos` names a folder that holds the vocabulary."""
    assert (include() / "accord" / "v1" / "policy.proto").is_file()


def test_the_extra_brings_the_checks_of_contracts(checks_user: Consumer) -> None:
    """`accord[contracts]` installs `accord`, the plugin of buf and buf, which need nothing else."""
    scripts = checks_user.python.parent
    explained = checks_user.run(scripts / "accord", "contracts", "explain", "ACCORD_CALL_CYCLE")
    assert "Good:" in explained
    assert checks_user.run(scripts / "buf-plugin-accord", "--protocol") == "1\n"
    assert (scripts / "buf").exists()
    checks_user.run("-I", "-c", STRANGERS)
