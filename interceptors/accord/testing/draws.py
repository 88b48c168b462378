"""A random source whose numbers a test states."""


class Draws:
    """A mesh's `random`: gives these numbers in turn, over [0, 1), and the last one for ever.

    `Draws(0.5)` makes every full-jitter back-off half of its upper bound.
    """

    def __init__(self, *numbers: float) -> None:
        """At least one number. Raises ValueError for one outside of [0, 1)."""
        if not numbers or not all(0 <= number < 1 for number in numbers):
            raise ValueError("draws are numbers from 0 to less than 1")
        self._numbers = list(numbers)

    def __call__(self) -> float:
        """The next number."""
        return self._numbers.pop(0) if len(self._numbers) > 1 else self._numbers[0]
