"""What the shop costs while nobody calls it: CPU of all its processes, in percent of one core.

Starts the shop (one process a service, broker and supervisor) on a free port offset, lets it
settle, and adds up what each process has used meanwhile. Linux only.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import harness
from benchmarks.order_cpu import pids_of, used
from tests.support.mesh_process import running_mesh
from tests.support.ports import free_offset


def run(seconds: float, settle: float, database_url: str | None) -> Mapping[str, object]:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_mesh(Path(folder, "mesh"), free_offset(), database_url) as mesh,
    ):
        time.sleep(settle)
        pids = pids_of(mesh)
        before, began = used(pids), time.monotonic()
        time.sleep(seconds)
        after, took = used(pids), time.monotonic() - began
    percent = {name: (after[name] - before[name]) / took * 100 for name in pids}
    return {name: f"{each:.2f} %" for name, each in percent.items()} | {
        "all": f"{sum(percent.values()):.2f} %"
    }


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--settle", type=float, default=10.0, help="seconds before")
    options.add_argument("--database-url", help="PostgreSQL instead of a file per service")
    given = options.parse_args()
    harness.report("idle", run(given.seconds, given.settle, given.database_url), as_json=given.json)


if __name__ == "__main__":
    main()
