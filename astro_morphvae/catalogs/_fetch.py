"""One large file from a server to disk: continued where it stopped, kept once it is checked."""

import gzip
import hashlib
import json
import time
import warnings
from pathlib import Path

from tqdm import tqdm

from .._download import Downloader, InvalidReply, Request, default_cache_directory
from .._download._http import Failure, HttpClient
from .._download._pace import backoff_delay
from ..exceptions import MorphVAEWarning

__all__ = ["ZENODO", "catalog_directory", "fetch_file", "fetch_zenodo_file"]

#: Where the records are.
ZENODO = "https://zenodo.org"

_CHUNK = 2**20
_MOST_BYTES = 2**36  # of a file whose size is not known


def catalog_directory():
    """Return the folder of fetched catalogues under astropy's cache directory."""
    return default_cache_directory().parent / "catalogs"


def fetch_zenodo_file(
    record, name, directory, *, md5=None, server=None, timeout=60.0, retries=4, progress=True
):
    """Fetch a file of a Zenodo record, with the size and checksum that the record publishes.

    Parameters
    ----------
    record : int
        Number of the record.
    name : str
        Name of the file in it.
    directory : path-like
        Folder to keep it in; a file that is there already is not fetched again.
    md5 : str, optional
        Checksum that the file is known to have; a record that publishes another one brings a
        warning.
    server : str, optional
        Address of the server, ``https://zenodo.org`` by default.
    timeout, retries, progress
        As in `fetch_file`.

    Returns
    -------
    `pathlib.Path`

    Raises
    ------
    OSError
        If the record or the file cannot be had, or the file is not the one that the record
        describes.
    """
    path = Path(directory) / f"zenodo-{record}" / name
    if path.exists():
        return path
    server = (server or ZENODO).rstrip("/")
    request = Request(f"{server}/api/records/{record}")
    downloader = Downloader(cache=False, timeout=timeout, retries=retries, progress=False)
    (reply,) = downloader.fetch([request], _parse_record)
    if not reply.ok:
        raise OSError(f"{request.url}: {reply.reason}")
    if name not in reply.value:
        raise OSError(f"{request.url}: the record has no file {name!r}, but {sorted(reply.value)}")
    size, published = reply.value[name]
    if md5 is not None and md5 != published:
        warnings.warn(
            f"{name} of Zenodo record {record} has the checksum {published}, not {md5}: it is not "
            "the file that this version of astro_morphvae knows",
            MorphVAEWarning,
            stacklevel=4,
        )
    url = f"{server}/records/{record}/files/{name}?download=1"
    return fetch_file(
        url, path, size=size, md5=published, timeout=timeout, retries=retries, progress=progress
    )


