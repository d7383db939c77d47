"""Time the simulation of galaxies: cutouts a second, for several sizes and thread counts.

Every figure is that of a fresh process that has made a few galaxies before, with everything that a
user waits for: drawing, rendering, noise, votes, catalogue and the CutoutSet. The runs are
interleaved; the median and the best are printed. Galaxies per second of processor time
say what to expect where other programs keep the machine busy.

Run: python benchmarks/simulate_speed.py [--sizes 64 128 256] [--threads 1 2] [--galaxies 400]
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys

PROGRAM = """
import sys, time
from astro_morphvae.datasets import make_galaxies, make_survey_pair
make_galaxies(8, size={size}, threads={threads})
start, used = time.perf_counter(), time.process_time()
cutouts = {call}({n}, size={size}, seed=1, threads={threads})
wall, used = time.perf_counter() - start, time.process_time() - used
sys.stdout.write(f"{{{n} / wall}} {{{n} / used}}")
"""

TARGET = 400  # galaxies per second at 128 pixels with every core


def processor():
    """Name of the processor, as the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def measure(call, size, threads, n):
    program = PROGRAM.format(call=call, size=size, threads=threads, n=n)
    reply = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    wall, used = map(float, reply.stdout.split())
    return wall, used


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores}))
    parser.add_argument("--galaxies", type=int, default=400, help="number at 128 pixels")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    import numpy
    import scipy

    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}, {cores} cores{load}")
    print(
        f"Python {platform.python_version()}, numpy {numpy.__version__}, scipy {scipy.__version__}"
    )
    cases = [
        ("make_galaxies", size, threads)
        for size in arguments.sizes
        for threads in arguments.threads
    ]
    cases.append(("make_survey_pair", 128, max(arguments.threads)))
    results = {case: [] for case in cases}
    for _ in range(arguments.repeats):
        for case in cases:
            call, size, threads = case
            n = max(int(arguments.galaxies * min(128 / size, 2) ** 2), 20)
            results[case].append(measure(call, size, threads, n))
    print(f"{'':18}{'size':>6}{'threads':>9}{'galaxies/s':>12}{'best':>8}{'per core-second':>17}")
    for (call, size, threads), runs in results.items():
        wall = [run[0] for run in runs]
        used = statistics.median(run[1] for run in runs)
        middle = statistics.median(wall)
        print(f"{call:18}{size:6}{threads:9}{middle:12.0f}{max(wall):8.0f}{used:17.0f}")
    case = ("make_galaxies", 128, max(arguments.threads))
    if case in results:
        speed = statistics.median(run[0] for run in results[case])
        verdict = "met" if speed >= TARGET else "NOT met"
        print(f"128 pixels: {speed:.0f} galaxies/s, aim {TARGET}: {verdict}")


if __name__ == "__main__":
    main()
