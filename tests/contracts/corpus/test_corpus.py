"""Contracts that nobody here wrote: no crash, no finding that is not true, every export is taken.

Those of the distributions that are installed anyway; `make corpus` has those of `wheels.txt`, up to
2,500 RPCs each, and prints what each took. docs/contract-corpus.md judges a sample of the findings.
"""

import json
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from accord_checks.breaking_rules.compare import compare
from accord_checks.export import asyncapi, envoy, service_config
from accord_checks.export.reference import page
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.corpus import descriptors, judged
from tests.contracts.export import support, test_envoy

FOLDER = os.environ.get("CORPUS")
PARSED = 60_000
"""Letters of a document that the AsyncAPI parser is given: it takes minutes for longer ones."""
# What a first policy for every service leads to; anything else would be said of what is not there.
KNOWN = {
    "ACCORD_LIST_PAGED",
    "ACCORD_MUTATION_KEY",
    "ACCORD_STREAM_RESUMABLE",
    "ACCORD_TIMEOUT_STATED",
}


@dataclass(frozen=True)
class Distribution:
    """What one distribution has."""

    name: str
    image: judged.Image
    left_out: list[str]
    """Files of which an import is nowhere."""


@pytest.fixture(scope="module")
def corpus() -> list[Distribution]:
    """Every distribution that has a service, ours excepted."""
    sets = descriptors.installed(Path(FOLDER) if FOLDER else None)
    found = []
    for name, own in sets.items():
        if not name.startswith("accord"):
            others = [files for other, files in sets.items() if other != name]
            image, left_out = descriptors.image(own, others)
            if any(file.service for file in image.file):
                found.append(Distribution(name, image, left_out))
    assert len(found) >= (8 if FOLDER else 3)
    return found


def test_what_is_found_is_there(corpus: list[Distribution]) -> None:
    """Without a policy one finding a service; with one, of four kinds; no change from itself."""
    print()
    for one in corpus:
        begun = time.process_time()
        plain, stated = judged.contracts(one.image), judged.stated(one.image)
        services = [service for service in plain.own_services if service.rpcs]
        found = Counter(line.partition(" ")[0] for line in judged.findings(one.image))
        assert found == {"ACCORD_POLICY_STATED": len(services)}
        found = Counter(line.partition(" ")[0] for line in judged.findings(stated))
        assert found.keys() <= KNOWN
        assert list(compare(plain, judged.contracts(one.image))) == []
        after = judged.contracts(stated)
        assert list(compare(after, judged.contracts(stated))) == []
        begun_policies = {change.rule and change.rule.id for change in compare(plain, after)}
        assert begun_policies == {"POLICY_BEGUN", None}  # of each service, and its owner
        took = time.process_time() - begun
        rpcs = sum(len(service.rpcs) for service in services)
        print(
            f"{one.name:26} {len(services):4} services {rpcs:5} RPCs {sum(found.values()):5}"
            f" findings {took:5.1f} s, {len(one.left_out)} files left out"
        )


def test_a_sample_of_what_is_found_is_judged(corpus: list[Distribution]) -> None:
    """Each of 100 findings has a verdict, and `make corpus` still gives every one of them."""
    table = (support.ROOT / "docs" / "contract-corpus.md").read_text()
    rows = [line.split(" | ") for line in table.splitlines() if " | ACCORD_" in line]
    assert len(rows) == 100
    assert {row[4] for row in rows} == {"true"}
    if not FOLDER:  # what is installed anyway may be of another version
        return
    found = {
        f"| {one.name} {line}"
        for one in corpus
        for line in (*judged.findings(one.image), *judged.findings(judged.stated(one.image)))
    }
    assert {f"{name} {rule} {file}: {what}" for name, rule, file, what, *_ in rows} <= found
    services = [service for one in corpus for service in judged.contracts(one.image).own_services]
    rpcs = sum(len(service.rpcs) for service in services)
    assert f"{len(services)} services with {rpcs:,} RPCs" in table


async def test_every_export_is_taken_by_what_it_is_for(
    corpus: list[Distribution], tmp_path: Path
) -> None:
    """By Envoy, gRPC's core, the AsyncAPI parser, grpcurl and a browser; with sizes and times."""
    documents: list[dict[str, Any]] = []
    pages: list[dict[str, Any]] = []
    print()
    for one in corpus:
        begun = time.process_time()
        contracts = ResolvedContracts(judged.stated(one.image))
        routes = envoy.export(contracts)
        config = service_config.export(contracts, timeouts=False)
        document = asyncapi.export(ResolvedContracts(judged.published(one.image)))
        html = page.export(contracts, title=one.name)
        took = time.process_time() - begun
        _taken_by_envoy(tmp_path, routes)
        await _taken_by_core(config, next(contracts.rpcs()).policy.method)
        _taken_by_grpcurl(tmp_path, one.image, {service.name for service in contracts.services})
        if len(document) < PARSED:
            documents.append({"document": document, "events": []})
        file = tmp_path / f"{one.name}.html"
        file.write_text(html)
        pages.append({"page": str(file), "searches": ["e"]})
        sizes = ", ".join(
            f"{name} {len(text.encode()) / 1000:.0f}"
            for name, text in (
                ("routes", routes),
                ("config", config),
                ("events", document),
                ("page", html),
            )
        )
        print(f"{one.name:26} {took:5.1f} s; kB: {sizes}")
    assert documents
    for judgement in await support.node("asyncapi.cjs", documents):
        assert judgement == {"problems": [], "invalid": []}
    for seen in await support.node("reference.cjs", {"home": str(tmp_path), "pages": pages}):
        assert seen["found"]


def _taken_by_envoy(folder: Path, exported: str) -> None:
    (routes,) = json.loads(exported)["resources"]
    configuration = test_envoy.bootstrap(routes, test_envoy.inline(routes))
    done = test_envoy.validated(folder, configuration)
    assert done.returncode == 0, done.stderr


async def _taken_by_core(config: str, method: str) -> None:
    """A config that the core refuses fails every call; this one reaches a server without it."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        options = [("grpc.service_config", config)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            assert await support.outcome(channel, method) == "UNIMPLEMENTED"
    finally:
        await server.stop(None)


def _taken_by_grpcurl(folder: Path, image: judged.Image, services: set[str]) -> None:
    file = folder / "image.protoset"
    file.write_bytes(image.SerializeToString())
    listed = subprocess.run(
        (support.SCRIPTS / "grpcurl", "-protoset", file, "list"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert services <= set(listed.stdout.split()), listed.stderr
