"""One request to a server: connections kept open, bodies bounded in size and in time."""

import http.client
import io
import math
import time
from threading import Lock
from urllib.parse import urljoin, urlsplit

from .. import __version__
from .._optional import import_optional
from ._pace import parse_retry_after

__all__ = ["Failure", "HttpClient"]

_CHUNK = 2**18
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
# What asking again can help: too many requests, timeouts, and whatever goes wrong in the server.
_RETRY = (408, 425, 429)
# A reply may take longer than the timeout if it comes at this pace at least.
_SLOWEST = 10_000.0  # bytes per second
_CONNECT_TIMEOUT = 15.0


class Failure(Exception):  # noqa: N818 (an outcome, caught by the one who asked)
    """A request that brought no body.

    Parameters
    ----------
    status : str
        One word.
    detail : str
        What happened.
    retry : bool
        Whether asking again can help.
    code : int, optional
        HTTP status.
    retry_after : float, optional
        Seconds that the server asks to wait.
    """

    def __init__(self, status, detail, *, retry, code=None, retry_after=None):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry = retry
        self.code = code
        self.retry_after = retry_after


class HttpClient:
    """Fetch bodies over connections that stay open; safe to use from several threads.

    Certificates of TLS connections are always verified, and a redirect to another host is
    refused.

    Parameters
    ----------
    max_connections : int
        Number of connections kept open.
    timeout : float
        Seconds without a byte after which a reply is given up; also for the whole of it, apart
        from a second for every 10 kB that came.
    max_bytes : int
        Largest body accepted.
    """

    def __init__(self, *, max_connections, timeout, max_bytes):
        requests = import_optional("requests", needed_for="Fetching files")
        self._requests = requests
        self._timeout = float(timeout)
        self._max_bytes = int(max_bytes)
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(
            pool_connections=4, pool_maxsize=max_connections, max_retries=0
        )
        # Of a proxy only the pauses of its headers are bounded, not the whole of them.
        adapter.poolmanager.pool_classes_by_scheme = _timed_pools()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        self._headers = {
            "User-Agent": f"astro_morphvae/{__version__} {requests.utils.default_user_agent()}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        }
        self._settings = {}
        self._lock = Lock()

    def close(self):
        """Close the connections that are not in use."""
        self._session.close()

    def get(self, url, cancelled=None):
        """Fetch one body.

        Parameters
        ----------
        url : str
            Address with its query.
        cancelled : callable, optional
            Returns whether to stop.

        Returns
        -------
        bytes

        Raises
        ------
        Failure
            If there is none.
        """
        exceptions = self._requests.exceptions
        try:
            return self._follow(url, time.monotonic(), cancelled)
        except Failure:
            raise
        except exceptions.SSLError as error:
            raise Failure("refused", f"TLS: {_reason(error)}", retry=False) from None
        except exceptions.ConnectTimeout:
            wait = min(self._timeout, _CONNECT_TIMEOUT)
            raise Failure("timeout", f"no connection in {wait:g} s", retry=True) from None
        except exceptions.Timeout:
            raise Failure("timeout", f"no reply in {self._timeout:g} s", retry=True) from None
        except ValueError as error:  # addresses and headers that nothing can be made of
            raise Failure("refused", f"not understood: {_reason(error)}", retry=False) from None
        except (exceptions.RequestException, OSError, self._http_errors()) as error:
            if "timed out" in str(error).lower():
                detail = f"too slow in the middle of a reply (timeout {self._timeout:g} s)"
                raise Failure("timeout", detail, retry=True) from None
            raise Failure("connection-error", _reason(error), retry=True) from None

    def _http_errors(self):
        # What urllib3 raises while a body is read, which requests does not translate here.
        return import_optional("urllib3.exceptions", needed_for="Fetching files").HTTPError

    def _follow(self, url, start, cancelled):
        origin = urlsplit(url)
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(url)
            with response:
                if response.status_code not in _REDIRECTS:
                    return self._body(response, start, cancelled)
                url = urljoin(url, response.headers.get("Location", ""))
            target = urlsplit(url)
            same = target.hostname == origin.hostname and target.scheme in (origin.scheme, "https")
            if not same or (target.scheme == origin.scheme and target.port != origin.port):
                raise Failure(
                    "refused", f"redirect to {target.scheme}://{target.netloc}", retry=False
                )
        raise Failure("refused", f"more than {_MAX_REDIRECTS} redirects", retry=False)

    def _send(self, url):
        # A request built by hand and sent by the adapter: the session would look up proxies,
        # cookies and .netrc each time, which costs more than the request itself.
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        with self._lock:
            settings = self._settings.get(origin)
            if settings is None:
                settings = self._session.merge_environment_settings(url, {}, True, None, None)
                self._settings[origin] = settings
        request = self._requests.Request("GET", url, headers=self._headers).prepare()
        return self._session.get_adapter(url).send(
            request,
            stream=True,
            timeout=(min(self._timeout, _CONNECT_TIMEOUT), self._timeout),
            verify=settings["verify"],
            cert=settings["cert"],
            proxies=settings["proxies"],
        )

    def _body(self, response, start, cancelled):
        code = response.status_code
        if code != 200:
            raise Failure(
                "server-error" if code >= 500 or code in _RETRY else "refused",
                f"HTTP {code} {response.reason or ''}".strip(),
                retry=code >= 500 or code in _RETRY,
                code=code,
                retry_after=parse_retry_after(response.headers.get("Retry-After")),
            )
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise Failure("refused", f"a body of {announced} bytes is too large", retry=False)
        raw = response.raw
        read = getattr(raw, "read1", raw.read)  # returns with what there is, be it little
        chunks, size = [], 0
        while chunk := read(_CHUNK, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_bytes:
                raise Failure("refused", f"a body over {self._max_bytes} bytes", retry=False)
            self._check_pace(size, start)
            if cancelled is not None and cancelled():
                raise Failure("interrupted", "", retry=False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _check_pace(self, size, start):
        """Raise `Failure` where a body of which so much has come takes too long."""
        seconds = time.monotonic() - start
        if seconds > self._timeout + size / _SLOWEST:
            raise Failure("timeout", f"{size} bytes in {seconds:.0f} s", retry=True)


def _timed_pools():
    """Pools of connections, by scheme, whose replies are bounded in time with their headers."""
    pools = import_optional("urllib3.connectionpool", needed_for="Fetching files")
    timed = {}
    for scheme, pool in (("http", pools.HTTPConnectionPool), ("https", pools.HTTPSConnectionPool)):
        connection = pool.ConnectionCls
        connection = type(connection.__name__, (connection,), {"response_class": _TimedResponse})
        timed[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": connection})
    return timed


class _TimedResponse(http.client.HTTPResponse):
    """A reply that is broken off when it takes too long, be it still in its headers."""

    def __init__(self, sock, *args, **keywords):
        super().__init__(sock, *args, **keywords)
        self.fp = io.BufferedReader(_TimedStream(self.fp.detach(), sock.gettimeout()))


class _TimedStream(io.RawIOBase):
    """What comes over a connection, as long as it comes fast enough."""

    def __init__(self, raw, timeout):
        self._raw = raw
        self._timeout = math.inf if timeout is None else timeout
        self._start = time.monotonic()
        self._size = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        if time.monotonic() - self._start > self._timeout + self._size / _SLOWEST:
            raise TimeoutError("timed out")
        size = self._raw.readinto(buffer)
        self._size += size or 0
        return size

    def close(self):
        self._raw.close()
        super().close()


def _reason(error):
    """Find the innermost message of an error that wraps others."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (arg for arg in getattr(error, "args", ()) if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("HTTP"):  # which connection it was, in front of what happened
        text = text.partition("): ")[2] or text
    return text[:120]
