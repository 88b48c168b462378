"""An identity of which the files are watched: the newest that is good is used."""

import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self
from weakref import ref

import grpc

from accord._files import INTERVAL, often, stamp
from accord._log import log
from accord.identity.bundle import (
    DOMAIN,
    SKEW,
    SPIFFE_ID,
    Bundle,
    IdentityError,
    check_time,
    parse,
    serials_and_end,
    utc,
)
from accord.identity.deny_list import DenyList

_SETTLES: Final = 0.1
"""Seconds after which files are read again that did not fit together, at the start."""

_FIRST_LOOKS: Final = 20
"""So often, as long as they change meanwhile."""

LAYOUTS: Final = (
    ("tls.crt", "tls.key", "ca.crt"),  # of cert-manager, and of Kubernetes' TLS secrets
    ("svid.pem", "svid_key.pem", "svid_bundle.pem"),  # of spiffe-helper
)
"""Names of certificate, key and roots in a folder."""

_PARTS: Final = ("certificate", "key", "roots")


class Identity:
    """A certificate, its key and the roots that are trusted, as their files say now.

    The files may be swapped one by one, or all at once by a link to their folder: they are read
    every half second, and a certificate that does not fit its key, or that leads to none of the
    roots, is not used. At first it is an IdentityError; later the last good one stays, `problem`
    says what is wrong, and so does the log, once. What is bad for less than two looks is a swap
    that is being made, and no problem.

    Safe under threads. A thread looks at the files until it is closed, or forgotten.
    """

    def __init__(
        self,
        certificate: Path | str,
        key: Path | str,
        roots: Path | str,
        *,
        revoked: Path | str | None = None,
        trust_domains: Iterable[str] = (),
        operators: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: POSIX seconds. The rest as in `from_files`."""
        self.files: Final = (Path(certificate), Path(key), Path(roots))
        """Those of the certificate, the key and the roots."""
        self._denied = None if revoked is None else DenyList(Path(revoked))
        self.clock = clock
        self._lock = Lock()
        self._looked = time.monotonic()
        self._stamps: list[object] = []
        """Of the files, when they last said what the bundle has."""
        self._failed = ""
        self.problem: str | None = None
        """What is wrong with what the files say now, in one line."""
        self.bundle: Bundle = self._first()
        """The last good one."""
        self.id = self.bundle.id
        """The SPIFFE id of this process: a certificate of another id is refused."""
        self.trust_domain = self.bundle.trust_domain
        named = (trust_domains,) if isinstance(trust_domains, str) else tuple(trust_domains)
        for name in named:
            if not DOMAIN.fullmatch(name):
                raise IdentityError(f"trust_domains: {name!r} is none; partner.example would be")
        self.trust_domains = frozenset((self.trust_domain, *named))
        """Whose identities are accepted: its own, and those that were named."""
        self.operators = frozenset((operators,) if isinstance(operators, str) else operators)
        """Who operates the process; empty: those whom the contracts list for that."""
        for name in self.operators:
            if (id_ := SPIFFE_ID.fullmatch(name)) is None or id_[1] not in self.trust_domains:
                text = f"{name!r} is no SPIFFE id of a trust domain that is accepted"
                raise IdentityError(f"operators: {text}")
        self._closed = False
        often(partial(_watch, ref(self)))

    @classmethod
    def from_files(
        cls,
        certificate: Path | str,
        key: Path | str,
        roots: Path | str,
        *,
        revoked: Path | str | None = None,
        trust_domains: Iterable[str] = (),
        operators: Iterable[str] = (),
    ) -> Self:
        """The identity of three PEM files.

        Args:
            certificate: the leaf, then the intermediates.
            key: that of the leaf, without a password.
            roots: the authorities that are trusted; of old and new ones during a roll-over.
            revoked: a deny list, see `accord.identity.deny_list`; obeyed within a second.
            trust_domains: those beside its own of which identities are accepted, if a root has
                issued them.
            operators: SPIFFE ids, of trust domains that are accepted, of those who operate this
                process (`accord.ops`, reflection, channelz) in place of whom its contracts list.

        Raises IdentityError for files that are no identity now.
        """
        return cls(
            *(certificate, key, roots),
            revoked=revoked,
            trust_domains=trust_domains,
            operators=operators,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """The identity of the folder that `MESH_IDENTITY` names; None: it names none.

        Raises IdentityError as `from_folder`.
        """
        folder = environment.get("MESH_IDENTITY")
        return cls.from_folder(folder) if folder else None

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        *,
        revoked: Path | str | None = None,
        trust_domains: Iterable[str] = (),
        operators: Iterable[str] = (),
    ) -> Self:
        """The identity of a folder in the layout of cert-manager or of spiffe-helper.

        The rest as in `from_files`.
        """
        folder = Path(folder)
        try:
            present = {file.name for file in folder.iterdir()}
        except OSError as error:
            raise IdentityError(f"{folder}: {error.strerror}") from None
        for names in LAYOUTS:
            if names[0] in present:
                files = (folder / name for name in names)
                return cls(
                    *files, revoked=revoked, trust_domains=trust_domains, operators=operators
                )
        wanted = " nor ".join(names[0] for names in LAYOUTS)
        raise IdentityError(f"{folder}: there is neither {wanted} in it")

    def server_credentials(self) -> grpc.ServerCredentials:
        """Those of a server's port: each handshake is made with what is good by then.

        Clients need a certificate that leads to one of the roots, and TLS 1.2 or 1.3: gRPC offers
        no other.
        """
        given = self.bundle

        # In a thread of gRPC's; None: as before, which the stubs do not know.
        def fetch() -> Any:
            nonlocal given
            self._look()
            bundle = self.bundle
            if bundle is given:
                return None
            given = bundle
            return _configuration(bundle)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given), fetch, require_client_authentication=True
        )

    def is_revoked(self, *certificates: bytes) -> bool:
        """Whether one of these, in PEM, is on the deny list. Raises IdentityError: it is none."""
        if self._denied is None or not (serials := self._denied.serials):
            return False
        return any(not serials.isdisjoint(serials_and_end(each)[0]) for each in certificates)

    def ends(self, certificate: bytes) -> float:
        """When a certificate in PEM ends, in POSIX seconds. Raises IdentityError."""
        return serials_and_end(certificate)[1]

    def refresh(self) -> None:
        """Read the files now. What is wrong with them is the `problem` when it is seen again."""
        with self._lock:
            self._refresh()

    def close(self) -> None:
        """Look at the files no more; what was good stays."""
        self._closed = True

    def _look(self) -> None:
        """Read the files, unless they have just been, or somebody is at it."""
        due = time.monotonic() - self._looked >= INTERVAL
        if due and self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()

    def _refresh(self) -> None:
        self._looked = time.monotonic()
        failures: list[str] = []
        for read in (self._read, self._deny):
            try:
                read()
            except IdentityError as error:
                failures.append(str(error))
        failed, before = "; ".join(failures), self._failed
        self._failed = failed
        if failed and not before:
            return  # a swap that is being made, perhaps
        if failed and failed != self.problem:
            log(logging.ERROR, "the files of the identity are not used", problem=failed,
                id=self.id, expires=utc(self.bundle.not_after))  # fmt: skip
        elif self.problem and not failed:
            log(logging.INFO, "the files of the identity are good again", id=self.id)
        self.problem = failed or None

    def _read(self) -> None:
        """Take what the files say, if it is good. Raises IdentityError."""
        kept, now = self.bundle, self.clock()
        texts, stamps = (kept.certificate, kept.key, kept.roots), [*map(stamp, self.files)]
        if None in stamps or stamps != self._stamps:
            texts = self._texts()
        if texts == (kept.certificate, kept.key, kept.roots):
            self._stamps = stamps
            with self._named():
                check_time(kept, now, SKEW)
            return
        bundle = self._parse(texts, 0.0 if kept.not_before <= now < kept.not_after else SKEW)
        if bundle.id != kept.id:
            raise IdentityError(f"{self.files[0]}: is of {bundle.id}, and no more of {kept.id}")
        self.bundle = bundle
        log(logging.INFO, "the identity was renewed", id=bundle.id, serial=bundle.serial,
            expires=utc(bundle.not_after))  # fmt: skip

    def _deny(self) -> None:
        if self._denied is not None:
            self._denied.refresh()

    def _first(self) -> Bundle:
        """What the files say at the start. Raises IdentityError."""
        self._deny()
        before = None
        for _ in range(_FIRST_LOOKS):
            texts = self._texts()
            try:
                found = self._parse(texts, SKEW)
                break
            except IdentityError:
                if texts == before:  # nobody is changing them
                    raise
            before = texts
            time.sleep(_SETTLES)
        else:
            raise IdentityError(f"{self.files[0]}: it and its key never stay the same")
        mode = self.files[1].stat().st_mode
        if mode & stat.S_IROTH:
            log(logging.WARNING, "everybody on this host can read the key of the identity",
                file=self.files[1], mode=stat.filemode(mode))  # fmt: skip
        return found

    def _texts(self) -> tuple[bytes, bytes, bytes]:
        found: list[bytes] = []
        for file in self.files:
            try:
                found.append(file.read_bytes())
            except OSError as error:
                raise IdentityError(f"{file}: {error.strerror}") from None
        certificate, key, roots = found
        return certificate, key, roots

    def _parse(self, texts: tuple[bytes, bytes, bytes], skew: float) -> Bundle:
        with self._named():
            bundle = parse(*texts)
            check_time(bundle, self.clock(), skew)
            return bundle

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have an error name the file, and not the part."""
        try:
            yield
        except IdentityError as error:
            part, _, what = str(error).partition(": ")
            raise IdentityError(f"{self.files[_PARTS.index(part)]}: {what}") from None


def _configuration(bundle: Bundle) -> grpc.ServerCertificateConfiguration:
    pair = (bundle.key, bundle.certificate)
    return grpc.ssl_server_certificate_configuration([pair], bundle.roots)


def _watch(found: "ref[Identity]") -> bool:
    """Look at the files of an identity; whether there still is one."""
    identity = found()
    if identity is None or identity._closed:
        return False
    identity._look()
    return True
