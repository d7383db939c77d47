"""Random galaxies: which classes there are, how many of each, and the shape of one of them.

Everything is in arcsec, radians and r-band flux, free of survey and pixels; drawing is plain Python
on one generator per galaxy, so that a galaxy is the same whatever sample it is drawn in.
"""

import math
from dataclasses import dataclass, field

__all__ = ["CLASS_MIX", "Galaxy", "Host", "Tail", "draw_galaxy"]

#: Share of each class in a sample, before normalisation. In nature's mix most answers would be
#: too rare to learn in a sample of 2,000: cigars, bulgeless edge-on disks and mergers are a few
#: per cent each. Here smooth galaxies are a quarter, in three nearly equal classes; edge-on disks
#: an eighth, with three kinds of bulge; face-on disks, which alone carry the questions on bar,
#: arms, winding and bulge size, close to a half; interacting galaxies of three grades 15 per
#: cent. The rarest class of the reference's seven questions then has some 100 members in 2,000,
#: and the rarest answer of the whole tree (artifacts, five arms and more) some 40.
CLASS_MIX = {
    "smooth-round": 0.085,
    "smooth-in-between": 0.085,
    "smooth-cigar-shaped": 0.075,
    "edge-on-disk": 0.125,
    "spiral": 0.36,
    "disk": 0.10,
    "merger": 0.07,
    "major-disturbance": 0.045,
    "minor-disturbance": 0.035,
    "artifact": 0.02,
}

_SHAPES = (
    "smooth-round",
    "smooth-in-between",
    "smooth-cigar-shaped",
    "edge-on-disk",
    "spiral",
    "disk",
)


@dataclass
class Host:
    """One galaxy body: a bulge, a disk, a bar and arms about one centre.

    Lengths in arcsec, angles in radians, fluxes in r-band nanomaggies. ``position_angle`` is that
    of the major axis, north through east; ``axis_ratio`` is the apparent one of the disk, or of the
    spheroid if there is no disk.
    """

    kind: str
    flux: float
    position_angle: float
    axis_ratio: float
    x: float = 0.0  # offset to the west
    y: float = 0.0  # offset to the north
    color_shift: float = 0.0
    bulge_fraction: float = 0.0
    bulge_radius: float = 1.0
    bulge_index: float = 2.0
    bulge_axis_ratio: float = 1.0
    bulge_boxiness: float = 0.0
    disk_scale: float = 0.0
    disk_height: float = 0.0
    disk_young: float = 0.0
    bar_fraction: float = 0.0
    bar_length: float = 0.0
    bar_axis_ratio: float = 0.3
    bar_angle: float = 0.0
    ring_radius: float = 0.0
    ring_strength: float = 0.0
    n_arms: int = 0
    pitch: float = 0.0
    handedness: int = 1
    arm_phase: float = 0.0
    arm_contrast: float = 0.0
    arm_sharpness: float = 2.0
    arm_start: float = 0.0
    arm_wobble: tuple = (0.0, 0.0, 0.0)
    knot_fraction: float = 0.0
    knots: list = field(default_factory=list)
    dust: float = 0.0
    lopsided: float = 0.0
    bend: float = 0.0


@dataclass
class Tail:
    """A stream of stars along a logarithmic spiral, in the sky plane about the main body's centre.

    Lengths in arcsec, angles in radians, flux in r-band nanomaggies.
    """

    flux: float
    start: float
    angle: float
    extent: float
    pitch: float
    width: float
    handedness: int
    color_shift: float = 0.0


@dataclass
class Galaxy:
    """A galaxy with everything that belongs to it, and its place among the answers.

    ``hosts[0]`` is the galaxy the catalogue speaks of.
    """

    true_class: str
    merging: str
    hosts: list
    tails: list = field(default_factory=list)
    shells: list = field(default_factory=list)
    artifact: str = ""
    bulge_size: str = ""
    bar: str = ""
    winding: str = ""
    arm_count: str = ""
    edge_on_bulge: str = ""
    shape: str = ""


