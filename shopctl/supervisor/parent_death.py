"""Runs a command that the kernel kills when the process that started it dies.

    python -I -S parent_death.py <pid of the starter> <command> <argument>...

A supervisor that is killed with `kill -9` cannot clean up. On Linux the kernel does it instead:
`prctl(PR_SET_PDEATHSIG)` survives `execve`. The signal is SIGKILL, because anything softer can be
ignored by a child that hangs; every process of the shop has to survive SIGKILL without losing
data anyway. The signal fires when the *thread* that started us ends, hence the supervisor starts
children from its main thread only.

This is a separate program and not a `preexec_fn`: running Python between fork and exec is unsafe
in a process that has threads, and gRPC has some. It costs about 10 ms. Elsewhere than on Linux
there is no such call and the command just runs.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CANNOT_RUN = 127


def tie(starter: int) -> None:
    """Has the kernel kill this process when its parent, `starter`, dies."""
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != starter:  # it died before the call above
            raise SystemExit(CANNOT_RUN)


def main(starter: int, argv: list[str]) -> None:
    """Replaces this process by `argv`; returns only if it cannot be run."""
    tie(starter)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(CANNOT_RUN) from None


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
