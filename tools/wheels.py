"""Build the wheels, one for each of `PROJECTS`: offline, the same bytes every time.

The build backend is the environment's own (no build isolation), so nothing is fetched.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECTS: Final = tuple(
    ROOT / name for name in ("interceptors", "contracts", "runtime", "generated")
)
"""The folders whose `pyproject.toml` describe a wheel: library, checks, runtime, clients."""


def build(project: Path, out: Path) -> Path:
    """Build the wheel of one project into `out`, and return it.

    Raises:
        subprocess.CalledProcessError: the build failed; `stdout` says why.
    """
    command = (sys.executable, "-m", "hatchling", "build", "--target", "wheel")
    done = subprocess.run(
        (*command, "--directory", out.absolute()),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return out / Path(done.stdout.strip().splitlines()[-1]).name


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to write them to")
    out = parser.parse_args().out
    for project in PROJECTS:
        try:
            print(build(project, out))
        except subprocess.CalledProcessError as error:
            print(error.stdout, file=sys.stderr)
            print(f"wheels: {project.name} could not be built", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