def _pick(rng, weights):
    """One key of a mapping from answer to weight."""
    x = rng.random() * sum(weights.values())
    for key, weight in weights.items():
        x -= weight
        if x < 0:
            return key
    return key


def _uniform(rng, low, high):
    return low + (high - low) * rng.random()


def _flux(rng, radius, axis_ratio, brightness, scatter):
    """Flux of a galaxy of a half-light radius and a mean r-band surface brightness within it.

    Kept between magnitude 14.2 and 17.8, the range of Galaxy Zoo.
    """
    mu = brightness + scatter * rng.standard_normal()
    mag = mu - 2.5 * math.log10(2 * math.pi * radius**2 * axis_ratio)
    return 10 ** (0.4 * (22.5 - min(max(mag, 14.2), 17.8)))


def _smooth(rng, shape):
    radius = math.exp(math.log(2.6) + 0.28 * rng.standard_normal())
    if shape == "smooth-round":
        q, index = _uniform(rng, 0.80, 1.0), _uniform(rng, 2.5, 5.0)
    elif shape == "smooth-in-between":
        q, index = _uniform(rng, 0.40, 0.77), _uniform(rng, 1.8, 4.2)
    else:
        q, index = _uniform(rng, 0.16, 0.33), _uniform(rng, 1.0, 2.0)
        radius *= 1.6
    radius = min(max(radius, 1.4), 5.5)
    host = Host(
        kind="smooth",
        flux=_flux(rng, radius, q, 20.4, 0.5),
        position_angle=math.pi * rng.random(),
        axis_ratio=q,
        color_shift=0.05 * rng.standard_normal(),
        bulge_fraction=1.0,
        bulge_radius=radius,
        bulge_index=index,
        bulge_axis_ratio=q,
    )
    if shape != "smooth-cigar-shaped" and rng.random() < 0.35:  # lenticular: a faint disk around it
        host.bulge_fraction = _uniform(rng, 0.5, 0.8)
        host.disk_scale = 0.9 * radius
        host.bulge_radius = 0.6 * radius
    elif shape == "smooth-cigar-shaped":
        host.color_shift -= 0.12 * rng.random()
    return host


_EDGE_ON_BULGES = {"rounded": 0.42, "boxy": 0.26, "none": 0.32}


def _edge_on(rng):
    bulge = _pick(rng, _EDGE_ON_BULGES)
    scale = min(max(math.exp(math.log(3.3) + 0.22 * rng.standard_normal()), 2.2), 5.0)
    height = scale * _uniform(rng, 0.10, 0.18)
    host = Host(
        kind="edge-on",
        flux=_flux(rng, 1.68 * scale, 0.30, 20.9, 0.4),
        position_angle=math.pi * rng.random(),
        axis_ratio=height / scale,
        color_shift=0.06 * rng.standard_normal(),
        disk_scale=scale,
        disk_height=height,
        disk_young=_uniform(rng, 0.05, 0.35),
        dust=_uniform(rng, 0.4, 1.2) if rng.random() < 0.45 else 0.0,
    )
    if rng.random() < 0.3:
        host.bend = _uniform(rng, -0.02, 0.02)
    if bulge == "rounded":
        host.bulge_fraction = _uniform(rng, 0.26, 0.45)
        host.bulge_radius = max(0.40 * scale * _uniform(rng, 0.85, 1.3), 1.2)
        host.bulge_index = _uniform(rng, 1.4, 2.6)
        host.bulge_axis_ratio = _uniform(rng, 0.72, 0.95)
    elif bulge == "boxy":
        host.bulge_fraction = _uniform(rng, 0.36, 0.5)
        host.bulge_radius = max(0.85 * scale * _uniform(rng, 0.9, 1.15), 2.4)
        host.bulge_index = 0.7
        host.bulge_axis_ratio = _uniform(rng, 0.58, 0.72)
        host.bulge_boxiness = _uniform(rng, 0.7, 1.0)
    else:
        host.disk_young = _uniform(rng, 0.25, 0.6)
        host.knot_fraction = 0.06 * rng.random()
    return host, bulge


