"""Routes to the outside, as a server reads them at its start."""

from typing import Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from accord.contract import EdgePolicy, MethodPolicy, read_method
from accord.policies.rate_limit import RatePolicy
from accord.v1 import edge_pb2, policy_pb2

PURE: Final = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


def _read(
    route: edge_pb2.EdgeRoute, *, pure: bool = True, streams: bool = False
) -> tuple[MethodPolicy, list[str]]:
    """What a method with that route comes to, and the fields of what is wrong."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    message = file.message_type.add(name="M")
    kinds = ("TYPE_STRING", "TYPE_INT64", "TYPE_BOOL", "TYPE_BYTES", "TYPE_DOUBLE")
    for number, kind in enumerate(kinds, 1):
        message.field.add(name=kind[5:].lower(), number=number, type=kind, label="LABEL_OPTIONAL")
    message.field.add(name="many", number=9, type="TYPE_STRING", label="LABEL_REPEATED")
    method = file.service.add(name="S").method.add(
        name="Do", input_type=".t.M", output_type=".t.M", client_streaming=streams
    )
    if pure:
        method.options.idempotency_level = PURE
    method.options.Extensions[edge_pb2.edge].CopyFrom(route)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    reading = read_method(pool.FindMethodByName("t.S.Do"))
    return reading.policy, [problem.field for problem in reading.problems]


def test_a_route_is_part_of_the_policy() -> None:
    """Verb, path, fields, scopes and rate are read with the rest of what a contract says."""
    route = edge_pb2.EdgeRoute(
        post="/v1/things/{string}:cancel", scopes=["b", "a"], rate=policy_pb2.Rate(per_second=0.5)
    )
    edge = _read(route)[0].edge
    assert edge == EdgePolicy(
        "POST", "/v1/things/{string}:cancel", frozenset({"a", "b"}), rate=RatePolicy(0.5, 1)
    )
    assert edge.fields == ["string"]


@pytest.mark.parametrize(
    "path", ["/v1/{string}", "/{int64}/{bool}:do", "/a", "/a.b/~c-d_e/1", "/v1/{string}/x:undoIt"]
)
def test_a_path_of_segments_and_fields_is_taken(path: str) -> None:
    """Literals, fields that are a string, an integer or a bool, and a verb at the end."""
    policy, problems = _read(edge_pb2.EdgeRoute(get=path, public=True))
    assert not problems
    assert policy.edge == EdgePolicy("GET", path, public=True)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "v1", "/v1/", "//v1", "/v1//a", "/v1/../a", "/v1/.", "/v1?a", "/v1/ü", "/v1#a"),
        *("/v1/{}", "/v1/{string", "/v1/a{string}", "/v1/{string=*}", "/v1/**", "/v1:a/b", "/v1:"),
        *("/v1/{gone}", "/v1/{many}", "/v1/{bytes}", "/v1/{double}", "/{string}/{string}", "/a%2f"),
    ],
)
def test_another_path_is_refused(path: str) -> None:
    """What is no path, or names a field that has no place in one, is refused."""
    policy, problems = _read(edge_pb2.EdgeRoute(get=path, public=True))
    assert (policy.edge, problems) == (None, ["edge.get"])


@pytest.mark.parametrize(
    ("route", "field"),
    [
        (edge_pb2.EdgeRoute(public=True), "edge"),
        (edge_pb2.EdgeRoute(get="/a"), "edge.scopes"),
        (edge_pb2.EdgeRoute(get="/a", scopes=["a b"]), "edge.scopes"),
        (edge_pb2.EdgeRoute(get="/a", scopes=[""]), "edge.scopes"),
        (edge_pb2.EdgeRoute(get="/a", scopes=["a" * 65]), "edge.scopes"),
        (edge_pb2.EdgeRoute(get="/a", scopes=["a", "a"]), "edge.scopes"),
        (edge_pb2.EdgeRoute(get="/a", scopes=["a"], public=True), "edge.public"),
        (edge_pb2.EdgeRoute(get="/a", public=True, rate=policy_pb2.Rate()), "edge.rate.per_second"),
    ],
)
def test_who_may_call_and_how_often_is_checked(route: edge_pb2.EdgeRoute, field: str) -> None:
    """A route has a path, scopes or everybody, and a rate that is one."""
    assert _read(route)[1] == [field]


def test_a_route_fits_its_rpc() -> None:
    """GET is for what has no side effects; a stream of requests has no route at all."""
    assert _read(edge_pb2.EdgeRoute(get="/a", public=True), pure=False)[1] == ["edge.get"]
    assert _read(edge_pb2.EdgeRoute(put="/a", public=True), pure=False)[1] == []
    assert _read(edge_pb2.EdgeRoute(post="/a", public=True), streams=True)[1] == ["edge"]
