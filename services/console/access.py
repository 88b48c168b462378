"""Who may look, and who may act: one-time links, sessions, and what a browser must prove."""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Role = Literal["viewer", "operator"]

COOKIE: Final = "accord_console"
LINK_LIFE: Final = 600
"""Seconds for which a link can be used, once."""
SESSION_LIFE: Final = 8 * 3600.0
"""Seconds after which one logs in anew, at the latest."""
MAX_SESSIONS: Final = 1000
_KEY: Final = "link.key"


class Links:
    """Links that log an operator in, once, made by whoever can read a file of this process.

    The key is a new one whenever the console starts, so that a link is not used again after it.
    """

    def __init__(self, home: Path, now: Callable[[], float] = time.time) -> None:
        """`home` is the state folder."""
        folder = home / "console"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = secrets.token_hex(32)
        fresh = folder / f"{_KEY}.{secrets.token_hex(4)}"
        fresh.touch(mode=0o600)
        fresh.write_text(self._key)
        fresh.replace(folder / _KEY)
        self._used: dict[str, float] = {}
        self._now = now

    def redeem(self, token: str) -> str:
        """Who has made a link that nobody has used; from now on it is used. Empty: it is none."""
        said, _, proof = token.rpartition(".")
        good = hmac.compare_digest(proof.encode(), _proof(self._key, said).encode())
        if not good:
            return ""
        nonce, ends, user = said.split(".", 2)
        now = self._now()
        self._used = {each: until for each, until in self._used.items() if until > now}
        if nonce in self._used or not now < int(ends) <= now + LINK_LIFE:
            return ""
        self._used[nonce] = float(ends)
        return user


def make_link(home: Path, user: str, now: float | None = None) -> str:
    """What stands behind `/console/login?link=`, good for `LINK_LIFE` seconds.

    Raises OSError: the console of `home` has not been started, or is somebody else's.
    """
    key = (home / "console" / _KEY).read_text()
    named = re.sub(r"[^A-Za-z0-9_.@-]", "_", user)[:100] or "operator"
    said = f"{secrets.token_urlsafe(16)}.{int((now or time.time()) + LINK_LIFE)}.{named}"
    return f"{said}.{_proof(key, said)}"


def _proof(key: str, said: str) -> str:
    return hmac.new(key.encode(), said.encode(), hashlib.sha256).hexdigest()


@dataclass(slots=True)
class Session:
    """Somebody who has logged in."""

    user: str
    role: Role
    ends: float
    """POSIX seconds."""
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """What every form of this session has in it, and no other page can know."""
    notice: str = ""
    """What is said on the next page."""

    def is_mine(self, csrf: str) -> bool:
        """Whether a form is of this session."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class Sessions:
    """Who has logged in, in memory: a console that is started again forgets them."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def open(self, user: str, role: Role, ends: float = float("inf")) -> str:
        """Begin one, which ends at `ends` at the latest; returns what the cookie holds."""
        token = secrets.token_urlsafe(32)
        life = min(ends, self._now() + SESSION_LIFE)
        self._sessions[_digest(token)] = Session(user, role, life)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a cookie, if it has not ended."""
        found = self._sessions.get(_digest(token))
        if found is not None and found.ends <= self._now():
            self.close(token)
            return None
        return found

    def close(self, token: str) -> None:
        """End one."""
        self._sessions.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
