"""Classifiers trained on the latents of one survey and tested on those of another."""

import copy
import warnings
from types import SimpleNamespace

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from .. import __version__
from .._latent_tables import as_features, as_ids, good_rows
from ..exceptions import MorphVAEWarning
from ._held_out import choose_test, galaxy_groups, read_ids
from ._tables import match_rows
from ._transfer_table import (
    MAJORITY,
    Scored,
    complete_questions,
    make_rows,
    make_table,
    mcnemar_test,
    resample,
)
from .fitter import MorphologyFitter
from .labels import XU2023_QUESTIONS, select_labels
from .metrics import score_sums

__all__ = ["evaluate_transfer", "mcnemar_test", "tabulate_transfer"]


def evaluate_transfer(
    latents,
    votes,
    *,
    seen,
    fitter=None,
    seeds=(0, 1, 2),
    split_by="id",
    cell_size=1 * u.deg,
    test_ids=None,
    reference=None,
    ceiling="train",
    n_bootstrap=1000,
    confidence=0.95,
    n_bins=15,
):
    """Train classifiers on the latents of each survey, and test them on those of every survey.

    Galaxies are known by ``id``: one that is in several surveys is, in all of them, either trained
    or tested on. For every seed there is one division of the galaxies and one classifier for each
    survey and representation, so that representations are compared on the same galaxies.

    Parameters
    ----------
    latents : dict of str to (dict of str to `~astropy.table.QTable`)
        For each representation, such as "before" and "after" adaptation, the latents of each
        survey, with ``id``. The tables of one survey have the same rows in all representations; a
        galaxy that is bad in one of them is left out of all. A dict of surveys alone stands for a
        single representation.
    votes : `~astropy.table.Table`, or dict of str to `~astropy.table.Table`
        Vote fractions with ``id``, the same for all surveys or for each its own.
    seen : sequence of ids, table or CutoutSet
        The galaxies that the network was fitted or adapted to, in either survey: they are never
        tested on. An empty sequence says that there are none.
    fitter : MorphologyFitter, optional
        How to fit; by default one for the seven questions of the reference study. Its seed is
        replaced by each of ``seeds``, its ``test_fraction`` is that of all galaxies.
    seeds : sequence of int
        One division of the galaxies, with its own classifiers, for each.
    split_by : {"id", "sky"}
        Divide single galaxies, each label in proportion; or whole cells of the sky, so that the
        images of the two sides do not overlap. Cells with a galaxy seen are not tested on.
    cell_size : `~astropy.units.Quantity`
        Side of the cells, 1 degree by default.
    test_ids : sequence of ids or table, optional
        Galaxies to test on, where they were set aside before; then only the classifiers differ
        between seeds.
    reference : str, optional
        Representation that gains are measured from; the first by default.
    ceiling : {"train", "test"}
        What a transfer can reach at best: the score within the survey that was trained on, or
        within the one tested on. ``gap_recovered`` is measured towards it.
    n_bootstrap, confidence, n_bins
        See `evaluate_predictions`. Galaxies are resampled as a whole, in all seeds, surveys and
        representations at once.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each question, representation, survey trained on (``train``) and survey tested
        on (``test``); ``kind`` is "within" where these are the same, else "cross". Rows named
        "mean" follow, with the mean over all questions that could be scored throughout. Columns:

        - ``n_classes``, ``n_seeds``; ``n_train`` and ``n_test``, the labelled galaxies of one seed
          (mean), and ``n_galaxies``, the different ones tested in all seeds;
        - ``accuracy``, ``balanced_accuracy``, ``macro_f1`` and ``ece``, means over the seeds, each
          with the ends of its bootstrap interval (``<score>_low``, ``<score>_high``) and its
          standard deviation among seeds (``<score>_scatter``); ``majority_<score>``;
        - ``<score>_gain`` over the reference, on the same galaxies, with its interval;
        - ``n_gained``, ``n_lost``, ``mcnemar_p``: galaxies labelled rightly here and not by the
          reference, the reverse, and the p-value of `mcnemar_test`; each galaxy counts once, in the
          first seed that tests it;
        - ``gap_recovered`` with its interval, for "cross": gain in balanced accuracy over the
          distance of the reference from its ``ceiling``; NaN where that is not above zero.

    Raises
    ------
    ValueError
        If tables do not fit together, or test galaxies were seen, or no galaxy is left to test.

    Warns
    -----
    MorphVAEWarning
        If labels or questions have too few examples to be learned.

    Examples
    --------
    >>> from astro_morphvae.morphology import evaluate_transfer
    >>> table = evaluate_transfer(
    ...     {"before": {"DECaLS": a, "BASS": b}, "after": {"DECaLS": a, "BASS": c}},
    ...     votes, seen=training_galaxies)  # doctest: +SKIP
    >>> table.write("transfer.ecsv")  # doctest: +SKIP
    """
    fitter = MorphologyFitter(questions="xu2023") if fitter is None else fitter
    if ceiling not in ("train", "test"):
        raise ValueError(f"ceiling={ceiling!r} is neither 'train' nor 'test'")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence!r}")
    seeds = list(seeds)
    if not seeds:
        raise ValueError("seeds is empty; one split is made for each")
    data = _read(latents, votes, fitter)
    names = list(data.tables)
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise ValueError(f"reference={reference!r} is none of the representations {names}")
    seen = read_ids(seen, "seen")
    test_ids = None if test_ids is None else read_ids(test_ids, "test_ids")
    tables = [(data.tables[names[0]][s], data.place[s]) for s in data.surveys]
    groups = galaxy_groups(data.ids, tables, split_by, cell_size)
    labels = data.labels if split_by == "id" else data.labels[:, :0]

    scored = {}
    for seed in seeds:
        sides = choose_test(
            data.ids,
            groups,
            labels,
            seen,
            test_ids=test_ids,
            test_fraction=fitter.test_fraction,
            seed=seed,
        )
        seeded = copy.copy(fitter)
        seeded.seed = seed
        for key, item in _score_seed(data, seeded, sides, n_bins, first=seed == seeds[0]):
            scored.setdefault(key, []).append(item)

    samples = resample(scored, len(data.ids), n_bootstrap, seeds[0])
    rows = make_rows(data, scored, samples, reference, ceiling, confidence)
    out = make_table(rows)
    out.meta = {
        "surveys": list(data.surveys),
        "representations": names,
        "reference": reference,
        "questions": list(data.questions),
        "questions_in_mean": complete_questions(data, scored, len(seeds)),
        "split_by": split_by,
        "cell_size": str(u.Quantity(cell_size, u.deg)) if split_by == "sky" else None,
        "n_galaxies": len(data.ids),
        "n_seen": int(np.isin(data.ids, seen).sum()),
        "test_ids_given": test_ids is not None,
        "fitter": fitter._settings(),
        "seeds": seeds,
        "ceiling": ceiling,
        "confidence": confidence,
        "n_bootstrap": n_bootstrap,
        "n_bins": n_bins,
        "models": {
            name: {survey: table.meta.get("model") for survey, table in by_survey.items()}
            for name, by_survey in data.tables.items()
        },
        "version": __version__,
    }
    return out


