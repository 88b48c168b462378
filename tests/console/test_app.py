"""Who is let in to the console, and who may act: without a browser, and without a mesh."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import accord
from accord.edge import Authenticator, KeySet
from services import topology
from services.console.access import COOKIE, Links, make_link
from services.console.app import App
from services.console.services import Services
from shopctl import issuer
from tests.support.ports import free_port

BASE = "http://127.0.0.1:8081"
CHARGE = "shop.payments.v1.PaymentService/Charge"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A console whose services are not there."""
    issuer.prepare(tmp_path)
    keys = KeySet.from_file(tmp_path / "edge" / "jwks.json")
    tokens = Authenticator(keys, issuer="https://shop.internal", audience="shop-edge")
    nobody = {name: f"127.0.0.1:{free_port()}" for name in topology.SERVICES}
    mesh = accord.Mesh("console", targets=nobody)
    app = App(Services(mesh, nobody, None), tokens, Links(tmp_path), frozenset({"shop.example"}))
    yield app
    await app.drain()
    await mesh.close()


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A browser at the console's own address."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        yield client


def logged_in(app: App, client: httpx.AsyncClient, role: str = "operator") -> str:
    """Logs a user in; returns what the forms of the session have in them."""
    cookie = app.sessions.open("ada", role)  # type: ignore[arg-type]
    client.cookies.set(COOKIE, cookie)
    session = app.sessions.find(cookie)
    assert session is not None
    return session.csrf


async def send(client: httpx.AsyncClient, path: str, form: dict[str, str], **headers: str) -> int:
    """The status of a form that is sent from the console's own page, unless headers differ."""
    given = {"origin": str(client.base_url).rstrip("/"), **headers}
    answer = await client.post(path, data=form, headers=given)
    return answer.status_code


async def test_a_link_logs_in_once(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """The cookie is out of reach of scripts and of other sites; afterwards the page is served."""
    assert (await client.get("/console/")).status_code == 401
    link = f"/console/login?link={make_link(tmp_path, 'ada')}"
    answer = await client.get(link)
    assert answer.status_code == 303
    said = answer.headers["set-cookie"].lower()
    assert all(part in said for part in ("httponly", "samesite=strict", "path=/console"))
    page = await client.get("/console/")
    assert page.status_code == 200
    assert "ada (operator)" in page.text
    client.cookies.clear()
    assert (await client.get(link)).status_code == 403


async def test_the_reference_runs_what_it_names(app: App, client: httpx.AsyncClient) -> None:
    """Who has logged in gets it; its policy lets its own style and script run, by their hashes."""
    assert (await client.get("/console/reference/")).status_code == 401
    logged_in(app, client)
    found = await client.get("/console/reference/")
    assert 'id="shop.orders.v1.OrderService/CreateOrder"' in found.text
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    for inline in re.findall(r"<(?:style|script)>(.*?)</", found.text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


async def test_every_answer_keeps_scripts_out(app: App, client: httpx.AsyncClient) -> None:
    """Only the console's own scripts and styles run, in no frame, and nothing is kept."""
    logged_in(app, client)
    for path in ("/console/", "/console/orders", "/console/none", "/console/static/console.js"):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        page = (await client.get(path)).text
        assert not any(part in page for part in (" style=", " onclick", "<script>"))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "a b"])
async def test_another_name_is_not_the_consoles(client: httpx.AsyncClient, host: str) -> None:
    """Whose name was made to lead here gets nothing: DNS rebinding."""
    answer = await client.get("/console/", headers={"host": host})
    assert answer.status_code == 421


