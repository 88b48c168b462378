"""Fetch what tests need, once, so that they need no network themselves.

The wheelhouse holds what our own wheels require, so that their test can install them; NODE the
packages of `tests/contracts/export/node/package-lock.json`, with the Node and npm of a wheel. Both
lie in the environment itself (`.venv`), and are filled again when what they are made from changes.
Scripts of packages are not run. Prints nothing unless it fails.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.wheels import PROJECTS, ROOT

CONSTRAINTS: Final = ROOT / "constraints.txt"
WHEELHOUSE: Final = Path(sys.prefix) / "wheelhouse"
NODE: Final = Path(sys.prefix) / "node"
NODE_MODULES: Final = NODE / "node_modules"
_LOCKED: Final = ROOT / "tests" / "contracts" / "export" / "node"
_SCRIPTS: Final = Path(sys.executable).parent


def requirements() -> list[str]:
    """What our own wheels need, their extras included, themselves excluded."""
    projects = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in PROJECTS
    ]
    needed = {
        requirement
        for project in projects
        for group in (
            project["dependencies"],
            *project.get("optional-dependencies", {}).values(),
        )
        for requirement in group
    }
    return sorted(needed - {own for own in needed if own.startswith("accord")})


def fill_wheelhouse() -> None:
    """Download all wheels.

    Raises:
        subprocess.CalledProcessError: something cannot be downloaded; `output` says why.
    """
    needed = requirements()
    wanted = "\n".join((*needed, sys.version, CONSTRAINTS.read_text()))
    command = (sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet")
    options = ("--only-binary=:all:", "-c", CONSTRAINTS, "-d", WHEELHOUSE)
    _fill(WHEELHOUSE, wanted.encode(), (), (*command, *options, *needed))


def fill_node() -> None:
    """Install the packages for Node.

    Raises:
        subprocess.CalledProcessError: they cannot be had; `output` says why.
    """
    files = [_LOCKED / "package.json", _LOCKED / "package-lock.json"]
    wanted = b"".join(file.read_bytes() for file in files)
    command = (_SCRIPTS / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    _fill(NODE, wanted, files, command)


def _fill(
    folder: Path, wanted: bytes, files: Sequence[Path], command: Sequence[str | Path]
) -> None:
    """Copy files into a folder and run a command there, unless what is wanted is there."""
    digest = hashlib.sha256(wanted).hexdigest()
    done = folder / "filled"
    if done.exists() and done.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    path = os.pathsep.join((str(_SCRIPTS), os.environ.get("PATH", os.defpath)))
    subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    done.write_text(digest)


def main() -> int:
    """Run the command line."""
    fillings = {
        "wheelhouse: the requirements of the wheels": fill_wheelhouse,
        "node: the packages of the tests": fill_node,
    }
    for what, fill in fillings.items():
        try:
            fill()
        except subprocess.CalledProcessError as error:
            print(error.output, file=sys.stderr)
            print(f"{what} are not to be had", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
