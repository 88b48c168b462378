"""The reference, in a real browser that opened it from disk."""

import base64
import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from accord.v1 import policy_pb2
from accord_checks.export.reference import page
from accord_checks.export.reference.call_edges import Calls, Kind
from accord_checks.export.reference.inline_text import code, link
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import many, support

SEEN = {
    "shop": ("unknown_customer create", "shop.orders.v1.OrderService/CreateOrder"),
    "foreign": ("things import", "acme.deep.er.v1.Things/Import"),
    "large": ("large.p7.v1.s7 do3", "large.p7.v1.S7/Do3"),
    "hostile": ("part0service/handleorder0", "company.area0.part0.v1.Part0Service/HandleOrder0"),
}
ROUNDS = 5
MARKUP = "</script><img src=x onerror=alert(1)>\ue000#\ue001<b>\ue002&amp;\"'"


def _hostile() -> ResolvedContracts:
    """Contracts that say markup wherever text is free."""
    found = many.image(2, 4)
    for file in found.file[4:]:
        for location in file.source_code_info.location:
            location.leading_comments = f" {MARKUP} `{MARKUP}`\n"
        service = file.service[0]
        service.options.Extensions[policy_pb2.service].owner = MARKUP
        for method in service.method:
            policy = method.options.Extensions[policy_pb2.policy]
            policy.allow.append(f"spiffe://{MARKUP}/{MARKUP}")
    return ResolvedContracts(found)


def _data(html: str) -> Any:
    """What a page has to say."""
    packed = html.split('id="data">')[1].split("</script>")[0]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def _rpcs(html: str) -> dict[str, Any]:
    """What it says of each RPC, by full name."""
    services = _data(html)["services"]
    return {
        f"{service['name']}/{rpc['name']}": rpc for service in services for rpc in service["rpcs"]
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the packed browser is for Linux")
async def test_reader_finds_everything(tmp_path: Path) -> None:
    """The page opens without network or error, and search, keys and links work.

    It is accessible in both themes, fits a telephone, names its RPCs without scripts, and what
    contracts say never becomes markup.
    """
    pages = []
    for name, (search, target) in SEEN.items():
        file = tmp_path / f"{name}.html"
        contracts = _hostile() if name == "hostile" else support.all_contracts()[name]
        title = MARKUP if name == "hostile" else f"Contracts: {name}"
        file.write_text(page.export(contracts, title=title))
        # The small one has every part that there is; judging the others takes long.
        rules = ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] if name == "foreign" else []
        pages.append({"page": str(file), "search": search, "link": target, "rules": rules})
    read = await support.node("reference.cjs", {"home": str(tmp_path), "pages": pages})
    for given, seen in zip(pages, read, strict=True):
        _check(given, seen)


def _check(given: dict[str, Any], seen: dict[str, Any]) -> None:
    """What a reader has seen of a page is as it should be."""
    assert set(seen["requests"]) == {f"file://{given['page']}"}
    assert seen["errors"] == []
    assert seen["broken"] == []
    assert seen["repeated"] == []
    assert seen["walked"] > 10
    assert not {"img", "b"} & set(seen["tags"])
    assert given["link"] in seen["found"]
    assert len(seen["found"]) < 10
    assert seen["said"] == f"{len(seen['found'])} found"
    assert seen["first"] == seen["entered"] == seen["found"][0]
    assert seen["nothing"] == []
    assert seen["cleared"]
    assert seen["arrived"]
    assert seen["deep"]
    assert seen["axe"] == {"light": [], "dark": []}
    assert seen["light"] != seen["dark"] == seen["kept"]
    assert seen["overflow"] <= 0
    assert seen["picture"] <= 0
    assert seen["withoutScript"]