def tabulate_transfer(table, score="balanced_accuracy"):
    """One score of a table of `evaluate_transfer`, a question a row, for reading.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Returned by `evaluate_transfer`, or read back.
    score : str
        Column to show.

    Returns
    -------
    `~astropy.table.QTable`
        ``question``, ``n_test`` (of the first survey), and a column for each survey trained on,
        survey tested on, and representation: "<train> -> <test>, <representation>".

    Raises
    ------
    ValueError
        If the table has no such column.
    """
    if score not in table.colnames:
        raise ValueError(f"score={score!r} is no column of table")
    questions = list(dict.fromkeys(table["question"].tolist()))
    out = QTable({"question": questions})
    first = [np.flatnonzero(table["question"] == q)[0] for q in questions]
    out["n_test"] = np.asarray(table["n_test"])[first]
    keys = [(r["train"], r["test"], r["representation"]) for r in table]
    for key in dict.fromkeys(keys):
        rows = [i for i, other in enumerate(keys) if other == key]
        name = f"{key[0]} -> {key[1]}, {key[2]}"
        out[name] = np.asarray(table[score])[rows]
        out[name].info.format = ".3f"
    out.meta = {"score": score}
    return out


def _read(latents, votes, fitter):
    """Read tables; return ids, places, good rows, votes, and labels of all galaxies."""
    if not latents:
        raise ValueError("latents is empty")
    if all(isinstance(value, Table) for value in latents.values()):
        latents = {"latents": latents}
    names = list(latents)
    surveys = list(latents[names[0]])
    if len(surveys) < 2:
        raise ValueError(f"latents[{names[0]!r}] holds {surveys}; at least 2 surveys are needed")
    for name in names:
        if list(latents[name]) != surveys:
            raise ValueError(
                f"latents[{name!r}] holds {list(latents[name])}, but latents[{names[0]!r}] "
                f"{surveys}; all must hold the same surveys in the same order"
            )
    if isinstance(votes, Table):
        votes = dict.fromkeys(surveys, votes)
    elif set(votes) != set(surveys):
        raise ValueError(f"votes is for {list(votes)}; latents are of {surveys}")

    ids, good, row = {}, {}, {}
    for survey in surveys:
        if "id" not in votes[survey].colnames:
            raise ValueError(f"votes of {survey!r} has no column 'id'")
        for name in names:
            table = latents[name][survey]
            X = as_features(table, fitter.features)
            own = as_ids(table)
            if own is None or len(np.unique(own)) < len(own):
                raise ValueError(
                    f"latents[{name!r}][{survey!r}] needs a column 'id' without repeats"
                )
            if name == names[0]:
                ids[survey], good[survey] = own, good_rows(table, X)
            elif not np.array_equal(own, ids[survey]):
                raise ValueError(
                    f"latents[{name!r}][{survey!r}] and latents[{names[0]!r}][{survey!r}] are "
                    "not row-aligned"
                )
            else:
                good[survey] &= good_rows(table, X)
        row[survey] = match_rows(latents[names[0]][survey], votes[survey])
        good[survey] &= row[survey] >= 0
        if not good[survey].any():
            raise ValueError(f"latents of {survey!r} have no galaxy that is good and has votes")

    # Galaxies that could not be used anyway do not take part in the division.
    every = np.unique(np.concatenate([ids[s][good[s]] for s in surveys]))
    place = {s: np.minimum(np.searchsorted(every, ids[s]), len(every) - 1) for s in surveys}
    tables = {name: {s: latents[name][s][good[s]] for s in surveys} for name in names}
    rules = fitter._rules(votes[surveys[0]])[0]
    questions = _asked(fitter, rules)
    labels = np.full((len(every), len(questions)), -1)
    truth = {}
    for survey in reversed(surveys):  # of galaxies in several surveys the first one's votes count
        truth[survey] = {}
        for q, name in enumerate(questions):
            rule = next(rule for rule in rules if rule.name == name)
            column = select_labels(
                votes[survey], fitter.tree, rule, fitter.threshold, min_votes=fitter.min_votes
            )
            column = np.ma.filled(column, "")[row[survey][good[survey]]]
            truth[survey][name] = column
            code = np.searchsorted(sorted(rule.classes), column)
            known = column != ""
            labels[place[survey][good[survey]][known], q] = code[known]
    return SimpleNamespace(
        ids=every,
        surveys=surveys,
        tables=tables,
        place={s: place[s][good[s]] for s in surveys},
        votes=votes,
        truth=truth,
        questions=questions,
        labels=labels,
    )


