"""Every kind of certificate that nobody may accept, beside good ones of the same authority."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from shopctl.certs import files, spiffe_id
from shopctl.certs.authority import Authority
from shopctl.certs.certificates import (
    Pair,
    new_intermediate,
    new_leaf,
    new_root,
    serial,
)

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Bad:
    """Folders of identities, by what is wrong with each."""

    authority: Authority
    folders: Mapping[str, Path]


def bad_certificates(folder: Path, name: str = "orders") -> Bad:
    """A new authority in `folder`/certs, and folders in `folder`/bad with what `name` must not use.

    All but `wrong-ca` and `self-signed` are signed by that authority; each folder has its roots.
    `revoked` is in its `revoked.txt`; `key-mismatch` has somebody else's key.
    """
    authority = Authority(folder / "certs")
    authority.prepare([name])
    signer = authority.pair("intermediate")
    assert signer is not None
    now = datetime.now(UTC)
    elsewhere = new_intermediate(new_root(DAY), DAY)
    revoked = new_leaf(signer, name)
    files.write(authority.folder, revoked_txt=f"{serial(revoked.certificate)}\n".encode())
    mismatch = Pair(new_leaf(signer, name).key, new_leaf(signer, name).chain)
    two = [spiffe_id(name), spiffe_id("payments")]
    whole = new_leaf(signer, name)
    made = {
        "expired": new_leaf(signer, name, valid=(now - 2 * DAY, now - HOUR)),
        "future": new_leaf(signer, name, valid=(now + HOUR, now + DAY)),
        "two-ids": new_leaf(signer, name, uris=two),
        "dns-only": new_leaf(signer, name, uris=[]),
        "wrong-trust-domain": new_leaf(signer, name, uris=[spiffe_id(name, "evil")]),
        "wrong-ca": new_leaf(elsewhere, name),
        "self-signed": new_leaf(None, name),
        "no-intermediate": Pair(whole.key, whole.chain[:1]),
        "revoked": revoked,
        "key-mismatch": mismatch,
    }
    roots = (authority.folder / name / files.ROOTS).read_bytes()
    for kind, pair in made.items():
        files.write_identity(folder / "bad" / kind, pair, roots)
    return Bad(authority, {kind: folder / "bad" / kind for kind in made})
