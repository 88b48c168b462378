"""What a failure of work says, to who tries again and to who reads it."""

from accord import failure_of


def told(error: Exception, most: float) -> float:
    """Seconds that it asks to wait: an open breaker or a busy server would only refuse.

    It is believed up to `most`.
    """
    failure = failure_of(error)
    if failure is None or failure.retry_after is None:
        return 0.0
    return min(max(0.0, failure.retry_after), most)


def in_words(error: Exception) -> str:
    """What an operator reads: one line of at most 500 characters."""
    failure = failure_of(error)
    if failure is None:
        text = f"{type(error).__name__}: {error}"
    else:
        text = f"{failure.code.name}: {failure.message}"
        if failure.reason != failure.code.name:
            text = f"{failure.reason}, {text}"
    return " ".join(text.split())[:500]
