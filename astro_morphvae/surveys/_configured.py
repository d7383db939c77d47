"""Services that take from their configuration items how their server is to be treated."""

from ._service import CutoutService

__all__ = ["ConfiguredService"]


class ConfiguredService(CutoutService):
    """Base class of services with configuration items.

    A subclass sets ``_conf`` to a namespace with the items ``timeout``, ``max_connections``,
    ``requests_per_second``, ``retries`` and ``backoff``.
    """

    _conf = None

    @property
    def TIMEOUT(self):  # noqa: N802 (as astroquery names it)
        """Seconds without a byte after which a reply is given up."""
        return self._conf.timeout

    @property
    def MAX_CONNECTIONS(self):  # noqa: N802
        """Number of requests under way at once."""
        return self._conf.max_connections

    @property
    def REQUESTS_PER_SECOND(self):  # noqa: N802
        """Never send more requests than this in a second; None for no limit."""
        return self._conf.requests_per_second or None

    @property
    def RETRIES(self):  # noqa: N802
        """How often a request that failed is repeated."""
        return self._conf.retries

    @property
    def BACKOFF(self):  # noqa: N802
        """Longest delay before the first repetition, in seconds."""
        return self._conf.backoff