def _asked(fitter, rules):
    """Return the names of the questions asked for, without parents that are learned besides."""
    if fitter.questions is None:
        return [rule.name for rule in rules]
    if isinstance(fitter.questions, str):
        return list(XU2023_QUESTIONS)
    return [getattr(question, "name", question) for question in fitter.questions]


def _score_seed(data, fitter, sides, n_bins, first):
    """Yield what each classifier of a seed says of the test galaxies of each survey."""
    test, train = sides
    told = [] if first else list(data.votes.values())  # votes whose rare labels were warned of
    for survey in data.surveys:
        place, votes = data.place[survey], data.votes[survey]
        kept = test[place] | train[place]
        fitted = []
        for name, by_survey in data.tables.items():
            X = as_features(by_survey[survey], fitter.features)
            # A survey that adaptation leaves as it is needs no second classifier.
            same = [classifier for other, classifier in fitted if np.array_equal(other, X)]
            with warnings.catch_warnings():
                if any(votes is other for other in told):
                    warnings.filterwarnings("ignore", "too few training", MorphVAEWarning)
                if same:
                    classifier = same[0]
                else:
                    rows = by_survey[survey][kept]
                    classifier = fitter(rows, votes, test_rows=test[place[kept]])
            told.append(votes)
            fitted.append((X, classifier))
            for other in data.surveys:
                rows = test[data.place[other]]
                with warnings.catch_warnings():
                    # Whether latents of two models can be compared is what is measured here.
                    warnings.filterwarnings("ignore", "latents come from", MorphVAEWarning)
                    predictions = classifier(by_survey[other][rows])
                galaxies = data.place[other][rows]
                for question in data.questions:
                    if question not in classifier.questions:
                        continue
                    truth = data.truth[other][question][rows]
                    item = _score(classifier[question], predictions, truth, galaxies, n_bins)
                    if item is not None:
                        yield (question, name, survey, other), item


def _score(fitted, predictions, truth, galaxies, n_bins):
    """Compare the labels of one question with the truth; None if there is nothing to compare."""
    labels, question = fitted.labels, fitted.rule.name
    known = np.isin(truth, labels)
    if not known.any():
        return None
    true = np.argmax(truth[known][:, None] == np.array(labels), axis=1)
    columns = [np.asarray(predictions[f"{question}_{label}_probability"]) for label in labels]
    probability = np.stack(columns, axis=1)[known]
    given, sure = probability.argmax(axis=1), probability.max(axis=1)
    most = np.argmax([fitted.counts[label] for label in labels])
    ones = np.ones(len(true))
    majority = score_sums(true, np.full(len(true), most), ones, len(labels), n_bins).evaluate()
    return Scored(
        galaxies[known],
        given == true,
        score_sums(true, given, sure, len(labels), n_bins),
        {score: float(majority[score][0]) for score in MAJORITY},
        sum(fitted.counts[label] for label in labels),
    )
