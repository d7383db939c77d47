"""Fetch many files at once: politely, patiently, in order, each checked before it is kept."""

import math
from collections import Counter
from contextlib import closing
from queue import Empty, SimpleQueue
from threading import Thread

from tqdm import tqdm

from ._cache import Cache, default_cache_directory
from ._http import Failure, HttpClient
from ._pace import Pace, backoff_delay
from ._schedule import Schedule
from ._types import OK, InvalidReply, Reply, Request

__all__ = ["Downloader"]

_LONGEST_WAIT = 300.0  # seconds for which a server may ask us to wait
_WINDOW = 256
_UNANSWERED = 40  # requests in a row without any answer, after which a server is out of reach
_NO_ANSWER = ("connection-error", "timeout")
_UNWELCOME = 5  # requests in a row that a server wants later than that, after which we leave it


class Downloader:
    """Fetch files over HTTP.

    A reply is cached only after it passed its check, so that a run that was interrupted, or that
    failed for some files, is continued by running it again.

    Parameters
    ----------
    cache : bool or path-like, optional
        Folder in which replies are kept; True is one under astropy's cache directory, False keeps
        nothing.
    max_connections : int, optional
        Number of requests that are under way at once.
    requests_per_second : float, optional
        Never send more than this.
    timeout : float, optional
        Seconds without a byte after which a reply is given up.
    retries : int, optional
        How often a request that failed is repeated.
    backoff : float, optional
        Longest delay before the first repetition, in seconds; doubled for each further one.
    max_bytes : int, optional
        Largest reply accepted.
    progress : bool, optional
        Whether to show a progress bar, on a terminal.
    description : str, optional
        What the progress bar is about.
    """

    def __init__(
        self,
        *,
        cache=True,
        max_connections=8,
        requests_per_second=None,
        timeout=60.0,
        retries=4,
        backoff=0.5,
        max_bytes=2**28,
        progress=True,
        description="Fetching",
    ):
        self._cache = None
        if cache is not False and cache is not None:
            self._cache = Cache(default_cache_directory() if cache is True else cache)
        self._max_connections = _whole("max_connections", max_connections, 1)
        self._retries = _whole("retries", retries, 0)
        self._timeout = _positive("timeout", timeout)
        self._backoff = _positive("backoff", backoff)
        self._max_bytes = _whole("max_bytes", max_bytes, 1)
        if requests_per_second is not None:
            requests_per_second = _positive("requests_per_second", requests_per_second)
        self._pace = Pace(requests_per_second)
        self._progress = bool(progress)
        self._description = description

    @property
    def cache(self):
        """The `Cache`, or None."""
        return self._cache

    def fetch(self, requests, check=None, *, http_errors=None):
        """Fetch files and hold them all in memory.

        Parameters
        ----------
        requests : sequence of Request
            What to fetch. Those that are the same are fetched once.
        check : callable, optional
            ``check(content, request)`` raises `InvalidReply` for a reply that is not what was
            asked for. What it returns becomes ``Reply.value``. Its attribute ``version``, a str, is
            part of the name of the reply in the cache.
        http_errors : dict of int to str, optional
            Status to give where an HTTP error of that code persists, such as
            ``{500: "off-footprint"}``.

        Returns
        -------
        list of Reply
            In the order of the requests.
        """
        requests = list(requests)
        replies = [None] * len(requests)
        with closing(self.stream(requests, check, http_errors=http_errors)) as stream:
            for index, reply in stream:
                replies[index] = reply
        return replies

    def stream(self, requests, check=None, *, http_errors=None, ordered=False, window=_WINDOW):
        """Fetch files and hand each on as it comes, so that memory holds few of them.

        Parameters
        ----------
        requests : sequence of Request
            What to fetch.
        check, http_errors
            See `fetch`.
        ordered : bool, optional
            Whether to keep the order of the requests.
        window : int, optional
            Number of replies that are fetched ahead of the one who takes them.

        Yields
        ------
        index : int
            Which request.
        reply : Reply
        """
        requests = list(requests)
        for index, request in enumerate(requests):
            if not isinstance(request, Request):
                raise TypeError(f"requests: entry {index} is {type(request).__name__}")
        window = max(int(window), 2 * self._max_connections)
        return self._run(requests, check, http_errors or {}, ordered, window)

    def _run(self, requests, check, http_errors, ordered, window):
        version = str(getattr(check, "version", ""))
        rows = {}
        for index, request in enumerate(requests):
            rows.setdefault(request.key(version), []).append(index)
        if not rows:
            return
        tasks = (_Task(key, requests[same[0]]) for key, same in rows.items())
        schedule = Schedule(tasks, window)
        results = SimpleQueue()
        client = HttpClient(
            max_connections=self._max_connections,
            timeout=self._timeout,
            max_bytes=self._max_bytes,
        )
        job = _Job(self, schedule, client, results, check, http_errors)
        # Threads of an executor would be waited for when the interpreter ends, be they stuck in a
        # slow connection or not.
        for _ in range(min(self._max_connections, len(rows))):
            Thread(target=job.work, name="download", daemon=True).start()
        bar = tqdm(
            total=len(requests),
            desc=self._description,
            unit="file",
            disable=None if self._progress else True,
        )
        ready, following = {}, 0
        try:
            for _ in range(len(rows)):
                task, reply = _next(results)
                if not ordered:
                    for index in rows[task.key]:
                        yield index, reply
                    schedule.taken()
                    bar.update(len(rows[task.key]))
                    continue
                ready.update(dict.fromkeys(rows[task.key], (task, reply)))
                bar.update(len(rows[task.key]))
                while following in ready:
                    task, reply = ready.pop(following)
                    yield following, reply
                    if rows[task.key][0] == following:
                        schedule.taken()
                    following += 1
        finally:
            schedule.cancel()
            client.close()
            bar.close()


