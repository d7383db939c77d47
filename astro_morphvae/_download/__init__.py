"""Files fetched over the network: in parallel, patiently, each validated before it is kept."""

from ._cache import Cache, default_cache_directory
from ._types import OK, InvalidReply, Reply, Request
from .downloader import Downloader

__all__ = [
    "OK",
    "Cache",
    "Downloader",
    "InvalidReply",
    "Reply",
    "Request",
    "default_cache_directory",
]
