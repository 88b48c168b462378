"""What all lists have in common: a heading, and a word when there is nothing in them."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from shopctl.errors import ExitCode
from shopctl.formatting import Columns
from shopctl.main import command_line
from tests.shopctl.commands.test_work import output, run
from tests.support.shop import ALL, Shop, running_shop

NEVER_EMPTY = {("view", "list")}


def lists() -> Iterator[tuple[str, ...]]:
    """Every command that shows what it has found, however much that is."""
    group: Any = typer.main.get_command(command_line())
    for name, command in group.commands.items():
        if not hasattr(command, "commands"):
            if "--limit" in {option for each in command.params for option in each.opts}:
                yield (name,)
            continue
        for below in command.commands:
            if below == "list" or (name, below) == ("policy", "get"):
                yield (name, below)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop in which nothing has happened."""
    async with running_shop(tmp_path, *ALL) as shop:
        yield shop


async def test_every_list_says_that_it_is_empty(shop: Shop) -> None:
    """Nothing is printed for scripts; people are told, so that they need not wonder."""
    found = set(lists()) - NEVER_EMPTY
    assert found >= {("audit",), ("order", "list"), ("policy", "get"), ("work", "list")}
    for words in found:
        ran = await run(shop, *words)
        assert (ran.code, ran.out) == (ExitCode.OK, ""), words
        assert re.fullmatch("no [a-z]+ found\n", ran.error), words
        ran = await run(shop, *words, "--json")
        assert (ran.code, ran.out, ran.error) == (ExitCode.OK, "", ""), words


async def test_a_list_has_one_heading_above_aligned_columns(shop: Shop) -> None:
    """Each value stands below the name of its column; JSON has no heading."""
    for sku, price in (("tea", "4.99"), ("coffee", "12.50")):
        text = await output(shop, "product", "put", sku, "--price", price, "--stock", "3")
        assert text.splitlines()[0].startswith("SKU ")
    assert (await output(shop, "view", "list")).splitlines()[0].split()[:2] == ["VIEW", "STATE"]
    heading, *rows = (await output(shop, "product", "list")).splitlines()
    assert heading.split() == ["SKU", "PRICE", "AVAILABLE", "RESERVED", "NAME"]
    assert [row.split()[0] for row in rows] == ["coffee", "tea"]
    for row in rows:
        assert row[heading.index("NAME") :] == row.split()[0]
        assert row[: heading.index("PRICE") + len("PRICE")].endswith("EUR")
    assert "SKU" not in await output(shop, "product", "list", "--json")


def test_a_long_value_is_not_cut() -> None:
    """What does not fit into its column moves the rest of its row."""
    columns = Columns(NAME=4, STOCK_LEFT=-3)
    assert columns.heading == "NAME  STOCK LEFT"
    assert [columns.line("a", "1"), columns.line("abcdef", "1234")] == ["a       1", "abcdef  1234"]
