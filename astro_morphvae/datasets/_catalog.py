"""The catalogue of a simulated sample: votes, true answers and true parameters."""

import math

import numpy as np
from astropy import units as u
from astropy.table import Column, QTable
from scipy import special

from ..decision_trees import GZ_DECALS
from .profiles import sersic_b
from .votes import true_answers

__all__ = ["galaxy_catalog"]


def _separation(galaxy):
    if len(galaxy.hosts) < 2:
        return math.nan
    a, b = galaxy.hosts[:2]
    return math.hypot(a.x - b.x, a.y - b.y)


def _half_light_radius(galaxy):
    """Half-light semi-major axis of the main body before the point-spread function, arcsec."""
    host = galaxy.hosts[0]
    if host.disk_scale == 0:
        return host.bulge_radius
    # Growth curves of both components (Graham & Driver 2005, PASA 22, 118), on common ellipses.
    radius = np.geomspace(0.02, 6, 100) * max(host.disk_scale, host.bulge_radius)
    x = radius / host.disk_scale
    disk = 1 - (1 + x) * np.exp(-x)
    index = host.bulge_index
    bulge = special.gammainc(
        2 * index, sersic_b(index) * (radius / host.bulge_radius) ** (1 / index)
    )
    growth = host.bulge_fraction * bulge + (1 - host.bulge_fraction) * disk
    return float(np.interp(0.5, growth, radius))


def _parameters():
    """Name, function of a galaxy, unit and description of each true parameter."""

    def magnitude(galaxy):
        return 22.5 - 2.5 * math.log10(galaxy.hosts[0].flux)

    def inclination(galaxy):
        if galaxy.shape == "edge-on-disk":
            return 90.0
        if galaxy.shape in ("spiral", "disk"):
            return math.degrees(math.acos(min(galaxy.hosts[0].axis_ratio, 1.0)))
        return math.nan

    def of_arms(name, factor=1.0):
        return lambda g: getattr(g.hosts[0], name) * factor if g.shape == "spiral" else math.nan

    def of_disk(name):
        return lambda g: getattr(g.hosts[0], name) if g.hosts[0].disk_scale else math.nan

    deg = 180 / math.pi
    return [
        ("mag_r", magnitude, u.mag, "total AB r magnitude of the main body, before dust lanes"),
        ("r_eff", _half_light_radius, u.arcsec, "half-light semi-major axis before the PSF"),
        (
            "axis_ratio",
            lambda g: g.hosts[0].axis_ratio,
            None,
            "minor over major axis of the isophotes",
        ),
        (
            "position_angle",
            lambda g: g.hosts[0].position_angle * deg,
            u.deg,
            "major axis, north through east",
        ),
        ("inclination", inclination, u.deg, "of the disk; 0 is face-on"),
        ("bulge_to_total", lambda g: g.hosts[0].bulge_fraction, None, "r-band light in the bulge"),
        ("sersic_index", lambda g: g.hosts[0].bulge_index, None, "of the bulge or spheroid"),
        ("disk_scale", of_disk("disk_scale"), u.arcsec, "scale length of the disk"),
        (
            "disk_height",
            lambda g: g.hosts[0].disk_height if g.shape == "edge-on-disk" else math.nan,
            u.arcsec,
            "sech2 scale height of an edge-on disk",
        ),
        (
            "bar_length",
            of_disk("bar_length"),
            u.arcsec,
            "semi-major axis of the bar, 0 without one",
        ),
        ("bar_strength", of_disk("bar_fraction"), None, "r-band light in the bar"),
        (
            "n_arms",
            lambda g: g.hosts[0].n_arms if g.shape == "spiral" else 0,
            None,
            "grand-design spiral arms",
        ),
        ("pitch_angle", of_arms("pitch", deg), u.deg, "of the spiral arms; small is tightly wound"),
        (
            "arm_contrast",
            of_arms("arm_contrast"),
            None,
            "share of the disk's light that follows the arms",
        ),
        ("separation", _separation, u.arcsec, "between the two bodies of a merger"),
        (
            "flux_ratio",
            lambda g: g.hosts[1].flux / g.hosts[0].flux if len(g.hosts) > 1 else math.nan,
            None,
            "companion over main body in a merger, r band",
        ),
    ]


def galaxy_catalog(galaxies, ids, positions, seen, votes):
    """Table of a simulated sample.

    Parameters
    ----------
    galaxies : list of Galaxy
        The galaxies.
    ids : list of str
        Their names.
    positions : array, shape (n, 2)
        Right ascension and declination, deg.
    seen : list of float
        Visibilities.
    votes : list of dict of str to array of int
        Votes by question.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each galaxy.
    """
    table = QTable()
    table["id"] = Column(np.array(ids, dtype=np.str_) if ids else np.empty(0, "U12"))
    table["ra"] = positions[:, 0] * u.deg
    table["dec"] = positions[:, 1] * u.deg
    table["status"] = Column(np.full(len(ids), "ok", dtype="U64"))
    for question in GZ_DECALS:
        counts = np.array([v[question.name] for v in votes], dtype=np.int32)
        counts = counts.reshape(len(galaxies), len(question.answers))
        total = counts.sum(axis=1)
        fractions = np.full(counts.shape, np.nan)
        np.divide(counts, total[:, None], out=fractions, where=total[:, None] > 0)
        for k, answer in enumerate(question.answers):
            table[question.columns[answer]] = Column(
                fractions[:, k].astype(np.float32),
                description=f"share of simulated votes for {answer!r}; NaN if nobody was asked",
            )
        table[f"{question.name}_total-votes"] = Column(
            total, description="simulated volunteers asked"
        )
    answers = [true_answers(galaxy) for galaxy in galaxies]
    for question in GZ_DECALS:
        table[f"true_{question.name}"] = Column(
            np.array([a[question.name] for a in answers], dtype="U20"),
            description="right answer; empty where the question does not arise",
        )
    table["true_class"] = Column(np.array([g.true_class for g in galaxies], dtype="U20"))
    table["true_class"].description = "class that was drawn"
    for name, function, unit, description in _parameters():
        values = np.array([function(galaxy) for galaxy in galaxies])
        values = values.astype(int) if name == "n_arms" else values.astype(float)
        table[name] = values * unit if unit is not None else Column(values)
        table[name].info.description = description
    table["visibility"] = Column(
        np.array(seen, dtype=float), description="how well structure shows to volunteers, 0 to 1"
    )
    return table
