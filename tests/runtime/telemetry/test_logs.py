"""Log lines."""

import json
import logging
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accord import telemetry
from accord_runtime.telemetry.logs import JsonFormatter, configure

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def line(message: str, *args: object, error: bool = False, **extra: object) -> dict[str, object]:
    """What the formatter makes of a record."""
    record = logging.LogRecord(
        "services.x", logging.INFO, __file__, 1, message, args, sys.exc_info() if error else None
    )
    vars(record).update(extra)
    text = JsonFormatter("orders").format(record)
    assert "\n" not in text
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_a_line_says_when_who_and_what() -> None:
    """Time with zone, level, service, logger and the formatted message; no trace without one."""
    found = line("%d of %s", 3, "ten")
    stamp = found.pop("ts")
    assert isinstance(stamp, str)
    assert stamp.endswith("+00:00")
    assert found == {
        "level": "info",
        "service": "orders",
        "logger": "services.x",
        "msg": "3 of ten",
    }


def test_a_line_names_its_trace() -> None:
    """What is logged while a trace is current carries its id."""
    with telemetry.use_trace({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}):
        assert line("hello")["trace_id"] == TRACE
    assert "trace_id" not in line("hello")


def test_extras_are_fields() -> None:
    """Numbers and booleans stay what they are, anything else becomes text."""
    found = line("hello", order_id="o1", attempt=2, ratio=0.5, last=True, codes=["A"])
    assert (found["order_id"], found["attempt"], found["ratio"]) == ("o1", 2, 0.5)
    assert (found["last"], found["codes"]) == (True, "['A']")


def test_an_exception_is_a_field() -> None:
    """A traceback stays on its line."""
    try:
        raise KeyError("gone")
    except KeyError:
        found = line("failed", error=True)
    assert "KeyError: 'gone'" in str(found["exception"])
    assert "Traceback" in str(found["exception"])


@example(message="", value=float("nan"))
@given(message=st.text(), value=st.text() | st.floats() | st.integers())
def test_a_line_is_one_json_object_whatever_is_logged(message: str, value: object) -> None:
    """Any text and any number gives one line of strict JSON."""
    record = logging.LogRecord("x", logging.INFO, __file__, 1, message, (), None)
    record.value = value
    text = JsonFormatter("orders").format(record)
    assert "\n" not in text
    assert "\r" not in text

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(text, parse_constant=refuse)["msg"] == message
    text.encode()


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_process_logs_to_its_output(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go to standard output in the style that was asked for, without the noise of clients."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure("orders", style)
        logging.getLogger("services.x").info("hello")
        logging.getLogger("nats").info("noise")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        for noisy in ("nats", "mail.log"):
            logging.getLogger(noisy).setLevel(logging.NOTSET)
    [output] = capsys.readouterr().out.splitlines()
    if style == "json":
        assert json.loads(output)["msg"] == "hello"
    else:
        assert output.endswith("INFO    hello")
