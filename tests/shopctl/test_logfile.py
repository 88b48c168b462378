"""Log files of bounded size."""

from pathlib import Path

from shopctl.logfile import LogFile


def test_rotates_and_keeps_one(tmp_path: Path) -> None:
    """At its size the file becomes `.1`; there is never more than one of these."""
    file = LogFile(tmp_path / "a.log", max_bytes=10)
    for number in range(5):
        file.write(b"line %d\n" % number)
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert (tmp_path / "a.log").read_bytes() == b"line 4\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"line 3\n"


def test_counts_what_is_there(tmp_path: Path) -> None:
    """A file of an earlier run is continued and counts towards the size."""
    (tmp_path / "a.log").write_bytes(b"earlier\n")
    file = LogFile(tmp_path / "a.log", max_bytes=20)
    file.write(b"now\n")
    file.write(b"much more text\n")
    file.close()
    assert (tmp_path / "a.log.1").read_bytes() == b"earlier\nnow\n"
    assert (tmp_path / "a.log").read_bytes() == b"much more text\n"


def test_a_large_write_goes_in_whole(tmp_path: Path) -> None:
    """What is larger than a file may be is still written, once."""
    file = LogFile(tmp_path / "a.log", max_bytes=4)
    file.write(b"longer than four\n")
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_a_full_disk_is_survived() -> None:
    """A disk that takes nothing loses the line and raises nothing."""
    file = LogFile(Path("/dev/full"))
    file.write(b"lost\n")
    file.close()
    assert file.lost == 5
