"""The wheels, environments that have them, and a small copy of the repository."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.consumer import Consumer, install
from tools import contracts, wheels

Git = Callable[..., None]


@pytest.fixture(scope="session", autouse=True)
def _no_git_of_somebody_else() -> Iterator[None]:
    """In a git hook, GIT_DIR and its like would lead from a test's repository to the real one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        yield


PLUGIN = """#!/bin/sh
answer=$0.${1##*/}
[ $answer = $0.Check ] && exec %(plugin)s "$@"
[ -f $answer ] || { %(plugin)s "$@" >$answer.$$ && mv $answer.$$ $answer; }
exec cat $answer
"""


@pytest.fixture(scope="package", autouse=True)
def _quick_buf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Asks the plugin once which rules it has: buf does so twice before each check.

    And buf, which ends soon, collects no garbage.
    """
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "buf").symlink_to(contracts.SCRIPTS / "buf")
    plugin = scripts / "buf-plugin-accord"
    plugin.write_text(PLUGIN % {"plugin": contracts.SCRIPTS / plugin.name})
    plugin.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contracts, "SCRIPTS", scripts)
        patch.setenv("GOGC", "off")
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all wheels."""
    out = tmp_path_factory.mktemp("wheels")
    for project in wheels.PROJECTS:
        wheels.build(project, out)
    return out


@pytest.fixture(scope="session")
def library_user(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    """Somebody who has installed `accord` and nothing else."""
    return install(tmp_path_factory.mktemp("library"), built, "accord")


@pytest.fixture(scope="session")
def checks_user(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    """Somebody who has installed the library with the checks of contracts."""
    return install(tmp_path_factory.mktemp("checks"), built, "accord[contracts]")


@pytest.fixture(scope="session")
def runtime_user(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    """Somebody who has installed the runtime of services, with all that it can use."""
    everything = "accord-runtime[otlp,postgres,uvloop]"
    return install(tmp_path_factory.mktemp("runtime"), built, everything)


@pytest.fixture(scope="session")
def client_user(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    """Somebody who has installed the generated clients, with types."""
    return install(tmp_path_factory.mktemp("clients"), built, "accord-shop-clients[types]")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the contracts, their code and the tools; 0.1.0 is released."""
    root = tmp_path_factory.mktemp("template")
    leave = shutil.ignore_patterns("__pycache__")
    for folder in ("protos", "generated", "interceptors/accord", "tools"):
        shutil.copytree(contracts.ROOT / folder, root / folder, ignore=leave)
    shutil.copy(contracts.ROOT / "buf.yaml", root)
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 - 2026-11-21\n\n- The first.\n")
    git = _git(root)
    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "--message=contracts")
    contracts.release(root, "0.1.0")
    git("add", ".")
    git("commit", "--quiet", "--message=release")
    return root


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """A repository of the test's own, see `template`."""
    return shutil.copytree(template, tmp_path / "repository")


@pytest.fixture
def git(repository: Path) -> Git:
    """Runs git in the repository."""
    return _git(repository)


def _git(root: Path) -> Git:
    who = {"NAME": "Ada", "EMAIL": "ada@example.com"}
    identity = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}
    environment = {
        **os.environ,
        **identity,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }

    def run(*arguments: str) -> None:
        subprocess.run(("git", *arguments), cwd=root, env=environment, check=True)

    return run
