"""Time `import astro_morphvae`, and what it costs to reach for its names.

Every figure is the median over fresh processes of the time spent after numpy and astropy have been
imported, so it is what the package itself adds.

Run: python benchmarks/import_time.py [--runs 10]
"""

import argparse
import statistics
import subprocess
import sys

STATEMENTS = {
    "import astro_morphvae": "import astro_morphvae",
    "from astro_morphvae import CutoutSet": "from astro_morphvae import CutoutSet",
    "from astro_morphvae import datasets": "from astro_morphvae import datasets",
    "from astro_morphvae import MorphologyFitter": "from astro_morphvae import MorphologyFitter",
    "from astro_morphvae import VAE (keras and torch)": "from astro_morphvae import VAE",
}

PROGRAM = """
import sys, time
import numpy, astropy
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
heavy = [name for name in ("keras", "torch", "sklearn", "matplotlib") if name in sys.modules]
sys.stdout.write(f"{{seconds}} {{','.join(heavy) or 'none'}}")
"""

LIMIT = 0.3


def measure(statement):
    program = PROGRAM.format(statement=statement)
    reply = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    seconds, heavy = reply.stdout.split()
    return float(seconds), heavy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="processes for each statement")
    runs = parser.parse_args().runs

    measure("from astro_morphvae import VAE")  # fills the disk cache; not counted
    times = {name: [] for name in STATEMENTS}
    loaded = {}
    for _ in range(runs):
        for name, statement in STATEMENTS.items():
            seconds, loaded[name] = measure(statement)
            times[name].append(seconds)

    print(f"seconds beyond numpy and astropy, median of {runs} processes")
    for name, seconds in times.items():
        print(
            f"{statistics.median(seconds):7.3f}  (worst {max(seconds):.3f})  {name};"
            f" heavy modules loaded: {loaded[name]}"
        )
    first = statistics.median(times["import astro_morphvae"])
    verdict = "met" if first < LIMIT else "NOT met"
    print(f"bar: import astro_morphvae under {LIMIT} s: {verdict}")
    return 0 if first < LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
