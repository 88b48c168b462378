"""Contracts as an image, wherever they are: a folder, an image file, a git revision.

`buf` compiles what is not an image yet; it is found beside the interpreter, then on the PATH. Where
it is not installed, protoc does (grpcio-tools). No network is used.
"""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from accord.contracts.refused import Refused, number_taken
from accord.protos import include

_CONFIGURATION = frozenset({"buf.yaml", "buf.work.yaml", "buf.lock"})


def read(source: str = ".") -> descriptor_pb2.FileDescriptorSet:
    """The contracts at `source`: a folder, an image (`buf build -o`), or a git revision of `.`.

    An image keeps its positions if it was built with them.

    Raises:
        Refused: there is nothing of that name, or it does not compile; `buf`'s own words follow.
    """
    path = Path(source)
    if path.is_dir():
        return _built(path)
    if path.is_file():
        return _parsed(path)
    return _revision(source)


def _parsed(path: Path) -> descriptor_pb2.FileDescriptorSet:
    try:
        image = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise Refused(f"{path} is not an image of contracts ({error})") from error
    if not any(file.name for file in image.file):
        raise Refused(f"{path} is not an image of contracts (it has no files)")
    return image


def _built(folder: Path) -> descriptor_pb2.FileDescriptorSet:
    with tempfile.TemporaryDirectory() as work:
        image = Path(work, "image.binpb")
        buf = _buf()
        build = (buf, "build", str(folder), "-o", str(image)) if buf else _protoc(folder, image)
        _run(*build, what=f"{folder} does not compile")
        try:
            return descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
        except DecodeError as error:
            raise number_taken(str(folder)) from error


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
    commit = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", what=unknown)
    where = commit.decode().strip()
    files = _git("ls-tree", "-r", "-z", "--name-only", where, what=unknown).decode().split("\0")
    if not any(file.endswith(".proto") for file in files):
        raise Refused(f"{name} has no contracts below this folder")
    kept = [file for file in files if file.rpartition("/")[2] in _CONFIGURATION]
    contracts = ":(glob)**/*.proto"
    archive = _git("archive", where, "--", contracts, *kept, what=f"{name} cannot be read")
    with tempfile.TemporaryDirectory() as then:
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            members.extractall(then, filter="data")
        return _built(Path(then))


def _buf() -> str | None:
    """Where `buf` is."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("buf", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))


def _git(*arguments: str, what: str) -> bytes:
    if shutil.which("git") is None:
        raise Refused(f"{what} (git is not installed)")
    return _run("git", *arguments, what=what)


def _run(*command: str, what: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise Refused(f"{what}: {said}" if said else what)
    return done.stdout
