"""How many episodes a wanted precision takes, before any is played."""

from __future__ import annotations

from math import ceil


def trials_for_half_width(half_width: float, rate: float = 0.5, confidence: float = 0.95) -> int:
    """Return the fewest trials whose Wilson interval at a success rate of ``rate`` reaches at most ``half_width`` out.

    half_width: in (0, 0.5), half the interval's length. rate: in [0, 1]; 0.5 needs the most trials.
    Raises ValueError for other arguments.

    Half of Wilson's interval is w = z sqrt(p (1 - p) / n + z^2 / 4 n^2) / (1 + z^2 / n), which is solved for n.
    """
    if not 0 < half_width < 0.5 or not 0 <= rate <= 1:
        raise ValueError(f"no number of trials has half width {half_width} at rate {rate}")
    from scipy.stats import norm

    z2 = norm.ppf((1 + confidence) / 2) ** 2
    variance, w2 = rate * (1 - rate), half_width**2
    # w^2 (n + z^2)^2 = z^2 (n p (1 - p) + z^2 / 4): quadratic in n
    middle = z2 * (2 * w2 - variance)
    last = z2**2 * (w2 - 0.25)
    root = (-middle + (middle**2 - 4 * w2 * last) ** 0.5) / (2 * w2)
    return max(1, ceil(root - 1e-9))
