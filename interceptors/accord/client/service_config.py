"""What a channel leaves to gRPC's core: balancing, health checks and ejection of outliers.

gRPC takes a service config without a word and then fails every call with INVALID_ARGUMENT if it is
wrong, so a config is checked before it is used. Deadlines and retries stay out of it: the core's
`timeout` fires seconds early (grpc/grpc#34547) and its retries know neither a budget nor a breaker;
both are the interceptor's.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | None
"""What a config is made of."""

EJECTION_INTERVAL: Final = 0.5
"""Seconds between two looks at the backends of a target: one that is frozen or slow is left out a
second after its first calls have run out of time. gRFC A50 and Envoy take 10."""

EJECTION_VOLUME: Final = 5
"""Calls to a backend within an interval that are enough to tell that it is one (Envoy: 50)."""

BASE_EJECTION: Final = 30.0
"""Seconds that a backend is left out for, times how often it has been (gRFC A50, Envoy). Longer is
no better: gRPC leaves it out although it is the only one left."""

MAX_EJECTED: Final = 30
"""Percent of the backends that are left out when another one may be: so it is half at most, and one
in any case. At 50 it would be two of three, after a stall that all of them shared."""

MIN_BACKENDS: Final = 2
"""Below, nobody is ejected: without another backend it is the breaker that must answer."""

FAILING: Final = 85
"""Least percent of failures of an outlier (Envoy). gRPC counts business answers too: at 30 % it
left out healthy backends of a method that often says NOT_FOUND."""

_DURATION: Final = re.compile(r"\d{1,12}(\.\d{1,9})?s")
_POLICIES: Final = frozenset(
    {"round_robin", "pick_first", "weighted_round_robin", "outlier_detection_experimental"}
)


class ServiceConfigError(ValueError):
    """A config that gRPC would fail every call with, or that would do an interceptor's work."""


def default(*, health: str | None = None) -> dict[str, Json]:
    """The config of a channel; `health`: the service whose health is watched, without metadata."""
    return {
        "loadBalancingConfig": [
            {
                "outlier_detection_experimental": {
                    "interval": f"{EJECTION_INTERVAL}s",
                    "baseEjectionTime": f"{BASE_EJECTION}s",
                    "maxEjectionPercent": MAX_EJECTED,
                    "failurePercentageEjection": {
                        "threshold": FAILING,
                        "enforcementPercentage": 100,
                        "minimumHosts": MIN_BACKENDS,
                        "requestVolume": EJECTION_VOLUME,
                    },
                    "childPolicy": [{"round_robin": {}}],
                }
            }
        ],
        **({"healthCheckConfig": {"serviceName": health}} if health is not None else {}),
    }


def check(config: Mapping[str, Json]) -> None:
    """Refuse what gRPC would fail every call with, and what the interceptors do instead.

    Raises:
        ServiceConfigError: names the field and what is wrong with it.
    """
    known = {"loadBalancingConfig", "healthCheckConfig", "methodConfig"}
    for name in config:
        if name in ("retryThrottling", "loadBalancingPolicy"):
            raise ServiceConfigError(f"{name}: is not for a mesh channel: {_INSTEAD[name]}")
        if name not in known:
            raise ServiceConfigError(f"{name}: is not a field of a service config")
    _check_balancing(
        "loadBalancingConfig", config.get("loadBalancingConfig", [{"round_robin": {}}])
    )
    health = config.get("healthCheckConfig", {})
    if not isinstance(health, Mapping) or not isinstance(health.get("serviceName", ""), str):
        raise ServiceConfigError("healthCheckConfig.serviceName: must be a string")
    methods = config.get("methodConfig", [])
    if not isinstance(methods, list):
        raise ServiceConfigError("methodConfig: must be a list")
    for index, method in enumerate(methods):
        _check_method(f"methodConfig[{index}]", method)


_INSTEAD: Final = {
    "timeout": "the contract's timeout holds, the core's fires early (grpc/grpc#34547)",
    "retryPolicy": "the contract's retry holds, the core's would multiply it",
    "hedgingPolicy": "the contract's hedge holds, the core has none",
    "retryThrottling": "the mesh's retry budget holds",
    "loadBalancingPolicy": "write loadBalancingConfig",
}


def _check_balancing(at: str, value: Json) -> None:
    if not isinstance(value, list) or not value:
        raise ServiceConfigError(f"{at}: must be a list of policies")
    for index, policy in enumerate(value):
        if not isinstance(policy, Mapping) or len(policy) != 1:
            raise ServiceConfigError(f"{at}[{index}]: must have one policy")
        ((name, settings),) = policy.items()
        here = f"{at}[{index}].{name}"
        if name not in _POLICIES:
            raise ServiceConfigError(f"{here}: is none of {', '.join(sorted(_POLICIES))}")
        if not isinstance(settings, Mapping):
            raise ServiceConfigError(f"{here}: must be an object")
        for field in ("interval", "baseEjectionTime", "maxEjectionTime"):
            if field in settings:
                _check_duration(f"{here}.{field}", settings[field])
        percent = settings.get("maxEjectionPercent", 0)
        if type(percent) is not int or not 0 <= percent <= 100:
            raise ServiceConfigError(f"{here}.maxEjectionPercent: must lie between 0 and 100")
        if name == "outlier_detection_experimental":
            _check_balancing(f"{here}.childPolicy", settings.get("childPolicy"))


def _check_method(at: str, value: Json) -> None:
    if not isinstance(value, Mapping):
        raise ServiceConfigError(f"{at}: must be an object")
    for name in ("timeout", "retryPolicy", "hedgingPolicy"):
        if name in value:
            raise ServiceConfigError(f"{at}.{name}: is not for a mesh channel: {_INSTEAD[name]}")
    if "waitForReady" in value and not isinstance(value["waitForReady"], bool):
        raise ServiceConfigError(f"{at}.waitForReady: must be true or false")


def _check_duration(at: str, value: Json) -> None:
    if not isinstance(value, str) or not _DURATION.fullmatch(value) or float(value[:-1]) <= 0:
        raise ServiceConfigError(f"{at}: must be seconds such as '1.5s', more than 0")
