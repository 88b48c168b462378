"""GraphQL over HTTP: what is no operation is refused, and errors tell what they may."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest

import accord
from services.edge.graphql import graphql_app
from services.edge.graphql.app import GRAPHQL, JSON, MAX_BODY
from services.edge.graphql.request import Request
from tests.services.edge.graphql.kit import Client, Door

QUERY = '{"query": "{ __typename }"}'
ASKED = {"content-type": JSON}


@pytest.fixture
def asking() -> Client:
    """A client of an app whose services do not exist."""
    mesh = accord.Mesh("edge", targets=lambda _: "127.0.0.1:1")
    return Client(graphql_app(mesh, Door()), "")


async def send(
    asking: Client, body: str | bytes = QUERY, method: str = "POST", **headers: str
) -> tuple[int, Any, Mapping[str, str]]:
    named = {name.replace("_", "-"): value for name, value in {**ASKED, **headers}.items()}
    answer = await asking.http.request(method, "/graphql", content=body, headers=named)
    return answer.status_code, answer.json() if answer.content else None, answer.headers


async def test_an_operation_is_answered(asking: Client) -> None:
    """As JSON, or in the form that is asked for."""
    status, answer, headers = await send(asking)
    assert (status, answer, headers["content-type"]) == (
        200,
        {"data": {"__typename": "Query"}},
        JSON,
    )
    for accept, kind in ((GRAPHQL, GRAPHQL), (f"text/html, {JSON};q=0.9", JSON), ("*/*", JSON)):
        status, _, headers = await send(asking, accept=accept)
        assert (status, headers["content-type"]) == (200, kind)
    status, _, _ = await send(asking, **{"content_type": f"{JSON}; charset=utf-8"})
    assert status == 200
    two = '{"query": "query a { __typename } query b { b: __typename }", "operationName": "b"}'
    assert (await send(asking, two))[1] == {"data": {"b": "Query"}}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_post(asking: Client, method: str) -> None:
    """A link or an image of another page reads nothing: 405 says what is possible."""
    status, _, headers = await send(asking, method=method)
    assert (status, headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", GRAPHQL]
)
async def test_only_json(asking: Client, kind: str) -> None:
    """What a form of another page can send is refused."""
    assert (await send(asking, content_type=kind))[0] == 415


async def test_not_compressed_and_not_as_a_page(asking: Client) -> None:
    """A compressed body is 415, an answer as HTML 406."""
    assert (await send(asking, content_encoding="gzip"))[0] == 415
    assert (await send(asking, accept="text/html"))[0] == 406


BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"query": "\xff"}',
    "UTF-16": QUERY.encode("utf-16"),
    "a batch": f"[{QUERY}, {QUERY}]".encode(),
    "a number": b"1",
    "no query": b"{}",
    "an empty query": b'{"query": " "}',
    "a query that is none": b'{"query": {"a": 1}}',
    "variables that are none": b'{"query": "{ __typename }", "variables": [1]}',
    "a name that is none": b'{"query": "{ __typename }", "operationName": 1}',
    "an operation that is not there": b'{"query": "{ __typename }", "operationName": "b"}',
    "twice the same key": b'{"query": "{ a }", "query": "{ __typename }"}',
    "deep": b'{"query": "{ __typename }", "variables": ' + b"[" * 30_000,
    "no number": b'{"query": "{ __typename }", "variables": {"a": NaN}}',
    "a number without end": b'{"query": "{ __typename }", "variables": {"a": '
    + b"1" * 5000
    + b"}}",
    "half a character": b'{"query": "{ __typename }", "variables": {"a": "\\ud800"}}',
    "only a comment": b'{"query": "# nothing"}',
    "only a fragment": b'{"query": "fragment a on Order { id }"}',
}


@pytest.mark.parametrize("case", BODIES)
async def test_what_is_no_operation(asking: Client, case: str) -> None:
    """400, with what is wrong and nothing of how we found it."""
    status, answer, _ = await send(asking, BODIES[case])
    assert status == 400
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "INVALID_ARGUMENT"
    assert error["message"]
    assert "Traceback" not in str(answer)
    assert len(str(answer)) < 2000


async def test_a_large_body_is_not_read(asking: Client) -> None:
    """Beyond the bound it is 413."""
    status, answer, _ = await send(asking, QUERY + " " * MAX_BODY)
    assert (status, answer["errors"][0]["extensions"]["reason"]) == (413, "BODY_TOO_LARGE")
    assert (await send(asking, QUERY + " " * (MAX_BODY - len(QUERY))))[0] == 200


async def test_a_token_that_is_none(asking: Client) -> None:
    """It is 401 for the whole request, also where nobody needs a token."""
    status, answer, headers = await send(asking, authorization="Bearer forged")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    extensions = answer["errors"][0]["extensions"]
    assert (extensions["code"], extensions["reason"]) == ("UNAUTHENTICATED", "TOKEN_SIGNATURE")


async def test_only_what_nobody_foresaw_is_logged(
    asking: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Expected errors leave no trace; a bug is logged, and its reference is all that is told."""
    with caplog.at_level(logging.INFO):
        for query in ("{ orders { next } }", "{ none }", '{ product(sku: "tea") { sku } }'):
            await asking.http.post("/graphql", json={"query": query})
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    async def broken(self: Request, sku: str) -> None:
        raise RuntimeError("the password is tea")

    monkeypatch.setattr(Request, "product", broken)
    answer = await asking.ask('{ product(sku: "tea") { sku } }')
    (error,) = answer["errors"]
    assert "password" not in str(answer)
    assert (error["path"], error["extensions"]["code"]) == (["product"], "INTERNAL")
    reference = error["message"].rpartition(" ")[2]
    assert reference in caplog.text
    assert "the password is tea" in caplog.text
