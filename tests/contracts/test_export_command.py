"""`accord contracts export` as a command: the same bytes every time, and clear refusals."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from google.protobuf import descriptor_pb2

from accord.contract import StreamPolicy
from accord_checks import Refused
from accord_checks.export import asyncapi, envoy, openapi, service_config
from accord_checks.export.reference import page
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import support

TARGETS = (
    *("service-config", "asyncapi", "openapi", "reference", "envoy", "protoset"),
    *("prometheus-rules", "grafana-dashboard"),
)


def _everything(image: support.Image) -> list[str]:
    contracts = ResolvedContracts(image)
    exports = (
        *(service_config.export, asyncapi.export, openapi.export),
        *(envoy.export, page.export),
    )
    return [export(contracts) for export in exports]


@pytest.mark.parametrize("target", TARGETS)
def test_same_contracts_same_bytes(tmp_path: Path, target: str) -> None:
    """Two processes with different hash seeds write the same, to a file and to standard output."""
    image = tmp_path / "image.binpb"
    image.write_bytes(support.foreign_image().SerializeToString())
    out = tmp_path / "new" / "folder" / "out"
    first = support.run("contracts", "export", target, image, "-o", out, PYTHONHASHSEED="1")
    assert first.returncode == 0, first.stderr.decode()
    second = support.run("contracts", "export", target, image, PYTHONHASHSEED="2")
    assert second.stdout == out.read_bytes() != b""


@pytest.mark.parametrize("image", [support.shop_image, support.foreign_image, support.large_image])
def test_order_of_files_does_not_matter(image: "support.Source") -> None:
    """An image whose files come in another order gives the same exports."""
    files = list(image().file)
    random.Random(1).shuffle(files)
    shuffled = descriptor_pb2.FileDescriptorSet(file=files)
    assert _everything(shuffled) == _everything(image())


def test_folder_and_its_image_agree(tmp_path: Path) -> None:
    """What is exported from a folder is what is exported from the image that was built of it."""
    folder = tmp_path / "protos"
    shutil.copytree(support.HERE / "protos", folder)
    shutil.copytree(support.ROOT / "protos" / "accord" / "v1", folder / "accord" / "v1")
    image = tmp_path / "image.binpb"
    assert support.run("contracts", "export", "protoset", folder, "-o", image).returncode == 0
    for target in ("reference", "envoy"):
        from_folder = support.run("contracts", "export", target, folder)
        from_image = support.run("contracts", "export", target, image)
        assert from_folder.returncode == 0, from_folder.stderr.decode()
        assert from_folder.stdout == from_image.stdout


def test_protoc_does_where_buf_is_not(tmp_path: Path) -> None:
    """An environment that has grpcio-tools and no buf exports a folder all the same."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    done = subprocess.run(
        (python, "-c", support.COMMAND, "contracts", "export", "envoy", support.HERE / "protos"),
        env={"PATH": "/nowhere", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == envoy.export(ResolvedContracts(support.foreign_image()))


@pytest.mark.parametrize(
    ("out", "said"),
    [("", ".: Is a directory"), ("/dev/null/x", "/dev/null: ")],
)
def test_file_that_cannot_be_written_is_one_line(tmp_path: Path, out: str, said: str) -> None:
    """A folder and a path that cannot be: one line, and exit code 1."""
    image = tmp_path / "image.binpb"
    image.write_bytes(support.foreign_image().SerializeToString())
    done = support.run("contracts", "export", "reference", image, "-o", out)
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"accord: {said}")
    assert done.stderr.count(b"\n") == 1


def test_imports_are_not_exported() -> None:
    """Services of files that buf marks as imported are somebody else's to export."""
    image = descriptor_pb2.FileDescriptorSet()
    image.CopyFrom(support.foreign_image())
    assert {"acme.OldService", "Bare"} <= {
        service.name for service in ResolvedContracts(image).services
    }
    mark = b"\xd2\xf6\x03\x02\x08\x01"  # field 8042: ImageFileExtension {is_import: true}
    for file in image.file:
        if file.name == "acme/old.proto":
            file.MergeFromString(mark)
    left = {service.name for service in ResolvedContracts(image).services}
    assert "acme.OldService" not in left
    assert "Bare" in left


