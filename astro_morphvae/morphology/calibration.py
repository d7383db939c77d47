"""Calibration of class probabilities, learned on galaxies that the classifier did not see.

Calibrators are plain numbers and arrays, so that they are saved without further ado.
"""

import numpy as np

__all__ = ["apply_calibration", "fit_calibration", "unseen_probabilities"]

_FLOOR = 1e-4  # below this a forest's vote share says "never seen", not a probability


def fit_calibration(method, probabilities, true):
    """Learn the map from raw to calibrated probabilities.

    Parameters
    ----------
    method : {"isotonic", "temperature"} or None
        A monotonic step per class, one class against the rest, then normalised [1]_; or one
        exponent for all classes, which keeps the ranking [2]_; or nothing.
    probabilities : (n, k) array
        Raw probabilities of galaxies that were not trained on.
    true : (n,) array of int
        Their classes.

    Returns
    -------
    dict
        The calibrator, for `apply_calibration`.

    Raises
    ------
    ValueError
        If the method is unknown.

    References
    ----------
    .. [1] Zadrozny & Elkan 2002, Proc. 8th ACM SIGKDD, 694.
    .. [2] Guo et al. 2017, Proc. 34th Int. Conf. on Machine Learning, 1321 (arXiv:1706.04599).
    """
    if method is None:
        return {"method": "none"}
    if method == "temperature":
        return {"method": method, "temperature": _fit_temperature(probabilities, true)}
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        knots = []
        for k, raw in enumerate(probabilities.T):
            fit = IsotonicRegression(y_min=0, y_max=1).fit(raw, true == k)
            knots.append([fit.X_thresholds_.astype(float), fit.y_thresholds_.astype(float)])
        return {"method": method, "knots": knots}
    raise ValueError(f"calibration={method!r} is none of 'isotonic', 'temperature' and None")


def apply_calibration(calibrator, probabilities):
    """Calibrated probabilities.

    Parameters
    ----------
    calibrator : dict
        From `fit_calibration`.
    probabilities : (n, k) array
        Raw probabilities.

    Returns
    -------
    (n, k) array of float
        Calibrated; each row sums to 1.
    """
    if calibrator["method"] == "temperature":
        return _soften(np.log(np.maximum(probabilities, _FLOOR)), calibrator["temperature"])
    if calibrator["method"] == "isotonic":
        out = np.empty(probabilities.shape)
        for k, (raw, calibrated) in enumerate(calibrator["knots"]):
            out[:, k] = np.interp(probabilities[:, k], raw, calibrated)
        # Where every class was mapped to nothing, the raw values are all there is.
        empty = out.sum(axis=1) <= 0
        out[empty] = probabilities[empty]
        return out / out.sum(axis=1, keepdims=True)
    return np.asarray(probabilities, dtype=float)


def unseen_probabilities(estimator, X, y, *, fitted, folds=5, seed=0, fit_params=None):
    """Probabilities of the training galaxies from classifiers that did not see them.

    A bagged forest that kept its out-of-bag votes gives them for free; any other estimator is
    cross-validated, with folds stratified by class.

    Parameters
    ----------
    estimator : scikit-learn classifier
        Unfitted.
    X : (n, d) array
        Features.
    y : (n,) array of int
        Classes, from 0.
    fitted : scikit-learn classifier
        The same, fitted to all of X.
    folds : int
        Number of folds.
    seed : int
        Seed of the folds.
    fit_params : dict, optional
        Row-aligned arguments of ``fit``, such as ``sample_weight``.

    Returns
    -------
    (n, k) array
        Probabilities; NaN rows where no classifier left the galaxy out.
    """
    votes = getattr(fitted, "oob_decision_function_", None)
    if votes is not None:
        votes = np.array(votes, dtype=float)
        votes[votes.sum(axis=1) == 0] = np.nan  # drawn by every tree
        return votes

    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    out = np.full((len(y), y.max() + 1), np.nan)
    folds = int(min(folds, np.bincount(y).min()))
    if folds < 2:
        return out
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(X, y):
        part = {name: value[train] for name, value in (fit_params or {}).items()}
        out[test] = clone(estimator).fit(X[train], y[train], **part).predict_proba(X[test])
    return out


def _fit_temperature(probabilities, true):
    """Return the exponent that maximises the likelihood, found by a bounded search."""
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities, _FLOOR))
    rows = np.arange(len(true))

    def loss(log_temperature):
        soft = _soften(logits, np.exp(log_temperature))
        return -np.mean(np.log(np.maximum(soft[rows, true], 1e-300)))

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def _soften(logits, temperature):
    scaled = logits / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)
