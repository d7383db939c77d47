"""Two surveys of the same sky: what sets their latents apart, galaxy by galaxy and at a glance."""

import numpy as np
from astropy import units as u

from .._optional import import_optional
from ..cutouts import as_cutout_set
from ._axes import COLOURS, make_axes
from ._colour import fit_scale
from .images import _caption, _picture
from .latents import _frame

__all__ = ["plot_domain_shift", "plot_survey_pairs"]

_GAP = 0.04  # between the two pictures of a galaxy, as a share of their width
_SPACE = 0.42  # between the most and the least alike
_N_LINES = 100  # pairs that are joined in the map


def plot_survey_pairs(
    first,
    second,
    ranking,
    *,
    n=6,
    names=("first survey", "second survey"),
    captions="ratio",
    bands=None,
    ax=None,
):
    """Show the galaxies whose latents are most and least alike in two surveys.

    Parameters
    ----------
    first, second : CutoutSet
        The surveys, row-aligned with the tables of latents that were ranked.
    ranking : `~astropy.table.Table`
        Returned by `~astro_morphvae.analysis.rank_pairs`.
    n : int
        Number of galaxies at each end of the ranking.
    names : (str, str)
        Names of the surveys.
    captions : str or None
        Column of ``ranking`` to write on the pictures: "ratio", the distance of the latents over
        the median distance of different galaxies, "id", "rank_b", …
    bands : sequence of str, optional
        Bands to show as red, green and blue, see `plot_cutouts`.
    ax : `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.

    Returns
    -------
    `~matplotlib.axes.Axes`
        One column a galaxy, the first survey above the second: on the left the most alike, on the
        right the least. Each survey has a stretch of its own; where both pixel scales are known,
        both pictures show the same part of the sky.

    Raises
    ------
    ValueError
        If ``ranking`` is empty, lacks a column, or names rows that the cutouts do not have.
    """
    sets = as_cutout_set(first), as_cutout_set(second)
    needed = ["row_a", "row_b", *([captions] if captions else [])]
    lacking = [name for name in needed if name not in ranking.colnames]
    if lacking or not len(ranking):
        raise ValueError(
            f"ranking has {len(ranking)} rows and no column {lacking}; it must come from rank_pairs"
        )
    for name, cutouts, column in zip(("first", "second"), sets, ("row_a", "row_b"), strict=True):
        if np.max(ranking[column]) >= len(cutouts):
            raise ValueError(
                f"ranking names row {np.max(ranking[column])} of {name}, which has {len(cutouts)}"
            )
    n = min(n, max(len(ranking) // 2, 1))
    if n < 1:
        raise ValueError("n must be at least 1")
    places = np.unique(np.r_[:n, len(ranking) - n : len(ranking)])
    ax = make_axes(ax, "plot_survey_pairs", (1.35 * len(places) + 1.0, 3.4))

    windows = _same_sky(*sets)
    scales = [fit_scale(cutouts, bands) for cutouts in sets]
    left = [i * (1 + _GAP) + (_SPACE if i >= n else 0) for i in range(len(places))]
    for i, place in enumerate(places):
        for line, (cutouts, scale, window, column) in enumerate(
            zip(sets, scales, windows, ("row_a", "row_b"), strict=True)
        ):
            row = int(ranking[column][place])
            bottom = (1 - line) * (1 + _GAP)
            extent = (left[i], left[i] + 1, bottom, bottom + 1)
            pixels = np.asarray(cutouts.data[row : row + 1])[(..., *window)]
            _picture(ax, scale(pixels)[0], extent, cutouts, row)
            if captions and line == 0:
                _caption(ax, extent, _text(ranking[captions][place]))
    _label_pairs(ax, left, n, names)
    if captions:
        ax.set_xlabel(ranking[captions].info.description or captions, size=9, color="#555555")
    return ax


def plot_domain_shift(
    latents_a,
    latents_b,
    *,
    names=("first survey", "second survey"),
    pairs=None,
    features="z_mean",
    n_latents=6,
    n_permutations=199,
    seed=0,
    axes=None,
):
    """Show at a glance how the latents of two surveys differ.

    Parameters
    ----------
    latents_a, latents_b : `~astropy.table.QTable`
        Latents of the two surveys.
    names : (str, str)
        Names of the surveys.
    pairs : None, "id", "rows" or (k, 2) array of int
        Which rows are the same galaxy, see `~astro_morphvae.analysis.domain_shift`; lines join some
        of them in the map.
    features : str
        Column of latents, (n, d).
    n_latents : int
        Number of latents shown, those with the largest Kolmogorov–Smirnov statistic.
    n_permutations : int
        Number of permutations for their p-values.
    seed : int
        Seed of the permutations, and of the choice of galaxies that are joined.
    axes : sequence of `~matplotlib.axes.Axes`, optional
        One for the map and one for each latent; a new figure by default.

    Returns
    -------
    list of `~matplotlib.axes.Axes`
        First the map: both surveys along the first two principal components of all galaxies. Then
        the distributions of the most shifted latents, with the statistic and its p-value adjusted
        for the number of latents.

    Raises
    ------
    ValueError
        If the tables do not fit together, or the number of Axes is wrong.
    """
    plt = import_optional("matplotlib.pyplot", needed_for="plot_domain_shift")
    from ..analysis import latent_shifts
    from ..analysis._samples import read_samples

    samples = read_samples(latents_a, latents_b, pairs=pairs, features=features, scaling="none")
    n_latents = min(n_latents, samples.x.shape[1])
    shifts = latent_shifts(
        latents_a,
        latents_b,
        pairs=pairs,
        features=features,
        n_permutations=n_permutations,
        seed=seed,
    )[:n_latents]
    if axes is None:
        columns = -(-n_latents // 2)
        figure = plt.figure(figsize=(4.6 + 1.9 * columns, 4.4), layout="constrained")
        grid = figure.add_gridspec(2, 1 + columns, width_ratios=[4.6, *[1.9] * columns])
        axes = [figure.add_subplot(grid[:, 0])]
        axes += [figure.add_subplot(grid[k // columns, 1 + k % columns]) for k in range(n_latents)]
    axes = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(axes) != 1 + n_latents:
        raise ValueError(f"axes holds {len(axes)} Axes; {1 + n_latents} are needed")
    _draw_map(axes[0], samples, names, seed)
    for ax, row in zip(axes[1:], shifts, strict=True):
        _draw_latent(ax, samples, row, n_permutations)
    return axes


def _same_sky(first, second):
    """Return the window of either set, (2,) slices each, that shows what both have."""
    full = [(slice(None), slice(None))] * 2
    if first.pixel_scale is None or second.pixel_scale is None:
        return full
    scale = [np.ravel(c.pixel_scale.to_value(u.arcsec))[0] for c in (first, second)]
    windows = []
    for cutouts, own in zip((first, second), scale, strict=True):
        window = []
        for axis in (0, 1):
            width = min(c.size[axis] * s for c, s in zip((first, second), scale, strict=True))
            kept = min(max(round(width / own), 1), cutouts.size[axis])
            start = (cutouts.size[axis] - kept) // 2
            window.append(slice(start, start + kept))
        windows.append(tuple(window))
    return windows


def _text(value):
    return f"{value:.2g}" if isinstance(value, (float, np.floating)) else str(value)


def _label_pairs(ax, left, n, names):
    width, height = left[-1] + 1, 2 + _GAP
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([1.5 + _GAP, 0.5], names, rotation=90, va="center")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ends = [(left[:n], "most alike"), (left[n:], "least alike")]
    for places, text in ends:
        if places:
            middle = 0.5 * (places[0] + places[-1] + 1)
            ax.text(middle, height + 0.06, text, ha="center", va="bottom", size=11)


def _draw_map(ax, samples, names, seed):
    axis = np.linalg.eigh(samples.x.T @ samples.x)
    order = np.argsort(axis[0])[::-1][:2]
    xy = samples.x @ axis[1][:, order]
    if xy.shape[1] < 2:
        xy = np.column_stack([xy[:, 0], np.zeros(len(xy))])
    share = 100 * axis[0][order] / max(axis[0].sum(), 1e-300)
    low, high = _frame(xy)
    # Neither survey hides the other: points are drawn in random order, with one colour each.
    rng = np.random.default_rng([seed, 7])
    drawn = rng.permutation(len(xy))
    second = drawn >= samples.n_a
    size = float(np.clip(6000 / len(xy), 2, 22))
    ax.scatter(
        *xy[drawn].T,
        c=np.array(COLOURS, dtype=object)[second.astype(int)].tolist(),
        s=size,
        linewidths=0,
        alpha=0.6,
        rasterized=len(xy) > 5000,
    )
    if len(samples.pairs):
        joined = rng.permutation(samples.pairs)[:_N_LINES]
        ends = xy[joined].transpose(1, 2, 0)
        ax.plot(*np.moveaxis(ends, 1, 0), color="#404040", lw=0.5, alpha=0.5, zorder=1.5)
    for k, rows in enumerate((slice(None, samples.n_a), slice(samples.n_a, None))):
        n = len(xy[rows])
        ax.plot([], [], "o", ms=6, color=COLOURS[k], label=f"{names[k]} ({n})")
        ax.plot(*xy[rows].mean(axis=0), "o", ms=11, mfc=COLOURS[k], mec="white", mew=2, zorder=4)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    labels = [f"principal component {i + 1} ({s:.0f} %)" for i, s in enumerate(share)]
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1] if len(labels) > 1 else "")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, handletextpad=0.2
    )


def _draw_latent(ax, samples, row, n_permutations):
    values = samples.x[:, row["latent"]]
    low, high = np.percentile(values, [0.2, 99.8])
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 33)
    for k, rows in enumerate((slice(None, samples.n_a), slice(samples.n_a, None))):
        ax.hist(values[rows], edges, density=True, color=COLOURS[k], alpha=0.28)
        ax.hist(values[rows], edges, density=True, color=COLOURS[k], histtype="step", lw=1.3)
    p_value, smallest = row["p_value"], 1 / (1 + n_permutations)
    sign = "≤" if p_value < 1.001 * smallest else "="
    ax.set_title(f"latent {row['latent']}\nKS {row['ks']:.2f}, p {sign} {p_value:.2g}", fontsize=9)
    ax.set_yticks([])
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
