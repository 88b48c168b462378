"""What the library uses of gRPC that is not public: here it is listed, and no more is used.

`make test` runs this with the newest gRPC, `make lowest` with the oldest that is allowed. Without
what is marked "faster" calls work all the same.
"""

import ast
import asyncio
import importlib
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest

LIBRARY: Final = Path(__file__).parents[2] / "interceptors" / "accord"

MODULES: Final = {
    "grpc._cython.cygrpc": "faster: the core of a call",
    "grpc._cython.cygrpc.AioChannel.call": "faster: a call without a task",
    "grpc._cython.cygrpc._AioCall": "faster: what that gives",
    "grpc._cython.cygrpc._AioCall.unary_unary": "faster: its request and its response",
    "grpc._channel": "the next line",
    "grpc._channel.Channel": "what `grpc.secure_channel` makes, beneath any instrumentation",
    "grpc._server": "the next line",
    "grpc._server._Server": "the type of that",
    "grpc._server.create_server": "what `grpc.server` makes, beneath any instrumentation",
    "grpc.aio._call": "faster: the next line",
    "grpc.aio._call._create_rpc_error": "faster: gRPC's own error of a status",
    "grpc.aio._channel.Channel": "what `grpc.aio.secure_channel` makes, beneath instrumentation",
    "grpc.aio._server": "the next line",
    "grpc.aio._server.Server": "what `grpc.aio.server` makes, beneath instrumentation",
    "grpc._cython.cygrpc.AioServer": "the core of a server, which outlives the end of its loop",
    "grpc.aio._interceptor.UnaryUnaryCallResponse": "the call object of an answer without a call",
}
"""Dotted name -> what it is for."""

ATTRIBUTES: Final = {
    "_credentials": "of channel credentials: the core's, which the channels take",
    "_active_calls": "of an aio channel: those that it ends when it is closed",
    "_async_request_poller": "of an aio call: the task that waits for the next request",
    "_fut_waiter": "of a task, of asyncio's: the wait that is ended to reset a call",
    "_interceptors": "faster: of a method of an aio channel",
    "_channel": "faster: the same",
    "_loop": "faster: the same",
    "_method": "faster: the same",
    "_registered_call_handle": "faster: the same",
    "_request_serializer": "faster: the same",
    "_response_deserializer": "faster: the same",
}
"""Attribute -> of what, and what it is for; asked for by name, so that it may be absent."""


def modules() -> list[Path]:
    """The hand-written modules of the library."""
    return [file for file in sorted(LIBRARY.rglob("*.py")) if "_pb2" not in file.name]


def used(tree: ast.AST) -> Iterator[str]:
    """The private parts of gRPC that a module imports, and what it uses of them."""
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "grpc":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if "._" in name:
                    bound[alias.asname or alias.name] = name
                    yield name
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith("grpc._"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            root = name.split(".")[0]
            if name.startswith(("grpc._", "grpc.aio._")):
                yield name
            elif root in bound and bound[root].split(".")[-1].islower():  # of a module
                yield bound[root] + name.removeprefix(root)


def asked_for(tree: ast.AST) -> Iterator[str]:
    """Private attributes that are asked for by their names, as text."""
    for node in ast.walk(tree):
        texts: list[ast.expr] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            texts = node.args[1:2]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).startswith("vars("):
            texts = [node.slice]
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_PARTS":
            texts = list(ast.walk(node.value)) if node.value else []  # type: ignore[arg-type]
        for text in texts:
            if isinstance(text, ast.Constant) and re.match("_[a-z]", str(text.value)):
                yield str(text.value)


def test_no_more_is_used() -> None:
    """What the library imports and asks for is in the lists, and nothing else is."""
    trees = [ast.parse(file.read_text()) for file in modules()]
    found = {name for tree in trees for name in used(tree)}
    for name in found - MODULES.keys():  # a public part of what is listed
        parent, _, part = name.rpartition(".")
        assert parent in MODULES, name
        assert not part.startswith("_"), name
    assert {name for name in MODULES if name not in found} == set()
    assert {name for tree in trees for name in asked_for(tree)} == set(ATTRIBUTES)


@pytest.mark.parametrize("name", MODULES)
def test_this_grpc_has_it(name: str) -> None:
    """Every name can be found."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        assert reduce(getattr, parts[length:], module)
        return
    raise AssertionError(name)


async def test_its_objects_have_it() -> None:
    """Every attribute can be found on the object that it is asked of."""
    credentials = grpc.ssl_channel_credentials()
    channel: Any
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        method = channel.unary_unary("/pkg.Service/Method")
        upload = channel.stream_unary("/pkg.Service/Upload")
        call: Any = upload(iter([b""]))
        objects = {
            "_credentials": credentials,
            "_active_calls": channel,
            "_async_request_poller": call,
            "_fut_waiter": asyncio.current_task(),
        }
        for name in ATTRIBUTES:
            if name != "_active_calls":  # of calls that are intercepted; newer than some gRPC
                assert hasattr(objects.get(name, method), name), name
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
