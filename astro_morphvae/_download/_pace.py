"""When to ask, and when to ask again: politeness, backoff, and the server's own wishes."""

import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock

__all__ = ["Pace", "backoff_delay", "parse_retry_after"]

_LONGEST_BACKOFF = 60.0  # seconds


class Pace:
    """The moments at which requests may go out.

    Parameters
    ----------
    requests_per_second : float, optional
        Never more than this; no limit by default.
    """

    def __init__(self, requests_per_second=None):
        self._interval = 0.0 if requests_per_second is None else 1.0 / requests_per_second
        self._next = 0.0
        self._held_until = 0.0
        self._lock = Lock()

    def reserve(self):
        """Take the next moment if it has come.

        Returns
        -------
        float
            Seconds to wait before asking here again; 0 where the request may go out now.
        """
        with self._lock:
            now = time.monotonic()
            wait = max(self._next, self._held_until) - now
            if wait > 0:
                return wait
            self._next = now + self._interval
            return 0.0

    def hold(self, seconds):
        """Let no request out for some time, because the server asks for it."""
        with self._lock:
            self._held_until = max(self._held_until, time.monotonic() + seconds)


def backoff_delay(attempt, base, rng=random):
    """Seconds before the next attempt: doubled each time, and drawn, so that requests spread.

    Parameters
    ----------
    attempt : int
        How often it was tried, from 1.
    base : float
        Longest first delay, in seconds.
    rng : `random.Random`, optional
        Source of randomness.

    Returns
    -------
    float
        Between a half and the whole of ``base * 2**(attempt - 1)``, at most a minute.
    """
    return min(base * 2.0 ** (attempt - 1), _LONGEST_BACKOFF) * (0.5 + 0.5 * rng.random())


def parse_retry_after(text, now=None):
    """Read a ``Retry-After`` header.

    Parameters
    ----------
    text : str or None
        Seconds, or a date.
    now : `datetime.datetime`, optional
        The time from which a date counts, with time zone.

    Returns
    -------
    float or None
        Seconds, never negative; None where the header says nothing that can be understood.

    References
    ----------
    RFC 9110, section 10.2.3.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)
