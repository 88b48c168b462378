"""What the console costs: CPU of each process of a shop in which nothing is done, by who looks.

Nobody has looked yet; one browser has the page of the mesh open, which is a stream of what changes;
it has gone again. Linux only.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from benchmarks import harness
from benchmarks.order_cpu import pids_of, used
from services import topology
from services.console.access import make_link
from services.console.watch import LINGER
from tests.support.mesh_process import running_mesh
from tests.support.ports import free_offset

SETTLES = 5.0
"""Seconds for channels to be made, and for the last to leave."""


def run(seconds: float, settle: float) -> Mapping[str, object]:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_mesh(Path(folder, "mesh"), free_offset(), left_out=(topology.EDGE,)) as mesh,
        httpx.Client(
            base_url=f"http://{topology.address(topology.CONSOLE, mesh.offset)}", trust_env=False
        ) as browser,
    ):
        pids = pids_of(mesh)
        time.sleep(settle)
        before = _spent(pids, seconds)
        link = make_link(mesh.home, "bench")
        assert browser.get("/console/login", params={"link": link}).status_code == 303
        with browser.stream("GET", "/console/live", timeout=None) as page:
            assert page.status_code == 200
            time.sleep(SETTLES)
            during = _spent(pids, seconds)
        time.sleep(LINGER + SETTLES)
        after = _spent(pids, seconds)
    return {
        f"{name}, ms a second": {
            "nobody": round(before[name], 2),
            "one looks": round(during[name], 2),
            "nobody again": round(after[name], 2),
        }
        for name in pids
    }


def _spent(pids: Mapping[str, int], seconds: float) -> Mapping[str, float]:
    """CPU of each process, in milliseconds a second."""
    before, began = used(pids), time.monotonic()
    time.sleep(seconds)
    after, took = used(pids), time.monotonic() - began
    return {name: (after[name] - before[name]) / took * 1e3 for name in pids}


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--seconds", type=float, default=50.0, help="of each")
    options.add_argument("--settle", type=float, default=30.0, help="seconds before")
    given = options.parse_args()
    harness.report("console", run(given.seconds, given.settle), as_json=given.json)


if __name__ == "__main__":
    main()
