"""Memory of a process."""

from pathlib import Path


def proportional_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Memory of a process in bytes: its proportional set size (PSS).

    PSS shares the pages that several processes have in common fairly among them, so that the
    numbers of the shop's processes can be added up. Where the kernel does not tell it, the
    resident set size is returned, which counts shared pages in full. None when the process is
    gone or the system has no `/proc`.
    """
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = (proc / str(pid) / name).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None
