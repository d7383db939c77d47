"""SDSS as source, DECaLS and GAMA as a real, unpaired target: what adaptation without pairs brings.

The source is `gz2-votes` and `gz2-spiral`, the target the stamps of DECaLS and GAMA in the Galaxy
Zoo field guide (`gz-field-guide`): other galaxies, chosen as clear examples. Adapted on one half of
the target and measured on the other, both ways. Labels of the field guide that are one of the four
classes of `gz2-votes` score a forest trained on the source. As other galaxies were chosen, a
classifier may tell the samples apart even where the surveys do not differ.

Run: python benchmarks/field_guide.py --output field_guide
Data: ../shared/data (see its README.md), or --data. Writes <output>.ecsv.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable
from domain_rivals import fit, latents
from domain_scores import bootstrap_weights, interval, mean_recall
from domain_sets import SPLIT_SEED
from real_galaxies import load_gz2, read_stamp
from sklearn.ensemble import RandomForestClassifier

import astro_morphvae as amv  # its names load torch when first used: after tune_process()


def field_guide_class(row):
    """One of the four classes of gz2-votes that an example of the field guide is of, or ""."""
    question, answer = row["question"], row["answer"]
    if "edge-on" in question and answer == "Yes":
        return "edge-on"
    if "bulge at its cent" in question:  # asked of edge-on galaxies alone
        return "edge-on"
    if "spiral arms" in question or ("spiral arm pattern" in question and answer == "Spiral"):
        return "spiral"
    if answer in ("Smooth", "Completely round", "In between"):
        return "elliptical"
    return "merger" if answer in ("Merging", "Merger", "Both") else ""


def field_guide(data):
    """SDSS stamps with their division, and those of DECaLS and GAMA, 64 pixels each; labels."""

    def as_cutouts(images, survey, ids):
        images = images.reshape(len(images), 3, 64, 2, 64, 2).mean(axis=(3, 5))
        return amv.CutoutSet(
            images,
            unit=u.dimensionless_unscaled,
            bands="gri",
            catalog={"id": ids},
            meta={"survey": survey},
        )

    votes, spiral = load_gz2(data)
    n_votes = len(votes.images)
    images = np.concatenate([votes.images, spiral.images])
    train = np.concatenate([votes.train, spiral.train + n_votes])
    test = np.concatenate([votes.test, spiral.test + n_votes])
    label = np.array([*votes.questions["four classes"][0], *[""] * len(spiral.images)])
    source = as_cutouts(images, "SDSS", [f"gz2-{k}" for k in range(len(images))])

    with (data / "gz-field-guide/labels.csv").open() as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["survey"] in ("decals", "gama") and row["implied_top_level"] != "artifact"
        ]
    paths = {path.name: path for path in (data / "gz-field-guide").rglob("*.jpg")}
    names = [row["file"].rpartition("/")[2] for row in rows]
    stamps = np.stack([read_stamp(paths[name], 212) for name in names])
    target = as_cutouts(stamps, "DECaLS and GAMA", names)
    return source, train, test, label, target, np.array([field_guide_class(row) for row in rows])


def study(options):
    """Unpaired methods: a table of one row a method."""
    from astro_morphvae.analysis import domain_auc, squared_mmd

    source, train, test, label, target, truth = field_guide(options.data)
    known = label[train] != ""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(target))
    halves = np.array_split(order, 2)
    counts = {str(value): int(np.sum(truth == value)) for value in np.unique(truth) if value}
    print(
        f"field-guide: real stamps, SDSS {len(train)} to fit, {len(test)} to test; DECaLS and GAMA "
        f"{len(target)}, of them {counts}"
    )
    found = {}
    for seed in options.seeds:
        base = fit({"stretch": None}, source[train], seed, options.epochs)
        z_source = latents(base, source)
        forest = RandomForestClassifier(
            200, min_samples_leaf=2, class_weight="balanced", random_state=seed, n_jobs=-1
        ).fit(z_source[train][known], label[train][known])
        for method in ("no adaptation", "mmd", "coral"):
            start, collapsed = time.perf_counter(), 0
            predicted = np.full(len(target), "", dtype=label.dtype)
            entry = {"auc_forest": [], "auc_logistic": [], "mmd2": [], "variance": []}
            for seen, other in (halves, halves[::-1]):
                model = base
                if method != "no adaptation":
                    fitter = amv.DomainAdaptationFitter(
                        method=method,
                        epochs=options.adapt_epochs,
                        elbo_weight=0.0,
                        seed=seed,
                        progress=False,
                    )
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always")
                        model = fitter(base, source[train], target=target[np.sort(seen)])
                    collapsed += sum("collapsing" in str(w.message) for w in caught)
                z = latents(model, target[other])
                predicted[other] = forest.predict(z)
                a = z_source[test]
                for kind in ("forest", "logistic"):
                    entry[f"auc_{kind}"].append(domain_auc(a, z, classifier=kind, seed=seed))
                entry["mmd2"].append(squared_mmd(a, z))
                entry["variance"].append(z.var(axis=0).sum() / a.var(axis=0).sum())
            entry = {name: float(np.mean(values)) for name, values in entry.items()}
            entry |= {"predicted": predicted, "seconds": time.perf_counter() - start}
            entry["collapsed"] = collapsed
            found.setdefault(method, []).append(entry)
        # What the same classifier does on its own survey, and what no shift would give.
        entry = {"predicted_source": forest.predict(z_source[test])}
        parts = np.array_split(np.random.default_rng(seed).permutation(test), [len(halves[0])])
        parts = z_source[parts[1]], z_source[parts[0]]
        entry |= {
            f"auc_{kind}": domain_auc(*parts, classifier=kind, seed=seed)
            for kind in ("forest", "logistic")
        }
        entry["mmd2"] = squared_mmd(*parts)
        found.setdefault("SDSS against SDSS", []).append(entry)

    on_source = label[test] != ""
    rows = []
    for method, entries in found.items():
        if "predicted" in entries[0]:
            of, answers = truth, [entry["predicted"] for entry in entries]
            use = truth != ""
        else:
            of, answers = label[test], [entry["predicted_source"] for entry in entries]
            use = on_source
        right = np.mean([answer == of for answer in answers], axis=0)
        values = mean_recall(of[use], right[use], bootstrap_weights(int(use.sum())))
        low, high = interval(values[1:])
        if method == "no adaptation":
            before = values
        gain = values - before if of is truth else np.full_like(values, np.nan)
        row = {"set": "field-guide", "method": method, "n_seeds": len(entries)}
        row |= {"n_labelled": int(use.sum()), "balanced_accuracy": values[0]}
        row |= {"balanced_accuracy_low": low, "balanced_accuracy_high": high, "gain": gain[0]}
        row["gain_low"], row["gain_high"] = interval(gain[1:])
        for name in ("auc_forest", "auc_logistic", "mmd2", "variance", "seconds", "collapsed"):
            by_seed = [entry.get(name, np.nan) for entry in entries]
            row[name] = np.mean(by_seed)
            row[f"{name}_scatter"] = np.std(by_seed, ddof=1) if len(by_seed) > 1 else np.nan
        rows.append(row)
        print(
            f"field-guide {method:18s} AUC {row['auc_forest']:.3f}/{row['auc_logistic']:.3f} MMD² "
            f"{row['mmd2']:.4f} variance {row['variance']:.2f} balanced accuracy of {use.sum()}: "
            f"{values[0]:.3f} [{low:.3f}, {high:.3f}] gain {gain[0]:+.3f} [{row['gain_low']:+.3f}, "
            f"{row['gain_high']:+.3f}] {row['seconds']:.0f} s",
            flush=True,
        )
    return QTable(rows)


def write(options, path, start):
    """Run the study and write its table, or say that there are no data."""
    from domain_adaptation import provenance

    if not (options.data / "gz-field-guide").is_dir():
        print(f"field-guide: skipped, there is no {options.data / 'gz-field-guide'}")
        return
    table = study(options)
    table.meta |= provenance(options, start)
    table.write(path, overwrite=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--output", type=Path, default=Path("field_guide"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10, help="of the auto-encoders")
    parser.add_argument("--adapt-epochs", type=int, default=20)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    amv.tune_process(threads=options.threads)
    write(options, f"{options.output}.ecsv", time.perf_counter())


if __name__ == "__main__":
    main()
