"""What children get of the environment of `shopctl up`: what they read, and nothing else.

The shell of whoever starts the shop has more than the shop needs: keys of a cloud, tokens of
registries. Every process that has them can lose them.
"""

from collections.abc import Mapping
from typing import Final

_SYSTEM: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
)
_PROXIES: Final = frozenset(
    {"http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy", "all_proxy"}
)
"""In capitals, too. What exports telemetry goes through them."""
_SETTINGS: Final = frozenset(
    {
        *("MAIL_QUEUE", "MAX_BACKLOG", "SMTP_ADDRESS", "OUTBOUND_NETWORKS", "OUTBOUND_HTTP"),
    }
)
_PREFIXES: Final = (
    *("MESH_", "NATS_", "LOG_", "OTEL_", "GRPC_", "ACCORD_"),
    *("PG", "PYTHON", "LC_", "MALLOC_", "COVERAGE_", "COV_"),
)
"""`PG`: what the client of PostgreSQL reads beside its URL, such as the file of its password."""


def of_services(ours: Mapping[str, str]) -> dict[str, str]:
    """Settings of services and of what they are built on; a variable of your own is `MESH_...`."""
    return {
        name: value
        for name, value in ours.items()
        if name in _SYSTEM
        or name in _SETTINGS
        or name.lower() in _PROXIES
        or name.startswith(_PREFIXES)
    }
