"""The interval of a share of independent documents: Wilson's, which stays inside 0 and 1 and holds for small counts.

`training.scores.proportions` has that of documents which are not independent.
"""

from __future__ import annotations

import math

NORMAL = 1.959963984540054  # 95 % of a normal lie between -z and z


def wilson(hits: float, n: float, z: float = NORMAL) -> tuple[float, float]:
    """Ends of the 95 % interval of hits / n (Wilson 1927), or of the level that z stands for; NaN where n is 0."""
    if not n:
        return float("nan"), float("nan")
    share, z2 = hits / n, z**2
    middle = share + z2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return (0.0 if not hits else max(low, 0.0)), (1.0 if hits == n else min(high, 1.0))
