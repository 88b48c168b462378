"""What gRPC's client is told of a target, as resources of xDS: pure, without I/O.

Versions of a target are localities of one cluster, with weights: gRPC calls those that have an
endpoint left, so what an ejected version would have got goes to the others. Clusters with weights,
as Istio writes them, would fail the share of a version of which all endpoints are ejected.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt32Value

from accord.client import service_config as balancing
from accord.xds.routes import Route, Split
from accord.xds.v3 import discovery_pb2 as pb

_TYPES: Final = "type.googleapis.com/envoy."
_TLS: Final = f"{_TYPES}extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_HTTP: Final = (
    f"{_TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_ROUTER: Final = f"{_TYPES}extensions.filters.http.router.v3.Router"
LISTENER: Final = f"{_TYPES}config.listener.v3.Listener"
ROUTES: Final = f"{_TYPES}config.route.v3.RouteConfiguration"
CLUSTER: Final = f"{_TYPES}config.cluster.v3.Cluster"
ENDPOINTS: Final = f"{_TYPES}config.endpoint.v3.ClusterLoadAssignment"
"""The types of resources that a client subscribes to, by the URL of each."""

PROVIDER: Final = "accord"
"""What a bootstrap calls the provider of the process's certificate."""

_ADS: Final = pb.ConfigSource(ads=pb.AggregatedConfigSource(), resource_api_version=2)
_EDS: Final = 3
_REST: Final = "rest"

Endpoint = tuple[str, int]
"""IP address and port."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target with its endpoints as they are now."""

    route: Route
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    """By version."""
    server: str
    """The SPIFFE id that its servers must have; "": plaintext."""
    unhealthy: frozenset[Endpoint] = field(default_factory=frozenset)


def named(kind: str, name: str, targets: Mapping[str, Target], caller: str) -> Any | None:
    """A resource, for the caller with this identity; None: there is none of this name."""
    target, _, number = name.partition("/")
    found = targets.get(target)
    if found is None:
        return None
    splits = found.route.split_for(caller)
    if kind == LISTENER:
        made: Message = _listener(name)
    elif kind == ROUTES:
        made = _routes(name, splits)
    elif number == _REST or number.isdecimal():
        # A rule that is no more is answered for until the client has the new routes.
        place = len(splits) - 1 if number == _REST else min(int(number), len(splits) - 1)
        split = splits[place]
        if kind == ENDPOINTS and not found.endpoints.keys() >= {*split.weights, *split.fallback}:
            return None  # it waits until their names have been looked up
        made = (_cluster if kind == CLUSTER else _assignment)(name, found, split)
    else:
        return None
    return _any(kind, made)


def _any(kind: str, message: Message) -> Any:
    return Any(type_url=kind, value=message.SerializeToString(deterministic=True))


def _listener(name: str) -> pb.Listener:
    manager = pb.HttpConnectionManager(
        rds=pb.Rds(config_source=_ADS, route_config_name=name),
        http_filters=[pb.HttpFilter(name="router", typed_config=_any(_ROUTER, pb.Router()))],
    )
    return pb.Listener(name=name, api_listener=pb.ApiListener(api_listener=_any(_HTTP, manager)))


def _routes(name: str, splits: Iterable[Split]) -> pb.RouteConfiguration:
    routes = [
        pb.Route(
            match=pb.RouteMatch(
                prefix="",
                headers=[
                    pb.HeaderMatcher(name=key, string_match=pb.StringMatcher(exact=value))
                    for key, value in sorted(split.headers.items())
                ],
            ),
            # That of the rest has a name of its own: what it knows of its endpoints outlives rules.
            route=pb.RouteAction(cluster=f"{name}/{number if split.headers else _REST}"),
        )
        for number, split in enumerate(splits)
    ]
    host = pb.VirtualHost(name=name, domains=["*"], routes=routes)
    return pb.RouteConfiguration(name=name, virtual_hosts=[host])