class _Task:
    """A request on its way."""

    __slots__ = ("attempts", "key", "outcomes", "request")

    def __init__(self, key, request):
        self.key = key
        self.request = request
        self.attempts = 0
        self.outcomes = []


class _Job:
    """What the threads of one download share."""

    def __init__(self, downloader, schedule, client, results, check, http_errors):
        self._cache = downloader._cache
        self._pace = downloader._pace
        self._retries = downloader._retries
        self._backoff = downloader._backoff
        self._schedule = schedule
        self._client = client
        self._results = results
        self._check = check
        self._http_errors = http_errors
        # Without a network, or with a server that wants to be left alone, the rest is not asked
        # for. Counted without a lock: the number need not be exact.
        self._given_up = None
        self._unanswered = 0
        self._unwelcome = 0
        self._most_unanswered = max(3 * downloader._max_connections, _UNANSWERED)

    def work(self):
        """Do tasks until there are none."""
        try:
            while (task := self._schedule.take()) is not None:
                reply = self._attempt(task)
                if reply is not None:
                    self._results.put((task, reply))
        except BaseException as error:  # raised again where the results are taken
            self._results.put(error)

    def _attempt(self, task):
        """One attempt: its reply, or None where it is put back to be tried again."""
        if not task.attempts:
            reply = self._from_cache(task)
            if reply is not None:
                return reply
        if self._given_up is not None:
            return Reply(
                task.request, self._given_up[0], detail=self._given_up[1], attempts=task.attempts
            )
        while (wait := self._pace.reserve()) and not self._schedule.cancelled:
            self._schedule.sleep(wait)
        if self._schedule.cancelled:
            return None
        task.attempts += 1
        request = task.request
        try:
            content = self._client.get(request.full_url, lambda: self._schedule.cancelled)
            self._unanswered = self._unwelcome = 0
            value = None if self._check is None else self._check(content, request)
        except InvalidReply as error:
            status, detail, retry, wanted = error.status, error.message, error.retry, None
        except Failure as error:
            status = self._http_errors.get(error.code, error.status)
            detail, retry, wanted = error.detail, error.retry, error.retry_after
            self._unanswered = self._unanswered + 1 if error.status in _NO_ANSWER else 0
            if retry and wanted is not None and wanted > _LONGEST_WAIT:
                detail, retry = f"{detail}; the server asks to wait {wanted:.0f} s", False
                self._unwelcome += 1
                if self._unwelcome >= _UNWELCOME:
                    self._given_up = status, detail
            else:
                self._unwelcome = 0
        else:
            path = None if self._cache is None else self._cache.store(task.key, content)
            return Reply(request, OK, content, value, path, attempts=task.attempts)
        if self._unanswered >= self._most_unanswered:
            self._given_up = status, f"no answer to {self._unanswered} requests; last: {detail}"
        task.outcomes.append((status, detail))
        if not retry or task.attempts > self._retries:
            if retry and task.attempts > 1:
                # What happened most often says more than what happened last.
                status, detail = Counter(reversed(task.outcomes)).most_common(1)[0][0]
                detail = f"{detail} ({task.attempts} attempts)"
            return Reply(request, status, detail=detail, attempts=task.attempts)
        delay = backoff_delay(task.attempts, self._backoff)
        if wanted is not None:
            self._pace.hold(wanted)
            delay += wanted
        self._schedule.again(task, delay)
        return None

    def _from_cache(self, task):
        content = None if self._cache is None else self._cache.read(task.key)
        if content is None:
            return None
        try:
            value = None if self._check is None else self._check(content, task.request)
        except InvalidReply:  # a disk that lost data, or another hand
            self._cache.discard(task.key)
            return None
        path = self._cache.path(task.key)
        return Reply(task.request, OK, content, value, path, from_cache=True)


def _next(results):
    while True:
        try:
            result = results.get(timeout=1.0)
        except Empty:
            continue
        if isinstance(result, BaseException):
            raise result
        return result


def _whole(name, value, least):
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def _positive(name, value):
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)
