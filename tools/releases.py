"""What is kept of every release of the contracts, so that later versions can be tried against it.

`keep VERSION` writes `contracts/released/VERSION/`, beside the image `VERSION.binpb`:

    *.whl                                     library, runtime and clients, as users have them
    services.zip                              the code of the servers
    messages/*.json                           each message type as it goes over the wire (fixtures)
    events/*.json                             the events of real orders, written by those servers
    SHA256SUMS                                of all of these and of the image

`check` says what of it is not as it was written. Nothing that is kept is ever written again.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RELEASED: Final = ROOT / "contracts" / "released"
SUMS: Final = "SHA256SUMS"
SERVICES: Final = "services.zip"
CHECKS: Final = "accord_checks"
"""The wheel that is not kept: nothing of it goes over a wire or into a database."""
RECORD: Final = ("-m", "tests.contracts.compat.record")

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class Refused(Exception):
    """A release that cannot be kept; the message says why."""


def released(root: Path = RELEASED) -> dict[str, Path]:
    """Version -> folder of every release that is kept, oldest first."""
    folders = [path for path in root.glob("*.*.*") if path.is_dir()]
    folders.sort(key=lambda path: [int(number) for number in path.name.split(".")])
    return {folder.name: folder for folder in folders}


def image_of(folder: Path) -> Path:
    """The image of the contracts of a release."""
    return folder.with_name(f"{folder.name}.binpb")


def findings(folder: Path) -> Iterator[str]:
    """What is not as it was when the release was kept, a sentence each."""
    sums = folder / SUMS
    if not sums.is_file():
        yield f"{sums} is missing"
        return
    expected = {}
    for line in sums.read_text().splitlines():
        digest, separator, name = line.partition("  ")
        if not separator:
            yield f"{sums} has a line that is none of sha256sum: {line!r}"
        expected[name] = digest
    present = dict(_digests(folder))
    for name in sorted(expected.keys() | present.keys()):
        if name not in present:
            yield f"{folder / name} is missing"
        elif name not in expected:
            yield f"{folder / name} was added"
        elif present[name] != expected[name]:
            yield f"{folder / name} was changed"


def keep(version: str, source: Path = ROOT, *, released: Path = RELEASED) -> Path:
    """Keep a release whose image has been written; returns its folder.

    `source` is the repository as it was released; it is kept below `released`.

    Raises:
        Refused: it is kept already, has no image, or its parts cannot be made.
    """
    folder = released / version
    if folder.exists():
        raise Refused(f"{folder} is there already; what was released does not change")
    if not image_of(folder).is_file():
        raise Refused(f"{image_of(folder)} is missing: `make release-contracts` writes it")
    try:
        _write(folder, source)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _write(folder: Path, source: Path) -> None:
    folder.mkdir()
    _run(source, sys.executable, source / "tools" / "wheels.py", folder)
    wheels = [path.name for path in folder.glob("*.whl")]
    if not wheels or any(name.split("-")[1] != folder.name for name in wheels):
        raise Refused(f"the wheels are {', '.join(wheels)}: is the version set in pyproject.toml?")
    for wheel in folder.glob(f"{CHECKS}-*.whl"):
        wheel.unlink()
    _zip(source, folder / SERVICES)
    # Scripts find their neighbours by path, whether or not the repository is installed.
    _run(ROOT, sys.executable, ROOT / "tools" / "fixtures.py", image_of(folder), folder)
    _run(ROOT, sys.executable, *RECORD, folder)
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in _digests(folder)))


def _run(folder: Path, *command: str | Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"{' '.join(map(str, command))} failed:\n{done.stdout}")


def _zip(source: Path, target: Path) -> None:
    """Pack the servers; the same code gives the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted((source / "services").rglob("*.py")):
            entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), _EPOCH)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Name, relative to the folder, and SHA-256 of everything kept of a release."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    for path in (image_of(folder), *files):
        if path.is_file():
            name = os.path.relpath(path, folder)
            yield Path(name).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="compare what is kept with its hashes")
    keeping = commands.add_parser("keep", help="keep a release whose image has been written")
    keeping.add_argument("version")
    keeping.add_argument(
        "--source", type=Path, default=ROOT, help="a checkout of what was released; default: this"
    )
    arguments = parser.parse_args()
    if arguments.command == "check":
        found = [line for folder in released().values() for line in findings(folder)]
        print("\n".join(found), end="\n" if found else "")
        return 1 if found else 0
    try:
        folder = keep(arguments.version, arguments.source.resolve())
    except Refused as refused:
        print(f"releases: {refused}", file=sys.stderr)
        return 1
    print(f"releases: kept in {folder.relative_to(ROOT)}; commit it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