@pytest.mark.skipif(sys.platform != "linux", reason="the packed browser is for Linux")
async def test_page_scales(tmp_path: Path) -> None:
    """Of 380 services and 5,000 RPCs: two megabytes, a small document, and a search in 100 ms."""
    begun = time.process_time()
    html = page.export(ResolvedContracts(many.image(380, 5000)))
    made = time.process_time() - begun
    file = tmp_path / "many.html"
    file.write_text(html)
    words = ["h", "ha", "handle", "handleinvoice1", "part7 order", "reason_12", "whoever", "none"]
    searches = [*words * ROUNDS, "part77service/handleorder0"]
    given = {"page": str(file), "searches": searches}
    (seen,) = await support.node("reference.cjs", {"home": str(tmp_path), "pages": [given]})
    # Of each word the best: the first builds the index, and others use the machine too.
    searched = sorted(min(seen["searching"][at : -1 : len(words)]) for at in range(len(words)))
    print(
        f"\nreference of 5,000 RPCs: {len(html) / 1e6:.1f} MB, made in {made:.1f} s of CPU,"
        f" opened in {seen['opening']} ms with {seen['nodes']} elements; searches:"
        f" {', '.join(f'{took:.0f}' for took in searched)} ms"
    )
    assert len(html) < 2e6
    assert seen["nodes"] < 5000
    assert seen["found"][0] == "company.area17.part77.v1.Part77Service/HandleOrder0"
    assert searched[len(words) // 2] < 100


def test_everything_of_the_contracts_is_on_the_page() -> None:
    """Every RPC, event, error reason and caller of the shop is there, with what it states."""
    contracts = ResolvedContracts(support.shop_image())
    html = page.export(contracts)
    data, rpcs = _data(html), _rpcs(html)
    reasons = {reason for reason, _ in data["errors"]}
    for method in contracts.rpcs():
        assert method.name in rpcs
        assert reasons >= method.policy.errors
    subjects = [event["subject"] for event in data["events"]]
    assert subjects == [event.policy.subject for event in contracts.events]
    create = dict(rpcs["shop.orders.v1.OrderService/CreateOrder"]["rows"])
    outside = create["From outside"]
    assert outside.startswith(code("POST /v1/orders"))
    assert "5 calls a second" in outside
    assert create["Timeout"] == "5 s"
    reserve = "shop.inventory.v1.InventoryService/ReserveStock"
    assert f"{link(reserve, 'InventoryService/ReserveStock')} (3 s)" in create["Calls"]
    assert f"3 attempts on {code('UNAVAILABLE')}" in create["Retry"]


def test_what_is_deprecated_is_marked(tmp_path: Path) -> None:
    """A service, an RPC, a message, a field, an enum, a value and an event, each at its place."""
    (tmp_path / "old.proto").write_text(
        """syntax = "proto3"; package old.v1; import "accord/v1/policy.proto";
        service OldService { option deprecated = true;
          rpc Get(Old) returns (Young) { option deprecated = true; } }
        service YoungService { rpc Get(Young) returns (Young); }
        message Old { option deprecated = true;
          option (accord.v1.event) = {subject: "old" version: 1 key: "id"};
          string id = 1; Kind kind = 2 [deprecated = true]; }
        message Young { string id = 1; }
        enum Kind { option deprecated = true; KIND_NEW = 0; KIND_OLD = 1 [deprecated = true]; }
        """
    )
    html = page.export(ResolvedContracts(support.compiled(tmp_path)))
    data = _data(html)
    entries = [*data["services"], *data["events"], *data["types"]]
    assert [entry["name"] for entry in entries if "deprecated" in entry["marks"]] == [
        "old.v1.OldService",
        "old.v1.Old",
        "old.v1.Kind",
        "old.v1.Old",
    ]
    assert [name for name, rpc in _rpcs(html).items() if "deprecated" in rpc["marks"]] == [
        "old.v1.OldService/Get"
    ]
    rows = [row[0] for entry in data["types"] for row in entry["rows"] if row[4:] == [1]]
    assert rows == ["KIND_OLD", "kind"]


def test_only_a_stream_of_responses_has_limits_of_a_stream(tmp_path: Path) -> None:
    """A stream of requests alone has a timeout, and is never repeated because nobody keeps it."""
    (tmp_path / "up.proto").write_text(
        """syntax = "proto3"; package up.v1; import "accord/v1/policy.proto";
        service UpService {
          option (accord.v1.service) = {defaults: {
            timeout: {seconds: 10} retry: {max_attempts: 3} stream: {max_lifetime: {seconds: 3600}}
          }};
          rpc Upload(stream M) returns (M) { option idempotency_level = IDEMPOTENT; }
          rpc Watch(M) returns (stream M) { option idempotency_level = IDEMPOTENT; }
          rpc Do(M) returns (M); }
        message M {}
        """
    )
    rpcs = _rpcs(page.export(ResolvedContracts(support.compiled(tmp_path))))
    shown = {
        name: dict(rpcs[f"up.v1.UpService/{name}"]["rows"]) for name in ("Upload", "Watch", "Do")
    }
    assert shown["Upload"]["Timeout"] == "10 s"
    assert "Stream" not in shown["Upload"]
    assert shown["Watch"]["Stream"].startswith("lives up to 1 h")
    assert shown["Upload"]["Retry"] == "never: a stream of requests is not kept"
    assert shown["Do"]["Retry"] == "never: a repeat is not safe"


def test_edges_say_who_calls_whom() -> None:
    """Calls, callers and compensations become edges, also where they go round in circles."""
    calls = Calls(ResolvedContracts(support.foreign_image()))
    made = {
        (edge.kind, edge.target) for edge in calls.edges if edge.source == "/acme.calls.v1.A/Do"
    }
    assert made == {
        (Kind.CALL, "/acme.calls.v1.B/Do"),
        (Kind.CALL, "/acme.calls.v1.A/Again"),
        (Kind.CALL, "/elsewhere.v1.Stranger/Do"),
        (Kind.UNDO, "/acme.calls.v1.A/Again"),
    }
    taken = {source for kind in Kind for source, _ in calls.made_to("/acme.calls.v1.A/Do", kind)}
    assert taken == {"/acme.calls.v1.C/Do", "spiffe://acme.test/web", "plain-name"}
