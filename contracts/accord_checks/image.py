"""Contracts as an image, wherever they are: a folder, an image file, a git revision.

`buf` compiles what is not an image yet; it is found beside the interpreter, then on the PATH. Where
it is not installed, protoc does (grpcio-tools). No network is used.
"""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    unknown_fields,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError

from accord.protos import include
from accord_checks import Refused, number_taken

WELL_KNOWN: Final = "google/protobuf/"
"""Where protobuf's own files are."""

# buf marks in an image what it only imports: `ImageFileExtension {bool is_import = 1}`.
_BUF_EXTENSION: Final = 8042
_CONFIGURATION = frozenset({"buf.yaml", "buf.work.yaml", "buf.lock"})


def read(source: str = ".") -> descriptor_pb2.FileDescriptorSet:
    """The contracts at `source`: a folder, an image (`buf build -o`), or a git revision of `.`.

    An image keeps its positions if it was built with them.

    Raises:
        Refused: there is nothing of that name, or more than one thing, or it does not compile;
            `buf`'s own words follow.
    """
    if not source:
        # An empty variable of a script; as a path it would be the current folder.
        raise Refused("an empty name is neither a folder, nor an image, nor a git revision")
    path = Path(source)
    if not path.exists():
        return _revision(source)
    if _commit(source) is not None:
        raise Refused(
            f"{source!r} is both a path and a git revision: write ./{source}, or refs/heads/"
            f"{source} for the branch"
        )
    return _built(path, source) if path.is_dir() else _parsed(path)


def shape_changes(
    source: str, then: descriptor_pb2.FileDescriptorSet
) -> Iterator[tuple[str, int | None, str, str]]:
    """What `buf breaking` itself says of a folder: file, line, rule and message of each finding.

    By the rules that its buf.yaml names, without the plugin's. Nothing where `buf` is not
    installed, or for a `source` that is no folder, which has no buf.yaml. Raises Refused.
    """
    buf = _buf()
    if buf is None or not Path(source).is_dir():
        return
    with tempfile.TemporaryDirectory() as work:
        before = Path(work, "then.binpb")
        before.write_bytes(then.SerializeToString())
        command = (buf, "breaking", source, "--against", str(before), "--error-format", "json")
        what = f"buf cannot compare {source}"
        for found in map(json.loads, _run(*command, what=what, found=100).decode().splitlines()):
            if "plugin" not in found:
                line = found.get("start_line")
                yield found.get("path", ""), line, found["type"], found["message"]


def imported(file: descriptor_pb2.FileDescriptorProto) -> bool:
    """Whether a file is somebody else's: marked so by buf, or one of protobuf's own."""
    for field in unknown_fields.UnknownFieldSet(file):  # type: ignore[attr-defined]
        if field.field_number == _BUF_EXTENSION:
            # A BoolValue has the same wire form.
            return wrappers_pb2.BoolValue.FromString(field.data).value
    return file.name.startswith(WELL_KNOWN)


def _parsed(path: Path) -> descriptor_pb2.FileDescriptorSet:
    try:
        data = path.read_bytes()
        image = descriptor_pb2.FileDescriptorSet.FromString(data)
    except OSError as error:
        raise Refused(f"{path} is not an image of contracts ({error})") from error
    except DecodeError as error:
        if _fits_without_options(data):
            raise number_taken(str(path)) from error
        raise Refused(f"{path} is not an image of contracts ({error})") from error
    if not any(file.name for file in image.file):
        raise Refused(f"{path} is not an image of contracts (it has no files)")
    return image


def _fits_without_options(data: bytes) -> bool:
    """Whether it is an image to a reader that knows no options but protobuf's own."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    found = pool.FindMessageTypeByName(descriptor_pb2.FileDescriptorSet.DESCRIPTOR.full_name)
    try:
        message_factory.GetMessageClass(found).FromString(data)
    except DecodeError:
        return False
    return True


def _built(folder: Path, name: str, hint: str = "") -> descriptor_pb2.FileDescriptorSet:
    """What a folder compiles to; errors call it by `name` and end with `hint`."""
    with tempfile.TemporaryDirectory() as work:
        image = Path(work, "image.binpb")
        buf = _buf()
        build = (buf, "build", str(folder), "-o", str(image)) if buf else _protoc(folder, image)
        try:
            _run(*build, what=f"{name} does not compile{hint}")
        except Refused as refused:
            if name == str(folder):
                raise
            # A temporary folder tells nobody anything.
            raise Refused(str(refused).replace(f"{folder}/", "")) from refused
        try:
            return descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
        except DecodeError as error:
            raise number_taken(name) from error


def _protoc(folder: Path, image: Path) -> tuple[str, ...]:
    """The command that compiles all contracts of a folder, which is the root of their imports."""
    if importlib.util.find_spec("grpc_tools") is None:
        raise Refused("buf is not installed: pip install 'accord[contracts]'")
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.proto"))
    if not files:
        raise Refused(f"{folder} has no contracts")
    roots = (f"-I{folder}", f"-I{include()}")
    what = ("--include_imports", "--include_source_info", f"--descriptor_set_out={image}")
    return (sys.executable, "-m", "grpc_tools.protoc", *roots, *what, *files)


def _revision(name: str) -> descriptor_pb2.FileDescriptorSet:
    """The contracts below the current folder as they were in a commit, branch or tag."""
    unknown = f"{name!r} is neither a folder, nor an image, nor a git revision"
    where = _commit(name)
    if where is None:
        raise Refused(unknown if shutil.which("git") else f"{unknown} (git is not installed)")
    files = (
        _run("git", "ls-tree", "-r", "-z", "--name-only", where, what=unknown).decode().split("\0")
    )
    if not any(file.endswith(".proto") for file in files):
        raise Refused(f"{name} has no contracts below this folder")
    kept = [file for file in files if file.rpartition("/")[2] in _CONFIGURATION]
    contracts = ":(glob)**/*.proto"
    archive = _run("git", "archive", where, "--", contracts, *kept, what=f"{name} cannot be read")
    with tempfile.TemporaryDirectory() as then:
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as members:
                members.extractall(then, filter="data")
        except tarfile.TarError as error:  # a link that leads out of the repository
            raise Refused(f"{name} cannot be read: {error}") from error
        hint = "" if "buf.yaml" in kept else " (where there is a buf.yaml, run it beside that)"
        return _built(Path(then), name, hint)


def _commit(name: str) -> str | None:
    """The commit that a git revision names; None if it names none, or there is no git."""
    if shutil.which("git") is None:
        return None
    command = ("git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else None


def _buf() -> str | None:
    """Where `buf` is."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("buf", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))


def _run(*command: str, what: str, found: int = 0) -> bytes:
    """What a command prints; its exit code is 0, or `found`. Raises Refused, saying `what`."""
    # Plugins of buf are beside it, whether or not the environment is activated.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if done.returncode not in (0, found):
        said = done.stderr.decode(errors="replace").strip()
        raise Refused(f"{what}: {said}" if said else what)
    return done.stdout
