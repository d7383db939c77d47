"""How different two surveys look in latent space: a table of diagnostics with intervals."""

import warnings

import numpy as np
from astropy.table import QTable

from .. import __version__
from ..exceptions import MorphVAEWarning
from ._classifier import fold_scores, weighted_auc
from ._ks import adjusted_p_values, ks_values
from ._mmd import linear_terms, make_kernel, mmd_values
from ._moments import coral_values, frechet_values, moments
from ._samples import draw_weights, read_samples
from .retrieval import distance_of_strangers, partner_ranks

__all__ = ["domain_shift", "latent_shifts"]

_N_LATENTS = 3  # most shifted latents that have a row of their own
_TIE = 1e-9
SIGNIFICANT = 0.05
"""Probability of one false alarm among all latents, below which a latent counts as shifted."""


def domain_shift(
    latents_a,
    latents_b,
    *,
    pairs=None,
    features="z_mean",
    scaling="none",
    kernel="median",
    n_permutations=499,
    n_bootstrap=200,
    confidence=0.95,
    n_folds=5,
    n_jobs=1,
    seed=0,
):
    """Measure how different the latents of two surveys are.

    Parameters
    ----------
    latents_a, latents_b : `~astropy.table.QTable`
        Latents of the two surveys, as from `LatentModel.encode`; rows with a status other than "ok"
        or latents that are not finite are left out and counted.
    pairs : None, "id", "rows" or (k, 2) array of int
        Which rows are the same galaxy: none; those of one ``id``; those of row-aligned tables; or
        rows of the first and second table. With pairs, permutations swap the two images of a
        galaxy, bootstrap samples and folds keep them together, and the partners of the pairs are
        looked for. Galaxies that are in both tables must be given as pairs: as they are not
        independent, the p-values and intervals would else be wrong.
    features : str
        Column of latents, (n, d).
    scaling : {"none", "standard", "whiten"}
        For all that rests on distances: latents as they are; each over its standard deviation among
        all galaxies of both surveys; or also freed of their correlations. The areas under the curve
        and the Kolmogorov–Smirnov statistics do not depend on the scale.
    kernel : {"median", "xu2023"}, float or sequence of float
        Kernel of the maximum mean discrepancy, see `squared_mmd`; "xu2023" comes with the biased
        estimator of that study.
    n_permutations, n_bootstrap : int
        Numbers of permutations, for p-values, and of bootstrap samples of the galaxies, for
        intervals.
    confidence : float
        Probability enclosed by the intervals.
    n_folds : int
        Number of folds of the classifiers that tell the surveys apart.
    n_jobs : int
        Number of threads of the random forest.
    seed : int
        Seed of permutations, bootstrap, folds and forest.

    Returns
    -------
    `~astropy.table.QTable`
        One row a diagnostic, with ``value``, the ends ``low`` and ``high`` of its bootstrap
        interval, ``chance`` (what is to be expected without a shift: the mean under permutation, or
        for partners that of a blind choice), ``p_value`` of the permutation test, and a
        ``description``. Entries that do not apply are NaN. The diagnostics:

        - ``mmd2``, ``mmd2_linear``: squared maximum mean discrepancy [1]_, of all galaxies and in
          linear time;
        - ``auc_forest``, ``auc_logistic``: area under the ROC curve of classifiers that tell the
          surveys apart, cross-validated (the interval is that of the galaxies, for the classifiers
          as they were trained);
        - ``frechet``, ``coral``: squared Fréchet distance, and squared distance of covariances
          [2]_; like the next ones they are above zero for finite samples without a shift: value,
          interval and ``chance`` are all those to be expected for samples of this size;
        - ``ks_max``, ``ks_mean``: largest and mean Kolmogorov–Smirnov statistic of the latents;
          ``ks_shifted``: share of latents whose p-value, adjusted for the number of latents (see
          `latent_shifts`), is below 0.05; ``ks_latent_<j>``: the three largest;
        - with pairs: ``pair_distance``, median distance of the same galaxy over the median distance
          of different ones; ``recall1_a_to_b``, ``recall10_a_to_b``: share of the galaxies of the
          first survey whose partner is the nearest, or among the ten nearest, of all galaxies of
          the second; ``median_rank_a_to_b``: median place of the partner; and the same from b to a.

    Raises
    ------
    ValueError
        If an argument is out of range, the tables do not fit together, or hold too few galaxies.

    Warns
    -----
    MorphVAEWarning
        If ids are in both tables and ``pairs`` is not given.

    References
    ----------
    .. [1] Gretton et al. 2012, J. Mach. Learn. Res. 13, 723.
    .. [2] Sun & Saenko 2016, ECCV Workshops, LNCS 9915, 443.

    Examples
    --------
    >>> from astro_morphvae.analysis import domain_shift
    >>> table = domain_shift(latents, other_latents, pairs="id", seed=1)  # doctest: +SKIP
    >>> table.write("shift.ecsv")  # doctest: +SKIP
    """
    _check(n_permutations, n_bootstrap, confidence)
    samples = read_samples(latents_a, latents_b, pairs=pairs, features=features, scaling=scaling)
    if pairs is None:
        _warn_of_shared_ids(latents_a, latents_b)
    elif not len(samples.pairs):
        raise ValueError("pairs leaves no galaxy with good latents in both surveys")
    weights = draw_weights(samples, n_permutations, n_bootstrap, seed)
    table = _Rows(weights, confidence)

    gaussians = make_kernel(kernel, samples.x, seed)
    unbiased = kernel != "xu2023" if isinstance(kernel, str) else True
    values = mmd_values(samples, gaussians, weights.a, weights.b, unbiased=unbiased)
    table.add("mmd2", values, "squared maximum mean discrepancy", centred=not unbiased)
    _add_linear(table, samples, gaussians, n_bootstrap, seed)
    counted = np.r_[0, 1 + n_permutations : len(weights.a)]  # without permutations
    for name in ("forest", "logistic"):
        score, fold = fold_scores(samples, name, n_folds, seed, n_jobs)
        drawn = weights.a[counted], weights.b[counted]
        auc = weighted_auc(score, fold, *drawn, samples.pairs)
        text = f"area under the ROC curve of a {name} classifier of the survey"
        table.add_row(f"auc_{name}", auc[0], auc[1:], 0.5, np.nan, text)
    both = (*moments(samples.x, weights.a), *moments(samples.x, weights.b))
    table.add("frechet", frechet_values(*both), "squared Frechet distance", centred=True)
    table.add("coral", coral_values(*both), "CORAL distance of the covariances", centred=True)
    _add_latents(table, samples, weights)
    if len(samples.pairs):
        _add_partners(table, samples, weights, seed)

    out = table.table()
    out.meta = {
        "n_a": samples.n_a,
        "n_b": samples.n_b,
        "n_pairs": len(samples.pairs),
        "n_bad": len(latents_a) + len(latents_b) - len(samples.x),
        "features": features,
        "n_features": samples.x.shape[1],
        "scaling": scaling,
        "kernel": gaussians.name,
        "kernel_widths": [float(np.sqrt(width / 2)) for width in gaussians.widths],
        "unbiased": unbiased,
        "n_permutations": n_permutations,
        "n_bootstrap": n_bootstrap,
        "confidence": confidence,
        "n_folds": n_folds,
        "seed": seed,
        "models": [t.meta.get("model") for t in (latents_a, latents_b)],
        "version": __version__,
    }
    return out


