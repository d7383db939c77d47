"""From files to a QTable of latents, against the plain PyTorch twin fed by a DataLoader.

The twin reads one FITS file per galaxy with astropy in a torch DataLoader (two workers) and encodes
batches of 32. Ours encodes (a) the same files and (b) one file of a CutoutSet. Each side runs in
its own process, in turns; files come from the page cache. With --memory N, encodes a one-file
CutoutSet of N galaxies, written for the purpose, and reports the largest resident memory.

Run: python benchmarks/from_disk.py
     python benchmarks/from_disk.py --memory 10000     (writes 7.9 GB, then removes them)
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = 32
SHAPE = (3, 256, 256)
SIDES = {
    "twin": "PyTorch twin, DataLoader over astropy, 2 workers",
    "files": "ours, FITS cutout files, tune_process()",
    "files-bf16": "ours, FITS cutout files, tune_process(), bfloat16",
    "set": "ours, one-file CutoutSet, tune_process()",
    "set-bf16": "ours, one-file CutoutSet, tune_process(), bfloat16",
    "files-untuned": "ours, FITS cutout files, process untouched",
    "set-untuned": "ours, one-file CutoutSet, process untouched",
}
MEMORY_BAR = 2048  # MiB


def make_cutouts(n, seed=0):
    import astropy.units as u

    from astro_morphvae import CutoutSet

    data = np.random.default_rng(seed).normal(0, 0.02, (n, *SHAPE)).astype(np.float32)
    return CutoutSet(data, unit=u.nmgy, bands="grz", pixel_scale=0.262 * u.arcsec)


def write_files(folder, n):
    """One FITS file per galaxy, with the header cards of a survey cutout."""
    from astropy.io import fits

    for i, image in enumerate(make_cutouts(n).data):
        header = fits.Header({"BANDS": "grz", "BUNIT": "nanomaggy", "SURVEY": "simulated"})
        for i_band, band in enumerate("grz"):
            header[f"BAND{i_band}"] = band
        for axis, (kind, value, step) in enumerate(
            (("RA---TAN", 150.0 + 0.01 * i, -0.262), ("DEC--TAN", 2.0, 0.262)), start=1
        ):
            header[f"CTYPE{axis}"], header[f"CRVAL{axis}"] = kind, value
            header[f"CRPIX{axis}"], header[f"CDELT{axis}"] = SHAPE[-1] / 2 + 0.5, step / 3600
        fits.PrimaryHDU(image, header).writeto(folder / f"{i:06d}.fits")


def write_set(path, n, piece=250):
    """One CutoutSet file, written piece by piece."""
    from astro_morphvae.io import CutoutWriter

    with CutoutWriter(path, n) as writer:
        for start in range(0, n, piece):
            writer.append(make_cutouts(min(piece, n - start), seed=start))


def file_list(folder):
    return sorted(Path(folder).glob("[0-9]*.fits"))


def measure_twin(folder, device):
    import torch
    from astropy.io import fits
    from reference_torch import ReferenceVAE

    class Files(torch.utils.data.Dataset):
        def __init__(self, paths):
            self.paths = paths

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, row):
            return torch.from_numpy(fits.getdata(self.paths[row]).astype(np.float32))

    model = ReferenceVAE().eval().to(device)
    paths = file_list(folder)

    def run():
        loader = torch.utils.data.DataLoader(
            Files(paths), batch_size=BATCH, num_workers=2, pin_memory=device != "cpu"
        )
        with torch.no_grad():
            latents = [model.encode(x.to(device))[0].cpu().numpy() for x in loader]
        return np.concatenate(latents)

    return len(paths), run


def measure_ours(side, folder, device):
    from astro_morphvae import tune_process

    if not side.endswith("untuned"):
        tune_process()  # before the networks load torch
    from astro_morphvae import VAE, LatentModel

    model = LatentModel(VAE(40, architecture="xu2023", stretch=None))
    paths = file_list(folder)
    cutouts = paths if side.startswith("files") else Path(folder) / "set.fits"
    precision = "bfloat16" if side.endswith("bf16") else None
    options = {"batch_size": BATCH, "precision": precision, "device": device}
    return len(paths), lambda: model.encode(cutouts, **options)


def measure(side, folder, device, repeats):
    n, run = measure_twin(folder, device) if side == "twin" else measure_ours(side, folder, device)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    if len(result) != n:
        raise RuntimeError(f"{side} gave {len(result)} rows for {n} files")
    return n / min(times[1:])


def measure_memory(path, device):
    from astro_morphvae import tune_process

    tune_process()  # before the networks load torch
    from astro_morphvae import VAE, LatentModel

    model = LatentModel(VAE(40, architecture="xu2023", stretch=None))
    start = time.perf_counter()
    table = model.encode(path, batch_size=64, device=device)
    seconds = time.perf_counter() - start
    if not np.isfinite(table["z_mean"]).all():
        raise RuntimeError("latents are not finite")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"n": len(table), "rate": len(table) / seconds, "peak": peak}


def run_side(options, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = [sys.executable, __file__, "--device", options.device, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(options, folder):
    write_files(folder, options.n)
    write_set(folder / "set.fits", options.n)
    rounds = [
        {
            side: run_side(
                options, "--side", side, "--folder", folder, "--repeats", options.repeats
            )
            for side in options.sides
        }
        for _ in range(options.rounds)
    ]
    print(
        f"{options.n} × {SHAPE}, batch {BATCH}, {options.threads} threads, device "
        f"{options.device}; best of {options.rounds} interleaved rounds"
    )
    for side in options.sides:
        best = max(turn[side] for turn in rounds)
        line = f"{SIDES[side]:54}{best:8.0f}/s"
        if "twin" in options.sides:
            ratios = [turn[side] / turn["twin"] for turn in rounds]
            ratio = best / max(turn["twin"] for turn in rounds)
            line += f"{ratio:7.2f}×  ({min(ratios):.2f}-{max(ratios):.2f})"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=512, help="galaxies")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every side")
    parser.add_argument("--repeats", type=int, default=2, help="measurements per turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--memory", type=int, metavar="N", help="measure memory for N galaxies")
    parser.add_argument("--folder", help="where to put the files; a temporary one by default")
    parser.add_argument("--side", choices=[*SIDES, "memory"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "memory":
        print(json.dumps(measure_memory(options.folder, options.device)))
        return 0
    if options.side:
        print(json.dumps(measure(options.side, options.folder, options.device, options.repeats)))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="from-disk-", dir=options.folder))
    try:
        if options.memory is None:
            compare(options, folder)
            return 0
        write_set(folder / "set.fits", options.memory)
        size = (folder / "set.fits").stat().st_size / 2**30
        found = run_side(options, "--side", "memory", "--folder", folder / "set.fits")
        print(
            f"{found['n']} galaxies, {size:.1f} GiB on disk: {found['rate']:.0f}/s, "
            f"largest resident memory {found['peak']:.0f} MiB (bar: {MEMORY_BAR})"
        )
        return 0 if found["peak"] < MEMORY_BAR else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
