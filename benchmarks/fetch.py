"""Fetching cutouts: what survives failures and kills, how fast it goes, what memory it takes.

A server on this machine, in a process of its own, behaves and misbehaves as the Legacy Survey
cutout service does (astro_morphvae/tests/survey_server.py); what it shows is simulated.

robust: 5 % of the replies fail at random, in nine ways; some positions are off the footprint, have
a band without exposures, or are no positions. The client is killed at random moments, with SIGKILL
and with SIGINT, and run again until it is done.

speed: each reply begins 20 ms after its request. Ours, with its defaults, against one-at-a-time
fetching: by the same service over one connection, and by the plain loop of requests and astropy
that people write. Each side in its own process, in turns; the largest resident memory with
``output=`` for two lengths of the list.

Run: python benchmarks/fetch.py
     python benchmarks/fetch.py robust --seed 3
"""

import argparse
import json
import os
import platform
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np

SPEED_BAR = 10.0
MEMORY_BAR = 1.15
LAYER = "ls-dr9-south"


def positions(n, seed, uniform=False):
    """Positions on the simulated sky, with its troublesome regions where not ``uniform``."""
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, n), rng.uniform(-55, 30, n)
    if not uniform:
        kind = rng.choice(5, n, p=[0.85, 0.05, 0.05, 0.04, 0.01])
        for number, (low, high) in enumerate([(-69, -61), (-79, -71), (-89, -81)], start=1):
            dec = np.where(kind == number, rng.uniform(low, high, n), dec)
        dec = np.where(kind == 4, np.nan, dec)
        ra[n // 2 : n // 2 + 20], dec[n // 2 : n // 2 + 20] = ra[:20], dec[:20]  # asked for twice
    return SkyCoord(ra, dec, unit="deg")


def expected_status(dec):
    if not np.isfinite(dec):
        return "invalid-position"
    return "off-footprint" if dec < -70 else "incomplete-bands" if dec < -60 else "ok"


@contextmanager
def server(*options):
    command = [sys.executable, "-m", "astro_morphvae.tests.survey_server", *map(str, options)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()


def log_of(url):
    with urlopen(url + "/log") as reply:
        return json.load(reply)


def client(spec):
    """Fetch in this process, and print what it took."""
    from astro_morphvae.surveys import LegacySurvey
    from astro_morphvae.surveys.legacy import conf

    coords = positions(spec["n"], spec["seed"], spec["uniform"])
    for name, value in spec.get("conf", {}).items():
        setattr(conf, name, value)
    start = time.perf_counter()
    if spec["side"] == "plain":
        data = plain_loop(coords, spec)
        good = int(np.isfinite(data).all(axis=(1, 2, 3)).sum())
    else:
        try:
            cutouts = LegacySurvey.get_cutouts(
                coords,
                layer=LAYER,
                size=spec["size"],
                server=spec["url"],
                cache=spec["cache"],
                output=spec.get("output"),
                overwrite=True,
                progress=False,
            )
        except KeyboardInterrupt:
            os._exit(130)
        good = int(cutouts.good.sum())
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "memory": memory, "good": good}))


def plain_loop(coords, spec):
    from io import BytesIO

    import requests
    from astropy.io import fits

    session = requests.Session()
    images = []
    for ra, dec in zip(coords.ra.deg, coords.dec.deg, strict=True):
        params = {"ra": ra, "dec": dec, "layer": LAYER, "pixscale": 0.262, "size": spec["size"]}
        params |= {"bands": "grz", "invvar": "1", "maskbits": "1"}
        reply = session.get(spec["url"] + "/viewer/fits-cutout", params=params, timeout=60)
        reply.raise_for_status()
        with fits.open(BytesIO(reply.content)) as hdus:
            images.append([np.array(hdu.data, dtype=np.float32) for hdu in hdus])
    return np.stack([image[0] for image in images])