async def test_links_are_for_this_host(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """By a name that is reachable from elsewhere one logs in by a token alone."""
    link = f"/console/login?link={make_link(tmp_path, 'ada')}"
    answer = await client.get(link, headers={"host": "shop.example"})
    assert answer.status_code == 403
    assert (await client.get(link)).status_code == 303


async def test_a_token_logs_in(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Who has the role of an operator may act, a viewer may look, anybody else stays outside."""
    for roles, status in ((["operator"], 303), (["viewer"], 303), (["customer"], 403)):
        client.cookies.clear()
        token = issuer.issue(tmp_path, "ada", roles)
        assert await send(client, "/console/login", {"token": token}) == status
        page = await client.get("/console/")
        assert (f"ada ({roles[0]})" in page.text) == (status == 303)
    for token in ("", "nonsense", "a.b.c", "x" * 9000):
        assert await send(client, "/console/login", {"token": token}) == 403


async def test_nobody_locks_others_out(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """However many logins have failed, a good one is let in."""
    for _ in range(30):
        assert await send(client, "/console/login", {"token": "a"}) == 403
    good = issuer.issue(tmp_path, "ada", ["operator"])
    assert await send(client, "/console/login", {"token": good}) == 303


async def test_forms_are_of_this_session_and_this_page(app: App, client: httpx.AsyncClient) -> None:
    """Without its secret, from another page, or from one that does not say: nothing is done."""
    csrf = logged_in(app, client)
    form = {"csrf": csrf, "reason": "a test", "sure": "1", "abort": "UNAVAILABLE"}
    path = f"/console/fault/{CHARGE}"
    assert await send(client, path, {**form, "csrf": "another"}) == 403
    assert await send(client, path, form, origin="https://evil.example") == 403
    assert await send(client, path, form, origin="null") == 403
    assert await send(client, path, form, **{"sec-fetch-site": "cross-site"}) == 403
    assert (await client.post(path, data=form)).status_code == 403
    assert await send(client, path, {**form, "reason": " "}) == 400
    assert await send(client, path, {**form, "sure": ""}) == 400
    assert await send(client, path, form) == 502  # payments is not there


async def test_a_viewer_may_not_act(app: App, client: httpx.AsyncClient) -> None:
    """Neither by forms nor by what would be done; there are no forms for it, either."""
    csrf = logged_in(app, client, "viewer")
    form = {"csrf": csrf, "reason": "a test", "sure": "1", "do": "retry", "id": "orders:1"}
    for path in (f"fault/{CHARGE}", f"override/{CHARGE}", f"call/{CHARGE}", "work/act"):
        assert await send(client, f"/console/{path}", form) == 403
    assert (await client.get("/console/work/act?do=retry&id=orders:1")).status_code == 403
    page = (await client.get(f"/console/method/{CHARGE}")).text
    assert page.count("<form") == 1  # to log out


async def test_services_that_are_away_are_said_to_be(app: App, client: httpx.AsyncClient) -> None:
    """Every page is there without a single service, and says who does not answer."""
    logged_in(app, client)
    for path in ("", "orders", "work", f"method/{CHARGE}"):
        answer = await client.get(f"/console/{path}")
        assert answer.status_code == 200, answer.text
        assert path == "" or "UNAVAILABLE" in answer.text or "does not answer" in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/method/no.such.v1.Service/Method", 404),
        ("/console/method/<script>", 404),
        ("/console/work/none/1", 404),
        ("/console/static/../app.py", 404),
        ("/console/static/%2e%2e/app.py", 404),
        ("/console/static/README.md", 404),
        ("/console/work?state=none", 400),
        ("/console/work?min_age=long", 400),
        ("/console/work/act?do=none", 400),
        ("/console/work/act?do=retry", 400),
        ("/elsewhere", 404),
    ],
)
async def test_nonsense_is_refused(
    app: App, client: httpx.AsyncClient, path: str, status: int
) -> None:
    """With a page that says so, and never with markup of whoever asked."""
    logged_in(app, client)
    answer = await client.get(path)
    assert answer.status_code == status
    assert "<script>" not in answer.text


async def test_large_or_other_bodies_are_refused(app: App, client: httpx.AsyncClient) -> None:
    """Before they are read."""
    logged_in(app, client)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = await client.post("/console/logout", content=b"a" * 70_000, headers=kind)
    assert answer.status_code == 413
    assert (await client.post("/console/logout", json={})).status_code == 415
    assert (await client.put("/console/")).status_code == 405
