"""`make release-contracts VERSION=...`: what it refuses, and what it writes."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from tests.contracts.compat.record import WAYS
from tests.contracts.compat.version import unpack
from tests.contracts.conftest import Git
from tests.contracts.test_checks import CUSTOMERS, NAME, edit
from tools import contracts, releases
from tools.contracts import Refused


def announce(repository: Path, version: str, text: str = "- Something new.\n") -> None:
    """Write the section of a version into the change log."""
    heading = f"## {version} - 2026-12-24\n\n{text}\n"
    edit(repository / contracts.CHANGELOG, "## 0.1.0", f"{heading}## 0.1.0")


def images(repository: Path) -> list[str]:
    return [image.name for image in contracts.releases(repository).values()]


def test_release_writes_an_image_beside_the_older_ones(repository: Path) -> None:
    """A release that is announced is written as an image that protobuf's own tools read."""
    announce(repository, "0.10.0")
    image = contracts.release(repository, "0.10.0")
    assert images(repository) == ["0.1.0.binpb", "0.10.0.binpb"]
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    assert {"accord/v1/policy.proto", CUSTOMERS.relative_to("protos").as_posix()} <= {
        file.name for file in files
    }


def test_later_changes_are_compared_with_the_newest_release(repository: Path) -> None:
    """Versions are compared as numbers: 0.10.0 follows 0.9.0."""
    for version in ("0.9.0", "0.10.0"):
        released = repository / contracts.RELEASED
        shutil.copy(released / "0.1.0.binpb", released / f"{version}.binpb")
    checked = [result.name for result in contracts.check(repository, {})]
    assert "breaking changes since 0.10.0" in checked


@pytest.mark.parametrize("version", ["1", "0.2", "v0.2.0", "0.2.0rc1", "00.2.0", "latest", ""])
def test_refuses_what_is_no_version(template: Path, version: str) -> None:
    """A version is three numbers."""
    with pytest.raises(Refused, match="is not a version"):
        contracts.release(template, version)


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_refuses_a_version_that_does_not_grow(repository: Path, version: str) -> None:
    """A release is never replaced and never goes back."""
    announce(repository, version)
    with pytest.raises(Refused, match=r"is not more than 0\.1\.0"):
        contracts.release(repository, version)
    assert images(repository) == ["0.1.0.binpb"]


def test_refuses_a_version_that_is_not_announced(repository: Path) -> None:
    """The change log has to have a section for it, with something in it."""
    with pytest.raises(Refused, match=r"CHANGELOG\.md says nothing"):
        contracts.release(repository, "0.2.0")
    announce(repository, "0.2.0", text="")
    with pytest.raises(Refused, match=r"CHANGELOG\.md says nothing"):
        contracts.release(repository, "0.2.0")


def test_refuses_what_is_not_committed(repository: Path) -> None:
    """Contracts that nobody can check out are not released; other work may be in progress."""
    announce(repository, "0.2.0")
    (repository / "protos/shop/notes.txt").touch()
    with pytest.raises(Refused, match=r"not committed:\n.*notes\.txt"):
        contracts.release(repository, "0.2.0")


def test_refuses_contracts_that_fail_their_checks(repository: Path, git: Git) -> None:
    """A breaking change is not released, even when it is committed."""
    announce(repository, "0.2.0")
    edit(repository / CUSTOMERS, NAME, "")
    git("commit", "--quiet", "--all", "--message=break")
    with pytest.raises(Refused, match="do not pass"):
        contracts.release(repository, "0.2.0")
    assert images(repository) == ["0.1.0.binpb"]


def test_the_command_gives_every_reason_and_exits_1(repository: Path) -> None:
    """The command line lists all that stands in the way, not only the first."""
    (repository / "protos/shop/notes.txt").touch()
    done = subprocess.run(
        (sys.executable, repository / "tools/contracts.py", "release", "0.0.1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for reason in ("is not more than", "says nothing about it", "notes.txt"):
        assert reason in done.stderr


@pytest.mark.parametrize(
    ("changelog", "text"),
    [
        ("## 0.2.0 - 2026-12-24\n\n- New.\n\n## 0.1.0\n\n- Old.\n", "- New."),
        ("## [0.2.0] - 2026-12-24\n- New.\n", "- New."),
        ("## 0.2.0\n### Added\n- New.\n", "### Added\n- New."),
        ("## 0.2.0\n\n## 0.1.0\n- Old.\n", ""),
        ("## 0.2.01\n- No.\n", None),
        ("### 0.2.0\n- No.\n", None),
        ("## Unreleased\n- 0.2.0\n", None),
    ],
)
def test_section_of_the_change_log(changelog: str, text: str | None) -> None:
    """The text of a version is what stands below its heading, up to the next."""
    assert contracts.section(changelog, "0.2.0") == text


def test_todays_code_can_be_kept(tmp_path: Path) -> None:
    """A release of today's code has everything in it: it is run, and its orders are recorded."""
    version = tomllib.loads((releases.ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = tmp_path / f"{version}.binpb"
    build = (contracts.SCRIPTS / "buf", "build", "-o", image)
    subprocess.run(build, cwd=releases.ROOT, check=True)
    folder = releases.keep(version, released=tmp_path)
    assert list(releases.findings(folder)) == []
    assert {file.stem for file in (folder / "events").iterdir()} == WAYS.keys()
    assert {path.name.split("-")[0] for path in folder.glob("*.whl")} == {
        "accord",
        "accord_runtime",
        "accord_shop_clients",
    }
    unpack(folder, tmp_path / "code")
    assert {path.name for path in (tmp_path / "code").iterdir() if path.suffix == ""} == {
        "accord",
        "accord_runtime",
        "services",
        "shop",
    }
    with zipfile.ZipFile(folder / releases.SERVICES) as servers:
        assert "services/orders/__main__.py" in servers.namelist()
