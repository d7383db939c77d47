"""Simulated volunteers who answer the questions of Galaxy Zoo about a galaxy.

Every question has a scale (bar length, pitch angle, bulge fraction ...) on which its answers have
places; a volunteer answers with the place nearest to what they see. How far apart their impressions
are depends on how well the galaxy is resolved and exposed.
"""

import math
from functools import lru_cache

import numpy as np

from ..decision_trees import GZ_DECALS

__all__ = ["answer_probabilities", "cast_votes", "true_answers", "visibility"]

# Places of the answers on the scale of their question, in steps that volunteers tell apart.
_PLACES = {
    "how-rounded": {"round": 0.92, "in-between": 0.60, "cigar-shaped": 0.22},
    "bar": {"no": 0.0, "weak": 0.42, "strong": 1.0},
    "bulge-size": {"none": 0.05, "small": 0.23, "moderate": 0.40, "large": 0.57, "dominant": 0.74},
    "spiral-winding": {"tight": 10.0, "medium": 20.0, "loose": 35.0},
    "spiral-arm-count": {"1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0, "more-than-4": 5.4},
    "merging": {"none": 0.0, "minor-disturbance": 0.36, "major-disturbance": 0.7, "merger": 1.1},
}
# Spread of the impressions of a galaxy seen well, on the same scales.
_SPREAD = {
    "how-rounded": 0.12,
    "bar": 0.17,
    "bulge-size": 0.075,
    "spiral-winding": 4.5,
    "spiral-arm-count": 0.42,
    "merging": 0.14,
}


def visibility(galaxy, survey):
    """Tell how well the structure of a galaxy shows in a survey's pictures.

    Parameters
    ----------
    galaxy : Galaxy
        The galaxy.
    survey : Survey
        The survey that volunteers look at.

    Returns
    -------
    float
        Between 0 and 1: the product of a term for the size over the seeing and one for the
        signal-to-noise ratio in one resolution element at the half-light radius, both in the r band
        or the nearest to it.
    """
    fwhm, noise_density = _seeing_and_noise(survey)
    host = galaxy.hosts[0]
    size = max(1.68 * host.disk_scale, host.bulge_radius if host.disk_scale == 0 else 0.0)
    minor = max(host.axis_ratio, 0.15)
    brightness = 0.35 * host.flux / (2 * math.pi * size**2 * minor)
    element = 1.13 * fwhm**2  # solid angle of a round Gaussian of that width
    noise = noise_density * math.sqrt(element)
    resolved = 1 - math.exp(-((size / fwhm / 2.0) ** 1.5))
    exposed = 1 - math.exp(-((brightness * element / noise / 25) ** 0.7))
    return resolved * exposed


@lru_cache(maxsize=16)
def _seeing_and_noise(survey):
    """Seeing in arcsec and sky noise in nmgy per arcsec of the band volunteers judge by."""
    band = survey.bands.index("r") if "r" in survey.bands else len(survey.bands) // 2
    noise = survey.sky_noise()[band].value / survey.pixel_scale.to_value("arcsec")
    return float(survey.psf_fwhm[band].to_value("arcsec")), float(noise)


def true_answers(galaxy):
    """Tell the right answer to every question that the galaxy raises.

    Parameters
    ----------
    galaxy : Galaxy
        The galaxy.

    Returns
    -------
    dict of str to str
        Answer by question of the Galaxy Zoo DECaLS tree; the empty string where the question does
        not arise.
    """
    answers = dict.fromkeys(GZ_DECALS.names, "")
    if galaxy.true_class == "artifact":
        answers["smooth-or-featured"] = "artifact"
        return answers
    answers["merging"] = galaxy.merging
    if galaxy.shape.startswith("smooth"):
        answers["smooth-or-featured"] = "smooth"
        answers["how-rounded"] = galaxy.shape.removeprefix("smooth-")
        return answers
    answers["smooth-or-featured"] = "featured-or-disk"
    answers["disk-edge-on"] = "yes" if galaxy.shape == "edge-on-disk" else "no"
    if galaxy.shape == "edge-on-disk":
        answers["edge-on-bulge"] = galaxy.edge_on_bulge
        return answers
    answers["bar"] = galaxy.bar
    answers["bulge-size"] = galaxy.bulge_size
    answers["has-spiral-arms"] = "yes" if galaxy.shape == "spiral" else "no"
    if galaxy.shape == "spiral":
        answers["spiral-winding"] = galaxy.winding
        answers["spiral-arm-count"] = galaxy.arm_count
    return answers


def _near(question, value, blur):
    """Probability of each answer for volunteers whose impressions scatter around a value."""
    spread = _SPREAD[question] * (1 + 1.6 * blur)
    weights = {
        answer: math.exp(-0.5 * ((value - place) / spread) ** 2)
        for answer, place in _PLACES[question].items()
    }
    total = sum(weights.values())
    if total < 1e-300:  # beyond the ends of the scale
        nearest = min(_PLACES[question], key=lambda answer: abs(_PLACES[question][answer] - value))
        return {answer: float(answer == nearest) for answer in weights}
    return {answer: weight / total for answer, weight in weights.items()}


def answer_probabilities(galaxy, seen):
    """Probability of every answer to every question.

    Parameters
    ----------
    galaxy : Galaxy
        The galaxy.
    seen : float
        Its visibility, between 0 and 1.

    Returns
    -------
    dict of str to dict of str to float
        For each question a probability for each answer. Questions that do not arise for the galaxy
        have answers too: they are put to volunteers who went astray further up the tree.
    """
    host = galaxy.hosts[0]
    blur = 1 - seen
    smooth = galaxy.shape.startswith("smooth")
    edge_on = galaxy.shape == "edge-on-disk"
    spiral = galaxy.shape == "spiral"
    disturbed = {"none": 0.0, "minor-disturbance": 0.36, "major-disturbance": 0.7, "merger": 1.1}[
        galaxy.merging
    ]

    if galaxy.true_class == "artifact":
        featured, artifact = 0.12, 0.80
    else:
        if smooth:
            featured = (
                0.05 + 0.05 * blur + 0.12 * disturbed + (0.14 if host.axis_ratio < 0.3 else 0.0)
            )
        elif edge_on:
            featured = 0.94 - 0.35 * blur
        elif spiral:
            featured = 0.97 - (0.45 + 0.3 * (0.85 - host.arm_contrast)) * blur
        else:
            marked = host.bar_fraction > 0 or host.ring_strength > 0 or host.knot_fraction > 0
            featured = (0.86 if marked else 0.70) - 0.45 * blur
        artifact = 0.012 + 0.02 * blur
    featured = min(featured, 0.98 - artifact)
    first = {
        "featured-or-disk": featured,
        "artifact": artifact,
        "smooth": 1 - featured - artifact,
    }

    apparent = host.axis_ratio if not edge_on else 0.28
    if edge_on:
        on_edge = 0.95 - 0.15 * blur
    elif smooth:
        on_edge = 1 / (1 + math.exp((apparent - 0.30) / 0.04))
    else:
        on_edge = 0.02 + 0.45 / (1 + math.exp((apparent - 0.40) / 0.05))
    arms = (0.97 - 0.35 * blur) if spiral else 0.10 + 0.08 * blur + 0.15 * disturbed
    bar_length = host.bar_length if host.bar_fraction > 0 else 0.0
    bar_scale = {"strong": 1.0, "weak": 0.42}.get(galaxy.bar, 0.0)
    if galaxy.bar:  # nearer to the neighbouring answer where the bar is short or wide
        reach = bar_length / max(host.disk_scale, 1e-3)
        bar_scale += 0.15 * (reach - (1.4 if galaxy.bar == "strong" else 0.78)) * (bar_length > 0)
        # A bar that points at us looks short.
        across = host.axis_ratio * math.sin(host.bar_angle)
        bar_scale *= 0.5 + 0.5 * math.hypot(math.cos(host.bar_angle), across)
    bulge = host.bulge_fraction if not smooth else 0.55
    bulge_probabilities = _near("bulge-size", math.sqrt(max(bulge, 0.0025)), blur)

    kinds = {"boxy": 0.04, "none": 0.06, "rounded": 0.16}
    kinds[galaxy.edge_on_bulge or "rounded"] += 1.6 + 1.6 * seen
    if galaxy.edge_on_bulge == "boxy":  # the rarest answer, and the first to be blurred away
        kinds["rounded"] += 0.5 * blur
    total = sum(kinds.values())

    pitch = math.degrees(host.pitch) if spiral else 20.0
    count = _near("spiral-arm-count", float(host.n_arms if spiral and host.n_arms else 2.5), blur)
    lost = (0.82 if spiral and host.n_arms == 0 else 0.05) + 0.15 * blur
    count = {answer: (1 - lost) * p for answer, p in count.items()} | {"cant-tell": lost}

    return {
        "smooth-or-featured": first,
        "disk-edge-on": {"yes": on_edge, "no": 1 - on_edge},
        "has-spiral-arms": {"yes": arms, "no": 1 - arms},
        "bar": _near("bar", bar_scale, blur),
        "bulge-size": bulge_probabilities,
        "how-rounded": _near("how-rounded", min(apparent, 0.97), 0.6 * blur),
        "edge-on-bulge": {answer: weight / total for answer, weight in kinds.items()},
        "spiral-winding": _near("spiral-winding", pitch, blur),
        "spiral-arm-count": count,
        "merging": _near("merging", disturbed, blur),
    }


def cast_votes(rng, galaxy, seen, n_volunteers, lapse=0.03):
    """Let volunteers go through the tree.

    Parameters
    ----------
    rng : `~numpy.random.Generator`
        Source of the votes.
    galaxy : Galaxy
        The galaxy.
    seen : float
        Its visibility, between 0 and 1.
    n_volunteers : int
        Number of volunteers.
    lapse : float, optional
        Share of answers given at random.

    Returns
    -------
    dict of str to array of int
        Votes by question, in the order of the question's answers. Who answers a question is who
        gave the answer that leads to it, so that the votes of a question add up to those of the
        answers above it.
    """
    probabilities = answer_probabilities(galaxy, seen)
    votes = {}
    for question in GZ_DECALS:
        if question.parent is None:
            asked = n_volunteers
        else:
            parent, answers = question.parent
            order = GZ_DECALS[parent].answers
            asked = sum(votes[parent][order.index(answer)] for answer in answers)
        if asked == 0:
            votes[question.name] = [0] * len(question.answers)
            continue
        p = np.array([probabilities[question.name][answer] for answer in question.answers])
        p = (1 - lapse) * p + lapse / p.size
        votes[question.name] = rng.multinomial(asked, p / p.sum()).tolist()
    return votes
