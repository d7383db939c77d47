"""How good labels and their probabilities are: confusion matrix and reliability diagram."""

import numpy as np

from ._axes import COLOURS, NEUTRAL, make_axes

__all__ = ["plot_confusion", "plot_reliability"]


def plot_confusion(counts, labels, *, title=None, ax=None):
    """Show a confusion matrix: shares of each true label, and numbers of galaxies.

    Parameters
    ----------
    counts : (k, k) array of int
        Galaxies by true label (row) and label given (column), as from
        `~astro_morphvae.morphology.confusion_counts`.
    labels : sequence of str
        The k labels.
    title : str, optional
        Title, such as the question.
    ax : `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.

    Returns
    -------
    `~matplotlib.axes.Axes`
        The matrix, coloured by the share of each row.

    Raises
    ------
    ValueError
        If ``counts`` is not (k, k).
    """
    counts, labels = np.asarray(counts), list(labels)
    k = len(labels)
    if counts.shape != (k, k) or k == 0:
        raise ValueError(f"counts has shape {counts.shape} for {k} labels; ({k}, {k}) is needed")
    ax = make_axes(ax, "plot_confusion", (1.9 + 0.85 * k, 1.5 + 0.85 * k))
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(share):
        text = f"{100 * value:.0f} %\n{counts[i, j]}" if total[i] else "–"
        colour = "white" if value > 0.55 else "#202020"
        ax.text(j, i, text, ha="center", va="center", color=colour, size=9, linespacing=1.35)
    long = max(map(len, labels)) > 8 or k > 4
    rotation = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set_xticks(range(k), labels, **rotation)
    ax.set_yticks(range(k), labels)
    ax.set_xlabel("label given")
    ax.set_ylabel("label by votes")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    # White lines between the cells.
    ax.set_xticks(np.arange(k - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(k - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=2)
    ax.tick_params(which="minor", length=0)
    if title:
        ax.set_title(title)
    return ax


def plot_reliability(confidence, correct, *, n_bins=10, label=None, title=None, ax=None):
    """Show how often labels given with some probability are right.

    Parameters
    ----------
    confidence : (n,) array of float
        Probability with which each label was given.
    correct : (n,) array of bool
        Whether it was right; both as from `~astro_morphvae.morphology.label_confidence`.
    n_bins : int
        Number of bins between 0 and 1.
    label : str, optional
        Name in the legend, for several curves on one Axes.
    title : str, optional
        Title.
    ax : `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.

    Returns
    -------
    `~matplotlib.axes.Axes`
        Accuracy against mean probability in bins, with the standard errors of the binomial
        proportion (Wilson's 1σ interval), the diagonal of perfect calibration, and below it how
        many galaxies fall in each bin.

    Raises
    ------
    ValueError
        If the arrays differ in length or are empty.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(
            f"confidence and correct have shapes {confidence.shape} and {correct.shape}; "
            "both must be (n,), n > 0"
        )
    ax = make_axes(ax, "plot_reliability", (4.8, 4.6))
    first = not ax.lines
    colour = COLOURS[(len(ax.lines) - 1) % len(COLOURS) if not first else 0]
    if first:
        ax.plot([0, 1], [0, 1], color=NEUTRAL, lw=1, ls="--", zorder=1)
    index = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    n = np.bincount(index, minlength=n_bins)
    used = n > 0
    mean = np.bincount(index, confidence, n_bins)[used] / n[used]
    share = np.bincount(index, correct, n_bins)[used] / n[used]
    low, high = _wilson(share, n[used])
    ax.errorbar(
        mean,
        share,
        yerr=np.clip([share - low, high - share], 0, None),
        color=colour,
        marker="o",
        ms=5,
        lw=1.5,
        elinewidth=1,
        label=label,
        zorder=3,
    )
    edges = np.linspace(0, 1, n_bins + 1)
    ax.bar(
        edges[:-1],
        0.18 * n / n.max(),
        width=1 / n_bins,
        align="edge",
        color=colour,
        alpha=0.22,
        lw=0,
        zorder=0,
    )
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.set_box_aspect(1)
    ax.set_xlabel("probability of the label given")
    ax.set_ylabel("share of labels that are right")
    if label:
        ax.legend(loc="upper left", frameon=False, fontsize=9)
    if title:
        ax.set_title(title)
    return ax


def _wilson(share, n):
    """Return the 1σ interval of a binomial proportion (Wilson 1927, JASA 22, 209)."""
    centre = (share + 0.5 / n) / (1 + 1 / n)
    half = np.sqrt(share * (1 - share) / n + 0.25 / n**2) / (1 + 1 / n)
    return centre - half, centre + half
