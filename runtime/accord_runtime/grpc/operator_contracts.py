"""Names by which every service is operated; no more, so that it loads at once.

`accord_runtime.admin` has the code behind them, and with it all that a service consists of.
"""

from typing import Final

CONTRACTS: Final = (
    "accord.ops.v1.WorkService",
    "accord.ops.v1.AuditService",
    "accord.ops.v1.TraceService",
    "accord.ops.v1.HealthService",
)
"""What every service serves."""

TAKES_CALLS: Final = CONTRACTS[0]
"""The name under which the health of a process is watched by its callers: it is SERVING while calls
are taken, whatever the database does. Processes of 0.1.0 have it, too; a name that a process does
not know would keep all calls from it."""

SAGA_CONTRACT: Final = "accord.ops.v1.SagaService"
"""What a service with sagas serves, too."""

POLICY_BUCKET: Final = "live-policy"
"""The bucket of the broker's key-value store that has live policy."""
