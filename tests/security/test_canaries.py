"""Secrets are where they must be and nowhere else: canaries are planted and searched for."""

import base64
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

from services import topology
from shopctl.errors import ExitCode
from shopctl.supervisor.health import broker_health
from tests.security.shop import SecureShop, secure_shop
from tests.support.edge import EdgeCaller
from tests.support.mesh_process import SHOPCTL, inherited
from tests.support.ports import free_port
from tests.support.wait import until_sync

COLUMNS: Final = {
    "card": {
        # What is to be charged later, by payments, which asks for it.
        ("orders", "orders", "card_token"),
    },
    "webhook": {
        # What the next delivery is signed with.
        ("notifications", "webhook", "secret"),
        # What the same command with the same key is answered again, for a day.
        ("notifications", "idempotency", "response"),
    },
    "url": {
        # Where the next delivery goes.
        ("notifications", "webhook", "url"),
        ("notifications", "idempotency", "response"),
    },
}
"""Canary -> database, table and column that must hold it."""

LISTS: Final = (
    *("status", "mesh", "policy get", "fault list", "saga list", "work list", "work queues"),
    *("audit", "operation list", "view list", "order list", "customer list", "product list"),
    *("certs show", "report 2026-11"),
)
"""Commands that show what there is."""


class Receiver(BaseHTTPRequestHandler):
    """A subscriber that refuses the first delivery."""

    requests: "list[tuple[bytes, Mapping[str, str]]]"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.requests.append((body, dict(self.headers.items())))
        self.send_response(500 if len(self.requests) == 1 else 204)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        """It says nothing."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[str, "list[tuple[bytes, Mapping[str, str]]]"]]:
    """Its URL, and what it was sent."""
    taken: list[tuple[bytes, Mapping[str, str]]] = []
    handler = type("Taking", (Receiver,), {"requests": taken})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", taken
        server.shutdown()
        thread.join()


class Run:
    """A shop in which everything has happened, and what was said meanwhile."""

    def __init__(self, shop: SecureShop) -> None:
        self.shop = shop
        self.canaries = {name: f"tok_canary{secrets.token_hex(12)}" for name in ("card", "url")}
        self.said: dict[str, str] = {}

    def __call__(self, *words: str, refused: bool = False) -> str:
        """Run a command, and keep what it says."""
        done = self.shop.run(*words)
        what = " ".join(words[:2])
        self.said[what] = self.said.get(what, "") + done.stdout + done.stderr
        assert done.returncode == 0 or refused, done.stderr
        return done.stdout

    def found(self, canary: str) -> set[str]:
        """Where it is, in itself or as base64, of all that is left and all that can be seen."""
        forms = list(_forms(self.canaries[canary]))
        return {
            place for place, content in self.everything() if any(form in content for form in forms)
        }

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Files, answers, and what `ps` shows."""
        for path in self.shop.home.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(self.shop.home)), path.read_bytes()
        yield "shopctl up", self.shop.mesh.output.read_bytes()
        for what, text in self.said.items():
            yield f"shopctl {what}", text.encode()
        for name, record in self.shop.mesh.records().items():
            if record.pid is not None:
                yield f"arguments of {name}", Path(f"/proc/{record.pid}/cmdline").read_bytes()
                yield f"environment of {name}", Path(f"/proc/{record.pid}/environ").read_bytes()
        for name in topology.SERVICES:
            port = topology.port(name, self.shop.mesh.offset) + topology.METRICS_DISTANCE
            yield f"metrics of {name}", _fetched(f"http://127.0.0.1:{port}/metrics")
        for name in topology.GATEWAYS:
            port = topology.port(name, self.shop.mesh.offset) + topology.GATEWAY_METRICS_DISTANCE
            yield f"metrics of {name}", _fetched(f"http://127.0.0.1:{port}/metrics")
        broker = broker_health(topology.address(topology.BROKER, self.shop.mesh.offset))
        for page in ("varz", "connz?subs=1&auth=1", "jsz?consumers=1&config=1", "subsz?subs=1"):
            yield f"broker {page}", _fetched(f"http://{broker}/{page}")

    def columns(self, canary: str) -> set[tuple[str, str, str]]:
        """Database, table and column of all that holds it."""
        forms = list(_forms(self.canaries[canary]))
        return {
            place
            for path in self.shop.home.glob("*.db")
            for place, value in _values(path)
            if any(form in value for form in forms)
        }


