"""A user of the wheels: an environment of its own, in a folder outside the repository."""

import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.offline_packages import WHEELHOUSE


@dataclass(frozen=True, slots=True)
class Consumer:
    """An environment with wheels in it, and a folder to work in."""

    python: Path
    folder: Path

    def run(self, *arguments: str | Path) -> str:
        """What Python prints when it runs with these arguments, in the folder.

        Raises:
            subprocess.CalledProcessError: it failed; `stderr` is in the message.
        """
        done = subprocess.run(
            (self.python, *arguments),
            cwd=self.folder,
            env=_clean(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def mypy(self, file: str) -> "subprocess.CompletedProcess[str]":
        """Check a file of the folder with the developer's mypy, but this environment's packages."""
        options = ("--strict", "--config-file=", "--python-executable", self.python)
        return subprocess.run(
            (sys.executable, "-m", "mypy", *options, "--cache-dir", self.folder / ".cache", file),
            cwd=self.folder,
            env=_clean(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def install(folder: Path, wheels: Path, *requirements: str) -> Consumer:
    """Make an empty environment and install requirements, from local wheels only."""
    assert WHEELHOUSE.is_dir(), "run `make install`: it fills the wheelhouse"
    venv.create(folder / "env", symlinks=True)  # Without pip: really empty.
    python = folder / "env" / "bin" / "python"
    pip: Sequence[str | Path] = (sys.executable, "-m", "pip", "--python", python)
    sources = ("--no-index", "--find-links", WHEELHOUSE, "--find-links", wheels)
    done = subprocess.run(
        (*pip, "install", "--quiet", "--disable-pip-version-check", *sources, *requirements),
        env=_clean(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    work = folder / "work"
    work.mkdir()
    return Consumer(python, work)


def block(readme: Path, language: str) -> str:
    """The first code block of a language in a README, so that what is printed is what is run."""
    found = re.search(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{readme} has no {language} block"
    return found[1]


def _clean() -> dict[str, str]:
    """An environment that leads neither to this repository nor to any package index."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}
