"""What the README says works, as it says it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime import topology
from tests.support.mesh_process import MeshProcess, running_mesh
from tests.support.shop import free_offset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    """The shop, as `make up` starts it, on other ports."""
    with running_mesh(tmp_path_factory.mktemp("readme") / "mesh", free_offset()) as mesh:
        yield mesh


def block(name: str, language: str, mesh: MeshProcess) -> str:
    """A block of code of the README, with the ports of a running shop."""
    match = re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert match, f"the README has no {name}"
    code = match[1]
    for base in topology.SERVICES.values():
        code = code.replace(f"127.0.0.1:{base}", f"127.0.0.1:{base + mesh.offset}")
    return code


def test_the_grpcurl_session(mesh: MeshProcess) -> None:
    """Pasted into bash, it places an order and streams exactly the updates that are shown."""
    script = block("session", "sh", mesh).replace(
        '"$PWD/.venv/bin', f'"{Path(sys.executable).parent}'
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail"], input=script, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    shown = re.findall(r'"eventType": "(shop.*?)".*"status": "(\w+)"', README)
    assert re.findall(r'"eventType": "(.*?)",\s+"status": "(\w+)"', done.stdout) == shown
    assert len(shown) == 6


def test_the_generated_client(mesh: MeshProcess, tmp_path: Path) -> None:
    """Run as it stands, it creates a customer and reads the events of the shop."""
    done = subprocess.run(
        [sys.executable, "-c", block("client", "python", mesh)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("customer ")
    assert "1 shop.orders.v1.OrderPlaced" in done.stdout


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md")))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link to a file that is not there helps nobody."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