def _forms(canary: str) -> Iterator[bytes]:
    yield canary.encode()
    for shift in range(3):  # of base64, without what depends on what is beside it
        yield base64.b64encode(b" " * shift + canary.encode() + b" " * 3)[4:-8]


def _fetched(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as page:
        content: bytes = page.read()
    return content


def _values(path: Path) -> Iterator[tuple[tuple[str, str, str], bytes]]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            cursor = database.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    raw = value if isinstance(value, bytes) else str(value).encode()
                    yield (path.stem, table, name), raw
    finally:
        database.close()


@pytest.fixture(scope="module")
def run(
    receiver: tuple[str, list[tuple[bytes, Mapping[str, str]]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """Orders of both ways, one that fails, a webhook, mails, users, a crash, refused calls."""
    shell = {
        name: f"canary{secrets.token_hex(12)}"
        for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "NATS_TOKEN", "SMTP_PASSWORD")
    }
    hooks = {"OUTBOUND_NETWORKS": "127.0.0.0/8", "OUTBOUND_HTTP": "1"}
    home = tmp_path_factory.mktemp("canaries") / "home"
    with secure_shop(home, **shell, **hooks) as shop:
        run = Run(shop)
        run.canaries |= shell
        _live(run, *receiver)
        yield run


def _live(run: Run, url: str, taken: list[tuple[bytes, Mapping[str, str]]]) -> None:
    shop, card = run.shop, run.canaries["card"]
    event = ("--event", "shop.orders.v1.OrderConfirmed", "--event", "shop.orders.v1.OrderFailed")
    made = shop.say("webhook", "create", f"{url}?key={run.canaries['url']}", *event, "--json")
    webhook = json.loads(made)
    run.canaries["webhook"] = webhook["secret"].removeprefix("whsec_").rstrip("=")
    identity = webhook["webhook"]["webhook_id"]
    for how in ("orchestrated", "choreographed"):
        order = shop.order("--card", card, "--fulfilment", how)
        assert order["status"].endswith("CONFIRMED")
        token = shop.say("token", "--internal", "--customer", order["customer_id"])
        run.canaries[f"token {how}"] = token.rpartition(".")[2]
        bearer = shop.say("token", "--customer", order["customer_id"])
        run.canaries[f"bearer {how}"] = bearer.rpartition(".")[2]
        for text in (bearer, f"{bearer}x"):
            outside = EdgeCaller(shop.home, shop.mesh.offset, text)
            run.said["the edge"] = outside.get(f"/v1/orders/{order['order_id']}").text
        get = ("OrderService/GetOrder", "-d", json.dumps({"order_id": order["order_id"]}))
        run("curl", "-H", f"accord-user:{token}", *get)
        run("curl", "-H", f"accord-user:{token}x", *get, refused=True)
        for words in ("order trace", "order get", "order watch"):
            run(*words.split(), order["order_id"], "--json")
    run("saga", "list", "--json")
    saga = json.loads(run.said["saga list"].splitlines()[0])
    run("saga", "show", saga["saga_id"], "--json")
    behaviour = {"party": "PARTY_CARD_PROCESSOR", "behavior": "BEHAVIOR_DECLINE", "calls": 1}
    shop.say("curl", "SandboxService/SetBehavior", "-d", json.dumps(behaviour))
    place = ("order", "place", "--customer", order["customer_id"], "--watch", "--json")
    assert "FAILED" in run(*place, "--item", "tea:1", "--card", card, refused=True)
    # Refused: by the contract of the field, and by what is not there.
    run(*place, "--item", "tea:1", "--card", card * 40, refused=True)
    run(*place, "--item", "none:1:1.00", "--card", card, refused=True)
    until_sync(lambda: len(taken) > 3, "the deliveries, one of them again")
    assert Webhook(webhook["secret"]).verify(taken[-1][0], dict(taken[-1][1]))
    run("webhook", "list", "--json")
    run("webhook", "deliveries", identity, "--json")
    run("webhook", "test", identity, "--json")
    for name in ("payments", "orders", "notifications"):
        # Its stacks, to its log.
        os.kill(shop.mesh.records()[name].pid or 0, signal.SIGABRT)
    shop.mesh.kill("broker")
    until_sync(lambda: all(r.restarts for n, r in shop.mesh.records().items() if n in (
        "payments", "orders", "notifications", "broker")), "the crashes")  # fmt: skip
    shop.mesh.wait_until_serving()
    shop.order("--card", card)
    for words in LISTS:
        run(*words.split(), "--json")


def test_a_card_is_in_one_column(run: Run) -> None:
    """Its token is in the database of orders; not in logs, events, traces, answers or metrics."""
    assert run.found("card") <= _files("orders")
    assert run.columns("card") == COLUMNS["card"]


def test_a_webhooks_secret_is_in_one_column(run: Run) -> None:
    """It signs what is sent, is told once, and is shown nowhere again."""
    assert run.found("webhook") <= _files("notifications")
    assert run.columns("webhook") == COLUMNS["webhook"]


def test_a_webhooks_address_is_for_who_asks_for_the_webhook(run: Run) -> None:
    """It may have a key in it: it is in no log, trace or metric, nor in an error."""
    shown = {"shopctl webhook list"}
    assert run.found("url") <= _files("notifications") | shown
    assert run.columns("url") == COLUMNS["url"]


def test_a_users_token_is_nowhere(run: Run) -> None:
    """Nobody who reads what is left, or sees what goes on, could act for the user."""
    for how in ("orchestrated", "choreographed"):
        assert run.found(f"token {how}") == run.found(f"bearer {how}") == set()


def test_the_environment_of_who_starts_the_shop_is_not_inherited(run: Run) -> None:
    """Children that need no secret have none, and `shopctl up` writes none down."""
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "NATS_TOKEN", "SMTP_PASSWORD"):
        assert run.found(name) == set(), name
    pid = run.shop.mesh.records()["broker"].pid
    given = Path(f"/proc/{pid}/environ").read_text().split("\0")
    names = {entry.partition("=")[0] for entry in filter(None, given)}
    assert names <= {"PATH", "HOME", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS", "LC_CTYPE"}


def test_keys_are_in_their_files(run: Run) -> None:
    """The key of a certificate, or of the issuer of tokens, is in its own file alone."""
    files = [*(run.shop.home / "certs").rglob("tls.key"), run.shop.home / "edge" / "issuer.key"]
    keys = sorted({file.resolve() for file in files})  # an identity's are links to its newest
    assert len(keys) > len(topology.SERVICES)
    contents = list(run.everything())
    for key in keys:
        body = max(key.read_bytes().split(b"\n"), key=len)
        # In PEM as it is, in a dump as it is meant.
        forms = (body, base64.b64decode(body)[-32:])
        found = {place for place, content in contents if any(form in content for form in forms)}
        assert found == {str(key.relative_to(run.shop.home.resolve()))}
        assert key.stat().st_mode & 0o077 == 0


def _files(name: str) -> set[str]:
    """Those of a database."""
    return {f"{name}.db", f"{name}.db-wal", f"{name}.db-shm"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{}@127.0.0.1:{}/shop",
        "postgresql://me@127.0.0.1:{1}/shop?password={0}",
        "postgresql://me:{}@[broken:{}/shop",
        "postgresql://me:%zz{}@127.0.0.1:{}/shop",
        "postgresql://me:p@{}@127.0.0.1:{}/shop",
        "host=127.0.0.1 password={} port={} shop",
        "postgres+other://me:{}@127.0.0.1:{}/shop",
    ],
)
def test_passwords_of_database_and_broker_are_not_told(url: str, tmp_path: Path) -> None:
    """A service that reaches neither says so, without the passwords in their addresses."""
    canary = secrets.token_hex(12)
    given = {
        "MESH_HOME": str(tmp_path / "home"),
        "MESH_INSECURE": "1",
        "MESH_LISTEN": f"127.0.0.1:{free_port()}",
        "DATABASE_URL": url.format(canary, free_port()),
        "NATS_URL": f"nats://me:{canary}@127.0.0.1:{free_port()}",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "services.customers"],
        env={**inherited(), **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()  # a busy machine takes its time to begin
        try:
            said += process.communicate(timeout=6)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            said += process.communicate()[0]
    assert said
    assert canary not in said


@pytest.mark.parametrize("url", ["postgresql://me:{}@h/shop", "postgresql://h/shop?password={}"])
@pytest.mark.parametrize("command", [("up",), ("backup", "file"), ("restore", "file")])
def test_a_password_is_no_argument(command: tuple[str, ...], url: str, tmp_path: Path) -> None:
    """Everybody on the host reads arguments: a password there is refused, and not repeated."""
    canary = secrets.token_hex(12)
    done = subprocess.run(
        [*SHOPCTL, *command, "--database-url", url.format(canary)],
        env=inherited(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert "by DATABASE_URL" in done.stderr
    assert canary not in done.stderr
    assert not list(tmp_path.iterdir())
