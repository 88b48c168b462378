"""`shopctl up`, `status`, `down` and `reset` as a user runs them, over real processes."""

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

from services import topology
from shopctl.errors import ExitCode
from tests.shopctl.support.processes import descendants, runs
from tests.shopctl.support.shop import Shop
from tests.support.wait import DEADLINE, until_sync

FEW = ("--except", ",".join({*topology.SERVICES, *topology.GATEWAYS} - {"orders"}))
"""Leaves the broker, and orders with what it is forked from."""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(DEADLINE)


def test_from_up_to_down(shop: Shop) -> None:
    """Everything starts, serves and is shown; SIGTERM ends it all with 0 and nothing stays."""
    process = shop.start_and_wait()
    (ready,) = shop.events("ready")
    names = [row["name"] for row in ready["processes"]]
    assert names[:3] == ["supervisor", "fork server", "broker"]
    assert set(names[3:]) == {*topology.SERVICES, "edge", "console"}

    status = shop.run("status", "--json")
    assert status.returncode == ExitCode.OK
    report = json.loads(status.stdout)
    assert {row["state"] for row in report["processes"]} == {"serving"}
    assert all(row["memory"] > 0 for row in report["processes"])
    assert report["memory"] == sum(row["memory"] for row in report["processes"])

    children = descendants(process.pid)
    assert len(children) == len(names) - 1
    assert stop(process) == ExitCode.OK
    assert not [pid for pid in children if runs(pid)]
    assert not (shop.home / "run.json").exists()
    assert "drained" in (shop.home / "logs" / "orders.log").read_text()
    assert shop.run("status").returncode == ExitCode.NOT_RUNNING


def test_token_stays_secret(shop: Shop) -> None:
    """The broker's token is in two files for the owner only; no command line or log shows it."""
    process = shop.start_and_wait(*FEW)
    token = (shop.home / "nats.token").read_text().strip()
    assert len(token) >= 32
    assert mode(shop.home / "nats.token") == 0o600
    assert mode(shop.home / "nats" / "server.conf") == 0o600
    for pid in [process.pid, *descendants(process.pid)]:
        assert token not in Path(f"/proc/{pid}/cmdline").read_text()
    assert stop(process) == 0
    texts = [path.read_text() for path in (shop.home / "logs").iterdir()]
    assert not [text for text in [shop.output(), *texts] if token in text]


def test_broker_wants_the_token(shop: Shop) -> None:
    """The broker keeps its messages under the state folder and refuses who has no token."""
    shop.start_and_wait(*FEW)
    with socket.create_connection(("127.0.0.1", 4222 + shop.offset), 5) as connection:
        info = json.loads(connection.recv(65536).split(b"\r\n")[0].removeprefix(b"INFO "))
        assert info["auth_required"]
        assert info["jetstream"]
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert b"Authorization Violation" in connection.recv(65536)
    assert (shop.home / "nats" / "jetstream").is_dir()


def test_kill_leaves_no_process(shop: Shop) -> None:
    """`kill -9` of the supervisor takes every process with it, deaf ones too; then `up` works."""
    process = shop.start_and_wait(*FEW, env={"MESH_TINY_OPTIONS": "--ignore-sigterm"})
    children = descendants(process.pid)
    assert len(children) == 3
    process.kill()
    process.wait(DEADLINE)
    until_sync(lambda: not [pid for pid in children if runs(pid)], "all children to vanish")
    assert shop.run("status").returncode == ExitCode.NOT_RUNNING
    assert stop(shop.start_and_wait(*FEW)) == ExitCode.OK


def test_a_second_up_is_refused(shop: Shop) -> None:
    """`up` and `reset` beside a running shop say whose process it is and change nothing."""
    process = shop.start_and_wait(*FEW)
    second = shop.run("up")
    assert second.returncode == ExitCode.IN_USE
    assert f"(process {process.pid})" in second.stderr
    assert second.stderr.count("\n") == 1
    reset = shop.run("reset", "--yes")
    assert reset.returncode == ExitCode.IN_USE
    assert f"(process {process.pid})" in reset.stderr
    assert shop.run("status").returncode == ExitCode.OK