def start_client(**spec):
    command = [sys.executable, __file__, "--client", json.dumps(spec)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_client(**spec):
    process = start_client(**spec)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a client ended with status {process.returncode}")
    return json.loads(out)


def robust(args):
    """Kill, run again, compare with what is on the sky."""
    from astro_morphvae.surveys.legacy import LegacySurvey

    n, rng = args.objects, random.Random(args.seed)
    coords = positions(n, args.seed)
    settings = {"timeout": 1.0, "backoff": 0.1}
    with (
        server("--failure-rate", 0.05, "--latency", 0.02, "--seed", args.seed) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        folder = Path(folder)
        query = LegacySurvey._make_query(coords, layer=LAYER, size=args.size, server=url)
        version = query.check.version
        keys = {}
        for entry in query.rows:
            if not isinstance(entry, str):
                keys[entry[0].full_url.removeprefix(url)] = entry[0].key(version)
        spec = {"url": url, "n": n, "seed": args.seed, "size": args.size, "uniform": False}
        spec |= {"cache": str(folder / "cache"), "output": str(folder / "cutouts.fits")}
        spec |= {"side": "ours", "conf": settings}

        def kept():
            return {path.name for path in (folder / "cache").glob("??/[0-9a-f]*")}

        asked, again, held, kills = 0, 0, set(), 0
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, None):
            process = start_client(**spec)
            if number is not None:
                # Once it has begun, at a random moment of what it needs for the whole.
                while len(log_of(url)["requests"]) == asked and process.poll() is None:
                    time.sleep(0.02)
                time.sleep(rng.uniform(0.05, 0.35) * n / 500)
                start = time.perf_counter()
                process.send_signal(number)
            process.communicate()
            took = f" {time.perf_counter() - start:.2f} s after it" if number else ""
            log = log_of(url)
            new, asked = log["requests"][asked:], len(log["requests"])
            again += sum(keys[address] in held for address in new)
            lost = len(held - kept())
            held = kept()
            bad = sum(not is_whole(path, args.size) for path in (folder / "cache").glob("??/*"))
            label = "end" if number is None else number.name
            if number is not None and process.returncode not in (-number, 130):
                label += " (came too late)"
            else:
                kills += number is not None
            print(
                f"{label:10s} status {process.returncode:4d}{took}; {len(new):5d} requests, "
                f"{len(held):5d} files kept, {lost} lost, {bad} bad, {again} asked for again"
            )
        check_result(folder / "cutouts.fits", coords)
        delivered = Counter(
            address
            for address, outcome in zip(log["requests"], log["outcomes"], strict=True)
            if outcome == "ok"
        )
        twice = sum(count > 1 for count in delivered.values())
        print(
            f"replies delivered twice: {twice}; on their way at one of {kills} kills: at most "
            f"{kills * 16}"
        )
        print("ways of failing met:", dict(Counter(log["outcomes"]).most_common()))


def is_whole(path, size):
    """Whether a file is a cutout, read by astropy alone."""
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            shapes = [hdu.data.shape for hdu in hdus]
            full = all(hdu.data.any(axis=(-2, -1)).all() for hdu in hdus)
    except Exception:
        return False
    return full and shapes == [(3, size, size)] * 2 + [(size, size)]


def check_result(path, coords):
    from astro_morphvae import CutoutSet
    from astro_morphvae.tests.survey_server import signature

    cutouts = CutoutSet.read(path)
    found = [str(status).partition(":")[0] for status in cutouts.catalog["status"]]
    wanted = [expected_status(dec) for dec in coords.dec.deg]
    wrong = sum(a != b for a, b in zip(found, wanted, strict=True))
    rows = np.flatnonzero(cutouts.good)
    marks = [signature(f"{c.ra.deg:.7f}", f"{c.dec.deg:.7f}") for c in coords[rows]]
    misplaced = int(
        (np.abs(cutouts.data[rows][:, :, 0, 0] - np.c_[marks]) > 1e-6).any(axis=1).sum()
    )
    print(f"statuses: {dict(Counter(found))}; {wrong} wrong")
    print(f"obtainable cutouts: {wanted.count('ok')}, in their place: {len(rows) - misplaced}")


def speed(args):
    """Time ours against one-at-a-time fetching, and compare memory for two lengths."""
    sides = {
        "ours": {"n": args.objects, "side": "ours"},
        "one connection": {"n": args.objects // 10, "side": "ours", "conf": {"max_connections": 1}},
        "plain loop": {"n": args.objects // 10, "side": "plain"},
    }
    rates = {name: [] for name in sides}
    with server("--latency", args.latency) as url:
        for turn in range(args.repeats):
            for number, (name, side) in enumerate(sides.items()):
                with tempfile.TemporaryDirectory() as cache:
                    result = run_client(
                        url=url,
                        seed=100 * turn + number,
                        size=args.size,
                        uniform=True,
                        cache=cache,
                        **side,
                    )
                if result["good"] != side["n"]:
                    raise SystemExit(f"{name}: {result['good']} of {side['n']}")
                rates[name].append(side["n"] / result["seconds"])
        rate = {name: statistics.median(values) for name, values in rates.items()}
        for name, values in rates.items():
            print(
                f"{name:16s} {rate[name]:7.1f} cutouts/s  "
                f"(of {args.repeats}: {min(values):.1f} to {max(values):.1f})"
            )
        for name in ("one connection", "plain loop"):
            ratio = rate["ours"] / rate[name]
            print(f"ours / {name}: {ratio:.1f}x (bar: {SPEED_BAR:g}x)")
        memory = {}
        for n in (args.objects // 4, args.objects):
            with tempfile.TemporaryDirectory() as folder:
                result = run_client(
                    url=url,
                    n=n,
                    seed=n,
                    size=args.size,
                    uniform=True,
                    cache=folder + "/cache",
                    output=folder + "/cutouts.fits",
                    side="ours",
                )
            memory[n] = result["memory"]
            print(
                f"largest resident memory, {n} objects to a file: {memory[n]:.0f} MiB, "
                f"{n / result['seconds']:.1f} cutouts/s"
            )
        few, many = memory.values()
        pixels = args.objects * args.size**2 * 3 * 4 * 2 / 2**20
        print(f"ratio {many / few:.2f} (bar: {MEMORY_BAR}); the pixels alone are {pixels:.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=("robust", "speed", "all"), default="all")
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--client", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(args.client)
        return
    print(
        f"{args.objects} objects of 3 x {args.size} x {args.size}, with inverse variance and mask "
        f"bits; {os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    )
    for part in (robust, speed):
        if args.part in (part.__name__, "all"):
            print(f"\n{part.__name__}")
            part(args)


if __name__ == "__main__":
    main()
