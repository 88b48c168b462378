"""A shop with certificates, its command line and an order."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from shopctl.certs.authority import Authority
from tests.support.mesh_process import SHOPCTL, MeshProcess, inherited, running_mesh
from tests.support.ports import free_offset
from tests.support.wait import until_sync

ADDRESS: Final = ("--street", "Main 1", "--city", "Town", "--country", "DE")


class SecureShop:
    """What a test does with it."""

    def __init__(self, mesh: MeshProcess) -> None:
        self.mesh = mesh
        self.home = mesh.home
        self.authority = Authority(mesh.home / "certs")

    def hints(self) -> str:
        """What `shopctl up` says when everything serves."""
        until_sync(lambda: "Ctrl-C stops" in self.mesh.output.read_text(), "the hints")
        return self.mesh.output.read_text()

    def run(
        self, *words: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command of `shopctl`, to its end."""
        return subprocess.run(
            [*SHOPCTL, *words],
            env={**inherited(), "MESH_HOME": str(self.home), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def say(self, *words: str) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr + self.mesh.logs()
        return done.stdout.strip()

    def order(self, *options: str) -> dict[str, Any]:
        """An order of a new customer that was seen through, and its last event."""
        email = f"{len(list(self.home.rglob('*')))}@example.com"
        create = ("customer", "create", "--id", "--name", "Ada", "--email", email)
        customer = self.say(*create, *ADDRESS)
        self.say("product", "put", "tea", "--price", "4.50", "--stock", "100")
        place = ("order", "place", "--customer", customer, "--item", "tea:2", "--watch", "--json")
        lines = self.say(*place, *options).splitlines()
        placed: dict[str, Any] = json.loads(lines[0])
        return {**placed.get("order", placed), **json.loads(lines[-1])}


@contextmanager
def secure_shop(home: Path, **environment: str) -> Iterator[SecureShop]:
    """`shopctl up` with what it makes by itself, on free ports."""
    with running_mesh(home, free_offset(), left_out=(), environment=environment) as mesh:
        yield SecureShop(mesh)
