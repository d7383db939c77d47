"""The same galaxy in two surveys: do labels learned on one hold on the other, and after what?

Sets of galaxies that two surveys saw, each divided by galaxy: the auto-encoder is fitted to the
first part as the source saw it, adaptations to the first part as both saw it, and classifiers are
trained on it; all figures are of the second part, which nothing has seen.

* ``exposures``: simulated galaxies of known morphology as one exposure of DECam and one of 90prime
  and Mosaic3 see them, with the point spread functions and noise measured on real ones, each on
  pixels of its detector, put on one grid by `pair_surveys`; the questions of Xu et al. (2023).
* ``shallow``: the same galaxies as DECaLS and a survey of the seeing and depth of SDSS see them: a
  much larger shift. ``coadds``, if asked for: as DECaLS and BASS+MzLS see them, a smaller one.
* ``real``: real galaxies of `gz2-votes` (four classes) and `gz2-spiral` (spiral or not), labelled
  by volunteers, degraded to a sharp, deep survey A (Gaussian blur of 0.8 pixel of 128, noise 0.01)
  and to a survey B (blur of 2.2, 2.0, 1.2, noise 0.03), then binned to 64 pixels.
* ``field-guide``: real galaxies of SDSS, and others of DECaLS and GAMA, without pairs; see
  `field_guide.py`. Its table is apart.

The rivals: no adaptation; both surveys blurred and made noisier to match, and the network fitted
to that; the recipe of Xu et al. on our network, and on theirs; one network fitted to the
union; a small supervised residual network trained on the source's images; and the methods of
`DomainAdaptationFitter`, without pairs (of the same galaxies in an order that is not known, or of
other galaxies in the target) and with pairs, of images as they are and of matched ones. Settings
were chosen on simulated galaxies of another seed and on parts of the first part of the real ones.

Run: python benchmarks/domain_adaptation.py --output domain_adaptation
Data: ../shared/data (see its README.md), or --data. Writes <output>.ecsv, <output>.png,
<output>.json, <output>_field_guide.ecsv and, in the layout of Xu et al.,
<output>_<set>_questions.ecsv and .png of simulated sets.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.table import QTable
from domain_rivals import MATCHED, ONE_SEED, REFERENCE, chi2, methods, train_residual_network
from domain_scores import (
    DIRECTIONS,
    LEAST,
    N_BOOTSTRAP,
    balanced_accuracy,
    bootstrap_weights,
    score_latents,
    summarise,
)
from domain_sets import coadds, exposures, real, shallow_survey
from sklearn.ensemble import RandomForestClassifier

import astro_morphvae as amv  # its names load torch when first used: after tune_process()

SUPERVISED = "supervised residual network"
N_CHI2 = 800  # test galaxies whose chi-square is taken, the same for every method


def commit():
    """Commit of the code, which the version of an editable installation does not follow."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


COMMIT = commit()  # as the study starts


def make_set(name, options):
    """Make the galaxies of a set, or `None` where there are no data."""
    simulated = options.n, options.n * 3 // 5
    made = {"seed": options.sample_seed, "n_jobs": options.threads or os.cpu_count()}
    if name == "exposures":
        return exposures(*simulated, **made)
    if name in ("shallow", "coadds"):
        return coadds(shallow_survey() if name == "shallow" else "BASS+MzLS", *simulated, **made)
    if not (options.data / "gz2-votes").is_dir():
        print(f"{name}: skipped, there is no {options.data / 'gz2-votes'}")
        return None
    return real(options.data, 0.3 if options.quick else 1.0)