def test_a_state_folder_that_others_may_enter_is_refused(shop: Shop) -> None:
    """`up` says what to do, in one line, and leaves the folder as it is."""
    shop.home.mkdir()
    shop.home.chmod(0o755)  # whatever the mask
    result = shop.run("up")
    assert result.returncode == ExitCode.FAILED
    assert result.stderr.endswith(f"chmod 700 {shop.home}\n")
    assert not list(shop.home.iterdir())


def test_port_in_use(shop: Shop) -> None:
    """A port that is taken is named, with its service and a way out, before anything starts."""
    port = topology.port("payments", shop.offset)
    metrics = topology.port("orders", shop.offset) + topology.METRICS_DISTANCE
    with (
        closing(socket.create_server(("127.0.0.1", port))),
        closing(socket.create_server(("127.0.0.1", metrics))),
    ):
        result = shop.run("up")
    assert result.returncode == ExitCode.IN_USE
    assert f"{port} (payments, gRPC" in result.stderr
    assert str(metrics) not in result.stderr
    offset = int(result.stderr.rpartition("--port-offset ")[2])
    assert offset != shop.offset
    assert topology.port("payments", offset)
    assert not (shop.home / "logs").exists()


def test_restart_is_said_and_counted(shop: Shop) -> None:
    """A service that is killed comes back; the event and `status` tell of it."""
    shop.start_and_wait(*FEW)
    before = shop.row("orders")
    os.kill(before["pid"], signal.SIGKILL)
    until_sync(lambda: shop.row("orders")["state"] == "serving", "orders to serve again")
    after = shop.row("orders")
    assert after["restarts"] == 1
    assert after["pid"] != before["pid"]
    (event,) = shop.events("died")
    assert event["program"] == "orders"
    assert event["exit_code"] == -signal.SIGKILL


def test_status_tells_what_is_down(shop: Shop) -> None:
    """A service that does not serve is shown, and `status` ends with 3."""
    shop.start("--json", *FEW, env={"MESH_TINY_OPTIONS": "--not-serving"})
    until_sync(
        lambda: "not serving" in shop.run("status").stdout, "orders to answer a health check"
    )
    assert shop.run("status").returncode == ExitCode.NOT_SERVING


def test_left_out(shop: Shop) -> None:
    """`--except` leaves a service to the user; `status` shows it and does not count it."""
    process = shop.start_and_wait(*FEW)
    assert len(descendants(process.pid)) == 3
    row = shop.row("payments")
    assert (row["managed"], row["pid"], row["state"]) == (False, None, "unreachable")
    assert row["address"] == topology.address("payments", shop.offset)
    assert shop.run("status").returncode == ExitCode.OK


def test_unknown_name_is_left_out(shop: Shop) -> None:
    """A name that does not exist is a usage error that lists those that do."""
    result = shop.run("up", "--except", "order")
    assert result.returncode == ExitCode.USAGE
    assert "orders" in result.stderr
    assert not shop.home.exists()


def test_two_interrupts_end_at_once(shop: Shop) -> None:
    """A second Ctrl-C kills what does not drain; the exit code says so and nothing stays."""
    process = shop.start_and_wait(*FEW, env={"MESH_TINY_OPTIONS": "--ignore-sigterm"})
    children = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    until_sync(lambda: shop.events("draining"), "draining")
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == ExitCode.INTERRUPTED  # draining alone would take 10 s
    assert not [pid for pid in children if runs(pid)]


def test_down(shop: Shop) -> None:
    """`down` returns when the shop has stopped, and says so when there is none."""
    process = shop.start_and_wait(*FEW)
    children = descendants(process.pid)
    assert shop.run("down").returncode == ExitCode.OK
    assert not [pid for pid in children if runs(pid)]
    assert process.wait(DEADLINE) == ExitCode.OK
    assert shop.run("down").returncode == ExitCode.NOT_RUNNING


