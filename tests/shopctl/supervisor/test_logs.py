"""Log lines on the terminal and in files."""

import json
import re
import resource
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shopctl.supervisor.logs import Human, LogFile, json_lines, raw

PLAIN = Human(width=8, colour=False)


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_human_shows_time_level_message_and_the_rest() -> None:
    """A log line becomes readable; empty fields and the service's own name are left out."""
    shown = PLAIN(
        "orders",
        line(
            ts=1800000000.5, level="INFO", service="orders", msg="taken", order_id="o1", n=3, x=""
        ),
    )
    assert shown == "orders   │ 08:00:00.500 INFO  taken  order_id=o1 n=3"


def test_human_takes_iso_time() -> None:
    """Time may be ISO 8601 as well, in any zone; it is shown in UTC."""
    shown = PLAIN("orders", line(ts="2027-01-15T09:00:00.250+01:00", level="warning", msg="m"))
    assert shown == "orders   │ 08:00:00.250 WARN  m"


def test_human_puts_tracebacks_below() -> None:
    """A traceback keeps its lines, each behind the prefix."""
    shown = PLAIN("orders", line(level="ERROR", msg="failed", exc="Traceback:\n  boom"))
    assert shown is not None
    assert shown.splitlines()[1:] == ["orders   │   Traceback:", "orders   │     boom"]


def test_human_leaves_the_small_talk_of_the_broker_out() -> None:
    """Of the broker only warnings and errors are shown."""
    stamp = "[4711] 2026/11/21 08:54:29.123456"
    assert PLAIN("broker", f"{stamp} [INF] Server is ready".encode()) is None
    shown = PLAIN("broker", f"{stamp} [WRN] Slow consumer".encode())
    assert shown == "broker   │ 08:54:29.123 WARN  Slow consumer"


def test_raw_keeps_the_line() -> None:
    """In a pipe the line stays as it is, behind the name."""
    assert raw(width=8)("orders", b'{"a": 1}') == 'orders   | {"a": 1}'


def test_json_lines_are_always_objects() -> None:
    """Objects pass unchanged, everything else is wrapped."""
    assert json_lines("orders", b'{"a": 1}') == '{"a": 1}'
    for text in (b"plain", b"[1]", b"{broken"):
        wrapped = json.loads(json_lines("orders", text) or "")
        assert wrapped == {"service": "orders", "msg": text.decode()}


@given(st.text() | st.binary(), st.booleans())
def test_nothing_commands_the_terminal(value: str | bytes, as_field: bool) -> None:
    """Whatever a service logs, no control character of it reaches the terminal."""
    raw = value if isinstance(value, bytes) else value.encode(errors="replace")
    text = raw.decode(errors="replace")
    shown = PLAIN("orders", line(msg=text, more=text, exc=text) if as_field else raw) or ""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.floats() | st.text()))
def test_any_object_can_be_shown(fields: dict[str, object]) -> None:
    """No JSON object, however odd its fields, is too much."""
    assert Human(8, colour=True)("orders", line(**{"level": 3, "ts": None, **fields}))


def test_rotates_and_keeps_one(tmp_path: Path) -> None:
    """At its size the file becomes `.1`; there is never more than one of these."""
    file = LogFile(tmp_path / "a.log", max_bytes=10)
    for number in range(5):
        file.write([b"line %d" % number])
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert (tmp_path / "a.log").read_bytes() == b"line 4\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"line 3\n"


def test_counts_what_is_there(tmp_path: Path) -> None:
    """A file of an earlier run is continued and counts towards the size."""
    (tmp_path / "a.log").write_bytes(b"earlier\n")
    file = LogFile(tmp_path / "a.log", max_bytes=20)
    file.write([b"now"])
    file.write([b"much more text"])
    file.close()
    assert (tmp_path / "a.log.1").read_bytes() == b"earlier\nnow\n"
    assert (tmp_path / "a.log").read_bytes() == b"much more text\n"


def test_a_large_write_goes_in_whole(tmp_path: Path) -> None:
    """What is larger than a file may be is still written, once."""
    file = LogFile(tmp_path / "a.log", max_bytes=4)
    file.write([b"longer than four"])
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_a_full_disk_is_survived() -> None:
    """A disk that takes nothing loses the line and raises nothing."""
    file = LogFile(Path("/dev/full"))
    file.write([b"lost"])
    file.close()
    assert file.lost == 5


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    """A disk that took half a line gets the next one on a line of its own, once it has space."""
    file = LogFile(tmp_path / "a.log")
    file.write([b"whole"])
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, usual[1]))
    try:
        file.write([b"torn"])
        file.write([b"lost"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    file.write([b"next"])
    file.write([b"last"])
    file.close()
    assert (tmp_path / "a.log").read_bytes() == b"whole\nto\nnext\nlast\n"
    assert file.lost >= len("rn\nlost\n")
