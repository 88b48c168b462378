"""The authority in `<home>/certs`: what it has issued, what is due, and how its root is replaced.

    root/          tls.crt, tls.key: what signs intermediate certificates; ca.crt: all trusted roots
    intermediate/  tls.crt, tls.key: what signs leaves
    <name>/        tls.crt, tls.key, ca.crt: an identity
    revoked.txt    serials that nobody accepts any more
    issued.txt     serial, end, root and name of every leaf that has not expired

Everything is in these files, so that whoever comes next goes on where a process was killed. A root
is replaced in three stages: `announce_root` makes both trusted; `SETTLE` later, when all have read
that, `renew_due` makes the new one sign; when the last leaf under the old root has expired, it
drops that. The key of the root may lie elsewhere until a new intermediate certificate is due.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shopctl.certs import files
from shopctl.certs.certificates import (
    Pair,
    life,
    new_intermediate,
    new_leaf,
    new_root,
    serial,
)
from shopctl.errors import CommandError, ExitCode

ROOT_LIFE: Final = timedelta(days=3650)
INTERMEDIATE_LIFE: Final = timedelta(days=28)
LEAF_LIFE: Final = timedelta(hours=24)
SETTLE: Final = 3.0
"""Seconds after which everybody has read a file that has changed."""
OLD_ROOT: Final = "the old root"
"""What `renew_due` calls the root that it has ended, among the names of leaves."""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_OWN: Final = ("root", "intermediate")


@dataclass(frozen=True, slots=True)
class Issued:
    """A leaf that was issued: by which root, as its serial, and until when in Unix time."""

    serial: str
    until: int
    root: str
    name: str


class Authority:
    """The authority in a folder, which need not exist yet. `clock` gives Unix time."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return (self.folder / "root" / files.ROOTS).exists()

    @property
    def foreign(self) -> bool:
        """Whether the certificates in the folder are another authority's, and are left alone."""
        return not self.exists and any(
            path for kind in ("crt", "pem") for path in self.folder.glob(f"*/*.{kind}")
        )

    def prepare(
        self,
        names: Iterable[str],
        leaf_life: timedelta = LEAF_LIFE,
        intermediate_life: timedelta = INTERMEDIATE_LIFE,
    ) -> list[str]:
        """Makes what is missing or of no use, and renews what is due; returns whose it was.

        Raises:
            CommandError: a name or a life is none that there can be.
        """
        with files.locked(self.folder):
            if not self.exists:
                root = new_root(ROOT_LIFE, self._now)
                files.write_pair(self.folder / "root", root)
                files.write(self.folder / "root", ca_crt=root.chain_pem)
            if files.read_pair(self.folder / "intermediate") is None:
                self._new_intermediate(intermediate_life)
        made = [name for name in names if self.pair(name) is None]
        self.issue(made, leaf_life)
        return [*made, *self.renew_due()]

    def issue(self, names: Sequence[str], for_time: timedelta | None = None) -> None:
        """New leaves; for as long as the one before it if no time is given.

        Raises:
            CommandError: a name or the life is none that there can be, or there is no authority.
        """
        for name in names:
            if not _NAME.fullmatch(name) or name in _OWN:
                text = f"{name!r} is no name of a service: a-z, 0-9, '-' and '.', 63 at most"
                raise CommandError(text, ExitCode.USAGE)
        if not names:
            return
        with files.locked(self.folder):
            signer, made = self._intermediate(), {}
            issuer = signer.certificate.issuer
            root = next(serial(each) for each in self.roots() if each.subject == issuer)
            most = life(signer.certificate) / 3
            for name in names:
                old = self.pair(name)
                span = for_time or (life(old.certificate) if old else LEAF_LIFE)
                if span > most:
                    text = f"a leaf lives for {most} at most, a third of what its intermediate does"
                    raise CommandError(text, ExitCode.USAGE)
                made[name] = new_leaf(signer, name, span, self._now)
            # Known before they are used: what is not in the list cannot be revoked by name.
            self._write_issued([*self.issued(), *(_issued(*each, root) for each in made.items())])
            for name, pair in made.items():
                files.write_identity(self.folder / name, pair, self._roots_pem())

    def renew_due(self) -> list[str]:
        """Renews what has used up two thirds of its life, and ends what is to end of a root.

        Returns what was renewed. Never a leaf that was revoked: that is for its operator to say.
        """
        problem = None
        with files.locked(self.folder):
            old, announced = self._intermediate(), self._announced()
            settled = announced and self._age_of_root() >= SETTLE
            renewed = []
            if settled or (self.due(old.certificate) and not announced):
                try:
                    self._new_intermediate(life(old.certificate))
                    renewed = ["intermediate"]
                except CommandError as error:
                    problem = error
            everyone = bool(settled and renewed)
            leaves = [name for name, leaf in self._renewable() if everyone or self.due(leaf)]
        self.issue(leaves)
        if problem:
            raise problem
        return [*renewed, *leaves, *self._drop_roots()]

    def next_due(self) -> float:
        """Unix time at which `renew_due` has something to do, if nothing else happens."""
        times = [_due_at(leaf) for _, leaf in self._renewable()]
        if self._announced():
            times.append(self.clock() - self._age_of_root() + SETTLE)
        else:
            times.append(_due_at(self._intermediate().certificate))
        until: dict[str, float] = {}
        for each in self.issued():
            until[each.root] = max(each.until, until.get(each.root, 0.0))
        until.pop(serial(self._certificate("root")), None)
        return min([*times, *until.values()])

    def renew_intermediate(self) -> None:
        """A new intermediate certificate, and new leaves under it.

        Raises:
            CommandError: there is no authority, or the root's key is not there.
        """
        with files.locked(self.folder):
            self._new_intermediate(life(self._intermediate().certificate))
        self.issue([name for name, _ in self._renewable()])

    def announce_root(self) -> None:
        """A new root, trusted by all from now on, which signs nothing before `SETTLE` is over.

        Raises:
            CommandError: there is no authority, or the last new root was never made use of.
        """
        with files.locked(self.folder):
            if self._announced():
                raise CommandError("a new root is on its way already; see: shopctl certs show")
            root = new_root(life(self._certificate("root")), self._now)
            self._trust([*self.roots(), root.certificate])
            files.write_pair(self.folder / "root", root)

    def revoke(self, what: str) -> list[str]:
        """Has nobody accept a serial, or any leaf of a name, any more; returns the serials.

        Raises:
            CommandError: nothing of that name or number was issued by us and is valid.
        """
        with files.locked(self.folder):
            found = [each for each in self.issued() if what in (each.name, each.serial)]
            if not found:
                text = (
                    f"no valid certificate has the name or serial {what!r}; see: shopctl certs show"
                )
                raise CommandError(text, ExitCode.USAGE)
            known, path = self.revoked(), self.folder / "revoked.txt"
            text = path.read_text() if path.exists() else "# Serials; see: shopctl certs revoke\n"
            for each in found:
                if each.serial not in known:
                    end = datetime.fromtimestamp(each.until, UTC)
                    text += f"# {each.name}, until {end:%Y-%m-%d %H:%M:%S} UTC\n{each.serial}\n"
            files.write(self.folder, revoked_txt=text.encode())
            return [each.serial for each in found]

    def names(self) -> list[str]:
        """Whose certificates there are."""
        found = (path.parent.name for path in self.folder.glob(f"*/{files.CERTIFICATE}"))
        return sorted(set(found) - set(_OWN))

    def pair(self, name: str) -> Pair | None:
        """The certificate and key of a name; None: there are none, or none of any use."""
        return files.read_pair(self.folder / name)

    def roots(self) -> list[x509.Certificate]:
        """All that are trusted."""
        return x509.load_pem_x509_certificates(self._roots_pem())

    def issued(self) -> list[Issued]:
        """Every leaf that has not expired."""
        path = self.folder / "issued.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [Issued(line[0], int(line[1]), line[2], line[3]) for line in map(str.split, lines)]
        return [each for each in found if each.until > self.clock()]

    def revoked(self) -> set[str]:
        """The serials that nobody accepts any more."""
        path = self.folder / "revoked.txt"
        return set(path.read_text().split()) if path.exists() else set()

    def due(self, certificate: x509.Certificate) -> bool:
        """Whether it has used up two thirds of its life."""
        return self.clock() >= _due_at(certificate)

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def _announced(self) -> bool:
        """Whether the newest root signs nothing yet."""
        return self._certificate("root").subject != self._intermediate().certificate.issuer

    def _renewable(self) -> list[tuple[str, x509.Certificate]]:
        """Names and leaves that are not revoked."""
        every = ((name, self.pair(name)) for name in self.names())
        revoked = self.revoked()
        found = [(name, pair.certificate) for name, pair in every if pair]
        return [each for each in found if serial(each[1]) not in revoked]

    def usable(self) -> list[str]:
        """Whose certificates are there and not revoked, as far as they are ours."""
        return self.names() if self.foreign else [name for name, _ in self._renewable()]

    def _certificate(self, name: str) -> x509.Certificate:
        path = self.folder / name / files.CERTIFICATE
        return x509.load_pem_x509_certificate(path.read_bytes())

    def _intermediate(self) -> Pair:
        if not self.exists:
            raise CommandError(f"no certificates in {self.folder}; make them: shopctl certs init")
        if (found := files.read_pair(self.folder / "intermediate")) is None:
            raise CommandError(f"{self.folder}/intermediate is of no use; see: shopctl certs init")
        return found

    def _new_intermediate(self, for_time: timedelta) -> None:
        if (root := files.read_pair(self.folder / "root")) is None:
            where = self.folder / "root" / files.KEY
            raise CommandError(f"a new intermediate certificate needs the root's key at {where}")
        made = new_intermediate(root, for_time, self._now)
        files.write_pair(self.folder / "intermediate", made)

    def _roots_pem(self) -> bytes:
        return (self.folder / "root" / files.ROOTS).read_bytes()

    def _age_of_root(self) -> float:
        return self.clock() - (self.folder / "root" / files.CERTIFICATE).stat().st_mtime

    def _trust(self, roots: Sequence[x509.Certificate]) -> None:
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in roots)
        for name in ("root", *self.names()):
            files.write(self.folder / name, ca_crt=pem)

    def _drop_roots(self) -> list[str]:
        with files.locked(self.folder):
            signs = {self._certificate("root").subject, self._intermediate().certificate.issuer}
            needed = {each.root for each in self.issued()}
            every = self.roots()
            kept = [root for root in every if root.subject in signs or serial(root) in needed]
            if len(kept) == len(every):
                return []
            self._trust(kept)
            return [OLD_ROOT]

    def _write_issued(self, every: Iterable[Issued]) -> None:
        lines = [f"{each.serial} {each.until} {each.root} {each.name}\n" for each in every]
        files.write(self.folder, issued_txt="".join(lines).encode())


def _due_at(certificate: x509.Certificate) -> float:
    return (certificate.not_valid_after_utc - life(certificate) / 3).timestamp()


def _issued(name: str, pair: Pair, root: str) -> Issued:
    until = pair.certificate.not_valid_after_utc
    return Issued(serial(pair.certificate), int(until.timestamp()), root, name)
