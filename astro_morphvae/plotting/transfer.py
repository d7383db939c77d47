"""What a classifier loses when it is taken to another survey, and what adaptation gives back."""

import numpy as np

from .._optional import import_optional
from ._axes import COLOURS, MARKERS, NEUTRAL

__all__ = ["plot_transfer"]

_MEAN = "mean"  # name of the line that holds the mean over questions


def plot_transfer(table, *, score="balanced_accuracy", questions=None, axes=None):
    """Show scores within and across surveys, for each question and representation.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Returned by `~astro_morphvae.morphology.evaluate_transfer`, or read back from a file.
    score : {"accuracy", "balanced_accuracy", "macro_f1", "ece"}
        The score.
    questions : sequence of str, optional
        Questions to show, in this order; all, and their mean, by default.
    axes : sequence of `~matplotlib.axes.Axes`, optional
        One for each survey that is tested on; a new figure by default.

    Returns
    -------
    list of `~matplotlib.axes.Axes`
        A panel for each survey tested on. In a line of each question: filled marks for classifiers
        trained on the same survey, open ones for those from another, one colour a representation,
        with bootstrap intervals; a grey line where always giving the most frequent label would
        lie.

    Raises
    ------
    ValueError
        If ``score`` or ``questions`` are not in the table, or the number of Axes is wrong.
    """
    plt = import_optional("matplotlib.pyplot", needed_for="plot_transfer")
    known = [c.removesuffix("_scatter") for c in table.colnames if c.endswith("_scatter")]
    if score not in known:
        raise ValueError(f"score={score!r} is none of {known}")
    column = {name: np.asarray(table[name]) for name in table.colnames}
    every = list(dict.fromkeys(column["question"].tolist()))
    questions = every if questions is None else list(questions)
    lacking = set(questions) - set(every)
    if lacking:
        raise ValueError(f"questions={sorted(lacking)} are none of {every}")
    surveys = list(dict.fromkeys(column["test"].tolist()))
    if axes is None:
        height = 1.5 + 0.17 * len(questions) * _n_series(column, surveys[0])
        figure = plt.figure(figsize=(3.9 * len(surveys) + 1.4, height), layout="constrained")
        axes = figure.subplots(1, len(surveys), sharex=True, sharey=True)
    axes = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(axes) != len(surveys):
        raise ValueError(f"axes holds {len(axes)} Axes; one for each of {surveys} is needed")
    for ax, survey in zip(axes, surveys, strict=True):
        _draw_survey(ax, column, score, questions, survey)
        ax.set_xlabel(score.replace("_", " ") if score != "ece" else "expected calibration error")
    axes[0].set_yticks(range(len(questions)), questions)
    axes[0].set_ylim(len(questions) - 0.5, -0.5)
    return axes


def _n_series(column, survey):
    return len(_series(column, survey))


def _series(column, survey):
    """Return the combinations of survey trained on and representation, within first."""
    rows = column["test"] == survey
    keys = dict.fromkeys(
        zip(column["train"][rows].tolist(), column["representation"][rows].tolist(), strict=True)
    )
    return sorted(keys, key=lambda key: key[0] != survey)


def _draw_survey(ax, column, score, questions, survey):
    series = _series(column, survey)
    names = list(dict.fromkeys(column["representation"].tolist()))
    step = 0.78 / len(series)
    for k, (train, name) in enumerate(series):
        offset = (k - 0.5 * (len(series) - 1)) * step
        rows = (column["test"] == survey) & (column["train"] == train)
        rows &= column["representation"] == name
        place = {q: i for i, q in enumerate(questions)}
        shown = [i for i in np.flatnonzero(rows) if column["question"][i] in place]
        y = np.array([place[column["question"][i]] for i in shown]) + offset
        value, low, high = (column[score + end][shown] for end in ("", "_low", "_high"))
        colour = COLOURS[names.index(name) % len(COLOURS)]
        within = train == survey
        known = np.isfinite(value)
        ax.errorbar(
            value[known],
            y[known],
            xerr=np.clip([(value - low)[known], (high - value)[known]], 0, None),
            fmt=MARKERS[names.index(name) % len(MARKERS)],
            ms=5.5,
            color=colour,
            mfc=colour if within else "white",
            mew=1.4,
            elinewidth=1.1,
            label=f"{'within' if within else f'from {train}'}, {name}",
            zorder=3,
        )
        if k == 0 and f"majority_{score}" in column:
            for i in shown:
                majority, line = column[f"majority_{score}"][i], place[column["question"][i]]
                ax.plot([majority] * 2, [line - 0.42, line + 0.42], color=NEUTRAL, lw=2, zorder=1)
    for line in range(1, len(questions)):
        colour = "#909090" if questions[line] == _MEAN else "#E6E6E6"
        ax.axhline(line - 0.5, color=colour, lw=0.8, zorder=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.3,
        columnspacing=1.0,
    )
    # Above the legend, whose height is known in points and not as a share of the panel.
    ax.set_title(f"tested on {survey}", fontsize=11, pad=10 + 15 * -(-len(series) // 2))