def latent_shifts(
    latents_a, latents_b, *, pairs=None, features="z_mean", n_permutations=499, seed=0
):
    """Measure the shift of each latent by itself.

    Parameters
    ----------
    latents_a, latents_b, pairs, features, n_permutations, seed
        As for `domain_shift`.

    Returns
    -------
    `~astropy.table.QTable`
        One row a latent, the most shifted first: ``latent`` (its number), ``shift`` (mean in the
        second survey minus mean in the first, in units of the standard deviation in the first),
        ``spread`` (ratio of the standard deviations, second to first), ``ks``
        (Kolmogorov–Smirnov statistic) and ``p_value``, adjusted for the number of latents: the
        chance that any of them would have so large a statistic without a shift, by permutation
        [1]_.

    Raises
    ------
    ValueError
        As for `domain_shift`.

    References
    ----------
    .. [1] Westfall & Young 1993, Resampling-Based Multiple Testing (Wiley), section 2.3.
    """
    _check(n_permutations, 0, 0.95)
    samples = read_samples(latents_a, latents_b, pairs=pairs, features=features, scaling="none")
    weights = draw_weights(samples, n_permutations, 0, seed)
    observed, permuted, _ = weights.parts(ks_values(samples.x, weights.a, weights.b))
    a, b = samples.x[: samples.n_a], samples.x[samples.n_a :]
    scatter = a.std(axis=0, ddof=1)
    order = np.argsort(-observed, kind="stable")
    out = QTable()
    out["latent"] = order
    with np.errstate(divide="ignore", invalid="ignore"):
        out["shift"] = ((b.mean(axis=0) - a.mean(axis=0)) / scatter)[order]
        out["spread"] = (b.std(axis=0, ddof=1) / scatter)[order]
    out["ks"] = observed[order]
    out["p_value"] = adjusted_p_values(observed, permuted)[order]
    for name, form, text in (
        ("latent", None, "number of the latent"),
        ("shift", ".3f", "difference of the means over the standard deviation in the first"),
        ("spread", ".3f", "ratio of the standard deviations, second to first"),
        ("ks", ".3f", "Kolmogorov-Smirnov statistic"),
        ("p_value", ".3g", "adjusted for the number of latents"),
    ):
        out[name].info.format, out[name].info.description = form, text
    out.meta = {
        "n_a": samples.n_a,
        "n_b": samples.n_b,
        "n_pairs": len(samples.pairs),
        "features": features,
        "n_permutations": n_permutations,
        "seed": seed,
        "models": [t.meta.get("model") for t in (latents_a, latents_b)],
        "version": __version__,
    }
    return out


