"""Envoy as the edge: a whole bootstrap, which serves REST and gRPC-Web by the routes of contracts.

What reaches a service is what has a route, by its path and by that of gRPC, under the same rules:
who has no token, or none with the scopes, is refused on both. Anything else is 404. The parts are
in `envoy_edge.json`; of them, `match_incoming_request_route` is for safety: else a path that only
the transcoder takes for a route, "/v1/orders/", is matched again as that of gRPC, past the rules
that have let it through as none.
"""

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from accord.contract import EdgePolicy
from accord.policies.rate_limit import RatePolicy
from accord_checks import Refused
from accord_checks.declarations import Rpc
from accord_checks.export import Json, json_duration, json_text
from accord_checks.export.envoy import action
from accord_checks.export.http_annotations import annotated
from accord_checks.export.resolved_contracts import ResolvedContracts

RATE: Final = RatePolicy(100, 200)
"""Calls per second of one user, or of one address where no token is needed, unless a route says."""

BODY: Final = 1024 * 1024
"""Bytes of a request; more is 413."""

_PARTS: Final[Json] = json.loads(
    resources.files(__package__).joinpath("envoy_edge.json").read_text(encoding="utf-8")
)
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters.http."
_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a contract does not say."""

    jwks: str
    """File with the keys of whoever issues tokens, as Envoy finds it."""
    issuer: str
    audience: str
    targets: Mapping[str, Sequence[str]]
    """Service, "shop.orders.v1.OrderService" or "orders", -> `host:port` of each replica."""
    host: str = "0.0.0.0"
    port: int = 8080
    admin: int | None = None
    """Port of Envoy's own interface, on loopback: statistics, draining."""
    origins: Sequence[str] = ()
    """Whose pages may call from a browser."""
    secrets: str = ""
    """Beginning of the names of the files of `secrets`; empty: without TLS inward."""
    trust_domain: str = ""
    """Of the identities of services, with `secrets`."""


def export(contracts: ResolvedContracts, setting: Setting) -> str:
    """The bootstrap as JSON. Raises Refused: a service with a route has no target."""
    routes = contracts.routes()
    services = sorted({rpc.service.name for rpc, _ in routes})
    image = annotated(contracts)
    for file in image.file:
        file.ClearField("source_code_info")
    bootstrap: Json = _filled(
        _PARTS["bootstrap"],
        address=_address(f"{setting.host}:{setting.port}"),
        filters=[
            {"name": name, "typed_config": config}
            for name, config in _typed(
                "filters",
                issuer=setting.issuer,
                audience=setting.audience,
                jwks=setting.jwks,
                descriptors=base64.b64encode(image.SerializeToString(deterministic=True)).decode(),
                services=services,
                body=BODY,
            ).items()
        ],
        routes=[*_routes(routes, setting)],
        cors=_typed("cors", origins=[{"exact": origin} for origin in setting.origins]),
        clusters=[_cluster(service, setting) for service in services],
    )
    if setting.admin is not None:
        bootstrap["admin"] = {"address": _address(f"127.0.0.1:{setting.admin}")}
    return json_text(bootstrap)


def secrets(certs: str, beside: str) -> dict[str, str]:
    """The files of secrets (SDS) for a folder with tls.crt, tls.key and ca.crt: name -> text.

    Envoy reads the certificate with its key, and the roots, again when something is moved there.
    """
    files = {name: f"{certs}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")}
    made = _filled(_PARTS["secrets"], folder=certs, **files)
    return {
        f"{beside}.{name}.json": json_text(
            {"resources": [{"@type": _SECRET, "name": name, **secret}]}
        )
        for name, secret in made.items()
    }


def _filled(part: Any, **values: Any) -> Any:
    """A part with values in the places that are named after them: "$issuer"."""
    if isinstance(part, dict):
        return {key: _filled(inner, **values) for key, inner in part.items()}
    if isinstance(part, list):
        return [_filled(inner, **values) for inner in part]
    return values[part[1:]] if isinstance(part, str) and part[:1] == "$" else part


