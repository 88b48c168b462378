"""The reference, in a real browser that opened it from disk."""

import sys
from pathlib import Path
from typing import Any

import pytest

from accord_checks.export.reference import page
from accord_checks.export.reference.call_edges import Calls, Kind
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import support

SEEN = {
    "shop": ("unknown_customer create", "shop.orders.v1.OrderService/CreateOrder"),
    "foreign": ("things import", "acme.deep.er.v1.Things/Import"),
    "large": ("large.p7.v1.s7 do3", "large.p7.v1.S7/Do3"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the packed browser is for Linux")
async def test_reader_finds_everything(tmp_path: Path) -> None:
    """The page opens without network or error, and search and links work.

    It is accessible in both themes, fits a telephone and can be read without scripts.
    """
    pages = []
    for name, (search, link) in SEEN.items():
        file = tmp_path / f"{name}.html"
        file.write_text(page.export(support.all_contracts()[name], title=f"Contracts: {name}"))
        # The small one has every part that there is; judging the others takes long.
        rules = ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] if name == "foreign" else []
        pages.append({"page": str(file), "search": search, "link": link, "rules": rules})
    read = await support.node("reference.cjs", {"home": str(tmp_path), "pages": pages})
    for given, seen in zip(pages, read, strict=True):
        _check(given, seen)


def _check(given: dict[str, Any], seen: dict[str, Any]) -> None:
    """What a reader has seen of a page is as it should be."""
    assert set(seen["requests"]) == {f"file://{given['page']}"}
    assert seen["errors"] == []
    assert seen["broken"] == []
    assert seen["repeated"] == []
    assert given["link"] in seen["found"]
    assert len(seen["found"]) < 10 < seen["all"]
    assert seen["said"] == f"{len(seen['found'])} found"
    assert seen["cleared"] == seen["all"]
    assert seen["nothing"] == []
    assert seen["arrived"]
    assert seen["axe"] == {"light": [], "dark": []}
    assert seen["light"] != seen["dark"] == seen["kept"]
    assert seen["overflow"] <= 0
    assert seen["picture"] <= 0
    assert seen["withoutScript"]


def test_everything_of_the_contracts_is_on_the_page() -> None:
    """Every RPC, event, error reason and caller of the shop is there, with what it states."""
    contracts = ResolvedContracts(support.shop_image())
    html = page.export(contracts)
    for method in contracts.rpcs():
        assert f'id="{method.policy.method[1:]}"' in html
        for reason in method.policy.errors:
            assert f'id="error-{reason}"' in html
    for event in contracts.events:
        assert event.policy.subject in html
    create = html.split('<article id="shop.orders.v1.OrderService/CreateOrder"')[1]
    create = create.split("</article>")[0]
    assert "<dt>Timeout</dt><dd>5 s</dd>" in create
    assert "InventoryService/ReserveStock</code></a> (3 s)" in create
    assert "3 attempts on <code>UNAVAILABLE</code>" in create


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
    badge = '<span class="badge">deprecated</span>'
    marked = (
        "<h2>old.v1.OldService",
        "<h3>Get",
        "<h3>old.v1.Old",
        "<td><code>kind</code>",
        "<h3>old.v1.Kind",
        "<td><code>KIND_OLD</code>",
        "<h3>old",
    )
    for place in marked:
        assert place + badge in html
    assert html.count(badge) == len(marked)


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
    html = page.export(ResolvedContracts(support.compiled(tmp_path)))
    shown = {
        name: html.split(f'id="up.v1.UpService/{name}"')[1].split("</article>")[0]
        for name in ("Upload", "Watch", "Do")
    }
    assert "<dt>Timeout</dt><dd>10 s</dd>" in shown["Upload"]
    assert "<dt>Stream</dt>" not in shown["Upload"]
    assert "lives up to 1 h" in shown["Watch"]
    assert "<dt>Retry</dt><dd>never: a stream of requests is not kept</dd>" in shown["Upload"]
    assert "<dt>Retry</dt><dd>never: a repeat is not safe</dd>" in shown["Do"]


def test_what_contracts_say_cannot_become_markup() -> None:
    """A comment with tags, quotes and ampersands is shown, not obeyed."""
    html = page.export(ResolvedContracts(support.foreign_image()))
    assert "Things &amp; &lt;others&gt;." in html
    assert '<code>a &lt; b &amp;&amp; "c"</code>' in html
    assert "<others>" not in html


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
