"""Scores of many classifiers on the same galaxies: resampled together, compared, and laid out."""

from dataclasses import dataclass

import numpy as np
from astropy.table import QTable

from .metrics import SCORES, ScoreSums, bootstrap_weights, interval

__all__ = [
    "MAJORITY",
    "MEAN",
    "Scored",
    "complete_questions",
    "make_rows",
    "make_table",
    "mcnemar_test",
    "resample",
]

MEAN = "mean"
"""Name of the rows that hold the mean over questions."""

MAJORITY = ("accuracy", "balanced_accuracy", "macro_f1")
"""Scores that the majority baseline is given for."""

_GAP_SCORE = "balanced_accuracy"
_NONE_DISCORDANT = {"n_gained": 0, "n_lost": 0, "mcnemar_p": np.nan}


@dataclass(frozen=True)
class Scored:
    """Labels of the test galaxies of one question, seed, representation and couple of surveys."""

    galaxies: np.ndarray
    correct: np.ndarray
    sums: ScoreSums
    majority: dict
    n_train: int


def mcnemar_test(correct_before, correct_after):
    """Test whether one classifier is right more often than another on the same galaxies [1]_.

    Parameters
    ----------
    correct_before, correct_after : (n,) array of bool
        Whether each galaxy was labelled rightly.

    Returns
    -------
    n_gained, n_lost : int
        Galaxies right only after, and right only before.
    p_value : float
        Two-sided, by the exact binomial distribution, which holds for small counts too.

    Raises
    ------
    ValueError
        If the arrays differ in length.

    References
    ----------
    .. [1] McNemar 1947, Psychometrika 12, 153.
    """
    before, after = np.asarray(correct_before, bool), np.asarray(correct_after, bool)
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(
            f"correct_before and correct_after have shapes {before.shape} and {after.shape}; "
            "both must be (n,)"
        )
    from scipy.stats import binomtest

    gained, lost = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return gained, lost, float(p_value)


def resample(scored, n, n_bootstrap, seed):
    """Score everything, as observed and in the same bootstrap samples of all galaxies.

    Parameters
    ----------
    scored : dict of tuple to list of Scored
        One list for each question, representation, survey trained on and survey tested on, with an
        entry a seed.
    n : int
        Number of galaxies.
    n_bootstrap : int
        Number of bootstrap samples.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict of tuple to dict of str to (n_seed, 1 + n_bootstrap) array
        Each of the scores; the first column is that of the galaxies as they are.
    """
    tested = np.zeros(n, dtype=bool)
    for items in scored.values():
        for item in items:
            tested[item.galaxies] = True
    place = np.cumsum(tested) - 1
    weights = np.ones((1 + n_bootstrap, int(tested.sum())), dtype=np.float32)
    weights[1:] = bootstrap_weights(weights.shape[1], n_bootstrap, seed)
    out = {}
    for key, items in scored.items():
        values = [item.sums.evaluate(weights[:, place[item.galaxies]]) for item in items]
        out[key] = {score: np.stack([v[score] for v in values]) for score in SCORES}
    return out


def complete_questions(data, scored, n_seeds):
    """Find the questions that every classifier of every seed could be scored on.

    Parameters
    ----------
    data : namespace
        As read by `evaluate_transfer`.
    scored : dict
        See `resample`.
    n_seeds : int
        Number of seeds.

    Returns
    -------
    list of str
        Their names.
    """
    couples = [
        (name, train, test)
        for name in data.tables
        for train in data.surveys
        for test in data.surveys
    ]
    return [
        question
        for question in data.questions
        if all(len(scored.get((question, *couple), ())) == n_seeds for couple in couples)
    ]


def make_rows(data, scored, samples, reference, ceiling, confidence):
    """Lay scores out, with intervals, gains and tests; the mean over questions comes last.

    Parameters
    ----------
    data : namespace
        As read by `evaluate_transfer`.
    scored, samples : dict
        See `resample`; the mean over questions is added to ``samples``.
    reference, ceiling, confidence
        See `evaluate_transfer`.

    Returns
    -------
    list of dict
        The rows.
    """
    n_seeds = max(map(len, scored.values()), default=0)
    complete = complete_questions(data, scored, n_seeds)
    couples = [(train, test) for train in data.surveys for test in data.surveys]
    if complete:
        for name in data.tables:
            for couple in couples:
                parts = [samples[question, name, *couple] for question in complete]
                samples[MEAN, name, *couple] = {
                    score: np.mean([part[score] for part in parts], axis=0) for score in SCORES
                }
    rows = []
    for question in [*data.questions, *([MEAN] if complete else [])]:
        for name in data.tables:
            for train, test in couples:
                key = (question, name, train, test)
                against = (question, reference, train, test)
                row = {"question": question, "representation": name, "train": train, "test": test}
                row["kind"] = "within" if train == test else "cross"
                items = scored.get(key, [])
                if question == MEAN:
                    items = [item for q in complete for item in scored[q, name, train, test]]
                row |= _numbers(items, 0 if question == MEAN else None, samples.get(key))
                row |= _scores(samples.get(key), confidence)
                for score in MAJORITY:
                    values = [item.majority[score] for item in items]
                    row[f"majority_{score}"] = float(np.mean(values)) if values else np.nan
                row |= _gains(samples.get(key), samples.get(against), confidence)
                if question == MEAN:
                    row |= _summed(rows, complete, (name, train, test))
                elif name != reference:
                    row |= _discordant(scored.get(key, []), scored.get(against, []))
                else:
                    row |= _NONE_DISCORDANT
                within = (question, reference, *(2 * [train if ceiling == "train" else test]))
                gap = (samples.get(key), samples.get(against), samples.get(within))
                row |= _gap(*gap, confidence, row["kind"] == "cross")
                rows.append(row)
    return rows


