"""Random decisions that can be replayed, and cut down to those that matter."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence


class Choices:
    """Decides by chance, or by a script. A zero always stands for the calm way.

    :param seed: of the random numbers.
    :param script: numbers to use instead; past its end, everything is calm.
    """

    def __init__(self, seed: int, script: Sequence[float] | None = None) -> None:
        self._script = script
        self._random = random.Random(seed)
        self.made: list[float] = []
        self.calm = False

    def number(self) -> float:
        """A number in [0, 1)."""
        if self.calm:
            return 0.0
        if self._script is None:
            number = self._random.random()
        else:
            number = self._script[len(self.made)] if len(self.made) < len(self._script) else 0.0
        self.made.append(number)
        return number

    def chance(self, probability: float) -> bool:
        """Whether something improbable happens."""
        return self.number() > 1 - probability

    def between(self, low: float, high: float) -> float:
        """A number of seconds, say."""
        return low + (high - low) * self.number()

    def pick(self, weights: Mapping[str, float]) -> str:
        """One of some names; the first one is the calm one."""
        point = self.number() * sum(weights.values())
        for name, weight in weights.items():
            point -= weight
            if point < 0:
                return name
        return next(iter(weights))


def shrink(
    script: Sequence[float], fails: Callable[[Sequence[float]], bool], budget: int = 400
) -> list[float]:
    """Make as many decisions as possible the calm ones, as long as it still fails."""
    best = list(script)
    size = len(best)
    while size >= 1:
        start = 0
        while start < len(best) and budget > 0:
            candidate = [*best[:start], *[0.0] * len(best[start : start + size])]
            candidate += best[start + size :]
            while candidate and candidate[-1] == 0:
                candidate.pop()
            if candidate != best:
                budget -= 1
                if fails(candidate):
                    best = candidate
            start += size
        size //= 2
    return best
