"""Commands to try once the shop is up. They work when pasted into bash or zsh."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from services import topology
from shopctl.certs import OPERATOR
from shopctl.commands.console import link_to
from shopctl.options import DEFAULT_HOME


class _ShellTemplate(Template):
    delimiter = "%"  # what begins with `$` is the shell's


def text(home: Path, offset: int, left_out: Sequence[str] = (), *, secure: bool = False) -> str:
    """What to do next; `home` is an absolute path, who is `left_out` the user wants to run.

    `secure`: by the operator's certificate.
    """
    folder, python = shlex.quote(str(home)), shlex.quote(_short(Path(sys.executable)))
    environment = f"MESH_HOME={folder} MESH_PORT_OFFSET={offset} LOG_FORMAT=text"
    options = "-plaintext"
    if secure:
        own = shlex.quote(_short(home / "certs" / OPERATOR))
        options = f"-cacert {own}/ca.crt -cert {own}/tls.crt -key {own}/tls.key"
    else:
        environment += " MESH_INSECURE=1"
    link = link_to(home, offset)
    by_hand = "".join(
        f"  {environment} {python} -m services.{name}\n"
        for name in left_out
        if name != topology.BROKER
    )
    return _ShellTemplate(
        resources.files(__package__).joinpath("hints.txt").read_text(encoding="utf-8").rstrip()
    ).substitute(
        {name: topology.address(name, offset) for name in topology.SERVICES},
        export="" if home == DEFAULT_HOME.resolve() else f"  export MESH_HOME={folder}\n\n",
        shopctl=tool("shopctl"),
        grpcurl=f"{tool('grpcurl')} {options}",
        by_hand=f"Run what was left out yourself:\n\n{by_hand}\n" if by_hand else "",
        logs=_short(home / "logs"),
        console=f"Look at it in a browser: {link}\n\n" if link else "",
    )


def tool(name: str) -> str:
    """How to call a program here: by its name, or as it lies beside the running Python."""
    if shutil.which(name):
        return name
    beside = Path(sys.executable).with_name(name)
    return shlex.quote(_short(beside)) if beside.exists() else name


def _short(path: Path) -> str:
    """The path, relative to the working folder if it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