_BULGE_SIZES = {"none": 0.12, "small": 0.26, "moderate": 0.32, "large": 0.22, "dominant": 0.08}
_BULGE_FRACTIONS = {
    "none": (0.0, 0.012),
    "small": (0.03, 0.08),
    "moderate": (0.12, 0.21),
    "large": (0.27, 0.40),
    "dominant": (0.48, 0.62),
}
_BARS = {"strong": 0.32, "weak": 0.23, "no": 0.45}
_WINDINGS = {"tight": 0.33, "medium": 0.33, "loose": 0.34}
_PITCHES = {"tight": (7.0, 13.0), "medium": (16.0, 23.0), "loose": (28.0, 42.0)}
_ARM_COUNTS = {"1": 0.08, "2": 0.46, "3": 0.14, "4": 0.10, "more-than-4": 0.08, "cant-tell": 0.14}


def _disk(rng, spiral):
    size = _pick(rng, _BULGE_SIZES)
    if not spiral and size == "none":
        size = "small"
    fraction = _uniform(rng, *_BULGE_FRACTIONS[size])
    scale = min(max(math.exp(math.log(2.75) + 0.22 * rng.standard_normal()), 1.8), 4.4)
    q = 1 - (1 - 0.45) * rng.random() ** 1.3
    bar = _pick(rng, _BARS)
    host = Host(
        kind="disk",
        flux=_flux(rng, 1.68 * scale, q, 21.2 - 0.7 * min(fraction, 0.5), 0.4),
        position_angle=math.pi * rng.random(),
        axis_ratio=q,
        color_shift=0.06 * rng.standard_normal() - 0.12 * (fraction < 0.05),
        bulge_fraction=fraction,
        bulge_radius=scale * (0.16 + 0.55 * fraction) * _uniform(rng, 0.85, 1.2),
        bulge_index=_uniform(rng, 1.2, 2.0) + 2.0 * fraction,
        bulge_axis_ratio=1 - 0.35 * (1 - q),
        disk_scale=scale,
        disk_young=_uniform(rng, 0.0, 0.25),
        handedness=1 if rng.random() < 0.5 else -1,
        arm_phase=2 * math.pi * rng.random(),
        dust=_uniform(rng, 0.3, 1.0) if rng.random() < 0.5 else 0.0,
        lopsided=0.12 * rng.random() if rng.random() < 0.3 else 0.0,
    )
    if bar != "no":
        strong = bar == "strong"
        host.bar_length = scale * (_uniform(rng, 1.15, 1.7) if strong else _uniform(rng, 0.65, 0.9))
        host.bar_length = max(host.bar_length, 3.1 if strong else 1.5)
        host.bar_axis_ratio = _uniform(rng, 0.2, 0.3) if strong else _uniform(rng, 0.38, 0.5)
        host.bar_fraction = (
            _uniform(rng, 0.15, 0.25) if strong else _uniform(rng, 0.045, 0.08)
        ) * (1 - fraction)
        host.bar_angle = math.pi * rng.random()
    if rng.random() < (0.12 if spiral else 0.35):
        host.ring_radius = max(host.bar_length * 1.05, scale * _uniform(rng, 1.2, 2.0))
        host.ring_strength = _uniform(rng, 0.1, 0.25) if spiral else _uniform(rng, 0.12, 0.3)
    if not spiral:
        host.knot_fraction = 0.10 * rng.random() if rng.random() < 0.4 else 0.0
    return host, size, bar


