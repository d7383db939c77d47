"""Surveys as a domain adaptation takes them: names, rows, pairs, and which are kept aside."""

from dataclasses import dataclass, field

import numpy as np

from ..cutouts import CutoutSet, as_cutout_set
from ..cutouts.compatibility import check_compatible
from ..networks.batches import PixelSource

__all__ = ["Survey", "describe_surveys", "plan_epoch", "survey_name"]

_N_WATCHED = 512  # training rows watched where none are kept aside


@dataclass
class Survey:
    """One survey of an adaptation.

    Attributes
    ----------
    name : str
        Its name.
    cutouts : CutoutSet
        All of it.
    train, watched : array of int
        Rows to train on, and rows to watch the fit on: kept aside, or a sample where none are.
    partner : array of int, (n,)
        Row of the source that shows the same galaxy, or -1.
    """

    name: str
    cutouts: CutoutSet
    train: np.ndarray = None
    watched: np.ndarray = None
    partner: np.ndarray = None
    pixels: PixelSource = field(init=False)

    def __post_init__(self):
        cutouts = self.cutouts
        self.pixels = PixelSource(cutouts.data, cutouts.ivar, cutouts.mask)

    @property
    def used(self):
        """Rows that take any part, in order."""
        return np.union1d(self.train, self.watched)


def survey_name(cutouts):
    """Name of the survey that a set says it is of, or `None`."""
    for key in ("survey", "layer"):
        if key in cutouts.meta:
            return str(cutouts.meta[key])
    return None


def describe_surveys(model, source, target, pairs, *, validation_fraction, seed):
    """Parse the data of an adaptation.

    Parameters
    ----------
    model : LatentModel
        What is to be adapted.
    source : CutoutSet, list of NDData, or path
        The survey it was fitted on.
    target : CutoutSet, or list or dict of them
        The others.
    pairs
        See `~astro_morphvae.fitting.DomainAdaptationFitter`.
    validation_fraction : float
        Share of the galaxies kept aside.
    seed : int
        Seed of the split.

    Returns
    -------
    surveys : list of Survey
        The source first.
    """
    source = as_cutout_set(source)
    check_compatible(model.network, model.provenance, source, "source")
    named = _targets(target)
    first = survey_name(source) or "source"
    names = [first, *named]
    if len(set(names)) < len(names):
        raise ValueError(
            f"source and target must be of different surveys, got {names}; give target as a dict "
            "from a name of your choice to the cutouts"
        )
    of_source = {
        "bands": list(source.bands),
        "unit": str(source.unit or ""),
        "pixel_scale": None if source.pixel_scale is None else source.pixel_scale.value,
    }
    for name, cutouts in named.items():
        label = f"target {name!r}"
        check_compatible(model.network, of_source, cutouts, label)
    surveys = [Survey(first, source), *(Survey(name, part) for name, part in named.items())]
    for survey, label in zip(surveys, ["source", *(f"target {n!r}" for n in named)], strict=True):
        n_good = int(survey.cutouts.good.sum())
        if n_good < 4:
            raise ValueError(f"{label} must hold 4 rows whose status is 'ok', got {n_good}")
    _set_partners(surveys, pairs)
    _split(surveys, validation_fraction, seed)
    return surveys


def _targets(target):
    if target is None or (hasattr(target, "__len__") and len(target) == 0):
        raise ValueError("target must hold at least one cutout, got none")
    if isinstance(target, dict):
        return {str(name): as_cutout_set(part) for name, part in target.items()}
    if isinstance(target, (list, tuple)) and all(isinstance(part, CutoutSet) for part in target):
        parts = list(target)
    else:
        parts = [as_cutout_set(target)]
    names = [survey_name(part) for part in parts]
    names = [name or (f"target{i}" if len(parts) > 1 else "target") for i, name in enumerate(names)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"target holds several sets of one survey, {names}; give a dict from a name of your "
            "choice to the cutouts"
        )
    return dict(zip(names, parts, strict=True))


def _set_partners(surveys, pairs):
    source, *targets = surveys
    source.partner = np.where(source.cutouts.good, np.arange(len(source.cutouts)), -1)
    names = [target.name for target in targets]
    if isinstance(pairs, dict):
        unknown = sorted(set(pairs) - set(names))
        if unknown:
            raise ValueError(f"pairs name surveys {unknown} that target does not hold: {names}")
    elif len(targets) > 1 and pairs is not None and not isinstance(pairs, str):
        raise ValueError("pairs must be a dict from survey to pairs where there are several")
    for target in targets:
        given = pairs.get(target.name) if isinstance(pairs, dict) else pairs
        target.partner = _partners(given, source.cutouts, target.cutouts)