class _Rows:
    """Collects the rows of the table."""

    def __init__(self, weights, confidence):
        self.weights, self.confidence, self.rows = weights, confidence, []

    def add(self, name, values, text, *, centred=False):
        """Add a statistic known for the observed, the permuted and the bootstrap samples."""
        observed, permuted, resampled = self.weights.parts(values)
        chance = p_value = np.nan
        if len(permuted):
            chance = permuted.mean()
            # The sums of a permutation may differ by rounding from those they equal.
            above = permuted >= observed - _TIE * np.abs(permuted).max()
            p_value = (1 + above.sum()) / (1 + len(permuted))
        self.add_row(name, observed, resampled, chance, p_value, text, centred=centred)

    def add_row(self, name, value, resampled, chance, p_value, text, *, centred=False):
        low = high = np.nan
        if len(resampled):
            tail = 0.5 * (1 - self.confidence)
            low, high = np.quantile(resampled, [tail, 1 - tail])
            if centred:
                # Resampling adds once more to a distance that is never negative what sampling did.
                excess = np.mean(resampled) - value
                low, high = max(low - excess, 0), high - excess
        self.rows.append((name, *map(float, (value, low, high, chance, p_value)), text))

    def table(self):
        names = ("diagnostic", "value", "low", "high", "chance", "p_value", "description")
        out = QTable(rows=self.rows, names=names)
        for name, text in {
            "value": "the diagnostic",
            "low": "lower end of its bootstrap interval",
            "high": "upper end of its bootstrap interval",
            "chance": "expected without a shift; of partners, by a blind choice",
            "p_value": "chance of so large a value without a shift, by permutation",
        }.items():
            out[name].info.description, out[name].info.format = text, ".4g"
        return out


