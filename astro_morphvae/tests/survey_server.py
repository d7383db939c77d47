"""A local server that answers, and misbehaves, as the Legacy Survey cutout service does.

In a test, as a context manager or through a fixture of one's own; it runs in a thread::

    from astro_morphvae.surveys import LegacySurvey
    from astro_morphvae.tests.survey_server import SurveyServer

    with SurveyServer() as server:
        cutouts = LegacySurvey.get_cutouts(coords, layer="ls-dr9-south", server=server.url)

In a process of its own, for benchmarks; it prints its address, and stops with its standard input::

    python -m astro_morphvae.tests.survey_server --latency 0.02 --failure-rate 0.05

What is on the sky
    ``SurveyServer(layers={"ls-dr9-south": source, ...})`` gives each layer a source: any
    ``source(ra, dec, bands, size, pixel_scale)`` that returns None where it saw nothing, or
    ``(data, ivar, maskbits)``: data (n_band, ny, nx) in nanomaggies per pixel *of that scale*, its
    inverse variance (same shape) or None, MASKBITS (ny, nx) or None. `SyntheticSky` is the default
    one of every known layer. ``CutoutSource(cutouts)`` shows the galaxies of a `CutoutSet` that has
    ``ra`` and ``dec``, so that two row-aligned sets (a simulated pair) become two surveys::

        south, north = make_survey_pair(20, size=96, seed=1)
        layers = {"ls-dr9-south": CutoutSource(south), "ls-dr9-north": CutoutSource(north)}
        with SurveyServer(layers=layers) as server: ...

What the service does, and this server too
    - values are per native pixel of 0.262 arcsec, whatever the pixel scale of the reply (data are
      divided by (pixscale / 0.262)², the inverse variance multiplied by its square);
    - an unknown layer is a text with status 200; a band letter that the layer has not brings back
      its default bands; sizes are clipped at 3000; one band is a two-dimensional image;
    - ``invvar`` and ``maskbits`` add images told by ``IMAGETYP``, but not where pixels are twice
      the native ones or larger; nothing else says so;
    - the ``SURVEY`` card does not tell the layer;
    - off the footprint the status is 500, or all pixels are 0.

How it misbehaves
    ``failures`` holds what happens to the next requests, one each (None is an answer as it should
    be); then ``failure_rate`` of the requests fail, in a way drawn from `FAILURES`. ``requests``
    lists what was asked (path and parameters), ``outcomes`` what became of each.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
import zlib
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import numpy as np

NATIVE = 0.262
BLOCK = 2880
_PIECE = 2**18

#: Every way in which a reply can fail at random and be right the next time.
FAILURES = (
    "429",
    "500",
    "503",
    "empty",
    "truncated",
    "dropped",
    "reset",
    "page",
    "drip",
)

#: Bands of the layers that the server knows where no sources are given.
LAYERS = {
    f"{name}{kind}": bands
    for name, bands in (("ls-dr9-south", "grz"), ("ls-dr9-north", "grz"), ("ls-dr10-south", "griz"))
    for kind in ("", "-model", "-resid")
}


class SyntheticSky:
    """A galaxy at each position asked for, and regions where a survey has nothing or not all.

    South of declination -80 degrees the server fails with status 500, from there to -70 all pixels
    are 0, from there to -60 the last band is 0.

    Parameters
    ----------
    bands : str, optional
        Bands of the layer.
    """

    def __init__(self, bands="grz"):
        self.bands = bands

    def __call__(self, ra, dec, bands, size, pixel_scale):
        if dec < -80:
            return None
        data, ivar = _template(len(bands), tuple(size), pixel_scale)
        data = data.copy()
        data[:, 0, 0] = signature(ra, dec)
        if dec < -70:
            data[:] = 0
        elif dec < -60 and self.bands[-1] in bands:
            last = bands.index(self.bands[-1])
            ivar = ivar.copy()
            data[last] = ivar[last] = 0
        bits = np.zeros(size, dtype=np.int16)
        bits[1, :2] = (1 << 3, 1 << 12)  # saturated in r, near a galaxy of the large-galaxy atlas
        return data, ivar, bits


@lru_cache(maxsize=16)
def _template(n_band, size, pixel_scale):
    # Of the seed alone, so that two servers show the same sky.
    rng = np.random.default_rng(5)
    y, x = (np.arange(length) - (length - 1) / 2 for length in size)
    galaxy = np.exp(-0.5 * (np.hypot(y[:, None], x) * pixel_scale / 1.5) ** 2)
    noise = rng.normal(size=(n_band, *size)) * 0.02
    brightness = np.linspace(1.0, 2.0, n_band)[:, None, None]
    factor = (pixel_scale / NATIVE) ** 2
    data = ((galaxy * brightness + noise) * factor).astype(">f4")
    ivar = np.full(data.shape, 0.02**-2 / factor**2, dtype=">f4")
    return data, ivar


def signature(ra, dec):
    """Return the flux of the corner pixel of a `SyntheticSky`, by which a position is known."""
    return 1.0 + zlib.crc32(f"{float(ra):.6f},{float(dec):.6f}".encode()) % 100_000 / 100_000


class CutoutSource:
    """Galaxies of a CutoutSet, each seen where its catalog says, to the nearest pixel.

    Parameters
    ----------
    cutouts : CutoutSet
        With ``ra`` and ``dec``. Other pixel scales and sizes are made by areas; outside a cutout,
        and where the set is masked, the inverse variance is 0.
    radius : float, optional
        Arcsec from a galaxy within which it is shown; further off all pixels are 0.
    """

    def __init__(self, cutouts, radius=30.0):
        self.bands = "".join(cutouts.bands)
        self._cutouts = cutouts
        self._radius = radius
        self._ra = cutouts.catalog["ra"].to_value("deg")
        self._dec = cutouts.catalog["dec"].to_value("deg")

    def __call__(self, ra, dec, bands, size, pixel_scale):
        from astro_morphvae._resample import resample

        east = (self._ra - ra + 180) % 360 - 180
        east, north = east * np.cos(np.radians(dec)) * 3600, (self._dec - dec) * 3600
        row = int(np.argmin(np.hypot(east, north)))
        if np.hypot(east[row], north[row]) > self._radius:
            nothing = np.zeros((len(bands), *size), dtype=np.float32)
            return nothing, nothing, np.zeros(size, dtype=np.int16)
        scale = self._cutouts.pixel_scale.to_value("arcsec")
        chosen = [self._cutouts.bands.index(band) for band in bands]
        data, ivar, mask = self._cutouts.arrays([row])
        shift = round(-east[row] / scale), round(north[row] / scale)  # x grows to the west
        images = [None if part is None else part[0][chosen] for part in (data, ivar, mask)]
        if any(shift):
            images = [None if part is None else _moved(part, *shift) for part in images]
        ratio = pixel_scale / scale
        ratio = 1.0 if abs(ratio - 1) < 2e-3 else ratio
        data, ivar, bad = resample(*images, ratio=ratio, size=size)
        if ivar is None:
            ivar = np.ones_like(data)
        if bad is not None:
            data[bad] = 0
            ivar[bad] = 0
        return data, ivar, np.zeros(size, dtype=np.int16)


def _moved(image, x, y):
    ny, nx = image.shape[-2:]
    moved = np.full_like(image, True if image.dtype == bool else 0)
    source = image[..., max(-y, 0) : ny - max(y, 0), max(-x, 0) : nx - max(x, 0)]
    moved[..., max(y, 0) : ny + min(y, 0), max(x, 0) : nx + min(x, 0)] = source
    return moved


class SurveyServer:
    """The server, in a thread of this process from ``start`` to ``stop``.

    Parameters
    ----------
    layers : dict of str to callable, optional
        Source of each layer; a source's attribute ``bands`` names its bands.
    latency : float, optional
        Seconds from a request to the beginning of its reply.
    failure_rate : float, optional
        Fraction of the requests that fail.
    failures : sequence, optional
        What happens to the first requests, one entry each.
    retry_after : str, optional
        Header of the replies 429 and 503.
    imagetyp : callable, optional
        How the roles of images are written: the service has used lower and upper case.
    seed : int, optional
        Of the failures.
    """

    def __init__(
        self,
        *,
        layers=None,
        latency=0.0,
        failure_rate=0.0,
        failures=(),
        retry_after="0",
        imagetyp=str.lower,
        seed=0,
        port=0,
    ):
        self.layers = layers or {name: SyntheticSky(bands) for name, bands in LAYERS.items()}
        self.latency = latency
        self.failure_rate = failure_rate
        self.failures = list(failures)
        self.retry_after = retry_after
        self.imagetyp = imagetyp
        self.requests = []
        self.outcomes = []
        self.connections = 0
        self.most_at_once = 0
        self.at_once = 0
        self._routes = {
            "/viewer/fits-cutout": self._fits_cutout,
            "/viewer/jpeg-cutout": self._jpeg_cutout,
            "/log": lambda params: Answer(json.dumps(self._log()).encode()),
        }
        self._rng = random.Random(seed)
        self._port = port
        self._loop = self._server = self._thread = None
        self._transports = set()

    @property
    def url(self):
        """Address, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def route(self, path, view):
        """Let ``view(params)``, which returns an `Answer` or bytes, answer a path."""
        self._routes[path] = view

    def delivered(self):
        """Return how often each address was answered as it should be: dict of str to int."""
        counts = {}
        for address, outcome in zip(self.requests, self.outcomes, strict=False):
            if outcome == "ok":
                counts[address] = counts.get(address, 0) + 1
        return counts

    def _log(self):
        return {
            "requests": self.requests,
            "outcomes": self.outcomes,
            "connections": self.connections,
            "most_at_once": self.most_at_once,
        }

    def start(self):
        """Begin to serve."""
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._listen())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        """Cut all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._close)
        self._thread.join()
        self._loop.close()

    def _close(self, turns=10):
        for listening in self._server.sockets:
            self._loop.remove_reader(listening)
        for transport in list(self._transports):
            transport.abort()
        # Connections that are being accepted, and aborted ones, need some turns of the loop, and
        # the former a server that is still open, or their sockets are left open.
        if turns:
            self._loop.call_soon(self._close, turns - 1)
        else:
            self._server.close()
            self._loop.stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    async def _listen(self):
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self._port, backlog=256
        )
        self._port = self._server.sockets[0].getsockname()[1]

    def answer(self, target):
        """Make the answer to an address, or what is left of it after a failure."""
        parts = urlsplit(target)
        view = self._routes.get(parts.path)
        if parts.path == "/log":
            return view({})
        if self.failures:
            failure = self.failures.pop(0)
        elif self._rng.random() < self.failure_rate:
            failure = self._rng.choice(FAILURES)
        else:
            failure = None
        self.requests.append(target)
        if view is None:
            answer = Answer(b"not found", code=404)
        elif failure in (None, "truncated", "dropped", "drip"):
            answer = view(dict(parse_qsl(parts.query, keep_blank_values=True)))
            answer = Answer(answer) if isinstance(answer, bytes) else answer
        else:
            answer = self._failed(failure)
        outcome = failure or ("ok" if answer.code == 200 and not answer.note else answer.note)
        self.outcomes.append(outcome or str(answer.code))
        if failure == "truncated":
            body = b"".join(answer.body)
            answer = Answer(body[: max(len(body) // 2, 1) // BLOCK * BLOCK + 80])
        elif failure in ("dropped", "drip"):
            answer.manner = failure
        return answer

    def _failed(self, failure):
        if failure in ("429", "503"):
            headers = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
            return Answer(b"wait", code=int(failure), headers=headers)
        if failure == "500":
            return Answer(b"<h1>Server Error (500)</h1>", code=500)
        if failure == "page":
            return Answer(b"<html><body>The database is locked</body></html>")
        return Answer(b"", manner="reset" if failure == "reset" else "whole")

    def _parse(self, params):
        source = self.layers.get(params.get("layer", "").replace(" ", "+"))
        if source is None:
            return None
        size = int(params.get("size", 256))
        size = min(int(params.get("height", size)), 3000), min(int(params.get("width", size)), 3000)
        bands = params.get("bands") or source.bands
        if not set(bands) <= set(source.bands):
            bands = source.bands
        pixel_scale = float(params.get("pixscale", NATIVE))
        return source, float(params["ra"]), float(params["dec"]), bands, size, pixel_scale

    def _fits_cutout(self, params):
        parsed = self._parse(params)
        if parsed is None:
            return Answer(b"no such layer", note="unknown layer")
        source, *asked = parsed
        seen = source(*asked)
        if seen is None:
            return Answer(b"<h1>Server Error (500)</h1>", code=500, note="off-footprint")
        ra, dec, bands, size, pixel_scale = asked
        data, ivar, bits = seen
        factor = (pixel_scale / NATIVE) ** 2
        if factor != 1:
            data = data / factor
            ivar = None if ivar is None else ivar * factor**2
        note = "" if all(band.any() for band in data) else "incomplete"
        images = [("image", data if len(bands) > 1 else data[0], -32)]
        if pixel_scale < 2 * NATIVE:
            if "invvar" in params and ivar is not None:
                images.append(("invvar", ivar if len(bands) > 1 else ivar[0], -32))
            if "maskbits" in params and bits is not None:
                images.append(("maskbits", bits, 16))
        body = []
        for number, (role, pixels, bitpix) in enumerate(images):
            cards = _cards(pixels.shape, bitpix, number == 0)
            cards += [("SURVEY", "'LegacySurvey'"), ("VERSION", "'DR9'")]
            cards += [("IMAGETYP", f"'{self.imagetyp(role)}'"), ("BANDS", f"'{bands}'")]
            cards += [(f"BAND{place}", f"'{band}'") for place, band in enumerate(bands)]
            cards += _tangent(ra, dec, size, pixel_scale)
            pixels = np.ascontiguousarray(pixels, dtype=">f4" if bitpix == -32 else ">i2")
            length = pixels.nbytes
            body += [_header(cards), pixels.data.cast("B"), b"\0" * (-length % BLOCK)]
        return Answer(*body, headers={"Content-Type": "image/fits"}, note=note)

    def _jpeg_cutout(self, params):
        from io import BytesIO

        from PIL import Image

        parsed = self._parse(params)
        if parsed is None:
            return Answer(b"no such layer", note="unknown layer")
        source, *asked = parsed
        seen = source(*asked)
        if seen is None:
            return Answer(b"<h1>Server Error (500)</h1>", code=500, note="off-footprint")
        rgb = np.clip(np.moveaxis(seen[0][2::-1] * 255, 0, -1), 0, 255).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(np.ascontiguousarray(rgb[::-1])).save(buffer, "jpeg")
        return Answer(buffer.getvalue(), headers={"Content-Type": "image/jpeg"})


class Answer:
    """Status, headers and body of a reply, how it is sent: whole, dropped, drip or reset."""

    def __init__(self, *body, code=200, headers=None, manner="whole", note=""):
        self.body = body
        self.code = code
        self.headers = headers or {}
        self.manner = manner
        self.note = note


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a GET needs it; connections are kept open."""

    def __init__(self, server):
        self._server = server
        self._buffer = b""
        self._transport = None
        self._outgoing = []
        self._paused = False

    def connection_made(self, transport):
        self._transport = transport
        self._server._transports.add(transport)
        self._server.connections += 1

    def connection_lost(self, exc):
        self._server._transports.discard(self._transport)

    def data_received(self, data):
        self._buffer += data
        if not b"GET ".startswith(self._buffer[:4]):  # a TLS connection, say
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self._transport.close()
            return
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("ascii")
            server = self._server
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            if server.latency:
                asyncio.get_running_loop().call_later(server.latency, self._reply, target)
            else:
                self._reply(target)

    def _reply(self, target):
        server, transport = self._server, self._transport
        server.at_once -= 1
        if transport.is_closing():
            return
        try:
            answer = server.answer(target)
        except Exception as error:
            answer = Answer(repr(error).encode(), code=500)
        if answer.manner == "reset":
            transport.abort()
            return
        length = sum(len(part) for part in answer.body)
        lines = [f"HTTP/1.1 {answer.code} {HTTPStatus(answer.code).phrase}"]
        headers = {"Content-Length": str(length), **answer.headers}
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
        if answer.manner == "whole":
            self._outgoing += [memoryview(head), *map(memoryview, answer.body)]
            self._pump()
            return
        body = b"".join(answer.body)
        if answer.manner == "dropped":
            transport.write(head + body[: len(body) // 2])
            transport.close()
            return
        transport.write(head)
        self._drip(body, 0)

    def _pump(self):
        # In pieces: what does not fit into the socket is moved in memory at every send.
        while self._outgoing and not self._paused:
            part = self._outgoing.pop(0)
            if len(part) > _PIECE:
                self._outgoing.insert(0, part[_PIECE:])
            self._transport.write(part[:_PIECE])

    def pause_writing(self):
        self._paused = True

    def resume_writing(self):
        self._paused = False
        self._pump()

    def _drip(self, body, sent):
        if not self._transport.is_closing() and sent < len(body):
            self._transport.write(body[sent : sent + 10])
            asyncio.get_running_loop().call_later(0.02, self._drip, body, sent + 10)


def _cards(shape, bitpix, first):
    start = ("SIMPLE", "T") if first else ("XTENSION", "'IMAGE   '")
    axes = [(f"NAXIS{axis}", str(n)) for axis, n in enumerate(reversed(shape), start=1)]
    cards = [start, ("BITPIX", str(bitpix)), ("NAXIS", str(len(shape))), *axes]
    return cards + ([("EXTEND", "T")] if first else [("PCOUNT", "0"), ("GCOUNT", "1")])


def _tangent(ra, dec, size, pixel_scale):
    step = pixel_scale / 3600
    return [
        ("CTYPE1", "'RA---TAN'"),
        ("CTYPE2", "'DEC--TAN'"),
        ("CRVAL1", repr(ra)),
        ("CRVAL2", repr(dec)),
        ("CRPIX1", repr((size[1] + 1) / 2)),
        ("CRPIX2", repr((size[0] + 1) / 2)),
        ("CD1_1", f"{-step:.15E}"),
        ("CD1_2", "0."),
        ("CD2_1", "0."),
        ("CD2_2", f"{step:.15E}"),
        ("IMAGEW", str(size[1])),
        ("IMAGEH", str(size[0])),
    ]


def _header(cards):
    lines = []
    for name, value in cards:
        value = value.ljust(20) if value.startswith("'") else value.rjust(20)
        lines.append(f"{name:8s}= {value}".ljust(80))
    text = "".join(lines) + "END".ljust(80)
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def main(argv=None):
    """Serve in this process until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--failure-rate", type=float, default=0.0)
    parser.add_argument("--retry-after", default="0")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with SurveyServer(**vars(args)) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