def _partners(pairs, source, target):
    """Row of the source for each row of the target, or -1."""
    partner = np.full(len(target), -1)
    if pairs is None:
        return partner
    if isinstance(pairs, str):
        pairs = _pairs_by_name(pairs, source, target)
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(
            "pairs must be 'rows', 'id' or whole numbers of shape (n, 2), row of the source and "
            f"row of the target; got {pairs.dtype} of shape {pairs.shape}"
        )
    for column, cutouts, label in ((0, source, "source"), (1, target, "target")):
        outside = (pairs[:, column] < 0) | (pairs[:, column] >= len(cutouts))
        if outside.any():
            raise ValueError(
                f"pairs hold row {pairs[outside][0, column]} of the {label}, which has "
                f"{len(cutouts)} rows"
            )
    both = source.good[pairs[:, 0]] & target.good[pairs[:, 1]]
    partner[pairs[both, 1]] = pairs[both, 0]
    return partner


def _pairs_by_name(pairs, source, target):
    if pairs == "rows":
        if len(source) != len(target):
            raise ValueError(
                f"pairs='rows' needs as many rows in source and target, got {len(source)} and "
                f"{len(target)}"
            )
        return np.repeat(np.arange(len(source))[:, None], 2, axis=1)
    if pairs != "id":
        raise ValueError(f"pairs must be None, 'rows', 'id' or an array, got {pairs!r}")
    ids = [np.asarray(part.catalog["id"]).astype(str) for part in (source, target)]
    common, first, second = np.intersect1d(*ids, return_indices=True)
    if len(common) == 0:
        raise ValueError("pairs='id' needs ids that source and target share, and there are none")
    return np.stack([first, second], axis=1)


def _split(surveys, fraction, seed):
    """Keep a share of the galaxies aside, the two rows of a pair on the same side."""
    source, *targets = surveys
    generator = np.random.default_rng([seed, len(source.cutouts)])
    aside = _draw(np.flatnonzero(source.cutouts.good), fraction, generator)
    is_aside = np.zeros(len(source.cutouts), bool)
    is_aside[aside] = True
    _set_rows(source, is_aside, generator)
    for target in targets:
        has_partner = target.partner >= 0
        is_aside_here = np.zeros(len(target.cutouts), bool)
        is_aside_here[has_partner] = is_aside[target.partner[has_partner]]
        alone = np.flatnonzero(target.cutouts.good & ~has_partner)
        is_aside_here[_draw(alone, fraction, generator)] = True
        _set_rows(target, is_aside_here, generator)


def _draw(rows, fraction, generator):
    return generator.permutation(rows)[: int(fraction * len(rows))]


def _set_rows(survey, is_aside, generator):
    good = survey.cutouts.good
    survey.train = np.flatnonzero(good & ~is_aside)
    survey.watched = np.flatnonzero(good & is_aside)
    if len(survey.watched) == 0:
        survey.watched = np.sort(generator.permutation(survey.train)[:_N_WATCHED])


def plan_epoch(surveys, batch_size, generator):
    """Draw the steps of an epoch: every row of every target once.

    A row of the target meets its partner, where it has one, and otherwise a row of the source
    drawn at random, so that without pairs both are independent samples.

    Parameters
    ----------
    surveys : list of Survey
        The source first.
    batch_size : int
        Rows of a step.
    generator : `numpy.random.Generator`
        Source of the order.

    Returns
    -------
    steps : list of tuple
        (number of the survey, rows of the source, rows of the target, whether they are pairs).
    """
    source, steps = surveys[0], []
    trained = np.zeros(len(source.cutouts), bool)
    trained[source.train] = True
    for number, target in enumerate(surveys[1:], start=1):
        order = generator.permutation(target.train)
        rows = target.partner[order]
        paired = (rows >= 0) & trained[np.maximum(rows, 0)]
        n_repeats = -(-len(order) // len(source.train))
        drawn = [generator.permutation(source.train) for _ in range(n_repeats)]
        rows = np.where(paired, rows, np.concatenate(drawn)[: len(order)])
        for part in np.array_split(np.arange(len(order)), -(-len(order) // batch_size)):
            steps.append((number, rows[part], order[part], paired[part]))
    return [steps[i] for i in generator.permutation(len(steps))]
