"""The archive: a zip file with the copy of a database per service, and `manifest.json`."""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from shutil import copyfileobj
from typing import Final

from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor.programs import SERVICES

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"

POSITION: Final = "SELECT COALESCE(MAX(position), 0) FROM events"
APPLIED: Final = "SELECT component, MAX(number) FROM schema_migrations GROUP BY component"


@dataclass(frozen=True, slots=True)
class State:
    """What a copied database says of itself."""

    position: int
    """Of the newest of the service's own events; 0 when there is none."""
    migrations: Mapping[str, int]
    """Component -> statements that were applied."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What the manifest says of the copy of a service's database, a member of its name."""

    service: str
    backend: str
    """`sqlite`: a database file; `postgresql`: a schema as pg_dump writes it."""
    taken_at: str
    """RFC 3339, UTC."""
    position: int
    migrations: Mapping[str, int]
    size: int
    sha256: str


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write(archive: Path, folder: Path, copies: Iterable[Copy]) -> None:
    """Make the archive of what is in `folder`, which is on the same disk; there at once or not."""
    draft = folder / "archive"
    listed = []
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as members:
        for copy in copies:
            members.write(folder / copy.service, copy.service)
            listed.append(asdict(copy))
        members.writestr(MANIFEST, json.dumps({"format": FORMAT, "copies": listed}, indent=2))
    with draft.open("rb") as opened:
        os.fsync(opened.fileno())
    os.replace(draft, archive)


def read(archive: Path) -> list[Copy]:
    """What is in an archive; CommandError if it is none, or damaged, or of a later version."""
    try:
        with zipfile.ZipFile(archive) as members:
            manifest = json.loads(members.read(MANIFEST))
        made = manifest["format"]
        copies = [Copy(**copy) for copy in manifest["copies"]] if made == FORMAT else []
        known = isinstance(made, int) and all(copy.service in SERVICES for copy in copies)
    except OSError as error:
        raise CommandError(f"cannot read {archive}: {error.strerror}", ExitCode.USAGE) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, LookupError, TypeError):
        raise CommandError(f"{archive} is not an archive of shopctl backup, or damaged") from None
    if not known or made != FORMAT:
        raise CommandError(f"{archive} is of another shop or version: format {made!r}")
    return copies


def extract(archive: Path, copy: Copy, file: Path) -> None:
    """Write a copy to a file; CommandError if it is damaged, or later code has written it."""
    from accord_runtime.process import MIGRATIONS  # with all of the runtime

    servicer = import_module(f"services.{copy.service}.servicer")
    ours = {"runtime": len(MIGRATIONS), copy.service: len(servicer.SERVICE.migrations)}
    for component, number in copy.migrations.items():
        if number > ours.get(component, 0):
            raise CommandError(
                f"the copy of {copy.service} is newer than this version: it has migration {number}"
                f" of {component}, of which {ours.get(component, 0)} are known"
            )
    try:
        with (
            zipfile.ZipFile(archive) as members,
            members.open(copy.service) as member,
            file.open("wb") as target,
        ):
            copyfileobj(member, target)
            os.fsync(target.fileno())
        right = digest(file) == copy.sha256
    except (zipfile.BadZipFile, zlib.error, LookupError, EOFError):
        right = False
    if not right:
        raise CommandError(f"the copy of {copy.service} in {archive} is damaged")
