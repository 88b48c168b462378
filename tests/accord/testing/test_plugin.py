"""The plugin as a foreign project meets it: its own contract, a few lines, another pytest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

import accord
from accord.protos import include

pytest_plugins = ["pytester"]

CONTRACT = """
syntax = "proto3";
package parcels.v1;
import "accord/v1/policy.proto";

service ParcelService {
  rpc GetParcel(Parcel) returns (Parcel) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (accord.v1.policy) = {timeout: {seconds: 2} retry: {max_attempts: 3}};
  }
}

message Parcel { string place = 1; }
"""

TESTS = """
import pytest
from parcels.v1.parcels_pb2 import Parcel
from parcels.v1.parcels_pb2_grpc import ParcelServiceServicer, ParcelServiceStub

METHOD = "parcels.v1.ParcelService/GetParcel"


@pytest.mark.asyncio
async def test_client(accord_mesh, accord_faulty, accord_clock):
    accord_faulty.script(METHOD, "UNAVAILABLE", "UNAVAILABLE", Parcel(place="Hamburg"))
    parcels = ParcelServiceStub(accord_mesh.channel(accord_faulty.address))
    assert (await parcels.GetParcel(Parcel())).place == "Hamburg"
    assert [attempt.number for attempt in accord_faulty.attempts] == [0, 1, 2]
    assert accord_clock.waits == [0.05, 0.1]


class Parcels(ParcelServiceServicer):
    async def GetParcel(self, request, context):
        return Parcel(place="Bremen")


@pytest.mark.asyncio
async def test_server(accord_serve):
    parcels = await accord_serve(Parcels(), ParcelServiceStub)
    assert (await parcels.GetParcel(Parcel())).place == "Bremen"
"""

SYNC = """
import grpc


def test_sync(accord_faulty, accord_clock, accord_random):
    accord_faulty.script("*", "OK")
    with grpc.insecure_channel(accord_faulty.address) as channel:
        assert channel.unary_unary("/any.v1.Any/Thing")(b"") == b""
    assert accord_random() == 0.5


def test_aio_fixtures_are_not_there(pytestconfig):
    assert not pytestconfig.pluginmanager.hasplugin("accord-aio")
"""


def test_a_foreign_project_in_a_few_lines(pytester: pytest.Pytester) -> None:
    """Nothing is configured: pytest-asyncio is in its strict mode, the fixtures are simply there.

    Three attempts that would have waited 150 ms wait for nothing.
    """
    contract = pytester.path / "protos" / "parcels" / "v1" / "parcels.proto"
    contract.parent.mkdir(parents=True)
    contract.write_text(CONTRACT)
    wellknown = Path(protoc.__file__).parent / "_proto"
    sources = (f"-I{include()}", f"-I{contract.parents[2]}", f"-I{wellknown}")
    out = (f"--python_out={pytester.path}", f"--grpc_python_out={pytester.path}")
    assert protoc.main(["protoc", *sources, *out, str(contract)]) == 0
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-W", "error::RuntimeWarning")
    result.assert_outcomes(passed=2)


def test_without_pytest_asyncio_sync_tests_have_their_fixtures(
    pytester: pytest.Pytester,
) -> None:
    """Whoever tests sync gRPC only needs pytest alone."""
    pytester.makepyfile(SYNC)
    pytester.runpytest_subprocess("-p", "no:asyncio").assert_outcomes(passed=2)


def test_it_can_be_switched_off(pytester: pytest.Pytester) -> None:
    """`-p no:accord` leaves nothing of it."""
    pytester.makepyfile("def test_it(accord_clock): ...")
    pytester.runpytest_subprocess("-p", "no:accord").assert_outcomes(errors=1)


def test_the_plugin_is_light() -> None:
    """Loading it, as every run of pytest does where it is installed, loads no gRPC."""
    script = "import sys, json, accord.testing.plugin; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"grpc", "google", "opentelemetry", "pytest_asyncio"}
    assert "pytest" in loaded


def test_nothing_of_the_library_needs_pytest() -> None:
    """Only the plugin and its fixtures import it: the library runs where it is not installed."""
    root = Path(accord.__file__).parent
    users = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        if "import pytest" in file.read_text()
    }
    assert users == {"testing/plugin.py", "testing/aio.py"}