def _parse_record(content, request):
    """Size and MD5 checksum of each file of a record, by name."""
    try:
        files = {
            file["key"]: (file["size"], file["checksum"]) for file in json.loads(content)["files"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidReply("invalid-file", f"no record of files ({error!r})", retry=True) from None
    found = {}
    for name, (size, checksum) in files.items():
        kind, _, digest = str(checksum).rpartition(":")
        if kind not in ("", "md5") or len(digest) != 32:
            raise InvalidReply("invalid-file", f"{name}: not an MD5 checksum: {checksum}")
        found[name] = int(size), digest.lower()
    return found


def fetch_file(url, path, *, size=None, md5=None, timeout=60.0, retries=4, progress=True):
    """Fetch a file to disk, going on where an earlier attempt or an earlier run stopped.

    Parameters
    ----------
    url : str
        Where from.
    path : path-like
        Where to. The file gets this name once it is complete and has passed its checks; until then
        its part is beside it, with the ending ``.part``.
    size : int, optional
        Bytes that it must have.
    md5 : str, optional
        Checksum that it must have. Without one, a ``.gz`` file has to pass the checksum inside it.
    timeout : float, optional
        Seconds without a byte after which an attempt is given up; also for the whole of it, apart
        from a second for every 10 kB that came.
    retries : int, optional
        How often a failed attempt is repeated.
    progress : bool, optional
        Whether to show a progress bar, on a terminal.

    Returns
    -------
    `pathlib.Path`

    Raises
    ------
    OSError
        If the file cannot be had; the message says where from and why.
    """
    path = Path(path)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    client = _FileClient(part, size=size, timeout=timeout, progress=progress)
    try:
        for attempt in range(1, retries + 2):
            try:
                client.get(Request(url).full_url)
                client.check(md5)
                part.replace(path)
                return path
            except Failure as failure:
                if not failure.retry or attempt > retries:
                    raise OSError(f"{url}: {failure.status}: {failure.detail}") from None
                time.sleep(max(backoff_delay(attempt, 0.5), min(failure.retry_after or 0, 300)))
    finally:
        client.close()


class _FileClient(HttpClient):
    """An `HttpClient` whose bodies go to a file, each after what the file holds already."""

    def __init__(self, part, *, size, timeout, progress):
        super().__init__(
            max_connections=1, timeout=timeout, max_bytes=_MOST_BYTES if size is None else size
        )
        self._part = part
        self._size = size
        self._progress = progress

    def get(self, url, cancelled=None):
        """Fetch what is missing of the file."""
        held = self._held()
        if held and held == self._size:
            return b""
        self._headers.pop("Range", None)
        if held:
            self._headers["Range"] = f"bytes={held}-"
        return super().get(url, cancelled)

    def check(self, md5):
        """Raise `Failure` unless the file is what it has to be; a bad one is removed."""
        held = self._held()
        if self._size is not None and held < self._size:
            raise Failure("truncated", f"{held} of {self._size} bytes", retry=True)
        problem = None
        if self._size is not None and held > self._size:
            problem = f"{held} bytes in place of {self._size}"
        elif md5 is not None:
            with self._part.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            problem = None if found == md5 else f"its MD5 checksum is {found}, not {md5}"
        elif self._part.suffixes[-2:] == [".gz", ".part"]:
            try:
                with gzip.open(self._part) as file:
                    while file.read(_CHUNK):
                        pass
            except (OSError, EOFError) as error:
                problem = str(error)
        if problem:
            self._part.unlink()
            raise Failure("invalid-file", problem, retry=True)

    def _too_large(self, problem):
        self._part.unlink(missing_ok=True)
        return Failure("invalid-file", problem, retry=True)

    def _held(self):
        return self._part.stat().st_size if self._part.exists() else 0

    def _body(self, response, start, cancelled):
        held = self._held()
        if response.status_code == 416:  # nothing comes after what is held
            self._part.unlink(missing_ok=True)
            raise Failure("invalid-file", "the server holds less than was fetched", retry=True)
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
            self._part.unlink(missing_ok=True)
            raise Failure("invalid-file", "another part of the file than was asked", retry=True)
        if not resumed:
            if response.status_code != 200:
                return super()._body(response, start, cancelled)
            held = 0
        announced = response.headers.get("Content-Length", "")
        total = held + int(announced) if announced.isdigit() else self._size
        if total is not None and total > self._max_bytes:
            raise self._too_large(f"{total} bytes in place of {self._max_bytes}")
        received = 0
        with (
            self._part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=held,
                desc=self._part.stem,
                unit="B",
                unit_scale=True,
                disable=None if self._progress else True,
            ) as bar,
        ):
            # read1 hands on what has come, also the last bytes before a connection breaks.
            read = getattr(response.raw, "read1", response.raw.read)
            while chunk := read(_CHUNK, decode_content=True):
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                if held + received > self._max_bytes:
                    break
                self._check_pace(received, start)
        if held + received > self._max_bytes:
            raise self._too_large(f"more than {self._max_bytes} bytes")
        if total is not None and self._held() < total:
            raise Failure("truncated", f"{self._held()} of {total} bytes", retry=True)
        return b""
