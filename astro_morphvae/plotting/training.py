"""How a fit went: loss, its two terms and the learning rate by epoch."""

import numpy as np

from .._optional import import_optional
from ._axes import COLOURS

__all__ = ["plot_training"]

_PANELS = {
    "loss": "loss per galaxy",
    "reconstruction": "reconstruction term",
    "kl": "KL divergence",
    "learning_rate": "learning rate",
}


def plot_training(fit_info, *, ax=None):
    """Show the history of a fit.

    Parameters
    ----------
    fit_info : dict
        ``LatentModel.fit_info``, or its ``"history"``: lists with one value an epoch.
    ax : `~matplotlib.axes.Axes` or array of 4 of them, optional
        Where to draw: one takes the loss; four take the loss, the reconstruction term, the
        Kullback–Leibler divergence and the learning rate. A new figure of four by default.

    Returns
    -------
    `~matplotlib.axes.Axes` or (2, 2) array of them
        As given, or new.

    Raises
    ------
    ValueError
        If the history is empty, or ``ax`` is neither one nor four.
    """
    plt = import_optional("matplotlib.pyplot", needed_for="plot_training")
    history = fit_info.get("history", fit_info)
    if not history.get("loss"):
        raise ValueError("fit_info holds no history of the loss")
    if ax is None:
        figure = plt.figure(figsize=(7.6, 5.2), layout="constrained")
        ax = figure.subplots(2, 2, sharex=True)
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) not in (1, len(_PANELS)):
        raise ValueError(f"ax holds {len(axes)} Axes; one or {len(_PANELS)} are needed")
    best = fit_info.get("best_epoch") if history is not fit_info else None
    for panel, (name, title) in zip(axes, _PANELS.items(), strict=False):
        _draw(panel, history, name, title, best)
    bottom = axes[2:] if len(axes) > 1 else axes
    for panel in bottom:
        panel.set_xlabel("epoch")
    return ax


def _draw(ax, history, name, title, best):
    curves = [(name, "training", COLOURS[0], "-"), (f"val_{name}", "validation", COLOURS[5], "-")]
    top, bottom = [], []
    for key, label, colour, style in curves:
        values = _numbers(history.get(key))
        if values is None:
            continue
        epochs = np.arange(1, len(values) + 1)
        ax.plot(epochs, values, style, color=colour, label=label, lw=1.6, marker=_marker(values))
        finite = values[np.isfinite(values)]
        if finite.size:
            bottom.append(finite.min())
            # The first epochs of a fit dwarf all that follows: they may leave the frame.
            settled = finite[len(finite) // 8 :]
            top.append(max(settled.max(), np.min(finite) + 1.5 * np.ptp(settled)))
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E6E6E6", lw=0.7)
    ax.set_axisbelow(True)
    ax.locator_params(axis="x", integer=True)
    if name == "learning_rate":
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        beta = _numbers(history.get("beta"))
        if beta is not None and np.ptp(beta) > 0:
            twin = ax.twinx()
            twin.plot(np.arange(1, len(beta) + 1), beta, "--", color=COLOURS[2], lw=1.4)
            twin.set_ylabel("β (dashed)", color=COLOURS[2])
            twin.set_ylim(bottom=0)
            twin.spines[["top"]].set_visible(False)
        return
    if top and max(top) > min(bottom):
        room = 0.06 * (max(top) - min(bottom))
        ax.set_ylim(min(bottom) - room, max(top) + room)
    if name == "loss":
        if best is not None:
            ax.axvline(best, color="#808080", lw=1, ls=":", label="best epoch")
        ax.legend(frameon=False, fontsize=9)


def _numbers(values):
    """Return values as floats, NaN for None; or None if there is nothing to draw."""
    if not values or all(value is None for value in values):
        return None
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _marker(values):
    return "o" if len(values) == 1 else None
