"""The tables of Galaxy Zoo: fetched or from disk, with columns as the decision trees name them."""

import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Column, QTable

from ..decision_trees import get_tree
from ..exceptions import MorphVAEWarning
from ._fetch import catalog_directory, fetch_file, fetch_zenodo_file
from ._galaxy_zoo_tables import GALAXY_ZOO
from ._read_columns import TableFile

__all__ = ["read_galaxy_zoo"]

# Vote fractions of an answer come in several kinds, told by the ending of the column.
_FAMILIES = ("fraction", "weighted_fraction", "debiased")
_UNITS = {
    "petro_theta": u.arcsec,
    "petro_th50": u.arcsec,
    "petro_th90": u.arcsec,
    "sersic_nmgy_r": u.nmgy,
    "elpetro_absmag_r": u.mag,
    "mag_r": u.mag,
}


def read_galaxy_zoo(
    name,
    path=None,
    *,
    columns=(),
    id_column=None,
    format=None,  # noqa: A002 (the word of astropy's readers)
    cache=True,
    server=None,
    timeout=60.0,
    progress=True,
):
    """Read a Galaxy Zoo table, with its columns named as in the decision tree.

    Parameters
    ----------
    name : str
        ``"gz2"`` (votes, Hart et al. 2016); ``"gz-decals-5"`` and ``"gz-decals-1-2"`` (votes of the
        campaigns of Galaxy Zoo DECaLS); ``"gz-decals-auto"`` (vote fractions that a network
        predicts); ``"gz-desi-8"`` (votes) and ``"gz-desi-auto"`` (predicted) of Galaxy Zoo DESI.
        `GALAXY_ZOO` describes each.
    path : path-like, optional
        The table, or some rows or columns of it, on disk: CSV, Parquet (needs the package
        pyarrow), FITS or ECSV, the text and FITS files also with ``.gz``. It is fetched from where
        it is published by default: tens of megabytes (votes) to gigabytes (predictions).
    columns : sequence of str or "all", optional
        More columns to keep, under their published names, such as ``"redshift"``.
    id_column : str, optional
        Column that identifies a galaxy, if it is not the published one.
    format : {"csv", "parquet", "fits", "ecsv"}, optional
        Format of ``path``; found from its ending by default.
    cache : bool or path-like, optional
        Folder in which a fetched table is kept; True is one under astropy's cache directory, False
        keeps nothing.
    server : str, optional
        Address to fetch from, in place of the published one.
    timeout : float, optional
        Seconds without a byte after which an attempt to fetch is given up.
    progress : bool, optional
        Whether to show a progress bar, on a terminal.

    Returns
    -------
    `~astropy.table.QTable`
        One row a galaxy: ``id`` (str, empty where it is missing), ``ra`` and ``dec`` (degrees), and
        for each question of the tree the number of volunteers who answered it, the number of votes
        for each answer and the vote fractions, as far as the table has them. A fraction is NaN
        where nobody was asked.
        ``meta`` says which questions are complete (``"questions"``), for each kind of fraction, the
        tree, papers to cite, licence and source.

    Raises
    ------
    ValueError
        If there is no table of that name, or the file has no identifier, not one complete question
        or not the ``columns`` asked for. The message names what is missing.
    OSError
        If the table cannot be read, or cannot be fetched with the checksum it is published with.

    Warns
    -----
    MorphVAEWarning
        If positions, or questions that the published table has, are missing.

    Notes
    -----
    A fetched file is checked against the size and MD5 checksum that its Zenodo record publishes,
    and an interrupted download goes on where it stopped. The table of Hart et al. is not on Zenodo;
    it is checked against the checksum in the gzip file itself.

    The published tables give 0 for the vote fractions of questions that no volunteer was asked.
    Here they are NaN. Where the table has no column with the number of those asked, it is the sum
    of the votes. Questions of GZD-1 and GZD-2 that had other answers (bars, bulge size, number of
    arms, merging) are not mapped; ask for their columns by name.

    References
    ----------
    .. [1] Willett et al. 2013, MNRAS 435, 2835; Hart et al. 2016, MNRAS 461, 3663.
    .. [2] Walmsley et al. 2022, MNRAS 509, 3966; https://doi.org/10.5281/zenodo.4573248.
    .. [3] Walmsley et al. 2023, MNRAS 526, 4768; https://doi.org/10.5281/zenodo.8360385.
    """
    if name not in GALAXY_ZOO:
        raise ValueError(f"name: expected one of {list(GALAXY_ZOO)}, got {name!r}")
    published = GALAXY_ZOO[name]
    if path is not None:
        return _read(published, TableFile(path, format), str(path), columns, id_column)
    settings = {"server": server, "timeout": timeout, "progress": progress}
    if cache is False:
        with tempfile.TemporaryDirectory() as folder:
            file, source = _fetch(published, folder, **settings)
            return _read(published, TableFile(file), source, columns, id_column)
    file, source = _fetch(published, catalog_directory() if cache is True else cache, **settings)
    return _read(published, TableFile(file), source, columns, id_column)


def _fetch(published, directory, *, server, **settings):
    """Path of the file, fetched if need be, and where it is from."""
    names = list(published.files)
    if find_spec("pyarrow") is None:  # the same table as text, where it is published so
        names.sort(key=lambda name: name.endswith(".parquet"))
    name = names[0]
    if published.record is None:
        url = published.url if server is None else f"{server.rstrip('/')}/{name}"
        return fetch_file(url, Path(directory) / name, **settings), url
    path = fetch_zenodo_file(
        published.record, name, directory, md5=published.files[name], server=server, **settings
    )
    return path, f"https://zenodo.org/records/{published.record}/files/{name}"


