"""No service keeps a retry, a timeout or an error code of its own: its contract has them."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import services
from services import topology

FOLDER: Final = Path(services.__file__).parent

SERVICES: Final = sorted(name for name in topology.SERVICES if (FOLDER / name).is_dir())

FORBIDDEN: Final = {
    "asyncio.timeout": "a timeout: state it in the contract",
    "asyncio.timeout_at": "a timeout: state it in the contract",
    "asyncio.wait_for": "a timeout: state it in the contract",
    "asyncio.sleep": "a back-off: state it in the contract, or enqueue work",
    "time.sleep": "a back-off: state it in the contract, or enqueue work",
    "grpc.StatusCode": "a status code: raise accord's errors, read `reason` or `refusal`",
    "grpc.insecure_channel": "a channel without policies: ask the mesh",
    "grpc.aio.insecure_channel": "a channel without policies: ask the mesh",
    "context.abort": "a status: raise accord's errors",
}

ALLOWED: Final = {
    # It waits for an event of its own, within what its contract has left.
    ("orders/servicer.py", "asyncio.timeout"),
    # It plays somebody who is slow.
    ("sandbox/behavior.py", "asyncio.sleep"),
}


def used(source: Path) -> Iterator[str]:
    """Dotted names that a module uses, and `timeout=` wherever it calls an RPC with one."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = node.func.attr
            if called[:1].isupper() and any(each.arg == "timeout" for each in node.keywords):
                yield f"{called}(timeout=)"


@pytest.mark.parametrize("service", SERVICES)
def test_policies_are_the_contracts(service: str) -> None:
    """Nothing in a service decides how long or how often a call is tried, or what its status is."""
    found = {
        (str(source.relative_to(FOLDER)), name)
        for source in (FOLDER / service).rglob("*.py")
        for name in used(source)
        if name in FORBIDDEN or name.endswith("(timeout=)")
    }
    assert found - ALLOWED == set()


def test_exceptions_are_needed() -> None:
    """An exception that nothing makes use of any more is taken off the list."""
    assert {each for each in ALLOWED if each[1] in set(used(FOLDER / each[0]))} == ALLOWED
