"""The console as an ASGI application: who is let in, and which page answers."""

import hmac
import logging
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import grpc
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from accord.edge import Authenticator
from accord.edge.problem import EdgeError
from services.console import mesh_page, method_page, orders_page, work_acts, work_page
from services.console.access import COOKIE, Links, Role, Session, Sessions
from services.console.html import Html, el, url
from services.console.live import MAX_VIEWERS, Feeds
from services.console.page import PROBLEM, Page, Refused, document, field, first
from services.console.services import Services
from services.console.watch import MeshWatch, said_of

log = logging.getLogger(__name__)

MAX_FORM: Final = 64 * 1024
"""Bytes of a form."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not "no-referrer": then browsers do not say where a form comes from, either.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

Given = dict[str, list[str]]


class App:
    """Answers everything that comes in at the console's port. Belongs to one event loop."""

    def __init__(
        self,
        services: Services,
        tokens: Authenticator,
        links: Links | None,
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        """`links`: None: nobody logs in by one; `hosts`: see `ConsoleSettings`."""
        self._services = services
        self._tokens = tokens
        self._links = links
        self._hosts = _LOOPBACK | hosts
        self.sessions = Sessions()
        self.watch = MeshWatch(services.mesh, services.names)
        self._feeds = Feeds()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Refused as refusal:
            response = self._refuse(request, str(refusal), refusal.status)
        except grpc.RpcError as error:
            response = self._refuse(request, said_of(error), 502)
        except ClientDisconnect:
            return
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def drain(self) -> None:
        """End all streams, and watch nothing any more."""
        self._feeds.close()
        await self.watch.close()

    async def _answer(self, request: Request) -> Response:
        # Who has a name of his own lead to this address is kept out: DNS rebinding.
        if _hostname(request) not in self._hosts:
            return Response("this name is not the console's: MESH_CONSOLE_HOSTS", 421)
        path, method = request.url.path, request.method
        if path in ("/healthz", "/livez"):
            return JSONResponse({"status": "serving"})
        if path in ("/", "/console"):
            return RedirectResponse(url(), 307)
        if not path.startswith("/console/"):
            raise Refused("there is no such page", 404)
        rest = path.removeprefix("/console/")
        if method not in ("GET", "HEAD", "POST"):
            raise Refused("only GET and POST are answered", 405)
        if rest.startswith("static/"):
            return _static(rest.removeprefix("static/"))
        given = await _form(request) if method == "POST" else parse_qs(request.url.query)
        if rest == "login":
            return await self._login(request, given)
        session = self._session(request)
        if session is None:
            if method == "POST" or rest == "live":
                raise Refused("log in first", 401)
            return _page(_login_page(by_link=self._links is not None), None, "", 401)
        if method == "POST":
            return await self._act(request, rest, given, session)
        if rest == "live":
            return self._live(request, first(given, "of"))
        if rest == "reference/":
            return _reference()
        page = await self._load(rest, given, session)
        notice, session.notice = session.notice, ""
        where = f"{rest}?{request.url.query}" if request.url.query else rest
        return _page(page, session, where, page.status, notice)

    async def _load(self, rest: str, given: Given, session: Session | None = None) -> Page:
        """A page; without a session: what is live on it."""
        kind, _, of = rest.partition("/")
        if rest == "":
            return mesh_page.page(self.watch)
        if kind == "method" and of:
            return await method_page.page(self._services, self.watch, of, session)
        if rest == "orders":
            return await orders_page.listing(self._services, given)
        if kind == "orders":
            return await orders_page.order(self._services, of)
        if rest == "work":
            return await work_page.page(self._services, given, session)
        if rest == "work/act" and session is not None:
            return await work_acts.page(self._services, given, operator(session))
        service, slash, target = of.partition("/")
        if kind in ("work", "saga") and slash:
            one = work_page.item if kind == "work" else work_page.saga
            return await one(self._services, service, target, session)
        raise Refused("there is no such page", 404)

    async def _act(self, request: Request, rest: str, given: Given, session: Session) -> Response:
        _check_origin(request)
        if not session.is_mine(first(given, "csrf")):
            raise Refused("this form is not of your session: load its page again", 403)
        if rest == "logout":
            self.sessions.close(request.cookies.get(COOKIE, ""))
            return RedirectResponse(url(), 303)
        kind, _, of = rest.partition("/")
        operator(session)
        if rest == "work/act":
            session.notice = await work_acts.act(self._services, given, session)
            return RedirectResponse(url("work"), 303)
        if kind == "call" and of:
            page = await method_page.call(self._services, of, given, session)
            return _page(page, session, "", page.status)
        if kind in method_page.ACTS:
            session.notice = await method_page.ACTS[kind](self._services, of, given, session)
            log.info("%s: %s %s", session.user, kind, of)
            return RedirectResponse(f"{url('method')}/{of}", 303)
        raise Refused("there is no such form", 404)

    def _live(self, request: Request, of: str) -> Response:
        if self._feeds.viewers >= MAX_VIEWERS:
            raise Refused("too many look already", 503)
        parts = urlsplit(of)

        last: tuple[int, tuple[dict[str, Html], float]] | None = None

        async def load() -> tuple[dict[str, Html], float]:
            nonlocal last
            version = self.watch.version
            if parts.path == "" and last is not None and last[0] == version:
                return last[1]  # the mesh is as it was
            try:
                page = await self._load(parts.path, parse_qs(parts.query))
            except (Refused, grpc.RpcError) as error:
                why = said_of(error) if isinstance(error, grpc.RpcError) else str(error)
                return {PROBLEM: el("p", why, class_="problem")}, 2.0
            last = version, ({PROBLEM: Html(), **page.live}, page.every)
            return last[1]

        async def events() -> AsyncIterator[str]:
            alive = lambda: self._session(request) is not None  # noqa: E731
            async with self.watch.viewer(), aclosing(self._feeds.follow(of, load, alive)) as found:
                async for each in found:
                    yield each

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _login(self, request: Request, given: Given) -> Response:
        if request.method == "GET":
            link = first(given, "link")
            if not link:
                return _page(_login_page(by_link=self._links is not None), None, "")
            return await self._enter(request, self._by_link, link)
        _check_origin(request)
        return await self._enter(request, self._by_token, first(given, "token"))

    async def _enter(self, request: Request, enter: Any, secret: str) -> Response:
        # Nobody guesses 256 bits: a bound on failures would only lock out who has the right ones.
        user, role, ends = await enter(request, secret)
        log.info("%s has logged in as %s", user, role)
        response = RedirectResponse(url(), 303)
        response.set_cookie(
            COOKIE,
            self.sessions.open(user, role, ends),
            path="/console",
            httponly=True,
            samesite="strict",
            secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
        )
        return response

    async def _by_link(self, request: Request, link: str) -> tuple[str, Role, float]:
        if self._links is None or _hostname(request) not in _LOOPBACK:
            raise Refused("links are for this host only: log in by a token", 403)
        user = self._links.redeem(link)
        if not user:
            raise Refused("this link was used, is too old, or none: shopctl console", 403)
        return user, "operator", float("inf")

    async def _by_token(self, _: Request, token: str) -> tuple[str, Role, float]:
        try:
            caller = await self._tokens.authenticate(f"Bearer {token.removeprefix('Bearer ')}")
        except EdgeError as error:
            raise Refused(str(error), 403) from None
        for role in ("operator", "viewer"):
            if caller is not None and role in caller.roles:
                return caller.subject, role, caller.expires
        raise Refused("the token has neither the role viewer nor operator", 403)

    def _session(self, request: Request) -> Session | None:
        return self.sessions.find(request.cookies.get(COOKIE, ""))

    def _refuse(self, request: Request, why: str, status: int) -> Response:
        page = Page("This was not done", "-", [el("p", why, class_="problem", role="alert")])
        session = self._session(request)
        return _page(page, session, "", status)


def operator(session: Session) -> Session:
    """The session, if it may act. Raises Refused."""
    if session.role != "operator":
        raise Refused("you may look, not act: that needs the role operator", 403)
    return session


def _page(
    page: Page, session: Session | None, where: str, status: int = 200, notice: str = ""
) -> Response:
    return Response(document(page, session, where, notice), status, media_type="text/html")


def _login_page(*, by_link: bool) -> Page:
    how = "On this host, shopctl console prints a link that logs you in." if by_link else ""
    token = field("Bearer token", "token", hint="With the role viewer or operator.", required=True,
                  type="password", autocomplete="off")  # fmt: skip
    login = el("form", token, el("button", "Log in"), method="post", action=url("login"))
    return Page("Log in", "-", [el("p", how), login])


def _static(name: str) -> Response:
    kind = _TYPES.get(name.rpartition(".")[2])
    file = resources.files(__package__) / "static" / name
    if kind is None or "/" in name or not file.is_file():
        raise Refused("there is no such file", 404)
    return Response(file.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})


def _reference() -> Response:
    """The contracts as one page, with its own content security policy: by the hashes in it."""
    made = (resources.files("shop") / "reference.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', made)
    if policy is None:
        raise Refused("the reference was not generated", 404)
    headers = {"content-security-policy": f"{policy[1]}; frame-ancestors 'none'; base-uri 'none'"}
    return Response(made, media_type="text/html", headers=headers)


def _hostname(request: Request) -> str:
    """The name by which a browser has reached this, without a port; empty: none."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _check_origin(request: Request) -> None:
    """That a form comes from a page of this console. Raises Refused."""
    origin = urlsplit(request.headers.get("origin", ""))
    same = hmac.compare_digest(origin.netloc, request.headers.get("host", "-"))
    if not same or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused("this form was sent from another page", 403)


async def _form(request: Request) -> Given:
    """What a form has. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise Refused("only forms are taken", 415)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise Refused("the form is too large", 413)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise Refused("the form cannot be read", 400) from None
