"""What a query may ask for. Nothing is called for one that is refused, and it is refused soon."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

import accord
from services.edge.graphql import graphql_app
from services.edge.graphql.limits import MAX_ALIASES, MAX_DEPTH, MAX_FRAGMENTS, MAX_TOKENS
from tests.services.edge.graphql.kit import Client, Door

SOON = 2.0
"""Seconds, on a busy machine."""

DEEP = "{ orders { nodes { customer { id } items { product { price { minorUnits } } } } } }"

BOMB = "{ orders { nodes { ...f0 } } }" + "".join(
    f" fragment f{n} on Order {{ ...f{n + 1} ...f{n + 1} }}" for n in range(150)
)


@pytest.fixture
def asking() -> Iterator[Client]:
    """A client of an app whose services do not exist."""
    door = Door()
    mesh = accord.Mesh("edge", targets=lambda _: "127.0.0.1:1")
    yield Client(graphql_app(mesh, door))
    assert not door.permitted, "something was called"


TOO_MUCH = {
    "aliases": ("{" + "".join(f" a{n}:b" for n in range(7_000)) + "}", "tokens"),
    "some aliases": ("{" + " ".join(f"a{n}: __typename" for n in range(31)) + "}", "aliases"),
    "the same field": ("{ orders {" + " next" * 1900 + " } }", "aliases or repeated"),
    "tokens": ("{ orders { " + " ".join(f"x{n}" for n in range(2000)) + " } }", "tokens"),
    "depth": ("{ orders { nodes { items { product " + "{ price " * 8 + "}" * 12, "fields deep"),
    "deep nesting": ("{a" * 900, "nested too deeply"),
    "deep inline fragments": ("{" + "... {" * 600, "nested too deeply"),
    "deep lists": ("{ products(skus: " + "[" * 900, "nested too deeply"),
    "long pages": ("{ orders(first: 101) { next } }", "at most 100"),
    "huge pages": ("{ orders(first: 99999999999999999999) { next } }", "at most 100"),
    "many products": (
        "{ products(skus: [" + " ".join(f'"s{n}"' for n in range(101)) + "]) { sku } }",
        "at most 100",
    ),
    "cost": (
        "{ orders(first: 100) { nodes { items { sku quantity unitPrice { minorUnits }"
        " product { name available reserved } } } } }",
        "values",
    ),
    "cost of fragments": (
        "{ orders(first: 100) { nodes { items { ...a product { ...b } } } } }"
        " fragment a on OrderItem { sku quantity unitPrice { minorUnits } }"
        " fragment b on Product { name available reserved }",
        "values",
    ),
    "a bomb of fragments": (BOMB, "fragments"),
    "fragments": ("{" + "... { __typename } " * 51 + "}", "fragments"),
    "a small bomb": (
        "{ orders { nodes { ...f0 } } }"
        + "".join(f" fragment f{n} on Order {{ ...f{n + 1} ...f{n + 1} }}" for n in range(24))
        + " fragment f24 on Order { id }",
        "values",
    ),
    "a cycle of fragments": (
        "{ orders { nodes { ...a } } }"
        " fragment a on Order { id ...b } fragment b on Order { ...a }",
        "Cannot spread fragment",
    ),
    "a fragment of itself": (
        "{ orders { nodes { ...a } } } fragment a on Order { customer { id } ...a }",
        "Cannot spread fragment",
    ),
    "an unknown fragment": ("{ orders { ...none } }", "none"),
    "an unknown field": ("{ passwords }", "passwords"),
    "an unknown argument": ("{ orders(last: 1) { next } }", "last"),
    "no selection": ("{ orders }", "orders"),
    "a wrong literal": ("{ orders(first: 1.5) { next } }", "1.5"),
    "text for a number": ('{ orders(first: "1") { next } }', "1"),
    "a missing argument": ("{ order { id } }", "id"),
    "no syntax": ("{ orders {", "Syntax Error"),
    "a mutation": ("mutation { cancel }", "mutation|Mutation"),
    "a subscription": ("subscription { orders { next } }", "ubscription"),
    "two operations": ("query a { orders { next } } query b { orders { next } }", "peration"),
    "the schema": ("{ __schema { types { name } } }", "development"),
    "a type": ('{ __type(name: "Order") { name } }', "development"),
    "the SDL": ("{ _service { sdl } }", "development"),
    "half a character": ('{ order(id: "\\uD800") { id } }', "Syntax Error"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
async def test_too_much_is_refused(asking: Client, case: str) -> None:
    """It says what is wrong, soon, and calls nothing."""
    query, text = TOO_MUCH[case]
    began = time.monotonic()
    said = await asking.refused(query)
    assert time.monotonic() - began < SOON
    assert any(each in said for each in text.split("|")), said
    assert len(said) < 2000


async def test_ten_thousand_aliases_are_not_even_read(asking: Client) -> None:
    """So many do not fit into a body."""
    query = " ".join(f"a{n}: orders {{ next }}" for n in range(10_000))
    answer = await asking.http.post("/graphql", json={"query": f"{{ {query} }}"})
    assert answer.status_code == 413


VARIABLES: dict[str, dict[str, Any]] = {
    "text": {"n": "many"},
    "a fraction": {"n": 1.5},
    "huge": {"n": 2**70},
    "long": {"n": 101},
    "null": {"n": None},
    "a list": {"n": [1]},
    "an object": {"n": {"a": 1}},
    "absent": {},
}


@pytest.mark.parametrize("case", VARIABLES)
async def test_variables_of_wrong_types(asking: Client, case: str) -> None:
    """They are named, and nothing is called."""
    query = "query ($n: Int!) { orders(first: $n) { next } }"
    said = await asking.refused(query, **VARIABLES[case])
    assert "$n" in said or "at most 100" in said


async def test_what_is_allowed(asking: Client) -> None:
    """What is just within the limits is answered."""
    aliases = " ".join(f"a{n}: __typename" for n in range(MAX_ALIASES))
    assert len((await asking.ask(f"{{ {aliases} }}"))["data"]) == MAX_ALIASES
    spread = " ".join("... { __typename }" for _ in range(MAX_FRAGMENTS))
    assert await asking.ask(f"{{ {spread} }}") == {"data": {"__typename": "Query"}}
    assert (MAX_TOKENS, MAX_DEPTH) == (2000, 10)


async def test_in_development_the_schema_is_told() -> None:
    """There introspection answers, also the one of tools, and so does `_service`."""
    from graphql import get_introspection_query

    mesh = accord.Mesh("edge", targets=lambda _: "127.0.0.1:1")
    asking = Client(graphql_app(mesh, Door(), development=True), "")
    answer = await asking.ask("{ _service { sdl } __schema { queryType { name } } }")
    assert "type Order " in answer["data"]["_service"]["sdl"]
    assert "did you mean" in (await asking.refused("{ orderz { id } }")).lower()
    full = await asking.http.post("/graphql", json={"query": get_introspection_query()})
    assert full.status_code == 200, full.text


async def test_a_deep_query_of_the_shop_passes_the_limits() -> None:
    """What the shop is asked for most deeply is within the depth."""
    mesh = accord.Mesh("edge", targets=lambda _: "127.0.0.1:1")
    answer = await Client(graphql_app(mesh, Door()), "").ask(DEEP)
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