def test_incomplete_image_is_refused() -> None:
    """An image without what it imports, or whose files import each other, is refused in a line."""
    kept = [file for file in support.foreign_image().file if file.name != "acme/old.proto"]
    with pytest.raises(Refused, match=r"acme/old.proto"):
        ResolvedContracts(descriptor_pb2.FileDescriptorSet(file=kept))
    files = [
        descriptor_pb2.FileDescriptorProto(name=name, dependency=[other])
        for name, other in (("a.proto", "b.proto"), ("b.proto", "a.proto"))
    ]
    with pytest.raises(Refused, match=r"files import each other: [ab]\.proto"):
        ResolvedContracts(descriptor_pb2.FileDescriptorSet(file=files))


def test_invalid_policy_is_refused(tmp_path: Path) -> None:
    """A policy that contradicts itself names its file, RPC and field, without a trace."""
    contract = (support.HERE / "protos/flaky/v1/flaky.proto").read_text()
    (tmp_path / "bad.proto").write_text(contract.replace("max_attempts: 5", "max_attempts: 99"))
    image = tmp_path / "bad.binpb"
    image.write_bytes(support.compiled(tmp_path).SerializeToString())
    done = support.run("contracts", "export", "envoy", image)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "accord: bad.proto: flaky.v1.FlakyService/Race: retry.max_attempts: must lie between 2 and"
        " 5, not 99\n"
    )


def test_contracts_without_the_vocabulary(tmp_path: Path) -> None:
    """Contracts that know no policies have none, also if they use its number."""
    (tmp_path / "own.proto").write_text(
        'syntax = "proto3"; package own; import "google/protobuf/descriptor.proto";'
        " extend google.protobuf.MethodOptions { Team team = 51010; }"
        " message Team { int64 wrong = 16; } message M {}"
        " service S { rpc Do(M) returns (M) { option (team) = {}; }"
        " rpc Watch(M) returns (stream M); }"
    )
    do, watch = (method.policy for method in ResolvedContracts(support.compiled(tmp_path)).rpcs())
    assert (do.declared, do.timeout, do.retry) == (False, None, None)
    assert (watch.timeout, watch.stream) == (None, StreamPolicy())


def test_what_is_not_stated_is_not_exported(tmp_path: Path) -> None:
    """An RPC without a timeout gets none, under the vocabulary of 0.1.0 neither."""
    (tmp_path / "half.proto").write_text(
        'syntax = "proto3"; package half; import "accord/v1/policy.proto"; message M {}'
        " service S { rpc Poll(M) returns (M); rpc Watch(M) returns (stream M); rpc Get(M) returns"
        " (M) { option (accord.v1.policy) = {timeout: {seconds: 2}}; } }"
        ' service T { option (accord.v1.service) = {owner: "a"}; rpc Poll(M) returns (M); }'
    )
    vocabulary = (support.ROOT / "protos/accord/v1/policy.proto").read_text()
    (tmp_path / "accord/v1").mkdir(parents=True)
    for text in (vocabulary, vocabulary.replace("Saga saga = ", "Saga story = ")):
        (tmp_path / "accord/v1/policy.proto").write_text(text)
        contracts = ResolvedContracts(support.compiled(tmp_path))
        assert json.loads(service_config.export(contracts)) == {
            "methodConfig": [{"name": [{"service": "half.S", "method": "Get"}], "timeout": "2s"}]
        }
        (resource,) = json.loads(envoy.export(contracts))["resources"]
        for route in resource["virtual_hosts"][0]["routes"]:
            bound = route["route"]["max_stream_duration"]
            assert ("max_stream_duration" in bound) == (route["name"] == "half.S/Get")
            assert route["route"]["timeout"] == "0s"


@pytest.mark.parametrize("broken", [b"", b"not an image", b"\x0a\x7f"])
def test_broken_image_is_refused(tmp_path: Path, broken: bytes) -> None:
    """What is not an image gives one line and exit code 1, for every target."""
    image = tmp_path / "broken.binpb"
    image.write_bytes(broken)
    for target in TARGETS:
        done = support.run("contracts", "export", target, image)
        assert done.returncode == 1
        assert done.stderr.decode().startswith("accord: ")
        assert b"Traceback" not in done.stderr


def test_wheels_bring_what_is_no_code(built: Path) -> None:
    """`accord-checks` has the parts of the reference and of Envoy, the clients both documents."""
    (wheel,) = built.glob("accord_checks-*.whl")
    names = set(ZipFile(wheel).namelist())
    folder = "accord_checks/export/reference"
    assert {f"{folder}/page.{kind}" for kind in ("html", "css", "js")} <= names
    assert "accord_checks/export/envoy_edge.json" in names
    (wheel,) = built.glob("accord_shop_clients-*.whl")
    assert {"shop/openapi.json", "shop/reference.html"} <= set(ZipFile(wheel).namelist())
