"""How long the whole shop takes to be ready, with all of its parts, and how much memory it holds.

Starts what `make up` starts, with certificates, edge and console, several times in folders of their
own: seconds until every process has said that it serves, CPU of all processes until they have
ended again, and the sum of their proportional set sizes a while after. Linux only.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import harness
from benchmarks.order_cpu import pids_of
from shopctl.supervisor.health import proportional_bytes
from tests.support.mesh_process import running_mesh
from tests.support.ports import free_offset


def run(rounds: int, settle: float) -> Mapping[str, object]:
    each = [_once(settle) for _ in range(rounds)]
    ready, cpu, memory = zip(*each, strict=True)
    return {
        "ready": f"{statistics.median(ready):.1f} s ({min(ready):.1f} to {max(ready):.1f})",
        "cpu": f"{statistics.median(cpu):.1f} s",
        "memory": f"{statistics.median(memory) / 2**20:.0f} MiB",
    }


def _once(settle: float) -> tuple[float, float, int]:
    before, began = _cpu(), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_mesh(Path(folder, "mesh"), free_offset(), left_out=()) as mesh,
    ):
        ready = time.monotonic() - began
        time.sleep(settle)
        memory = sum(proportional_bytes(pid) or 0 for pid in pids_of(mesh).values())
    return ready, _cpu() - before, memory


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--settle", type=float, default=20.0, help="seconds before memory is read")
    given = options.parse_args()
    harness.report("ready", run(given.rounds, given.settle), as_json=given.json)


if __name__ == "__main__":
    main()