def _add_arms(rng, host):
    winding = _pick(rng, _WINDINGS)
    count = _pick(rng, _ARM_COUNTS)
    if winding == "tight" and count in ("4", "more-than-4"):
        count = "2"  # such arms lie closer together than the seeing
    if winding == "tight":
        grow = 1 + 0.3 * rng.random()
        host.disk_scale, host.bulge_radius = host.disk_scale * grow, host.bulge_radius * grow
    host.pitch = math.radians(_uniform(rng, *_PITCHES[winding]))
    host.n_arms = {"more-than-4": 5 + int(2 * rng.random()), "cant-tell": 0}.get(count) or (
        int(count) if count.isdigit() else 0
    )
    host.arm_contrast = _uniform(rng, 0.38, 0.85)
    host.arm_sharpness = _uniform(rng, 1.6, 3.0)
    host.arm_start = max(0.95 * host.bar_length, host.disk_scale * _uniform(rng, 0.25, 0.6))
    host.arm_wobble = tuple(0.35 * rng.standard_normal() for _ in range(3))
    if count == "2" and host.bar_fraction > 0:
        # Arms leave from the ends of the bar. The crest is where n * (phase - arms' own azimuth) is
        # 0.
        wind = math.log(host.arm_start / host.disk_scale) / math.tan(host.pitch)
        host.arm_phase = 2 * (host.handedness * host.bar_angle - wind)
    host.knot_fraction = _uniform(rng, 0.04, 0.16)
    return winding, count


def _draw_knots(rng, host):
    """Star-forming knots: (X, Y, share of the knot light) in the plane of the disk."""
    if host.knot_fraction <= 0:
        return
    n = 14 + int(26 * rng.random())
    flux = [math.exp(0.9 * rng.standard_normal()) for _ in range(n)]
    total = sum(flux)
    for f in flux:
        radius = host.disk_scale * (0.5 + rng.gamma(2.0, 0.75))
        azimuth = 2 * math.pi * rng.random()
        if host.n_arms:
            arm = int(host.n_arms * rng.random())
            turn = math.log(radius / host.disk_scale) / math.tan(host.pitch)
            azimuth = host.handedness * (
                turn
                + (host.arm_phase + 2 * math.pi * arm + 0.45 * rng.standard_normal()) / host.n_arms
            )
        if host.kind == "edge-on":
            x, y = radius * math.cos(azimuth), 0.5 * host.disk_height * rng.standard_normal()
        else:
            x, y = radius * math.cos(azimuth), radius * math.sin(azimuth)
        host.knots.append((x, y, f / total))


def _draw_shape(rng, shape):
    """Draw a body of one of the undisturbed shapes, with the answers it stands for."""
    galaxy = Galaxy(true_class=shape, merging="none", hosts=[], shape=shape)
    if shape.startswith("smooth"):
        host = _smooth(rng, shape)
    elif shape == "edge-on-disk":
        host, galaxy.edge_on_bulge = _edge_on(rng)
    else:
        host, galaxy.bulge_size, galaxy.bar = _disk(rng, shape == "spiral")
        if shape == "spiral":
            galaxy.winding, galaxy.arm_count = _add_arms(rng, host)
    _draw_knots(rng, host)
    galaxy.hosts.append(host)
    return galaxy


def _radius(host):
    """Tell how large a body looks, in arcsec."""
    return max(1.4 * host.disk_scale, host.bulge_radius if host.disk_scale == 0 else 0.0)


def _tail(rng, host, share, angle, handedness, extent, pitch=None):
    size = min(_radius(host), 4.5)
    return Tail(
        flux=share * host.flux,
        start=size * _uniform(rng, 0.7, 1.1),
        angle=angle,
        extent=extent,
        pitch=math.radians(_uniform(rng, 24, 38)) if pitch is None else pitch,
        width=size * _uniform(rng, 0.16, 0.26),
        handedness=handedness,
        color_shift=host.color_shift - 0.15 * rng.random(),
    )


def _scale_host(host, factor, flux):
    """Shrink a body and give it another flux."""
    host.flux = flux
    for name in (
        "bulge_radius",
        "disk_scale",
        "disk_height",
        "bar_length",
        "ring_radius",
        "arm_start",
    ):
        setattr(host, name, getattr(host, name) * factor)
    host.knots = [(x * factor, y * factor, f) for x, y, f in host.knots]