def _add_linear(table, samples, kernel, n_bootstrap, seed):
    terms = linear_terms(samples, kernel, seed)
    rng = np.random.default_rng([seed, 6])
    drawn = rng.multinomial(len(terms), np.full(len(terms), 1 / len(terms)), n_bootstrap)
    text = "squared maximum mean discrepancy in linear time"
    table.add_row("mmd2_linear", terms.mean(), drawn @ terms / len(terms), 0.0, np.nan, text)


def _add_latents(table, samples, weights):
    values = ks_values(samples.x, weights.a, weights.b)
    observed, permuted, resampled = weights.parts(values)
    table.add("ks_max", values.max(axis=1), "largest KS statistic of a latent", centred=True)
    table.add("ks_mean", values.mean(axis=1), "mean KS statistic of the latents", centred=True)
    p_values = np.full(len(observed), np.nan)
    if len(permuted):
        p_values = adjusted_p_values(observed, permuted)
    shifted = np.mean(p_values < SIGNIFICANT) if len(permuted) else np.nan
    text = f"share of latents with an adjusted p-value below {SIGNIFICANT}"
    table.add_row("ks_shifted", shifted, (), 0.0, np.nan, text)
    chance = permuted.mean(axis=0) if len(permuted) else np.full(len(observed), np.nan)
    for j in np.argsort(-observed, kind="stable")[:_N_LATENTS]:
        text = f"KS statistic of latent {j}, p-value adjusted for the number of latents"
        row = (observed[j], resampled[:, j], chance[j], p_values[j])
        table.add_row(f"ks_latent_{j}", *row, text, centred=True)


def _add_partners(table, samples, weights, seed):
    one, two = samples.pairs.T
    drawn = weights.bootstrap[0][:, one]
    distance = np.sqrt(np.sum((samples.x[one] - samples.x[two]) ** 2, axis=1))
    ratio = distance / distance_of_strangers(samples, seed)
    text = "median distance of the same galaxy over that of different galaxies"
    table.add_row("pair_distance", np.median(ratio), _medians(ratio, drawn), 1.0, np.nan, text)
    a, b = samples.x[: samples.n_a], samples.x[samples.n_a :]
    for x, y, rows_x, rows_y, way in (
        (a, b, one, two - samples.n_a, "a_to_b"),
        (b, a, two - samples.n_a, one, "b_to_a"),
    ):
        ranks = partner_ranks(x, y, rows_x, rows_y)
        for k in (1, 10):
            found = (ranks <= k).astype(float)
            text = f"share of galaxies whose partner is among the {k} nearest of {len(y)}"
            text = text.replace("among the 1 nearest", "the nearest")
            chance = min(k / len(y), 1)
            boot = drawn @ found / len(found)
            table.add_row(f"recall{k}_{way}", found.mean(), boot, chance, np.nan, text)
        text = f"median place of the partner among {len(y)}"
        chance = 0.5 * (len(y) + 1)
        boot = _medians(ranks, drawn)
        table.add_row(f"median_rank_{way}", np.median(ranks), boot, chance, np.nan, text)


def _medians(values, counts):
    """Return the median of each sample of values, given how often it holds each."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[:, order], axis=1)
    half = 0.5 * below[:, -1:]
    upper = values[order][np.argmax(below > half, axis=1)]
    lower = values[order][np.argmax(below >= half, axis=1)]
    return 0.5 * (lower + upper)


def _check(n_permutations, n_bootstrap, confidence):
    for name, value in (("n_permutations", n_permutations), ("n_bootstrap", n_bootstrap)):
        if int(value) != value or value < 0:
            raise ValueError(f"{name} must be a whole number, at least 0, not {value!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence!r}")


def _warn_of_shared_ids(latents_a, latents_b):
    if not all("id" in table.colnames for table in (latents_a, latents_b)):
        return
    shared = np.intersect1d(*(np.asarray(t["id"]).astype(str) for t in (latents_a, latents_b)))
    if len(shared):
        warnings.warn(
            f"{len(shared)} ids, such as {str(shared[0])!r}, are in both tables: if they are the "
            "same galaxies, give pairs='id', or classifiers, p-values and intervals will be wrong",
            MorphVAEWarning,
            stacklevel=3,
        )