def _typed(part: str, **values: Any) -> dict[str, Json]:
    """Configurations of filters by name, with the type that they have in the part."""
    return {
        f"envoy.filters.http.{kind.partition('.')[0]}": {"@type": _FILTERS + kind, **config}
        for kind, config in _filled(_PARTS[part], **values).items()
    }


def _routes(routes: Sequence[tuple[Rpc, EdgePolicy]], setting: Setting) -> Iterator[Json]:
    for rpc, edge in routes:
        said = {"typed_per_filter_config": _rules(edge), "route": action(rpc)}
        path = "[^/]+".join(map(re.escape, re.split(r"\{\w+\}", edge.path)))
        rest = _verb(edge.verb)
        rest["headers"].append(_PARTS["json"])
        yield {"name": f"REST {rpc.name}", "match": {"safe_regex": {"regex": path}, **rest}, **said}
        yield {"name": rpc.name, "match": {"path": rpc.policy.method}, **said}
    if setting.origins:
        # The filter answers pre-flights where a route to a cluster is; nobody else may take it.
        cluster = {"cluster": routes[0][0].service.name}
        yield {"match": {"prefix": "/", **_verb("OPTIONS")}, "route": cluster}
    nothing = {"typed_per_filter_config": _typed("nothing"), "direct_response": {"status": 404}}
    yield {"name": "none", "match": {"prefix": "/"}, **nothing}


def _verb(verb: str) -> Json:
    return {"headers": [{"name": ":method", "string_match": {"exact": verb}}]}


def _rules(edge: EdgePolicy) -> dict[str, Json]:
    """Who may take a route, and how often: the same for REST and gRPC."""
    rate, user = edge.rate or RATE, {"header_name": "x-edge-user", "descriptor_key": "user"}
    # The claim `scope` has all scopes with spaces between (RFC 8693).
    scopes = [rf"(.* )?{re.escape(scope)}( .*)?" for scope in sorted(edge.scopes)]
    having = [_filled(_PARTS["claim"], claim="scope", regex=regex) for regex in scopes]
    if not edge.public:  # else nobody's rate would be counted
        having.append(_filled(_PARTS["claim"], claim="sub", regex="[!-~]+"))
    return _typed(
        "rules",
        requirement="anybody" if edge.public else "token",
        principal={"and_ids": {"ids": having}} if having else {"any": True},
        whose={"remote_address": {}} if edge.public else {"request_headers": user},
        key="remote_address" if edge.public else "user",
        bucket={
            "max_tokens": rate.burst,
            "tokens_per_fill": max(1, math.ceil(rate.per_second)),
            "fill_interval": json_duration(max(1.0, 1 / rate.per_second)),
        },
        wait=str(math.ceil(1 / rate.per_second)),
    )


def _address(address: str) -> Json:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _cluster(service: str, setting: Setting) -> Json:
    packages = reversed(service.split(".")[:-1])
    short = next((it for it in packages if not re.fullmatch(r"v\d\w*", it)), service)
    found = setting.targets.get(service) or setting.targets.get(short)
    if not found:
        raise Refused(f"{service} has a route and no target: name one, --target {short}=HOST:PORT")
    endpoints = [{"endpoint": {"address": _address(each)}} for each in found]
    cluster: Json = _filled(_PARTS["cluster"], name=service, endpoints=endpoints)
    if setting.secrets:
        sources = {
            name: {
                "path_config_source": {"path": f"{setting.secrets}.{name}.json"},
                "resource_api_version": "V3",
            }
            for name in ("certificate", "roots")
        }
        identity = f"spiffe://{setting.trust_domain}/{short}"
        cluster["transport_socket"] = _filled(_PARTS["tls"], identity=identity, **sources)
    return cluster
