"""A disk that is small enough to be filled: a tmpfs of a few MiB."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_PIECE: Final = b"\0" * 65536


class SmallDisk:
    """The disk, and the file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not one byte, whatever others free and take meanwhile."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (len(_PIECE), 4096, 1):
                while True:
                    try:
                        file.write(_PIECE[:size])
                    except OSError:
                        break

    def fill_for(self, seconds: float) -> None:
        """Keep it full for a while: what others give back is taken, too."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.fill()
            time.sleep(0.2)

    def make_read_only(self) -> None:
        """Refuse all writes from now on."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 32 MiB; skips where none can be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a small disk needs `mount`")
    if done.returncode:
        pytest.skip(f"a small disk cannot be had (user {os.getuid()}): {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