def _read(published, file, source, columns, id_column):
    tree = get_tree(published.tree)
    questions = [q for q in tree if q.name not in published.differing]
    plans = {q.name: _plan(q, published.renamed, file.names) for q in questions}
    complete = _complete_questions(questions, plans)
    if not complete:
        expected = _plan(questions[0], published.renamed, None).values()
        raise ValueError(
            f"path: {file.path} has no question of the tree {tree.name!r} with the vote fractions "
            f"of all its answers; for the first one it should have columns among {sorted(expected)}"
            f", but it has {_shortened(file.names)}"
        )
    identifier = _find_identifier(published, file, id_column)
    positions = [column for column in ("ra", "dec") if column in file.names]
    missing = [q.name for q in questions if not any(q.name in names for names in complete.values())]
    _warn_of_missing(file.path, positions, missing)
    sources = [column for plan in plans.values() for column in plan.values()]
    extra = _extra_columns(columns, file, [identifier, *positions, *sources])
    names = list(dict.fromkeys([identifier, *positions, *sources, *extra]))
    values = file.read(names, text=[identifier])

    table = QTable()
    table["id"] = Column(values[identifier], description=f"Published as {identifier}")
    for column, what in (("ra", "right ascension"), ("dec", "declination")):
        if column in positions:
            table[column] = values[column].astype(float) * u.deg
            table[column].info.description = f"ICRS {what}"
    for question in questions:
        _add_question(table, question, plans[question.name], values)
    for column in extra:
        unit = _UNITS.get(column)
        table[column] = values[column] if unit is None else values[column] * unit
    table.meta.update(
        catalogue=published.name,
        title=published.title,
        tree=tree.name,
        questions=complete,
        by=published.by,
        references=list(published.references),
        licence=published.licence,
        source=source,
    )
    return table


def _stem(question, answer):
    return question.column(answer).removesuffix("_fraction")


def _plan(question, renamed, available):
    """Columns of the table for a question, and the published columns they are (of those there)."""
    plan = {question.total_column: question.total_column}
    for answer in question.answers:
        stem = _stem(question, answer)
        published = renamed.get(stem, stem)
        count = question.count_columns[answer]
        plan[count] = published + count.removeprefix(stem)
        plan.update({f"{stem}_{family}": f"{published}_{family}" for family in _FAMILIES})
    asked = f"{question.name}_proportion_volunteers_asked"
    plan[asked] = asked
    if available is None:
        return plan
    available = set(available)
    return {ours: column for ours, column in plan.items() if column in available}


def _complete_questions(questions, plans):
    """Names of the questions with vote fractions of every answer, for each kind of fraction."""
    complete = {}
    for family in _FAMILIES:
        for q in questions:
            if all(f"{_stem(q, answer)}_{family}" in plans[q.name] for answer in q.answers):
                complete.setdefault(family, []).append(q.name)
    return complete


def _add_question(table, question, plan, values):
    """Add what there is about one question: number asked, votes, vote fractions."""
    counts = [question.count_columns[answer] for answer in question.answers]
    asked = None
    if question.total_column in plan:
        asked = values[plan[question.total_column]]
    elif all(count in plan for count in counts):
        asked = np.sum([values[plan[count]] for count in counts], axis=0)
    if asked is not None:
        text = f"Volunteers who answered: {question.text}"
        table[question.total_column] = Column(asked, description=text)
    for answer in question.answers:
        count, stem = question.count_columns[answer], _stem(question, answer)
        text = f"{question.text} {answer}"
        if count in plan:
            table[count] = Column(values[plan[count]], description=f"Votes: {text}")
        for family in _FAMILIES:
            ours = f"{stem}_{family}"
            if ours in plan:
                fraction = np.asarray(values[plan[ours]], dtype=float)
                if asked is not None:
                    fraction = np.where(asked == 0, np.nan, fraction)
                kind = family.replace("fraction", "vote fraction").replace("_", " ").capitalize()
                table[ours] = Column(fraction, description=f"{kind}: {text}")
    share = f"{question.name}_proportion_volunteers_asked"
    if share in plan:
        text = f"Share of volunteers who would be asked: {question.text}"
        table[share] = Column(values[plan[share]], description=text)


def _find_identifier(published, file, id_column):
    wanted = published.id_columns if id_column is None else (id_column,)
    for column in wanted:
        if column in file.names:
            return column
    raise ValueError(
        f"path: {file.path} has none of the columns {list(wanted)} that identify a galaxy; "
        f"it has {_shortened(file.names)}; say which one does with id_column"
    )


def _extra_columns(columns, file, taken):
    if isinstance(columns, str):
        if columns != "all":
            raise ValueError(f"columns: expected a list of names or 'all', got {columns!r}")
        columns = file.names
    absent = [column for column in columns if column not in file.names]
    if absent:
        raise ValueError(f"columns: {file.path} has no {absent}; it has {_shortened(file.names)}")
    reserved = {"id", *taken}
    return [column for column in dict.fromkeys(columns) if column not in reserved]


def _warn_of_missing(path, positions, questions):
    lacks = [f"column {column}" for column in ("ra", "dec") if column not in positions]
    lacks += [f"question {question}" for question in questions]
    if lacks:
        text = f"{path} lacks what the published table has: {', '.join(lacks)}"
        warnings.warn(text, MorphVAEWarning, stacklevel=4)


def _shortened(names, most=8):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{list(names[:most])}{more}"
