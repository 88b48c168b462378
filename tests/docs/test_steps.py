"""Pages that are followed step by step: pasted into a copy of the repository, they work."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, blocks, section

SOURCES: Final = ("interceptors", "contracts", "runtime", "generated", ".")
"""Where the packages are, from the root of a checkout."""

PAGES: Final = {
    "new-service": ("1. The contract", "2. Its code", "3. The folder", "4. A port", "5. The tests"),
    "new-policy": (
        "1. The vocabulary",
        "2. The decision",
        "3. The contract",
        "4. The stage",
        "5. A call that meets it",
    ),
    "new-rule": ("1. The function", "2. Its page", "3. A mistake that it finds", "4. The tests"),
}
"""Page -> the sections whose commands are run, in this order."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the repository as it stands in the work tree, with this environment."""
    copy = tmp_path / "checkout"
    files = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = subprocess.run(files, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        file = copy / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            file.write_bytes((ROOT / name).read_bytes())
            os.utime(file, (0, 0))  # older than the environment: make need not install anything
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def run(script: str, folder: Path) -> None:
    """Paste a script into bash; what it prints is shown if it fails."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str((folder / source).resolve()) for source in SOURCES),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_steps_work(page: str, checkout: Path) -> None:
    """The commands of the page, one section after the other, end without an error."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for title in PAGES[page]:
        for script in blocks(section(text, title), "sh"):
            run(script, checkout)
