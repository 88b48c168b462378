"""Rules for Prometheus and a dashboard for Grafana: of what is measured, and of the contracts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from accord_checks.export import prometheus
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import support

MADE = "".join(
    file.read_text()
    for folder in ("interceptors/accord", "runtime/accord_runtime")
    for file in sorted((Path(support.ROOT) / folder).rglob("*.py"))
)
"""The code that makes metrics."""


@pytest.fixture(scope="module")
def contracts() -> ResolvedContracts:
    return ResolvedContracts(support.shop_image())


def expressions(document: Any) -> list[str]:
    """All queries of a document."""
    if isinstance(document, dict):
        own = [document["expr"]] if "expr" in document else []
        return own + [each for value in document.values() for each in expressions(value)]
    if isinstance(document, list):
        return [each for value in document for each in expressions(value)]
    return []


def test_every_metric_is_one_that_the_code_makes(contracts: ResolvedContracts) -> None:
    """A query of what nobody measures is empty for ever, and alerts nobody."""
    found = set[str]()
    for export in (prometheus.rules, prometheus.dashboard):
        for expression in expressions(json.loads(export(contracts))):
            assert expression.count("(") == expression.count(")")
            assert expression.count("{") == expression.count("}")
            named = set(re.findall(r"\b(?:accord|grpc)_\w+(?=[\[{) ])", expression))
            assert named, expression
            found |= named - {"grpc_method", "grpc_target", "grpc_status"}
    assert len(found) > 10
    for name in found:
        base = re.sub(r"_(total|(seconds)?(_(bucket|count))?)$", "", name)
        parts = base.split("_")
        dotted = {".".join(parts[:n]) + "." + "_".join(parts[n:]) for n in range(1, len(parts))}
        dotted |= {each.removeprefix("accord.") for each in dotted}
        last = {base.removeprefix("accord_work_")} if base.startswith("accord_work_") else set()
        assert any(f'{each}"' in MADE for each in dotted | last), name


def test_timeouts_and_owners_are_those_of_the_contracts(contracts: ResolvedContracts) -> None:
    """A method's alert comes before its timeout does, and says whose it is."""
    groups = json.loads(prometheus.rules(contracts))["groups"]
    methods, services, _ = (group["rules"] for group in groups)
    by_method = {each["labels"]["method"]: each for each in methods}
    for rpc in contracts.rpcs():
        name = f"{rpc.service.name}/{rpc.short}"
        if rpc.policy.timeout is None:
            assert name not in by_method
        else:
            assert by_method[name]["expr"].endswith(f"> {rpc.policy.timeout * 0.8:g}")
            assert by_method[name]["labels"]["owner"] == rpc.service.owner
    assert len(services) == len(contracts.services)
