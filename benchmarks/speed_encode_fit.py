"""Speed of encoding and of one training epoch, against the plain PyTorch twin.

Each side runs in its own process, started as its user would start it, and the processes take turns
for several rounds; the best of each is compared. Ours is measured whole: `LatentModel.encode` from
an in-memory CutoutSet to a QTable, and `VAEFitter` with one epoch. The network is that of Xu et al.
2023 on both sides, without stretch as published, or with one on both sides (--stretch).

Run: python benchmarks/speed_encode_fit.py
"""

import argparse
import json
import os
import subprocess
import sys
import time

BATCH = 32
SIDES = {
    "twin": "PyTorch twin, as written",
    "ours": "ours, tune_process()",
    "ours-bf16": "ours, tune_process(), bfloat16",
    "untuned": "ours, process untouched",
    "untuned-bf16": "ours, process untouched, bfloat16",
}
# Multiply-adds of the encoder per image of 3 × 256 × 256.
ENCODER_MACS = 128**2 * 32 * 27 + 32**2 * 64 * 288 + 8**2 * 128 * 576 + 2 * 2048 * 40


def best_time(function, repeats):
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def simulated_flux(n):
    import numpy as np

    generator = np.random.default_rng(0)
    return generator.normal(0, 0.02, (n, 3, 256, 256)).astype(np.float32)


def measure_twin(n_encode, n_train, softening, repeats):
    import torch
    from reference_torch import ReferenceVAE, encode, train_epoch

    images = simulated_flux(max(n_encode, n_train))
    torch.manual_seed(0)
    model = ReferenceVAE(softening=softening)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    return {
        "encode": n_encode / best_time(lambda: encode(model, images[:n_encode], BATCH), repeats),
        "train": n_train
        / best_time(lambda: train_epoch(model, optimiser, images[:n_train], BATCH), repeats),
    }


def measure_ours(n_encode, n_train, softening, repeats, *, tuned, precision):
    import astropy.units as u

    from astro_morphvae import tune_process

    if tuned:
        tune_process()  # before the networks load torch
    from astro_morphvae import VAE, CutoutSet, LatentModel, VAEFitter

    cutouts = CutoutSet(
        simulated_flux(max(n_encode, n_train)),
        unit=u.nmgy,
        bands="grz",
        pixel_scale=0.262 * u.arcsec,
    )
    model = LatentModel(
        VAE(
            40,
            architecture="xu2023",
            stretch=None if softening is None else "asinh",
            softening=softening,
        )
    )
    fitter = VAEFitter(
        epochs=1,
        batch_size=BATCH,
        validation_fraction=0,
        augment=None,  # the twin has none
        precision=precision,
        progress=False,
    )
    results = {}
    some, more = cutouts[:n_encode], cutouts[:n_train]
    results["encode"] = n_encode / best_time(
        lambda: model.encode(some, batch_size=BATCH, precision=precision), repeats
    )
    results["train"] = n_train / best_time(lambda: fitter(model, more), repeats)
    import torch

    a = torch.randn(1024, 1024, dtype=torch.bfloat16 if precision else torch.float32)
    results["matmul"] = 2 * 1024**3 / best_time(lambda: a @ a, 30)
    return results


def run_side(side, options):
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = [sys.executable, __file__, "--side", side]
    for name in ("encode", "train", "repeats"):
        command += [f"--{name}", str(getattr(options, name))]
    if options.stretch:
        command.append("--stretch")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encode", type=int, default=256, help="images to encode")
    parser.add_argument("--train", type=int, default=128, help="images in an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every side")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stretch", action="store_true", help="asinh stretch on both sides")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    options = parser.parse_args()
    if options.side:
        numbers = (
            options.encode,
            options.train,
            [0.06, 0.06, 0.06] if options.stretch else None,
            options.repeats,
        )
        if options.side == "twin":
            result = measure_twin(*numbers)
        else:
            result = measure_ours(
                *numbers,
                tuned=options.side.startswith("ours"),
                precision="bfloat16" if options.side.endswith("bf16") else None,
            )
        print(json.dumps(result))
        return
    rounds = [
        {side: run_side(side, options) for side in options.sides} for _ in range(options.rounds)
    ]
    best = {
        side: {key: max(turn[side][key] for turn in rounds) for key in rounds[0][side]}
        for side in options.sides
    }
    stretch = "asinh stretch on both sides" if options.stretch else "no stretch on either side"
    print(
        f"3 × 256 × 256, batch {BATCH}, {options.threads} threads, {stretch}; "
        f"best of {options.rounds} interleaved rounds"
    )
    print(
        f"{'':38}{'encode':>9}{'ratio':>7}{'range':>12}{'peak':>6}{'fit':>9}{'ratio':>7}{'range':>12}"
    )
    for side in options.sides:
        line = f"{SIDES[side]:38}"
        for key in ("encode", "train"):
            ratios = [turn[side][key] / turn["twin"][key] for turn in rounds if "twin" in turn]
            line += f"{best[side][key]:7.0f}/s"
            if ratios:
                ratio = best[side][key] / best["twin"][key]
                line += f"{ratio:6.2f}×{min(ratios):6.2f}-{max(ratios):.2f}"
            if key == "encode":
                share = 2 * ENCODER_MACS * best[side][key] / best[side].get("matmul", float("inf"))
                line += f"{share:6.0%}" if share else f"{'':6}"
        print(line)
    print("peak: share of the matrix-multiplication rate measured in the same process and type")


if __name__ == "__main__":
    main()
