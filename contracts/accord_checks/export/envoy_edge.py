"""Envoy as the edge: a whole bootstrap, which serves REST and gRPC-Web by the routes of contracts.

What reaches a service is what has a route, by its path and by that of gRPC, under the same rules:
who has no token, or none with the scopes, is refused on both. Anything else is 404.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

_USER: Final = "x-edge-user"
"""Header that holds the subject of a verified token, inside of Envoy only."""

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"
_FILTERS: Final = {
    "header_mutation": "HeaderMutation",
    "cors": "Cors",
    "jwt_authn": "JwtAuthentication",
    "rbac": "RBAC",
    "local_ratelimit": "LocalRateLimit",
    "buffer": "Buffer",
    "grpc_web": "GrpcWeb",
    "grpc_json_transcoder": "GrpcJsonTranscoder",
    "router": "Router",
}
"""In the order in which a request passes them."""
_PER_ROUTE: Final = {
    "cors": "CorsPolicy",
    "jwt_authn": "PerRouteConfig",
    "rbac": "RBACPerRoute",
    "local_ratelimit": "LocalRateLimit",
}


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
    manager: Json = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        # Envoy's own advice for an edge: what is odd is refused, and nobody may be slow for ever.
        "use_remote_address": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {"max_concurrent_streams": 100},
        "request_headers_timeout": "10s",
        "request_timeout": "60s",
        "local_reply_config": _problems(),
        "http_filters": [
            {"name": _name(it), "typed_config": _typed(it, _FILTERS, found)}
            for it, found in _filters(contracts, services, setting).items()
        ],
        "route_config": {
            "name": "edge",
            "request_headers_to_remove": [_USER],
            "virtual_hosts": [_host(routes, setting)],
        },
    }
    listener = {
        "name": "edge",
        "address": _address(f"{setting.host}:{setting.port}"),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    bootstrap: Json = {
        "node": {"id": "edge", "cluster": "edge"},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster(service, setting) for service in services],
        },
    }
    if setting.admin is not None:
        bootstrap["admin"] = {"address": _address(f"127.0.0.1:{setting.admin}")}
    return json_text(bootstrap)


def secrets(certs: str, beside: str) -> dict[str, str]:
    """The files of secrets (SDS) for a folder with tls.crt, tls.key and ca.crt: name -> text.

    Envoy reads the certificate with its key, and the roots, again when something is moved there.
    """

    def file(name: str) -> Json:
        return {"filename": f"{certs}/{name}"}

    def text(secret: Json) -> str:
        kind = f"{_EXTENSIONS}.transport_sockets.tls.v3.Secret"
        return json_text({"resources": [{"@type": kind, **secret}]})

    watched = {"watched_directory": {"path": certs}}
    chain = {"certificate_chain": file("tls.crt"), "private_key": file("tls.key"), **watched}
    roots = {"trusted_ca": file("ca.crt"), **watched}
    return {
        f"{beside}.certificate.json": text({"name": "certificate", "tls_certificate": chain}),
        f"{beside}.roots.json": text({"name": "roots", "validation_context": roots}),
    }


def _name(name: str) -> str:
    return f"envoy.filters.http.{name}"


def _typed(name: str, kinds: Mapping[str, str], config: Json) -> Json:
    return {"@type": f"{_EXTENSIONS}.filters.http.{name}.v3.{kinds[name]}", **config}


def _filters(
    contracts: ResolvedContracts, services: list[str], setting: Setting
) -> dict[str, Json]:
    described = annotated(contracts)
    for file in described.file:
        file.ClearField("source_code_info")
    token: Json = {"provider_name": "user"}
    provider = {
        "issuer": setting.issuer,
        "audiences": [setting.audience],
        "local_jwks": {"filename": setting.jwks},
        "require_expiration": True,
        "clock_skew_seconds": 5,
        "payload_in_metadata": "jwt",
        "claim_to_headers": [{"header_name": _USER, "claim_name": "sub"}],
    }
    made: dict[str, Json] = {name: {} for name in _FILTERS}
    # What belongs to the library, the token of a user above all, is not the caller's to say.
    inner = {"remove_on_match": {"key_matcher": {"prefix": "accord-", "ignore_case": True}}}
    made["header_mutation"] = {"mutations": {"request_mutations": [inner]}}
    made["jwt_authn"] = {
        "providers": {"user": provider},
        "bypass_cors_preflight": True,
        "rules": [{"match": {"prefix": "/"}, "requires": token}],
        "requirement_map": {
            "token": token,
            "anybody": {"requires_any": {"requirements": [token, {"allow_missing": {}}]}},
        },
    }
    made["rbac"] = {"rules": {"action": "ALLOW"}}  # nobody
    made["local_ratelimit"] = {"stat_prefix": "edge"}
    made["buffer"] = {"max_request_bytes": BODY}
    made["grpc_json_transcoder"] = {
        "proto_descriptor_bin": base64.b64encode(
            described.SerializeToString(deterministic=True)
        ).decode(),
        "services": services,
        # Else a path that only the transcoder takes for a route, "/v1/orders/", is matched again as
        # that of gRPC, past the rules that have let it through as none.
        "match_incoming_request_route": True,
        "convert_grpc_status": True,
        "print_options": {
            "always_print_primitive_fields": True,
            "stream_sse_style_delimited": True,
        },
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
    }
    return made


def _problems() -> Json:
    """What Envoy refuses itself is a problem (RFC 9457) for REST, and a status for gRPC."""
    grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    rest = {**grpc, "invert_match": True, "treat_missing_header_as_empty": True}
    form = {
        "json_format": {
            "title": "refused by the gateway",
            "status": "%RESPONSE_CODE%",
            "detail": "%LOCAL_REPLY_BODY%",
        },
        "content_type": "application/problem+json",
    }
    return {
        "mappers": [{"filter": {"header_filter": {"header": rest}}, "body_format_override": form}]
    }


def _host(routes: Sequence[tuple[Rpc, EdgePolicy]], setting: Setting) -> Json:
    host: Json = {"name": "edge", "domains": ["*"], "routes": []}
    for rpc, edge in routes:
        verb = {"headers": [{"name": ":method", "string_match": {"exact": edge.verb}}]}
        rest = {"path": edge.path} if not edge.fields else {"safe_regex": {"regex": _regex(edge)}}
        said = {"typed_per_filter_config": _rules(rpc, edge), "route": action(rpc)}
        host["routes"] += [
            {"name": f"REST {rpc.name}", "match": {**rest, **verb}, **said},
            {"name": rpc.name, "match": {"path": rpc.policy.method}, **said},
        ]
    if setting.origins:
        cors = {
            "allow_origin_string_match": [{"exact": origin} for origin in setting.origins],
            "allow_methods": "GET,PUT,POST,DELETE,PATCH",
            "allow_headers": "authorization,content-type,grpc-timeout,idempotency-key,traceparent,"
            "x-grpc-web,x-user-agent",
            "expose_headers": "grpc-status,grpc-message,grpc-status-details-bin,retry-after",
            "max_age": "600",
        }
        host["typed_per_filter_config"] = {_name("cors"): _typed("cors", _PER_ROUTE, cors)}
        # The filter answers pre-flights where a route to a cluster is; nobody else may take it.
        options = {"headers": [{"name": ":method", "string_match": {"exact": "OPTIONS"}}]}
        first = {"cluster": routes[0][0].service.name}
        host["routes"].append({"match": {"prefix": "/", **options}, "route": first})
    nothing = {
        _name("jwt_authn"): _typed("jwt_authn", _PER_ROUTE, {"disabled": True}),
        _name("rbac"): _typed("rbac", _PER_ROUTE, {}),
    }
    host["routes"].append(
        {
            "name": "none",
            "match": {"prefix": "/"},
            "typed_per_filter_config": nothing,
            "direct_response": {"status": 404},
        }
    )
    return host


def _regex(edge: EdgePolicy) -> str:
    parts = re.split(r"\{\w+\}", edge.path)
    return "[^/]+".join(map(re.escape, parts))


def _rules(rpc: Rpc, edge: EdgePolicy) -> dict[str, Json]:
    """Who may take a route, and how often: the same for REST and gRPC."""
    rate = edge.rate or RATE
    bucket = {
        "max_tokens": max(rate.burst, 1),
        "tokens_per_fill": math.ceil(rate.per_second) if rate.per_second >= 1 else 1,
        "fill_interval": json_duration(1 if rate.per_second >= 1 else 1 / rate.per_second),
    }
    by_user = {"request_headers": {"header_name": _USER, "descriptor_key": "user"}}
    limit: Json = {
        "stat_prefix": "edge",
        # Of all users together there is no bound; Envoy wants one.
        "token_bucket": {"max_tokens": 10**6, "tokens_per_fill": 10**6, "fill_interval": "1s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
        "rate_limits": [{"actions": [{"remote_address": {}} if edge.public else by_user]}],
        "descriptors": [
            {
                "entries": [{"key": "remote_address" if edge.public else "user"}],
                "token_bucket": bucket,
            }
        ],
        "max_dynamic_descriptors": 10_000,
        "rate_limited_as_resource_exhausted": True,
        "response_headers_to_add": [
            {"header": {"key": "retry-after", "value": str(math.ceil(1 / rate.per_second))}}
        ],
    }
    needed = {"requirement_name": "anybody" if edge.public else "token"}
    allowed = {"rbac": {"rules": {"action": "ALLOW", "policies": {"scopes": _scopes(edge)}}}}
    return {
        _name(name): _typed(name, _PER_ROUTE, config)
        for name, config in (("jwt_authn", needed), ("rbac", allowed), ("local_ratelimit", limit))
    }


def _scopes(edge: EdgePolicy) -> Json:
    """Whoever has all scopes: the claim `scope` has them with spaces between (RFC 8693)."""
    wanted = [rf"(.* )?{re.escape(scope)}( .*)?" for scope in sorted(edge.scopes)]
    path = {"filter": _name("jwt_authn"), "path": [{"key": "jwt"}, {"key": "scope"}]}
    having: list[Any] = [
        {"sourced_metadata": {"metadata_matcher": {**path, "value": {"string_match": match}}}}
        for match in ({"safe_regex": {"regex": regex}} for regex in wanted)
    ]
    principal = {"and_ids": {"ids": having}} if having else {"any": True}
    return {"permissions": [{"any": True}], "principals": [principal]}


def _address(address: str) -> Json:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _cluster(service: str, setting: Setting) -> Json:
    short = next(
        (it for it in reversed(service.split(".")[:-1]) if not re.fullmatch(r"v\d\w*", it)), ""
    )
    found = setting.targets.get(service) or setting.targets.get(short)
    if not found:
        raise Refused(f"{service} has a route and no target: name one, --target {short}=HOST:PORT")
    http2: Json = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    cluster: Json = {
        "name": service,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": service,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(each)}} for each in found]}
            ],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "circuit_breakers": {
            "thresholds": [
                {"retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3}}
            ]
        },
        # `gateway` failures are those that gRPC calls UNAVAILABLE.
        "outlier_detection": {
            "consecutive_gateway_failure": 3,
            "base_ejection_time": "10s",
            "max_ejection_time": "30s",
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "2s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
    }
    if setting.secrets:
        cluster["transport_socket"] = _tls(f"spiffe://{setting.trust_domain}/{short}", setting)
    return cluster


def _tls(identity: str, setting: Setting) -> Json:
    """Mutual TLS with a server of that identity; certificates are read from files of secrets."""

    def sds(name: str) -> Json:
        path = {"path": f"{setting.secrets}.{name}.json"}
        source = {"path_config_source": path, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    context = {
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [sds("certificate")],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": identity}}
                ]
            },
            "validation_context_sds_secret_config": sds("roots"),
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": context,
        },
    }
