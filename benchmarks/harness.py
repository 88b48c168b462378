"""What the benchmarks share: options, server processes, CPU clocks and the report."""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import grpc


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    found = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    found.add_argument("--json", action="store_true", help="print one JSON object")
    return found


def report(name: str, figures: Mapping[str, object], *, as_json: bool) -> None:
    """Print the figures, where they come from, and how to find them again."""
    machine = {
        "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "grpc": grpc.__version__,
    }
    if as_json:
        print(json.dumps({"benchmark": name, **machine, "figures": figures}))
        return
    print(" ".join(f"{key}={value!r}" for key, value in machine.items()))
    for key, value in figures.items():
        print(f"  {key:32} {value}")


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, with that of threads that have ended. Linux only."""
    return time.clock_gettime(~pid << 3 | 2)  # its clock, as clock_getcpuclockid(3) makes it


@asynccontextmanager
async def server(module: str, *arguments: str) -> AsyncIterator[tuple[int, str]]:
    """Run a module that prints its port; yields its process id and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield process.pid, f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):  # somebody else has killed it
            process.kill()
        await process.wait()