def _cluster(name: str, target: Target, split: Split) -> pb.Cluster:
    found = pb.Cluster(
        name=name,
        type=_EDS,
        eds_cluster_config=pb.EdsClusterConfig(eds_config=_ADS),
        outlier_detection=_ejection(target, split),
    )
    if target.server:
        provider = pb.CertificateProvider(instance_name=PROVIDER)
        context = pb.CommonTlsContext(
            tls_certificate_provider_instance=provider,
            validation_context=pb.CertificateValidationContext(
                ca_certificate_provider_instance=provider,
                match_subject_alt_names=[pb.StringMatcher(exact=target.server)],
            ),
        )
        tls = _any(_TLS, pb.UpstreamTlsContext(common_tls_context=context))
        found.transport_socket.CopyFrom(pb.TransportSocket(name="tls", typed_config=tls))
    return found


def _ejection(target: Target, split: Split) -> pb.OutlierDetection | None:
    """As channels without xDS have it, unless there is another version to go to.

    None where too few are left to go to: gRPC then does not look twice a second for nothing.
    """
    interval, percent, calls = (
        balancing.EJECTION_INTERVAL,
        balancing.FAILING,
        balancing.EJECTION_VOLUME,
    )
    most, least = balancing.MAX_EJECTED, balancing.MIN_BACKENDS
    shares = sorted((weight, name) for name, weight in split.weights.items() if weight)
    sizes = [len(target.endpoints.get(name, ())) for _, name in shares]
    if len(shares) > 1 or split.fallback:
        wanted = target.route.ejection
        interval, percent, calls = wanted.interval, wanted.percent, wanted.calls
        # All but those of the version with the greatest share; with a fallback, all.
        lost = sum(sizes) - (0 if split.fallback else sizes[-1])
        most = max(most, 100 * lost // max(1, sum(sizes)))
        least = 1 if split.fallback else least
    if sum(sizes) < least:
        return None
    return pb.OutlierDetection(
        interval=_duration(interval),
        base_ejection_time=_duration(balancing.BASE_EJECTION),
        max_ejection_percent=UInt32Value(value=most),
        enforcing_success_rate=UInt32Value(value=0),
        enforcing_failure_percentage=UInt32Value(value=100),
        failure_percentage_threshold=UInt32Value(value=percent),
        failure_percentage_minimum_hosts=UInt32Value(value=least),
        failure_percentage_request_volume=UInt32Value(value=calls),
    )


def _duration(seconds: float) -> Duration:
    found = Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def _assignment(name: str, target: Target, split: Split) -> pb.ClusterLoadAssignment:
    # A locality without weight is left out by gRPC; priorities must have no gap.
    shares = [(version, weight, 0) for version, weight in sorted(split.weights.items()) if weight]
    shares += [(version, 1, 1) for version in split.fallback]
    return pb.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            pb.LocalityLbEndpoints(
                locality=pb.Locality(sub_zone=version),
                load_balancing_weight=UInt32Value(value=weight),
                priority=priority,
                lb_endpoints=[
                    _endpoint(target, each) for each in target.endpoints.get(version, ())
                ],
            )
            for version, weight, priority in shares
        ],
    )


_HEALTHY, _UNHEALTHY, _DRAINING = 1, 2, 3


def _endpoint(target: Target, endpoint: Endpoint) -> pb.LbEndpoint:
    host, port = endpoint
    status = _UNHEALTHY if endpoint in target.unhealthy else _HEALTHY
    if address(endpoint) in target.route.draining:
        status = _DRAINING
    at = pb.Address(socket_address=pb.SocketAddress(address=host, port_value=port))
    return pb.LbEndpoint(endpoint=pb.Endpoint(address=at), health_status=status)


def address(endpoint: Endpoint) -> str:
    """As people write it: "10.0.0.7:9051", "[::1]:9051"."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
