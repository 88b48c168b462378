"""What services of others may import, and what their environment says: as the README has it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

import accord_runtime
from accord_runtime.settings import Addresses, Settings

ROOT: Final = Path(accord_runtime.__file__).parents[2]
README: Final = (ROOT / "runtime" / "README.md").read_text()

PUBLIC: Final = {
    "accord_runtime.database": (
        "CommitUnknown Conflict Database DatabaseCorrupt DatabaseError DatabaseLocked"
        " DatabaseUnavailable Row Tx"
    ),
    "accord_runtime.events.audit": "Record reading",
    "accord_runtime.events.command_sender": "CommandSender",
    "accord_runtime.events.inbox": "EventHandler Received",
    "accord_runtime.events.notifier": "Notifier RECORD Watch",
    "accord_runtime.events.outbox": "Event Outbox event_time of_key",
    "accord_runtime.events.record": "RecordReader",
    "accord_runtime.events.versions": "AS_WRITTEN Upcasters",
    "accord_runtime.events.work_queue": "WorkQueue",
    "accord_runtime.grpc.consistency": "caught_up seen",
    "accord_runtime.grpc.idempotency": "commit key record settled",
    "accord_runtime.grpc.ids": "derived made_at uuid7",
    "accord_runtime.grpc.owner": "STAFF check may_touch only",
    "accord_runtime.grpc.page_tokens": "Page",
    "accord_runtime.grpc.types": "Context Trailed duration timestamp unix_seconds",
    "accord_runtime.jobs": "Job Jobs Kind Progress",
    "accord_runtime.process": "main running",
    "accord_runtime.program": (
        "Tasks follow_policy_file in_use join open_identity run serve_metrics"
    ),
    "accord_runtime.saga": "Call Contract Definition Local MIGRATIONS Saga Sagas",
    "accord_runtime.saga.orchestrator": "DELAYS TIMEOUT",
    "accord_runtime.service": "Runtime Service",
    "accord_runtime.settings": "Addresses Settings is_loopback targets",
    "accord_runtime.telemetry": "Telemetry",
    "accord_runtime.telemetry.trace_tree": (
        "Line Recorded STATUS milliseconds summary synchronous tree"
    ),
    "accord_runtime.views": "Change Completeness MIGRATIONS State View Views",
    "accord_runtime.work.executor": "Executor Permanent Queue",
    "accord_runtime.work.external_effect": "ExternalEffect",
    "accord_runtime.work.table": "Effect Work",
}
"""Modules -> names. The README has the same table; what is not in it may change at any time."""


def _names() -> Iterator[tuple[str, str]]:
    for module, names in PUBLIC.items():
        for name in names.split():
            yield module, name


@pytest.mark.parametrize(("module", "name"), list(_names()))
def test_exists_and_is_documented(module: str, name: str) -> None:
    """Every public name can be imported, and a class or a function says what it is."""
    found = getattr(import_module(module), name)
    if isinstance(found, type) or hasattr(found, "__code__"):
        assert found.__doc__


def _imports(file: Path) -> Iterator[tuple[str, str]]:
    """What a file imports from the runtime: a module, or a module and a name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("accord_runtime"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                package = find_spec(node.module or "")
                is_module = bool(package and package.submodule_search_locations) and (
                    find_spec(whole) is not None
                )
                yield (whole, "") if is_module else (node.module or "", alias.name)
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name, "") for alias in node.names if alias.name.startswith("accord_runtime")
            )


@pytest.mark.parametrize("folder", ["services", "docs/examples/runtime"])
def test_users_keep_to_it(folder: str) -> None:
    """Services, the shop's and those of the example, use public names only."""
    public = {*_names(), *((module, "") for module in PUBLIC)}
    for file in (ROOT / folder).rglob("*.py"):
        for used in _imports(file):
            assert used in public, f"{file}: {used}"


def _rows(mark: str) -> list[tuple[str, str]]:
    table = README.partition(f"<!-- {mark} -->")[2].partition("<!-- end -->")[0]
    return re.findall(r"^\| (`.+?`) \| (.+) \|$", table, re.MULTILINE)


def test_readme_has_the_same_table() -> None:
    """The README lists these modules with these names."""
    listed = {
        module.strip("`"): " ".join(re.findall(r"`(\w+)`", names))
        for module, names in _rows("public")
    }
    assert listed == {module: " ".join(names.split()) for module, names in PUBLIC.items()}


def test_readme_has_every_variable() -> None:
    """The README lists the variables that settings are read from, with their defaults."""
    source = (ROOT / "runtime" / "accord_runtime" / "settings.py").read_text()
    read = set(re.findall(r'environment\.get\("(\w+)"', source))
    rows = dict(_rows("settings"))
    assert read == {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    default = Settings.from_environment(
        "one", lambda offset: Addresses({"one": "127.0.0.1:1"}), {"MESH_INSECURE": "1"}
    )
    assert (
        len(fields(default)) == len(read) + 1
    )  # name and addresses are the code's; identity has two
    for variable, value in {
        "MESH_HOME": default.home,
        "MESH_PORT_OFFSET": default.port_offset,
        "NATS_REPLICAS": default.nats_replicas,
        "MAX_BACKLOG": default.max_backlog,
        "LOG_FORMAT": default.log_format,
    }.items():
        assert rows[f"`{variable}`"].split(" | ")[0].strip("`") == str(value), variable
