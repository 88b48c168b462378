"""Alerting rules for Prometheus, and a dashboard for Grafana, of what the library measures.

What differs from contract to contract comes from it: the timeout that a method's p99 must not come
near, the owner whom an alert is for. The rest holds for every process. Rules are JSON, which is
YAML; names of metrics are those of OpenTelemetry's exporter for Prometheus.
"""

from typing import Final

from accord_checks.declarations import Rpc
from accord_checks.export import Json, json_text
from accord_checks.export.resolved_contracts import ResolvedContracts

NEAR: Final = 0.8
"""Share of its timeout from which on the p99 of a method is too long."""

FAILURES: Final = 0.05
"""Share of a service's calls that may fail for reasons of its own."""

CALLS: Final = "grpc_server_call_duration_seconds_count"
OWN: Final = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
"""Codes that tell of the server's own failure."""

_OPEN: Final = 'accord_client_breaker_state{accord_breaker_state="open"}'
_RUNTIME: Final = (
    ("BreakerOpen", f"max by (grpc_target, grpc_method) ({_OPEN}) == 1", "1m",
     "{{ $labels.grpc_method }} is not sent to {{ $labels.grpc_target }}: it fails."),
    ("WorkParked", "sum by (job, queue) (accord_work_parked) > 0", "1m",
     "{{ $value }} items of {{ $labels.queue }} wait for an operator."),
    ("RelayLag", "max by (job) (accord_relay_oldest_age_seconds) > 10", "1m",
     "An event has waited for the broker for {{ $value }} s."),
    ("ConsumerLag", 'max by (job, queue) (accord_work_oldest_age_seconds{queue=~"inbox:.*"}) > 60',
     "1m", "An event of {{ $labels.queue }} has not been handled for {{ $value }} s."),
    ("DatabaseDoesNotCommit", "min by (job) (accord_database_commits) == 0", "10s",
     "The database of {{ $labels.job }} does not commit."),
    ("CertificateEnds", "min by (job, instance) (accord_identity_expiry_seconds) < 3600", "1m",
     "The certificate of {{ $labels.instance }} ends in {{ $value }} s."),
    ("CertificateNotUsed", "max by (job, instance) (accord_identity_problem) == 1", "5m",
     "The files of a certificate of {{ $labels.instance }} are not used."),
)  # fmt: skip

_PANELS: Final = (
    ("Calls", "ops", f"sum by (grpc_method) (rate({CALLS}[1m]))"),
    ("Failures", "ops", f'sum by (grpc_method) (rate({CALLS}{{grpc_status=~"{OWN}"}}[1m]))'),
    ("p99 at the server", "s", "histogram_quantile(0.99, sum by (le, grpc_method)"
     " (rate(grpc_server_call_duration_seconds_bucket[5m])))"),
    ("p99 at the caller", "s", "histogram_quantile(0.99, sum by (le, grpc_method)"
     " (rate(grpc_client_call_duration_seconds_bucket[5m])))"),
    ("Open breakers", "short", f"max by (grpc_target, grpc_method) ({_OPEN})"),
    ("Refused for overload", "ops", "sum by (job) (rate(accord_server_shed_total[1m]))"),
    ("Work that waits", "short", "sum by (job, queue) (accord_work_waiting)"),
    ("Work that is parked", "short", "sum by (job, queue) (accord_work_parked)"),
    ("Oldest event for the broker", "s", "max by (job) (accord_relay_oldest_age_seconds)"),
    ("Oldest work", "s", "max by (job, queue) (accord_work_oldest_age_seconds)"),
)  # fmt: skip


def rules(contracts: ResolvedContracts) -> str:
    """A file of rules: one for each method with a timeout, one for each service, and the rest."""
    methods = [_slow(rpc) for rpc in contracts.rpcs() if rpc.policy.timeout is not None]
    services = []
    for service in contracts.services:
        calls = f'{CALLS}{{grpc_method=~"{service.name}/.*"'
        failed = f'sum(rate({calls},grpc_status=~"{OWN}"}}[5m]))'
        ratio = f"{failed} / sum(rate({calls}}}[5m])) > {FAILURES}"
        said = f"{service.name} fails {{{{ $value | humanizePercentage }}}} of its calls."
        services.append(_alert("ServiceFails", ratio, "5m", said, owner=service.owner))
    groups = {
        "accord-methods": methods,
        "accord-services": services,
        "accord-runtime": [_alert(*each) for each in _RUNTIME],
    }
    return json_text({"groups": [{"name": name, "rules": each} for name, each in groups.items()]})


def dashboard(contracts: ResolvedContracts, *, title: str = "Mesh") -> str:
    """A dashboard that Grafana imports; its panels are of the methods of these contracts."""
    panels = [_panel(number, *panel) for number, panel in enumerate(_PANELS)]
    prefixes = sorted({service.name.rpartition(".")[0] for service in contracts.services})
    source = {"name": "source", "type": "datasource", "query": "prometheus"}
    return json_text(
        {
            "title": title,
            "uid": "accord-mesh",
            "tags": prefixes,
            "schemaVersion": 39,
            "refresh": "10s",
            "time": {"from": "now-30m", "to": "now"},
            "templating": {"list": [source]},
            "panels": panels,
        }
    )


def _slow(rpc: Rpc) -> Json:
    timeout, name = rpc.policy.timeout or 0.0, f"{rpc.service.name}/{rpc.short}"
    buckets = f'grpc_client_call_duration_seconds_bucket{{grpc_method="{name}"}}'
    p99 = f"histogram_quantile(0.99, sum by (le) (rate({buckets}[5m]))) > {timeout * NEAR:g}"
    said = f"The p99 of {name} is {{{{ $value }}}} s, and its timeout {timeout:g} s."
    return _alert("MethodNearItsTimeout", p99, "5m", said, owner=rpc.service.owner, method=name)


def _alert(name: str, expression: str, wait: str, said: str, **labels: str) -> Json:
    return {
        "alert": name,
        "expr": expression,
        "for": wait,
        "labels": {key: value for key, value in labels.items() if value},
        "annotations": {"summary": said},
    }


def _panel(number: int, title: str, unit: str, expression: str) -> Json:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "expr": expression, "datasource": source}],
    }