def _numbers(items, n_classes, values):
    n_seeds = 0 if values is None else len(values["accuracy"])
    galaxies = [item.galaxies for item in items]
    if n_classes is None:
        n_classes = items[0].sums.n_classes if items else 0
    return {
        "n_classes": n_classes,
        "n_seeds": n_seeds,
        "n_train": round(sum(item.n_train for item in items) / max(n_seeds, 1)),
        "n_test": round(sum(map(len, galaxies)) / max(n_seeds, 1)),
        "n_galaxies": len(np.unique(np.concatenate(galaxies))) if items else 0,
    }


def _scores(values, confidence):
    row = {}
    for score in SCORES:
        mean, scatter, low, high = np.full(4, np.nan)
        if values is not None:
            mean = values[score][:, 0].mean()
            low, high = interval(
                mean, values[score][:, 1:].mean(axis=0), confidence, pivotal=score == "ece"
            )
            if len(values[score]) > 1:
                scatter = values[score][:, 0].std(ddof=1)
        row |= {
            score: mean,
            f"{score}_low": low,
            f"{score}_high": high,
            f"{score}_scatter": scatter,
        }
    return row


def _gains(values, against, confidence):
    row = {}
    for score in SCORES:
        gain, low, high = np.full(3, np.nan)
        if values is not None and against is not None:
            difference = values[score].mean(axis=0) - against[score].mean(axis=0)
            gain = difference[0]
            low, high = interval(gain, difference[1:], confidence)
        row |= {f"{score}_gain": gain, f"{score}_gain_low": low, f"{score}_gain_high": high}
    return row


def _discordant(items, against):
    if not items or not against:
        return _NONE_DISCORDANT
    before, after, counted = [], [], np.zeros(0, dtype=int)
    for item, other in zip(items, against, strict=True):
        new = ~np.isin(item.galaxies, counted)
        counted = np.concatenate([counted, item.galaxies[new]])
        before.append(other.correct[new])
        after.append(item.correct[new])
    values = mcnemar_test(np.concatenate(before), np.concatenate(after))
    return dict(zip(_NONE_DISCORDANT, values, strict=True))


def _summed(rows, questions, key):
    """Sum discordant galaxies over questions; they are not independent, so without a p-value."""
    mine = [r for r in rows if (r["representation"], r["train"], r["test"]) == key]
    mine = [r for r in mine if r["question"] in questions]
    return _NONE_DISCORDANT | {n: sum(r[n] for r in mine) for n in ("n_gained", "n_lost")}


def _gap(values, against, within, confidence, is_cross):
    share = low = high = np.nan
    if is_cross and None not in (values, against, within):
        values, against, within = (v[_GAP_SCORE].mean(axis=0) for v in (values, against, within))
        if within[0] > against[0]:
            share = (values[0] - against[0]) / (within[0] - against[0])
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn = (values - against) / (within - against)
            low, high = interval(share, drawn[1:], confidence)
    return {"gap_recovered": share, "gap_recovered_low": low, "gap_recovered_high": high}


def make_table(rows):
    """Make a table of rows, with formats and descriptions.

    Parameters
    ----------
    rows : list of dict
        From `make_rows`.

    Returns
    -------
    `~astropy.table.QTable`
        The table.
    """
    out = QTable(rows=rows)
    for score, text in SCORES.items():
        out[score].info.description = text
    for name, text in {
        "representation": "what the classifier was given",
        "train": "survey trained on",
        "test": "survey tested on",
        "n_test": "labelled galaxies tested in one seed",
        "n_galaxies": "different galaxies tested in all seeds",
        "n_gained": "galaxies right here and wrong in the reference",
        "n_lost": "galaxies wrong here and right in the reference",
        "mcnemar_p": "two-sided exact p-value of n_gained and n_lost being alike",
        "gap_recovered": "gain in balanced accuracy over the gap to the ceiling",
    }.items():
        out[name].info.description = text
    for column in out.itercols():
        if column.dtype.kind == "f":
            column.info.format = ".3g" if column.info.name == "mcnemar_p" else ".3f"
    return out
