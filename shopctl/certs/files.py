"""Folders of certificates as cert-manager lays them out, written so that no reader is misled.

A file is replaced at once and is on disk before it is seen. The files of an identity are replaced
together, as Kubernetes does it: they are links by way of `..data`, which is a link to the folder
with the newest. No reader ever finds a key beside the certificate of another for longer than it
takes to open both; gRPC, which looks whether the files have changed meanwhile, does not even then.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shopctl.certs.certificates import Pair, read

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
ROOTS: Final = "ca.crt"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time, of all processes; waits for the others, which take milliseconds."""
    make(folder)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make(folder: Path) -> None:
    """Makes a folder for its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write(folder: Path, **contents: bytes) -> None:
    """Replaces files of a folder together. The names have `_` in place of the point."""
    make(folder)
    drafts = {}
    for name, data in contents.items():
        path = folder / name.replace("_", ".")
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)  # its mode is only given when it is made
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        drafts[draft] = path
    for draft, path in drafts.items():
        os.replace(draft, path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_pair(folder: Path, pair: Pair) -> None:
    """Replaces key and certificate."""
    write(folder, tls_key=pair.key_pem, tls_crt=pair.chain_pem)


def write_identity(folder: Path, pair: Pair, roots: bytes) -> None:
    """Replaces key, certificate and roots together."""
    make(folder)
    newest = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    write(newest, ca_crt=roots, tls_key=pair.key_pem, tls_crt=pair.chain_pem)
    _link(folder / "..data", newest.name)
    for name in (ROOTS, KEY, CERTIFICATE):
        if not (folder / name).is_symlink():
            _link(folder / name, f"..data/{name}")
    for old in folder.glob("..*"):
        if old.is_dir() and not old.is_symlink() and old != newest:
            shutil.rmtree(old)


def _link(path: Path, target: str) -> None:
    """Makes a link, or has it lead elsewhere."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    os.replace(draft, path)


def read_pair(folder: Path) -> Pair | None:
    """What a folder has; None: nothing, or nothing of any use."""
    try:
        pair = read((folder / CERTIFICATE).read_bytes(), (folder / KEY).read_bytes())
    except (FileNotFoundError, ValueError, AssertionError):
        return None
    return pair if pair.matches else None
