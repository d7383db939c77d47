"""What is asked, what comes back, and what can be wrong with it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["OK", "InvalidReply", "Reply", "Request"]

#: Status of a reply that arrived and passed its check.
OK = "ok"

_DEFAULT_PORTS = {"http": 80, "https": 443}


class InvalidReply(Exception):  # noqa: N818 (it describes a reply, and is caught by its reader)
    """A reply that is not what was asked for; raised by a check.

    Parameters
    ----------
    status : str
        One word for the reason, such as ``"off-footprint"`` or ``"invalid-file"``.
    message : str, optional
        More about it.
    retry : bool, optional
        Whether asking again can help.
    """

    def __init__(self, status, message="", *, retry=False):
        super().__init__(f"{status}: {message}" if message else status)
        self.status = status
        self.message = message
        self.retry = retry


@dataclass(frozen=True)
class Request:
    """One file to fetch.

    Parameters
    ----------
    url : str
        ``http`` or ``https`` address, with or without a query.
    params : mapping or iterable of (str, value), optional
        Query parameters, sent in this order.
    label : str, optional
        What it is, for messages; no part of what makes two requests the same.
    """

    url: str
    params: tuple = ()
    label: str = field(default="", compare=False)

    def __post_init__(self):
        parts = urlsplit(self.url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"url: expected an http or https address, got {self.url!r}")
        params = self.params or ()
        if isinstance(params, Mapping):
            params = params.items()
        object.__setattr__(self, "params", tuple((str(k), str(v)) for k, v in params))

    @property
    def full_url(self):
        """Address with the parameters in its query, and no fragment."""
        parts = urlsplit(self.url)
        query = "&".join(text for text in (parts.query, urlencode(self.params)) if text)
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))

    def key(self, version=""):
        """Name of its reply in a cache: the same for every way to write the same request.

        Parameters
        ----------
        version : str, optional
            Version of the check that the reply has to pass.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        parts = urlsplit(self.url)
        host = parts.hostname
        if parts.port not in (None, _DEFAULT_PORTS[parts.scheme]):
            host += f":{parts.port}"
        params = sorted([*parse_qsl(parts.query, keep_blank_values=True), *self.params])
        text = "\n".join(
            (f"{parts.scheme}://{host}{parts.path or '/'}", urlencode(params), version)
        )
        return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(slots=True)
class Reply:
    """What became of a request.

    Attributes
    ----------
    request : Request
    status : str
        ``"ok"``, or one word for what went wrong.
    content : bytes or None
        The body, where the status is ``"ok"``.
    value : object
        What the check returned for it.
    path : `pathlib.Path` or None
        Where it is in the cache.
    detail : str
        More about the status.
    attempts : int
        How often the server was asked; 0 where the cache had it.
    from_cache : bool
        Whether it was in the cache before.
    """

    request: Request
    status: str = OK
    content: bytes | None = None
    value: object = None
    path: Path | None = None
    detail: str = ""
    attempts: int = 0
    from_cache: bool = False

    @property
    def ok(self):
        """Whether the reply can be used."""
        return self.status == OK

    @property
    def reason(self):
        """Status and detail in one text, as catalogs hold it."""
        return f"{self.status}: {self.detail}" if self.detail else self.status
