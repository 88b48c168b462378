"""`shopctl console`."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from services import topology
from services.console.access import Links
from shopctl.commands.console import console, link_to
from shopctl.errors import CommandError, ExitCode


def test_the_link_is_one_that_the_console_takes_once(tmp_path: Path) -> None:
    """What is printed logs in at the console of that folder, and not a second time."""
    links = Links(tmp_path)
    link = urlsplit(link_to(tmp_path, 100))
    assert link.netloc == topology.address(topology.CONSOLE, 100)
    [secret] = parse_qs(link.query)["link"]
    assert links.redeem(secret)
    assert not links.redeem(secret)


def test_without_a_console_it_says_how_to_start_one(tmp_path: Path) -> None:
    """A folder in which none has been started has no link."""
    with pytest.raises(CommandError, match="make up") as raised:
        console(tmp_path, offset=0, only_print=True)
    assert raised.value.code == ExitCode.NOT_RUNNING
