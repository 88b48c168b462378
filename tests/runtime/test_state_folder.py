"""The folder of a process's state."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord_runtime.state_folder import prepare


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual one, which lets everybody read, before and after."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_made_is_its_users_alone(tmp_path: Path) -> None:
    """The folder is 0700, and whatever is made in it from then on is for nobody else to read."""
    home = tmp_path / "more" / "home"
    prepare(home)
    prepare(home)
    (home / "file").write_text("secret")
    (home / "folder").mkdir()
    assert [mode(home), mode(home / "file"), mode(home / "folder")] == [0o700, 0o600, 0o700]


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """It is not changed: it may be more than ours. What to do is said."""
    home = tmp_path / "home"
    home.mkdir(mode=0o750)
    with pytest.raises(PermissionError, match=f"chmod 700 {home}$"):
        prepare(home)
    assert mode(home) == 0o750
    home.chmod(0o700)
    prepare(home)


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has made it beforehand could open it, or take its files, whenever it is full."""
    home = tmp_path / "home"
    prepare(home)
    monkeypatch.setattr(os, "geteuid", lambda: home.stat().st_uid + 1)  # as if we were another
    with pytest.raises(PermissionError, match="is another user's"):
        prepare(home)
