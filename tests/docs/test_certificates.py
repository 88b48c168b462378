"""What docs/certificates.md shows, and the times that it names."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from shopctl.certs import authority, certificates
from tests.docs.pages import ROOT, blocks

PAGE = (ROOT / "docs" / "certificates.md").read_text()


def test_the_commands_work_one_after_the_other(tmp_path: Path) -> None:
    """All of them, in the order of the page, on an empty folder."""
    path = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-e"],
        input=blocks(PAGE, "sh")[0],
        env={"PATH": f"{path}:/usr/bin:/bin", "MESH_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "revoked " in done.stdout


def test_the_times_are_those_of_the_code() -> None:
    """Lives, what a clock may be off, and how long a new root waits."""
    assert timedelta(days=3650) == authority.ROOT_LIFE
    assert "| 10 years |" in PAGE
    assert f"| {authority.INTERMEDIATE_LIFE.days} days |" in PAGE
    assert f"every {authority.INTERMEDIATE_LIFE.days * 2 // 3} days" in PAGE
    assert f"| {authority.LEAF_LIFE // timedelta(hours=1)} hours;" in PAGE
    assert timedelta(minutes=10) == certificates.SKEW
    assert f"{authority.SETTLE:g} seconds later" in PAGE
