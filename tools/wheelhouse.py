"""Fill the wheelhouse: what the wheels need, so that their test can install them offline.

It lies in the environment itself (`.venv/wheelhouse`) and is filled once; a change of the
requirements or of `constraints.txt` fills it again. Prints nothing unless it fails.
"""

import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECTS: Final = (
    ROOT / "interceptors",
    ROOT / "runtime",
    ROOT / "generated",
)
CONSTRAINTS: Final = ROOT / "constraints.txt"
WHEELHOUSE: Final = Path(sys.prefix) / "wheelhouse"


def requirements() -> list[str]:
    """What the wheels need, their extras included, themselves excluded."""
    projects = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in PROJECTS
    ]
    needed = {
        requirement
        for project in projects
        for group in (project["dependencies"], *project["optional-dependencies"].values())
        for requirement in group
    }
    return sorted(needed - {own for own in needed if own.startswith("accord")})


def fill(folder: Path) -> None:
    """Download all wheels into `folder`, unless that has been done.

    Raises:
        subprocess.CalledProcessError: something cannot be downloaded; `output` says why.
    """
    wanted = "\n".join((*requirements(), sys.version, CONSTRAINTS.read_text()))
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    done = folder / "filled"
    if done.exists() and done.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = (sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet")
    subprocess.run(
        (*command, "--only-binary=:all:", "-c", CONSTRAINTS, "-d", folder, *requirements()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    done.write_text(digest)


def main() -> int:
    """Run the command line."""
    try:
        fill(WHEELHOUSE)
    except subprocess.CalledProcessError as error:
        print(error.output, file=sys.stderr)
        print("wheelhouse: the requirements of the wheels are not to be had", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