def run_method(galaxies, run, seed, weights):
    """Run one method: its latents, and its scores."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        z_source, z_target, model = run()
    seconds = time.perf_counter() - start
    z = {"source": z_source, "target": z_target}
    entry = score_latents(galaxies, z, seed, weights) | {"seconds": seconds}
    entry["collapsed"] = sum("collapsing" in str(w.message) for w in caught)
    if model is not None:
        for survey, cutouts in (("source", galaxies.source), ("target", galaxies.target)):
            entry[f"chi2_{survey}"] = chi2(model, cutouts[galaxies.test[:N_CHI2]])
        info = model.fit_info
        if "after" in info:
            entry |= {name: info["after"][name] for name in LEAST}
            entry["best_epoch"] = info["best_epoch"]
    return z, entry


def run_supervised(galaxies, options, seed, weights):
    """Scores of the supervised network."""
    start = time.perf_counter()
    predicted = train_residual_network(galaxies, seed, options.supervised_epochs)
    entry = {
        direction: balanced_accuracy(
            galaxies, {q: labels for (s, q), labels in predicted.items() if s == other}, weights
        )
        for direction, (one, other) in DIRECTIONS.items()
        if one == "source"
    }
    return entry | {"seconds": time.perf_counter() - start}


def study(galaxies, options):
    """Run all methods and seeds: rows of the summary, and latents of the first seed by method."""
    weights = bootstrap_weights(len(galaxies.test))
    found, kept = {}, {}

    def wanted(name):
        return not options.methods or name in (REFERENCE, *options.methods)

    def note(name, seed, entry):
        found.setdefault(name, []).append(entry)
        print(
            f"{galaxies.name[:31]:31s} seed {seed} {name:31s} within "
            f"{entry['within_source'][0]:.3f} across {entry['source_to_target'][0]:.3f} AUC "
            f"{entry.get('auc_forest', np.nan):.3f} recall@1 "
            f"{entry.get('recall_at_1', np.nan):.3f} {entry['seconds']:.0f} s",
            flush=True,
        )

    for seed in options.seeds:
        first = seed == options.seeds[0]
        for name, run in methods(galaxies, seed, options).items():
            if (name in ONE_SEED and not first) or not wanted(name):
                continue
            z, entry = run_method(galaxies, run, seed, weights)
            kept.setdefault(name, z)
            note(name, seed, entry)
        if first and wanted(SUPERVISED):
            note(SUPERVISED, seed, run_supervised(galaxies, options, seed, weights))
    return [summarise(galaxies, name, found) for name in found], kept


def by_question(galaxies, kept, options):
    """Table of the reference study: seven questions, within and across, before and after."""
    from astro_morphvae.morphology import MorphologyFitter, evaluate_transfer

    ids = np.asarray(galaxies.source.catalog["id"])
    surveys = [
        (part.meta["survey"], side)
        for part, side in ((galaxies.source, "source"), (galaxies.target, "target"))
    ]
    names = {"before": REFERENCE, "matched": MATCHED, "mmd": "mmd", "paired": "paired"}
    tables = {
        label: {
            survey: QTable({"id": ids, "z_mean": kept[name][side], "status": ["ok"] * len(ids)})
            for survey, side in surveys
        }
        for label, name in names.items()
        if name in kept
    }
    forest = RandomForestClassifier(100, min_samples_leaf=2, class_weight="balanced", n_jobs=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evaluate_transfer(
            tables,
            galaxies.source.catalog,
            seen=ids[galaxies.train],
            test_ids=ids[galaxies.test],
            fitter=MorphologyFitter(questions="xu2023", estimator=forest),
            seeds=options.seeds,
            n_bootstrap=300,
        )


def draw(table, path):
    """Accuracy within the source and across, and how far the surveys are apart, by method."""
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(table["set"]))
    figure, axes = plt.subplots(
        len(sets),
        3,
        figsize=(11, 0.5 + 3.3 * len(sets)),
        squeeze=False,
        sharex="col",
        sharey="row",
        width_ratios=(3, 1, 1),
        layout="constrained",
    )
    for row, name in zip(axes, sets, strict=True):
        part = table[table["set"] == name]
        y = np.arange(len(part))[::-1]
        for label, marker, text in (
            ("within_source", "o", "trained and tested on the source"),
            ("source_to_target", "s", "trained on the source, tested on the target"),
        ):
            value = np.asarray(part[label])
            error = np.abs(np.stack([part[f"{label}_low"], part[f"{label}_high"]]) - value)
            row[0].errorbar(value, y, xerr=error, fmt=marker, ms=4, capsize=2, label=text)
        row[0].axvline(part["within_source"][0], color="0.6", lw=1)
        row[0].set_yticks(y, part["method"])
        row[0].set_title(name, fontsize=9, loc="left")
        row[1].plot(part["auc_forest"], y, "o", ms=4, label="forest")
        row[1].plot(part["auc_logistic"], y, "x", ms=4, label="logistic")
        row[1].axvline(0.5, color="0.6", lw=1)
        row[2].plot(part["recall_at_1"], y, "D", ms=4, color="tab:green")
        for ax in row:
            ax.grid(alpha=0.3)
    for ax, text in zip(
        axes[-1],
        (
            "balanced accuracy, mean over the questions",
            "domain AUC",
            "recall@1 of the same galaxy",
        ),
        strict=True,
    ):
        ax.set_xlabel(text, fontsize=9)
    axes[0, 1].legend(fontsize=7)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside upper center"
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_questions(table, path):
    """Draw the table of the reference study."""
    import matplotlib.pyplot as plt

    from astro_morphvae.plotting import plot_transfer

    drawn = np.ravel(plot_transfer(table))
    figure = drawn[0].figure
    figure.suptitle(table.meta["set"], y=1.02)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def processor():
    """Name of the processor, as the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def provenance(options, start):
    """What made the tables: command, settings, time since ``start``, hardware and versions."""
    names = ("seeds", "sample_seed", "n", "epochs", "adapt_epochs", "supervised_epochs")
    return {
        "command": " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - start),
        **{name: getattr(options, name) for name in names if hasattr(options, name)},
        "bootstrap": N_BOOTSTRAP,
        "hardware": processor(),
        "commit": COMMIT,
        "versions": amv._runtime.software_versions(),
        "note": "means over the seeds; intervals: 95 %, bootstrap of the test galaxies; scatter: "
        "standard deviation among the seeds.",
    }