def test_state_survives_until_reset(shop: Shop) -> None:
    """The token is the same after a restart; `reset` asks, and then deletes everything."""
    stop(shop.start_and_wait(*FEW))
    token = (shop.home / "nats.token").read_text()
    stop(shop.start_and_wait(*FEW))
    assert (shop.home / "nats.token").read_text() == token
    assert shop.run("reset", answer="n\n").returncode == ExitCode.FAILED
    assert shop.home.exists()
    assert shop.run("reset", answer="y\n").returncode == ExitCode.OK
    assert not shop.home.exists()


def test_reset_spares_a_database_in_use(shop: Shop) -> None:
    """A service that was started by hand holds the lock of its database: nothing is deleted."""
    stop(shop.start_and_wait(*FEW))
    with (shop.home / "orders.db.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = shop.run("reset", "--yes")
    assert result.returncode == ExitCode.IN_USE
    assert "orders.db" in result.stderr
    assert (shop.home / "nats.token").exists()


def test_reset_keeps_off_other_folders(shop: Shop) -> None:
    """A folder that `up` did not make is not deleted."""
    result = shop.run("reset", "--yes", "--home", str(shop.folder))
    assert result.returncode == ExitCode.FAILED
    assert (shop.folder / "services").exists()


def test_foreign_broker(shop: Shop) -> None:
    """With NATS_URL set no broker is started and the services are given that URL."""
    process = shop.start_and_wait(*FEW, env={"NATS_URL": "nats://nats.example:4222"})
    assert len(descendants(process.pid)) == 2
    log = (shop.home / "logs" / "orders.log").read_text().splitlines()
    said = next(line for line in map(json.loads, log) if line["msg"] == "serving")
    assert said["NATS_URL"] == "nats://nats.example:4222"
    assert said["LOG_FORMAT"] == "json"
    assert said["MESH_HOME"] == str(shop.home)


def test_logs_in_a_pipe(shop: Shop) -> None:
    """Without a terminal there is no colour, and log lines are as written, behind a prefix."""
    process = shop.start(*FEW)
    until_sync(lambda: "ready" in shop.output(), "the table")
    assert stop(process) == ExitCode.OK
    assert "\x1b" not in shop.output()
    (line,) = [line for line in shop.output().splitlines() if "drained" in line]
    prefix, _, rest = line.partition(" | ")
    assert prefix.strip() == "orders"
    assert json.loads(rest)["msg"] == "drained"


def test_quiet(shop: Shop) -> None:
    """`--quiet` keeps the logs out of the terminal and in the files."""
    process = shop.start(*FEW, "--quiet")
    until_sync(lambda: "ready" in shop.output(), "the table")
    assert stop(process) == ExitCode.OK
    assert "drained" not in shop.output()
    assert "drained" in (shop.home / "logs" / "orders.log").read_text()


def test_terminal(shop: Shop) -> None:
    """On a terminal there are colours and readable lines; Ctrl-C ends it with 0."""
    ours, theirs = pty.openpty()
    process = shop.start(*FEW, terminal=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = bytearray()

    def read() -> bytes:
        with suppress(OSError):  # nothing there, or the other end is closed
            seen.extend(os.read(ours, 65536))
        return bytes(seen)

    until_sync(lambda: b"ready" in read(), "the table")
    process.send_signal(signal.SIGINT)
    until_sync(lambda: b"drained" in read() and process.poll() is not None, "the end")
    os.close(ours)
    assert process.returncode == ExitCode.OK
    assert b"\x1b[32mserving" in seen
    assert b'"msg"' not in seen


def test_reader_goes_away(shop: Shop) -> None:
    """`up | head` loses its reader and goes on running the shop."""
    read_end, write_end = os.pipe()
    process = shop.start(*FEW, terminal=write_end)
    os.close(write_end)
    assert os.read(read_end, 8) == b"shopctl:"
    os.close(read_end)
    until_sync(lambda: shop.run("status").returncode == ExitCode.OK, "the shop to serve")
    assert stop(process) == ExitCode.OK


@pytest.mark.parametrize("arguments", [("up", "--port-offset", "-1"), ("nonsense",)])
def test_usage(shop: Shop, arguments: tuple[str, ...]) -> None:
    """A command line that makes no sense ends with 2 and no traceback."""
    result = shop.run(*arguments)
    assert result.returncode == ExitCode.USAGE
    assert "Traceback" not in result.stderr
