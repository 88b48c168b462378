"""Commands that pages show and nobody pastes: each names what there is, with its own options."""

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from google.protobuf import descriptor_pool, json_format, message_factory

from accord.ops.v1 import saga_pb2, work_pb2
from accord_checks import cli
from shop.orders.v1 import orders_pb2
from shopctl.main import command_line
from tests.docs.pages import ROOT, blocks

assert orders_pb2, (saga_pb2, work_pb2)

PAGES: Final = (
    "CONTRIBUTING.md",
    "README.md",
    "contracts/README.md",
    "docs/certificates.md",
    "docs/exports.md",
    "docs/faults.md",
    "docs/jobs.md",
    "docs/operations.md",
    "docs/views.md",
    "docs/queues.md",
    "docs/webhooks.md",
    "docs/sagas.md",
    "generated/README.md",
    "interceptors/README.md",
    "runtime/README.md",
)
"""Those with blocks that no other test of this folder, or of `tests/contracts`, runs."""


def commands() -> Iterator[str]:
    """All commands, one a line; what they print, and what other programs do, is left out."""
    for page in PAGES:
        # What has a name is run, by `test_readme.py`.
        text = re.sub(r"<!-- \w+ -->\n```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
        shown = blocks(text, "sh")
        for console in blocks(text, "console"):
            shown += [line[2:] for line in console.splitlines() if line.startswith("$ ")]
        for line in "\n".join(shown).replace("\\\n", " ").splitlines():
            if words := line.split("#")[0].strip():
                yield words


def _make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[0] in targets


def _accord(words: list[str]) -> None:
    if "TARGET" not in words:  # what it looks like, in general
        cli.parser().parse_args(words)


def _shopctl(words: list[str]) -> None:
    group: Any = typer.main.get_command(command_line())
    while hasattr(group, "commands") and words[0] in group.commands:
        group, words = group.commands[words[0]], words[1:]
    group.make_context(None, words)


def _grpcurl(words: list[str]) -> None:
    *_, method = words
    if "describe" not in words:
        found = descriptor_pool.Default().FindMethodByName(method.replace("/", "."))
        if "-d" in words:
            request = message_factory.GetMessageClass(found.input_type)()
            json_format.Parse(words[words.index("-d") + 1], request)


def _nats_server(words: list[str]) -> None:
    program = Path(sys.executable).parent / "nats-server"
    told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    for word in words:
        assert not word.startswith("-") or f"{word}, " in told.stdout + told.stderr, word


PROGRAMS: Final = {
    "make": _make,
    "accord": _accord,
    "shopctl": _shopctl,
    "grpcurl": _grpcurl,
    "nats-server": _nats_server,
}
INSTALLERS: Final = ("pip", "python")
"""Run by `test_first_contract.py`, with the same words."""


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_what_it_names_is_there(command: str) -> None:
    """The target of make, the command and its options, the RPC and its request."""
    for each in command.split("&&"):
        assigned = re.compile("[A-Z_]+=")  # variables for this command
        program, *words = itertools.dropwhile(assigned.match, shlex.split(each))
        if program in PROGRAMS:
            PROGRAMS[program](words)
        else:
            assert program in INSTALLERS, each
