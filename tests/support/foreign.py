"""Services that are not the shop's: those of docs/examples/runtime, in processes of their own.

Their contracts are compiled into a temporary folder, and nothing of this repository but the library
and the runtime can be imported there.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

import accord
import accord_runtime
from accord.protos import include
from shopctl.supervisor import parent_death
from tests.support.ports import free_port
from tests.support.wait import until

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = ROOT / "docs" / "examples" / "runtime"
WELL_KNOWN: Final = Path(protoc.__file__).parent / "_proto"


def compiled(folder: Path, protos: Path) -> None:
    """Compile contracts into a folder, as a README says: with the rules of validation."""
    rules = ROOT / "protos"
    files = [file.relative_to(protos).as_posix() for file in sorted(protos.rglob("*.proto"))]
    includes = [f"-I{path}" for path in (protos, include(), rules, WELL_KNOWN)]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    named = [*files, "buf/validate/validate.proto"]
    assert protoc.main(["protoc", *includes, *outputs, *named]) == 0


def in_repository() -> dict[str, str]:
    """What a process needs to import the library and the runtime, and nothing else of ours."""
    roots = (Path(module.__path__[0]).parent for module in (accord, accord_runtime))
    return {"PYTHONPATH": os.pathsep.join(map(str, roots))}


class Foreign:
    """Services in one folder, and how they are called: without their code in this process."""

    def __init__(
        self, folder: Path, nats_url: str, python: Path | str, more: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self._python = python
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        compiled(folder, folder / "protos")
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("desk", "depot")}
        targets = ",".join(f"{name}={address}" for name, address in self.addresses.items())
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self._environment = {
            **kept,
            **more,
            "MESH_HOME": str(folder / "state"),
            "MESH_INSECURE": "1",
            "MESH_TARGETS": targets,
            "NATS_URL": nats_url,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._pool = descriptor_pool.DescriptorPool()
        self._learn()

    async def start(self, name: str) -> None:
        """Begin a life of a service, and wait until it serves."""
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())]
            process = self._processes[name] = subprocess.Popen(  # noqa: ASYNC220
                [*command, str(self._python), f"{name}.py"],
                cwd=self.folder,
                env={**self._environment, "MESH_LISTEN": self.addresses[name]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        async def serves() -> bool:
            assert process.poll() is None, self.log(name)
            async with grpc.aio.insecure_channel(self.addresses[name]) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)  # The types know of grpc.Channel.
                try:
                    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        await until(serves, f"{name} to serve", seconds=60)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        """SIGTERM; returns the exit code."""
        process = self._processes.pop(name)
        process.terminate()
        return process.wait(30)

    def close(self) -> None:
        """Kill what runs."""
        for name in list(self._processes):
            self.kill(name)

    def log(self, name: str) -> str:
        """The end of what a service has said."""
        return (self.folder / f"{name}.log").read_text()[-3000:]

    async def call(self, name: str, method: str, key: str = "", **fields: Any) -> dict[str, Any]:
        """Call a method by its full name; the answer as JSON has it, with all of its fields."""
        service, _, rpc = method.partition("/")
        found = self._pool.FindServiceByName(service).methods_by_name[rpc]
        request = json_format.ParseDict(fields, message_factory.GetMessageClass(found.input_type)())
        async with grpc.aio.insecure_channel(self.addresses[name]) as channel:
            answer = await channel.unary_unary(
                f"/{method}",
                request_serializer=message_factory.GetMessageClass(
                    found.input_type
                ).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
            )(request, metadata=accord.idempotency_key(key) if key else (), timeout=10)
        return json_format.MessageToDict(
            answer,
            always_print_fields_with_no_presence=True,
            preserving_proto_field_name=True,
            descriptor_pool=self._pool,
        )

    def _learn(self) -> None:
        """Read the contracts into a pool of their own, as compiled by protoc."""
        out = self.folder / "contracts.binpb"
        protos = self.folder / "protos"
        files = [file.relative_to(protos).as_posix() for file in protos.rglob("*.proto")]
        includes = [f"-I{path}" for path in (protos, include(), ROOT / "protos", WELL_KNOWN)]
        wanted = ["--include_imports", f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *includes, *wanted, *files]) == 0
        for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
            self._pool.Add(file)
