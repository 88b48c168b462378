"""The page of GraphQL: its limits are those of the code, and its queries are ones of the schema."""

import json
import re
import shlex
from importlib import import_module
from typing import Final

import accord
from services.edge.graphql import graphql_app
from tests.docs.pages import ROOT, blocks
from tests.services.edge.graphql.kit import Client, Door, codes

PAGE: Final = (ROOT / "docs" / "graphql.md").read_text()


def test_limits_are_those_of_the_code() -> None:
    """Each number of the table is the constant that it names."""
    rows = re.findall(r"^\|[^|]*\| (\d+) \| `(\w+)\.(\w+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == PAGE.split("## Limits")[1].count("\n| ") - 1
    for number, module, name in rows:
        assert getattr(import_module(f"services.edge.graphql.{module}"), name) == int(number)


async def test_queries_can_be_asked() -> None:
    """They are valid, and within the limits: what is missing is a token."""
    mesh = accord.Mesh("edge", targets=lambda _: "127.0.0.1:1")
    client = Client(graphql_app(mesh, Door()), "")
    (line,) = blocks(PAGE, "sh")
    words = shlex.split(line)
    for query in (*blocks(PAGE, "graphql"), json.loads(words[words.index("-d") + 1])["query"]):
        assert codes(await client.ask(query)) == [("orders", "UNAUTHENTICATED")]