def _disturb(rng, galaxy, grade):
    """Turn an undisturbed galaxy into one that interacts."""
    galaxy.true_class = galaxy.merging = grade
    host = galaxy.hosts[0]
    hand = 1 if rng.random() < 0.5 else -1
    angle = 2 * math.pi * rng.random()
    if grade == "minor-disturbance":
        if galaxy.shape.startswith("smooth") and rng.random() < 0.6:
            galaxy.shells = _shells(rng, host, 0.035)
        else:
            galaxy.tails = [
                _tail(rng, host, _uniform(rng, 0.05, 0.09), angle, hand, _uniform(rng, 1.4, 2.6))
            ]
        host.lopsided = _uniform(rng, 0.15, 0.35)
        return
    if grade == "major-disturbance":
        host.lopsided = _uniform(rng, 0.4, 0.7)
        host.bend = _uniform(rng, 0.10, 0.2) * hand
        n_tails = 1 if rng.random() < 0.45 else 2
        galaxy.tails = [
            _tail(
                rng,
                host,
                _uniform(rng, 0.10, 0.18),
                angle + k * math.pi,
                hand,
                _uniform(rng, 1.8, 3.2),
            )
            for k in range(n_tails)
        ]
        if galaxy.shape.startswith("smooth"):
            galaxy.shells = _shells(rng, host, 0.06)
        return
    # Two bodies, either well apart with a bridge and tails, or two nuclei in one envelope.
    other = _draw_shape(rng, "spiral" if rng.random() < 0.5 else "smooth-in-between").hosts[0]
    ratio = _uniform(rng, 0.3, 0.95)
    size = min(_radius(host), 4.5)
    _scale_host(host, min(1.0, 4.0 / _radius(host)), host.flux)
    _scale_host(other, ratio**0.4 * size / _radius(other), ratio * host.flux)
    double_nucleus = rng.random() < 0.35
    apart = (_uniform(rng, 0.55, 0.9) if double_nucleus else _uniform(rng, 1.4, 2.3)) * size
    apart = max(apart, 1.9)
    # Centre the pair's light between the main body and the frame's centre.
    main = 0.3 if not double_nucleus else 0.5
    other.x, other.y = -apart * (1 - main) * math.sin(angle), apart * (1 - main) * math.cos(angle)
    host.x, host.y = apart * main * math.sin(angle), -apart * main * math.cos(angle)
    host.lopsided = _uniform(rng, 0.3, 0.6)
    other.lopsided = _uniform(rng, 0.2, 0.5)
    host.bend = _uniform(rng, 0.05, 0.14) * hand
    galaxy.hosts.append(other)
    galaxy.tails = [
        _tail(rng, host, _uniform(rng, 0.08, 0.16), angle + math.pi + 0.5 * k, hand * k, extent)
        for k, extent in zip(
            (1, -1), (_uniform(rng, 1.6, 3.0), _uniform(rng, 1.0, 2.2)), strict=True
        )
        if k == 1 or rng.random() < 0.7
    ]


def _shells(rng, host, share):
    """Ripples of an old merger: (radius, azimuth, share of the flux), sharp on the outside."""
    size = _radius(host)
    return [
        (size * (1.2 + 0.75 * k + 0.3 * rng.random()), 2 * math.pi * rng.random(), share)
        for k in range(2 + int(2 * rng.random()))
    ]


def draw_galaxy(rng, true_class):
    """Draw the parameters of a galaxy of a class.

    Parameters
    ----------
    rng : `~numpy.random.Generator`
        Source of the draw; used for nothing else.
    true_class : str
        One of the keys of `CLASS_MIX`.

    Returns
    -------
    Galaxy
    """
    if true_class in _SHAPES:
        return _draw_shape(rng, true_class)
    if true_class == "artifact":
        galaxy = _draw_shape(rng, "smooth-in-between")
        galaxy.true_class = "artifact"
        galaxy.artifact = _pick(
            rng, {"saturated-star": 0.45, "satellite-trail": 0.3, "missing-data": 0.25}
        )
        _scale_host(galaxy.hosts[0], 0.4, 0.05 * galaxy.hosts[0].flux)
        return galaxy
    shapes = {"spiral": 0.6, "disk": 0.1, "smooth-in-between": 0.2, "smooth-round": 0.1}
    galaxy = _draw_shape(rng, _pick(rng, shapes))
    _disturb(rng, galaxy, true_class)
    return galaxy
