"""The one error that commands raise on purpose."""

from shopctl.exit_codes import ExitCode


class CommandError(Exception):
    """Ends a command: printed as one line that says what is wrong and what to do.

    Args:
        message: one sentence or two, no newline.
        code: exit code of the process.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
