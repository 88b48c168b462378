"""Kills its process at one named point of its work, where a test has armed one.

Python imports this module by itself where this folder is on PYTHONPATH. The points are in the
wrappers through which all of a service's effects go: of the database before and after a commit, of
the broker's client before a message is published and after it was acknowledged, and before and
after a message is acknowledged that was received, of the mesh's channels before a call and after
its answer, and of smtplib before and after a mail is handed in. Services know nothing of it.

A point is "<kind> <before or after> <what>", and has been passed so many times since the file
`armed` in the folder CRASH_POINTS was made. That file has four fields: a serial number, and
service, point and number at which to die, or "*" thrice: then each point passed goes to the file
`passed`. Whoever dies renames the file, so that its next life does not.
"""

import functools
import os
import signal
import smtplib
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

FOLDER = os.environ["MESH_CRASH_POINTS"]

IDLE = {
    "Executor._live",
    "Executor.take_back",
    "Executor.drain",
    "PostgresDatabase._tell",
    "Publisher._compare",
    "migrate",
    "open_database",
    "_sweep",
}
"""Callers whose commits belong to no order: they come by the clock, or at the start."""


class _Passed(Counter[str]):
    """How often each point was passed since the file was made."""

    serial = ""


_passed = _Passed()


def _point(name: str) -> None:
    service = os.path.basename(os.path.dirname(sys.argv[0]))  # of services/orders/__main__.py
    try:
        with open(f"{FOLDER}/armed") as file:
            serial, whose, where, number = file.read().split("\t")
    except FileNotFoundError:
        return
    if serial != _passed.serial:
        _passed.clear()
        _passed.serial = serial
    _passed[name] += 1
    if where == "*":
        with open(f"{FOLDER}/passed", "a") as file:
            file.write(f"{service}\t{name}\t{_passed[name]}\n")
    elif (service, name, _passed[name]) == (whose, where, int(number)):
        os.rename(f"{FOLDER}/armed", f"{FOLDER}/fired")
        os.kill(os.getpid(), signal.SIGKILL)


def _around(kind: Any, method: str, named: Callable[..., str]) -> None:
    """Put a point before and after a coroutine function of a class; `named` says what it does."""
    original: Callable[..., Awaitable[Any]] = getattr(kind, method)

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        name = named(self, sys._getframe(1), *args)
        if not name:
            return original(self, *args, **kwargs)
        return _between(name, lambda: original(self, *args, **kwargs))

    setattr(kind, method, wrapper)


async def _between(name: str, do: Callable[[], Awaitable[Any]]) -> Any:
    kind, _, what = name.partition(" ")
    _point(f"{kind} before {what}".strip())
    outcome = await do()
    _point(f"{kind} after {what}".strip())
    return outcome


class _Calls:
    """The calls of one method."""

    def __init__(self, calls: Callable[..., Awaitable[Any]], path: str) -> None:
        self._calls = calls
        self._path = path

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return _between(f"call {self._path}", lambda: self._calls(*args, **kwargs))


def _install() -> None:
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from accord.aio.client_channel import Channel
    from accord_runtime.database.postgres import PostgresDatabase
    from accord_runtime.database.sqlite import SqliteDatabase

    def commit(database: Any, caller: Any, fn: Any) -> str:
        # A write within `exclusive` or the like is named by who asks for it.
        who = caller.f_code.co_qualname.replace(".<locals>", "")
        return "" if who in IDLE else f"commit {who}"

    for database in (SqliteDatabase, PostgresDatabase):
        _around(database, "write", commit)
    _around(JetStreamContext, "publish", lambda self, caller, subject, *_: "publish")
    _around(Msg, "ack", lambda self, caller: "acknowledge")

    made = Channel.unary_unary

    def unary_unary(channel: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        return _Calls(made(channel, path, *args, **kwargs), path[1:])

    Channel.unary_unary = unary_unary  # type: ignore[assignment]

    send = smtplib.SMTP.send_message

    def send_message(self: Any, *args: Any, **kwargs: Any) -> Any:
        _point("mail before")
        refused = send(self, *args, **kwargs)
        _point("mail after")
        return refused

    smtplib.SMTP.send_message = send_message  # type: ignore[method-assign]


def _restart_at_once() -> None:
    """For the supervisor, who would wait longer each time."""
    from shopctl.supervisor.process import Backoff

    Backoff.next_delay = lambda self, healthy_for: 0.05  # type: ignore[method-assign]


_words = sys.orig_argv[1:]
_module = _words[_words.index("-m") + 1] if "-m" in _words[:-1] else ""
if _module == "shopctl.supervisor.fork_server" or _module.startswith("services."):
    _install()
elif _module == "shopctl" and "up" in _words:
    _restart_at_once()
