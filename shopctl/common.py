"""Options that several commands share, and what is needed to act on them."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.topology import MAX_OFFSET

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="MESH_HOME", help="Folder with the state of the shop."),
]
OffsetOption = Annotated[
    int,
    typer.Option(
        "--port-offset",
        envvar="MESH_PORT_OFFSET",
        min=0,
        max=MAX_OFFSET,
        help="Move all ports by this much.",
    ),
]
ShopOffsetOption = Annotated[
    int | None,
    typer.Option(
        "--port-offset",
        envvar="MESH_PORT_OFFSET",
        min=0,
        max=MAX_OFFSET,
        show_default="as it was started",
        help="Where the shop listens.",
    ),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        show_default="a new one",
        help="Idempotency key: a command that is repeated with the same key has one effect.",
    ),
]
IdOnlyOption = Annotated[bool, typer.Option("--id", help="Print the id and nothing else.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]

DEFAULT_HOME = Path(".mesh")
FALLBACK_WIDTH = 110


def is_terminal() -> bool:
    """Whether a person watches: colours and human-readable logs only then."""
    return sys.stdout.isatty()


def wants_colour() -> bool:
    """Whether to print in colour: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def width() -> int:
    """Columns to print within."""
    if not is_terminal():
        return FALLBACK_WIDTH
    return shutil.get_terminal_size().columns
