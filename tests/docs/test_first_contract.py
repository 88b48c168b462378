"""`docs/first-contract.md`, followed step by step by somebody who has nothing but the wheel."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contracts.consumer import install
from tests.docs.pages import ROOT, missing
from tests.support.ports import free_port
from tools import wheels

PAGE = (ROOT / "docs" / "first-contract.md").read_text()
PORT = "9071"
FOLLOWED = {"install", "run", "background", "file"}


@dataclass(frozen=True, slots=True)
class Step:
    """A block that the page asks to be written or run, and what it shows as its output."""

    what: str
    name: str
    text: str
    shown: str


def steps() -> list[Step]:
    """The page's steps in their order."""
    found = re.findall(
        r"^<!-- (\w+)(?:: (.*?))? -->\n```\w+\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?",
        PAGE,
        re.DOTALL | re.MULTILINE,
    )
    return [Step(*groups) for groups in found]


@contextmanager
def background(command: str, folder: Path, env: dict[str, str], port: int) -> Iterator[None]:
    """A server in a terminal of its own, from when it listens."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, env=env, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while not _listens(port):
                assert server.poll() is None, server.stderr and server.stderr.read()
                assert time.monotonic() < deadline, "the server does not listen"
                time.sleep(0.05)
            yield
        finally:
            server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_page_can_be_followed(tmp_path: Path) -> None:
    """Every file is written, every command run, in an environment with the wheel and no more.

    What the page shows is what is printed. Only the installation is done offline: the wheel is the
    one just built, and protoc is the developer's.
    """
    wheel = tmp_path / "wheels"
    wheels.build(ROOT / "interceptors", wheel)
    user = install(tmp_path, wheel, "accord[testing]")
    port = free_port()
    tools = Path(sys.executable).parent
    env = {
        "PATH": f"{user.python.parent}{os.pathsep}{tools}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    done: list[str] = []
    with ExitStack() as stack:
        for step in steps():
            text = step.text.replace(PORT, str(port))
            done.append(step.what)
            if step.what == "file":
                file = user.folder / step.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            elif step.what == "background":
                stack.enter_context(background(text.strip(), user.folder, env, port))
            elif step.what == "run":
                text = text.replace("python -m grpc_tools", f"{sys.executable} -m grpc_tools")
                ran = subprocess.run(
                    ["bash", "-o", "pipefail"],
                    input=text,
                    cwd=user.folder,
                    env=env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=60,
                )
                assert step.shown or ran.returncode == 0, ran.stdout
                lacking = missing(step.shown, ran.stdout)
                assert lacking is None, f"not printed: {lacking}\n{ran.stdout}"
    assert set(done) == FOLLOWED
    assert len(done) == PAGE.count("<!-- ")


def test_the_same_contract_is_used_to_the_end() -> None:
    """The contract with its policy is the one before it and what `accord` adds."""
    before, after = [step.text for step in steps() if step.name.endswith(".proto")]
    added = re.search(r"\n\nimport .*?;", after)
    policy = re.search(r" \{\n    option.*\n  \}", after, re.DOTALL)
    assert added
    assert policy
    assert after.replace(added[0], "").replace(policy[0], ";") == before
