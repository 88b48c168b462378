"""A version of the code: one that was released, or today's."""

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shopctl.supervisor import parent_death
from tests.support.shop import ALL
from tools import releases

TODAY: Final = "today"

_INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Version:
    """Where the code of a version lies, and how it is run.

    Every version runs with the third-party packages of today's environment.
    """

    name: str
    roots: Sequence[Path]
    """The folders from which `accord`, `accord_runtime`, `shop` and `services` are imported."""

    def services(self) -> Sequence[str]:
        """The services that it has, in the order in which they are started."""
        return [
            name
            for name in ALL
            if any((root / "services" / name / "__main__.py").exists() for root in self.roots)
        ]

    def command(self, *arguments: str | Path) -> list[str]:
        """Python with these arguments, which ends when the test does."""
        # A test run that is killed must not leave a process behind.
        tied = (sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()))
        return [*tied, sys.executable, "-P", *map(str, arguments)]

    def environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a process of this version is told."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        path = os.pathsep.join(map(str, self.roots))
        return {**inherited, **(settings or {}), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def today() -> Version:
    """The code of this repository."""
    root = releases.ROOT
    return Version(TODAY, (root, root / "interceptors", root / "runtime", root / "generated"))


def unpack(folder: Path, target: Path) -> None:
    """Lay out the code of a release, wheels and servers, as one importable folder."""
    archives = [*sorted(folder.glob("*.whl")), folder / releases.SERVICES]
    for archive in archives:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(target)


def kept(folder: Path, target: Path) -> Version:
    """The code of a release that is kept, unpacked into an empty folder."""
    unpack(folder, target)
    return Version(folder.name, (target,))
