"""What the README says works, as it says it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import topology
from tests.support.mesh_process import MeshProcess, running_mesh
from tests.support.ports import free_offset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    """The shop, as `make up` starts it, with certificates, on other ports."""
    home = tmp_path_factory.mktemp("readme") / "mesh"
    with running_mesh(home, free_offset(), left_out=(), environment={"MESH_INSECURE": ""}) as mesh:
        yield mesh


def block(name: str, language: str, mesh: MeshProcess) -> str:
    """A block of code of the README, with the ports of a running shop."""
    match = re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert match, f"the README has no {name}"
    code = match[1]
    for base in (*topology.SERVICES.values(), topology.EDGE_PORT):
        code = code.replace(f"127.0.0.1:{base}", f"127.0.0.1:{base + mesh.offset}")
    return code


def paste(script: str, mesh: MeshProcess) -> str:
    """Run a script in bash, as a user would beside the running shop; returns what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        env={**os.environ, "MESH_HOME": str(mesh.home), "MESH_INSECURE": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def session(mesh: MeshProcess) -> str:
    """The grpcurl session."""
    scripts = Path(sys.executable).parent
    code = block("session", "sh", mesh).replace("$PWD/.venv/bin", str(scripts))
    return code.replace(".mesh/", f"{mesh.home}/")


def test_the_grpcurl_session(mesh: MeshProcess) -> None:
    """Pasted into bash, it places an order and streams exactly the updates that are shown."""
    printed = paste(session(mesh), mesh)
    shown = re.findall(r'"eventType": "(shop.*?)".*"status": "(\w+)"', README)
    assert re.findall(r'"eventType": "(.*?)",\s+"status": "(\w+)"', printed) == shown
    assert len(shown) == 6


def test_the_same_from_outside(mesh: MeshProcess) -> None:
    """Pasted after the session: a product, the six updates, one query, and a refusal."""
    printed = paste(session(mesh) + block("outside", "sh", mesh), mesh)
    assert re.findall(r"id: (\d)$", printed, re.MULTILINE) == list("123456")
    assert '"sku":"tea"' in printed
    assert re.search(r'"customer": ?\{"name": ?"Ada"\}', printed), printed
    assert printed.endswith("401\n")


def test_killing_orders_while_one_is_under_way(mesh: MeshProcess) -> None:
    """Pasted after the session, the watch goes on over the death of its server, to the end."""
    before = mesh.records()["orders"].pid
    printed = paste(session(mesh) + block("kill", "sh", mesh), mesh)
    assert re.findall(r"  (Order\w+)  ", printed)[-1] == "OrderConfirmed"
    mesh.wait_until_serving()
    assert mesh.records()["orders"].pid != before


def test_the_generated_client(mesh: MeshProcess, tmp_path: Path) -> None:
    """Run twice as it stands, it creates a customer, follows the events, and ends on Ctrl-C."""
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", block("client", "python", mesh)],
            cwd=tmp_path,
            env={**os.environ, "MESH_IDENTITY": str(mesh.home / "certs/operator")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            try:
                assert client.stdout.readline().startswith("customer ")
                assert client.stdout.readline() == "1 shop.orders.v1.OrderPlaced\n"
                client.send_signal(signal.SIGINT)
                _, said = client.communicate(timeout=20)
                assert client.returncode == 0, said
            finally:
                client.kill()


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md")))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link to a file that is not there helps nobody."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_findings(tmp_path: Path) -> None:
    """A payments service with less time gets the findings that are shown, to the letter."""
    for name in ("protos", "contracts", "buf.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "protos").unlink()
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    payments = tmp_path / "protos/shop/payments/v1/payments.proto"
    before, rest = payments.read_text().split("timeout: {seconds: 10}", 1)
    payments.write_text(f"{before}timeout: {{seconds: 4}}{rest}")
    match = re.search(r"<!-- findings -->\n```text\n(.*?)```", README, re.DOTALL)
    assert match
    for part in match[1].split("$ .venv/bin/buf ")[1:]:
        command, shown = part.split("\n", 1)
        scripts = Path(sys.executable).parent
        done = subprocess.run(
            [scripts / "buf", *command.split()],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        expected = re.sub(r"\n +", " ", shown).strip().removesuffix("...").strip()
        assert expected in done.stdout
