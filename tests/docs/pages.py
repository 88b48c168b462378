"""Pages of documentation: their blocks, their links, and a shell to paste blocks into."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from services import topology
from tests.support.mesh_process import MeshProcess

ROOT: Final = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    """All code blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def section(page: str, title: str) -> str:
    """What stands under a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found is not None, f"there is no section {title!r}"
    return found[1]


def paste(script: str, mesh: MeshProcess) -> str:
    """What bash prints, both streams, when a script is pasted beside a running shop."""
    for base in (*topology.SERVICES.values(), topology.EDGE_PORT):
        for port in (base, base + topology.METRICS_DISTANCE):
            script = re.sub(rf"\b{port}\b", str(port + mesh.offset), script)
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash"],
        input=script.replace("$PWD/.venv/bin", str(scripts)),
        env={
            **os.environ,
            "MESH_HOME": str(mesh.home),
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
    )
    return done.stdout


def missing(shown: str, printed: str) -> str | None:
    """The first line of `shown` that `printed` lacks, in this order; "..." stands for anything."""
    position = 0
    for line in filter(None, (line.strip() for line in shown.splitlines())):
        pattern = ".*?".join(re.escape(part) for part in line.split("..."))
        found = re.compile(pattern).search(printed, position)
        if found is None:
            return line
        position = found.end()
    return None
