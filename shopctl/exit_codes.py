"""Exit codes of `shopctl`. Scripts may rely on them; a number never changes its meaning."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    """Done, and everything is as it should be."""
    FAILED = 1
    """It went wrong in a way no other code describes, or books did not reconcile."""
    USAGE = 2
    """The command line could not be understood."""
    NOT_SERVING = 3
    """The shop runs, but at least one of its processes is not serving."""
    NOT_RUNNING = 4
    """Nothing runs there, or the service could not be reached."""
    REFUSED = 5
    """The service understood and said no: a business answer. Repeating it will not help."""
    IN_USE = 6
    """Something else is in the way: a shop that runs already, or a port that is taken."""
    UNKNOWN_OUTCOME = 7
    """No answer in time. It may have happened; repeat with the same key to find out."""
    INTERRUPTED = 130
    """Ended at once by a (second) Ctrl-C."""
