"""Links that work once, and sessions that end."""

from pathlib import Path

import pytest

from services.console.access import LINK_LIFE, SESSION_LIFE, Links, Sessions, make_link


def test_a_link_works_once(tmp_path: Path) -> None:
    """It names who has made it; used again, changed, too old or of another start it is none."""
    now = 1_000_000.0
    links = Links(tmp_path, lambda: now)
    link = make_link(tmp_path, "ada", now)
    changed = link.replace(".ada.", ".eve.")
    assert [links.redeem(each) for each in (changed, "", "a.b.c", link, link)] == [
        "", "", "", "ada", "",
    ]  # fmt: skip
    late = make_link(tmp_path, "ada", now - LINK_LIFE)
    assert links.redeem(late) == ""
    far = make_link(tmp_path, "ada", now + 10)
    assert links.redeem(far) == ""
    other = make_link(tmp_path, "ada", now)
    assert Links(tmp_path, lambda: now).redeem(other) == ""


def test_only_its_owner_can_make_one(tmp_path: Path) -> None:
    """The key's file and folder are nobody else's to read."""
    Links(tmp_path)
    assert (tmp_path / "console" / "link.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "console").stat().st_mode & 0o077 == 0
    with pytest.raises(OSError):
        make_link(tmp_path / "elsewhere", "ada")


def test_sessions_end() -> None:
    """By time, with the token that they came by, and when one logs out."""
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    long, short, left = (sessions.open("a", "viewer", ends) for ends in (1e9, 60.0, 1e9))
    sessions.close(left)
    assert [bool(sessions.find(each)) for each in (long, short, left, "")] == [
        True, True, False, False,
    ]  # fmt: skip
    now[0] = 60.0
    assert [bool(sessions.find(each)) for each in (long, short)] == [True, False]
    now[0] = SESSION_LIFE
    assert sessions.find(long) is None
