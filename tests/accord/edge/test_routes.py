"""Routes: what contracts may say, and which path is whose."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

import accord
from accord.edge import Route, routes, routes_of
from accord.edge.routes import Router
from accord.policies.rate_limit import RatePolicy
from accord.v1 import edge_pb2
from tests.accord.edge.kit import SERVICE

ROUTES = routes_of(SERVICE)
BASE = ROUTES[0]


def route(path: str, verb: str = "GET") -> Route:
    return replace(BASE, path=path, verb=verb)


def test_they_are_read_from_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verb, path, scopes, rate and kind; what has no option is not there."""
    found = {each.method.rpartition("/")[2]: each for each in ROUTES}
    assert "Hidden" not in found
    cancel = found["CancelParcel"]
    assert (cancel.verb, cancel.path) == ("POST", "/v1/parcels/{parcel_id}:cancel")
    assert (cancel.scopes, cancel.public, cancel.fields) == (
        ("parcels:write",),
        False,
        ("parcel_id",),
    )
    assert found["Track"].rate == RatePolicy(0.01, 2)
    assert found["Watch"].streaming
    monkeypatch.setattr(routes, "imported_services", lambda: [SERVICE])
    assert routes_of() == ROUTES
    with pytest.raises(KeyError, match="no service"):
        routes_of("accordtest.v1.Nothing")


def test_two_of_one_path_are_refused() -> None:
    """At start, whatever their variables are called: nobody could tell which is meant."""
    file = descriptor_pb2.FileDescriptorProto(
        name="twice.proto", package="twice", syntax="proto3", dependency=["accord/v1/edge.proto"]
    )
    message = file.message_type.add(name="M")
    service = file.service.add(name="S")
    for number, name in enumerate(("a", "b"), 1):
        message.field.add(name=name, number=number, type=9, label=1)
        method = service.method.add(name=name.upper(), input_type=".twice.M")
        method.output_type = ".twice.M"
        route = edge_pb2.EdgeRoute(post=f"/v1/{{{name}}}", public=True)
        method.options.Extensions[edge_pb2.edge].CopyFrom(route)
    descriptor_pool.Default().Add(file)
    with pytest.raises(accord.ContractError, match=r"POST /v1/\{b\} is twice.S/A's"):
        routes_of("twice.S")


def test_literals_come_before_variables_and_verbs_before_values() -> None:
    """Also where the literal leads nowhere."""
    router = Router(
        [route("/v1/{a}/x"), route("/v1/b"), route("/v1/{a}"), route("/v1/b/{c}/d"),
         route("/v1/{a}:go", "POST"), route("/v1/b:go", "PUT")]
    )  # fmt: skip

    def find(path: str, verb: str = "GET") -> list[object]:
        found, values, others = router.find(verb, path)
        return [*sorted(others)] if found is None else [(found.verb, found.path), *values]

    assert find("/v1/b") == [("GET", "/v1/b")]
    assert find("/v1/%62") == [("GET", "/v1/b")]
    assert find("/v1/c") == [("GET", "/v1/{a}"), "c"]
    assert find("/v1/b/x") == [("GET", "/v1/{a}/x"), "b"]
    assert find("/v1/b/x/d") == [("GET", "/v1/b/{c}/d"), "x"]
    assert find("/v1/c:go", "POST") == [("POST", "/v1/{a}:go"), "c"]
    assert find("/v1/c:go") == ["POST"]
    assert find("/v1/b:go", "PUT") == [("PUT", "/v1/b:go")]
    assert find("/v1/b:go", "POST") == [("POST", "/v1/{a}:go"), "b"]
    assert find("/v1/b:go") == ["POST", "PUT"]
    assert find("/v1/c%3Ago") == [("GET", "/v1/{a}"), "c:go"]
    assert find("/v1/c:stay") == [("GET", "/v1/{a}"), "c:stay"]
    assert find("/v1/a:b:go", "POST") == [("POST", "/v1/{a}:go"), "a:b"]
    for none in ("", "v1/b", "/v1", "/v1/", "/v1//x", "/v1/b/x/d/e", "/" * 50):
        assert find(none) == []


texts = st.text(st.characters(codec="utf-8"), min_size=1)
segments = st.lists(texts, min_size=1, max_size=4)


@given(segments)
def test_any_value_comes_through(values: list[str]) -> None:
    """What a client encodes is what the request has, or the path is refused: never another."""
    router = Router([route("/" + "/".join(f"{{f{n}}}" for n in range(len(values))))])
    path = "/" + "/".join(quote(value, safe="") for value in values)
    try:
        found, got, _ = router.find("GET", path)
    except accord.InvalidArgument:
        assert any(
            ord(char) < 32 or ord(char) == 127 or part in (".", "..")
            for value in values
            for part in value.replace("\\", "/").split("/")
            for char in part or " "
        )
    else:
        assert found
        assert list(got) == values


@given(st.text(alphabet="/:%.{}ab2F5c\\\0", max_size=40))
def test_any_path_is_found_or_refused(path: str) -> None:
    """No path makes the matcher fail in another way."""
    router = Router([route("/a/{x}"), route("/{x}/b"), route("/{x}:a"), route("/{x}")])
    try:
        found, values, _ = router.find("GET", path)
    except accord.InvalidArgument:
        return
    assert found or not values
