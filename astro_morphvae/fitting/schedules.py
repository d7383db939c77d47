"""How the learning rate, and the weight of the divergence, change in the course of a fit."""

import math
from dataclasses import dataclass

__all__ = ["Constant", "Cosine", "Cyclical", "WarmUp", "get_schedule"]

# A schedule is called with the share of the fit that is done, 0 to 1, and returns a factor.


@dataclass(frozen=True)
class Constant:
    """Always 1."""

    def __call__(self, progress):
        """Return the factor at ``progress``, 0 to 1."""
        return 1.0


@dataclass(frozen=True)
class WarmUp:
    """From 0 to 1 in a straight line over the first ``share`` of the fit, then 1 [1]_.

    References
    ----------
    .. [1] Sonderby et al. 2016, arXiv:1602.02282.
    """

    share: float = 0.3

    def __post_init__(self):
        _check_share(self.share)

    def __call__(self, progress):
        """Return the factor at ``progress``, 0 to 1."""
        return min(1.0, progress / self.share)


@dataclass(frozen=True)
class Cyclical:
    """From 0 to 1 again and again: a straight line over ``share`` of each cycle, then 1 [1]_.

    References
    ----------
    .. [1] Fu et al. 2019, arXiv:1903.10145.
    """

    n_cycles: int = 4
    share: float = 0.5

    def __post_init__(self):
        _check_share(self.share)
        if self.n_cycles < 1:
            raise ValueError(f"n_cycles must be positive, got {self.n_cycles!r}")

    def __call__(self, progress):
        """Return the factor at ``progress``, 0 to 1."""
        within = 1.0 if progress >= 1.0 else progress * self.n_cycles % 1.0
        return min(1.0, within / self.share)


@dataclass(frozen=True)
class Cosine:
    """A straight rise over ``warm_up`` of the fit, then half a cosine down to ``last`` [1]_.

    References
    ----------
    .. [1] Loshchilov & Hutter 2017, arXiv:1608.03983.
    """

    warm_up: float = 0.02
    last: float = 0.01

    def __post_init__(self):
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up must be in [0, 1), got {self.warm_up!r}")

    def __call__(self, progress):
        """Return the factor at ``progress``, 0 to 1."""
        if progress < self.warm_up:
            # Never zero, so that the first step moves too.
            return max(progress / self.warm_up, 0.05)
        done = min(1.0, (progress - self.warm_up) / (1.0 - self.warm_up))
        return self.last + (1.0 - self.last) * 0.5 * (1.0 + math.cos(math.pi * done))


def _check_share(share):
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share!r}")


_NAMED = {"constant": Constant, "warm-up": WarmUp, "cyclical": Cyclical, "cosine": Cosine}


def get_schedule(name, value):
    """Return a schedule: a callable as it is, or the one of a name.

    Parameters
    ----------
    name : str
        Name of the argument, for the error.
    value : callable or str
        ``"constant"``, ``"warm-up"``, ``"cyclical"``, ``"cosine"``, or a function of the share of
        the fit that is done, 0 to 1, which returns a factor.

    Raises
    ------
    ValueError
        If the value is neither.
    """
    if callable(value):
        return value
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]()
    raise ValueError(f"{name} must be a callable or one of {sorted(_NAMED)}, got {value!r}")