def report(rows, record, output):
    """Write, draw and print the summary of the sets in which galaxies are paired."""
    table = QTable(rows, meta=record)
    table.write(f"{output}.ecsv", overwrite=True)
    draw(table, f"{output}.png")
    for row in rows:
        print(
            f"{row['set'][:31]:31s} {row['method']:32s} within {row['within_source']:.3f} across "
            f"{row['source_to_target']:.3f} [{row['source_to_target_low']:.3f}, "
            f"{row['source_to_target_high']:.3f}] gain {row['gain']:+.3f} [{row['gain_low']:+.3f}, "
            f"{row['gain_high']:+.3f}] over matching {row['gain_over_matching']:+.3f} "
            f"[{row['gain_over_matching_low']:+.3f}, {row['gain_over_matching_high']:+.3f}] gap "
            f"{row['gap_recovered']:.2f} AUC {row['auc_forest']:.2f}/{row['auc_logistic']:.2f} "
            f"recall@1 {row['recall_at_1']:.3f} chi2 {row['chi2_source']:.3f}/"
            f"{row['chi2_target']:.3f} kept {row['least_latent_variance']:.2f}/"
            f"{row['least_reconstruction_kept']:.2f} collapsed {row['collapsed']} best epoch "
            f"{row['best_epoch']:.0f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sets = ("exposures", "shallow", "coadds", "real", "field-guide")
    default = [name for name in sets if name != "coadds"]
    parser.add_argument("--sets", nargs="+", choices=sets, default=default)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--output", type=Path, default=Path("domain_adaptation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", help="only these, by their names in the table")
    parser.add_argument("--n", type=int, default=4000, help="simulated galaxies")
    parser.add_argument("--sample-seed", type=int, default=2027, help="of the simulated galaxies")
    parser.add_argument("--epochs", type=int, default=10, help="of the auto-encoders")
    parser.add_argument("--supervised-epochs", type=int, default=60)
    parser.add_argument("--adapt-epochs", type=int, default=12)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.n, options.epochs, options.adapt_epochs = min(options.n, 700), 3, 4
        options.supervised_epochs = 3
        options.seeds = options.seeds[:1]
    amv.tune_process(threads=options.threads)
    start, rows = time.perf_counter(), []
    for name in options.sets:
        if name == "field-guide":
            import field_guide

            field_guide.write(options, f"{options.output}_field_guide.ecsv", start)
            continue
        galaxies = make_set(name, options)
        if galaxies is None:
            continue
        part, kept = study(galaxies, options)
        rows += part
        record = provenance(options, start)
        record["note"] += (
            " The set 'real' holds real galaxies (gz2-votes, gz2-spiral) degraded by convolution "
            "and noise; the others are simulated."
        )
        # After each set, so that a run that is stopped leaves what it has.
        report(rows, record, options.output)
        if name != "real":
            questions = by_question(galaxies, kept, options)
            questions.meta |= {"set": galaxies.name, **record}
            questions.write(f"{options.output}_{name}_questions.ecsv", overwrite=True)
            draw_questions(questions, f"{options.output}_{name}_questions.png")
        print(f"{time.perf_counter() - start:.0f} s so far", flush=True)
    record = provenance(options, start)
    Path(f"{options.output}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['seconds']} s on {record['hardware']}")


if __name__ == "__main__":
    main()
