"""Pictures of galaxies before the telescope: components, colours and all else in the frame."""

import math
from dataclasses import dataclass, field

import numpy as np

from .profiles import (
    bar_profile,
    boxy_profile,
    edge_on_profile,
    exponential_profile,
    fade,
    sersic_profile,
    shell_profile,
    spiral_crests,
    tail_profile,
)

__all__ = ["BANDS", "Foreground", "Grid", "draw_foreground", "render_galaxy", "render_neighbours"]

#: Bands that the simulator knows colours for.
BANDS = ("g", "r", "i", "z")

# g - r and r - z (AB) of stellar populations at redshift 0.03 to 0.08: old (bulges, bars,
# ellipticals), mixed disk, spiral arms, star-forming knots; and i between r and z.
# Strateva et al. 2001, AJ 122, 1861; Kennedy et al. 2016, MNRAS 460, 3458 (bulge and disk colours).
_COLORS = {
    "old": (0.84, 0.68),
    "disk": (0.64, 0.52),
    "young": (0.34, 0.26),
    "knot": (0.08, -0.05),
}
# Extinction relative to the r band: Cardelli et al. 1989, ApJ 345, 245, at R_V = 3.1.
_EXTINCTION = {"g": 1.40, "r": 1.0, "i": 0.77, "z": 0.58}
# Side of the square in which stars and neighbours are drawn; larger frames stay empty outside it.
_FIELD = 70.0  # arcsec


def band_fluxes(g_r, r_z, bands):
    """Flux in each band relative to r, for AB colours (list of float)."""
    magnitude = {"g": g_r, "r": 0.0, "i": -0.55 * r_z, "z": -r_z}
    return [10 ** (-0.4 * magnitude[band]) for band in bands]


def population_fluxes(population, shift, bands):
    """Flux relative to r of a stellar population, redder by ``shift`` in g - r (list of float)."""
    g_r, r_z = _COLORS[population]
    return band_fluxes(g_r + shift, r_z + 0.8 * shift, bands)


class Grid:
    """Pixel centres of a padded frame in arcsec from the middle of the cutout.

    Parameters
    ----------
    size : int
        Pixels along a side.
    pixel_scale : float
        Width of a pixel, arcsec.
    """

    def __init__(self, size, pixel_scale):
        self.size = size
        self.pixel_scale = pixel_scale
        axis = ((np.arange(size) - (size - 1) / 2) * pixel_scale).astype(np.float32)
        self.y = np.ascontiguousarray(np.broadcast_to(axis[:, None], (size, size)))
        self.x = np.ascontiguousarray(np.broadcast_to(axis, (size, size)))

    def window(self, x, y, radius):
        """Slices of the square of half-width ``radius`` arcsec about a point, cut at the frame."""
        middle, half = (self.size - 1) / 2, radius / self.pixel_scale
        column, row = x / self.pixel_scale + middle, y / self.pixel_scale + middle
        low = [min(max(int(c - half), 0), self.size) for c in (row, column)]
        high = [min(max(int(c + half) + 2, 0), self.size) for c in (row, column)]
        return slice(low[0], high[0]), slice(low[1], high[1])

    def deposit(self, image, x, y, flux):
        """Add point sources, each shared between the four nearest pixels.

        Parameters
        ----------
        image : array, shape (n_band, size, size)
            Surface brightness per square arcsec, changed in place.
        x, y : array, shape (k,)
            Positions, arcsec.
        flux : array, shape (n_band, k)
            Fluxes.
        """
        middle = (self.size - 1) / 2
        column, row = x / self.pixel_scale + middle, y / self.pixel_scale + middle
        inside = (column >= 0) & (row >= 0) & (column < self.size - 1) & (row < self.size - 1)
        if not inside.any():
            return
        column, row, flux = column[inside], row[inside], flux[:, inside] / self.pixel_scale**2
        left, bottom = column.astype(int), row.astype(int)
        right_share, top_share = column - left, row - bottom
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            share = (right_share if dx else 1 - right_share) * (top_share if dy else 1 - top_share)
            np.add.at(
                image, (slice(None), bottom + dy, left + dx), (flux * share).astype(np.float32)
            )


def _add(image, shape, fluxes):
    scaled = np.empty_like(shape)
    for plane, flux in zip(image, fluxes, strict=True):
        plane += np.multiply(shape, np.float32(flux), out=scaled)


def _scaled(factor, fluxes):
    return [factor * f for f in fluxes]


def _render_host(image, host, grid, bands):
    """Add a galaxy body to a picture, in surface brightness."""
    sin, cos = math.sin(host.position_angle), math.cos(host.position_angle)
    x = grid.x - np.float32(host.x) if host.x else grid.x
    y = grid.y - np.float32(host.y) if host.y else grid.y
    u = y * np.float32(cos) - x * np.float32(sin)
    v = x * np.float32(cos) + y * np.float32(sin)
    old = population_fluxes("old", host.color_shift, bands)
    if host.bend:
        size = max(host.disk_scale, host.bulge_radius)
        v = v + u * u * np.float32(host.bend / size)
    if host.bulge_fraction > 0:
        if host.bulge_boxiness > 0:
            bulge = boxy_profile(
                u, v, host.bulge_radius, host.bulge_axis_ratio, host.bulge_boxiness
            )
        else:
            bulge = sersic_profile(
                u,
                v,
                host.bulge_radius,
                host.bulge_index,
                host.bulge_axis_ratio,
                pixel_scale=grid.pixel_scale,
                rotation=host.position_angle,
            )
        if host.kind == "smooth" and host.lopsided:
            bulge *= 1 + np.float32(0.8 * host.lopsided) * np.tanh(
                u * np.float32(0.7 / host.bulge_radius)
            )
        _add(image, bulge, _scaled(host.flux * host.bulge_fraction, old))
    if host.disk_scale == 0:
        return
    if host.kind == "edge-on":
        _render_edge_on(image, host, grid, bands, u, v)
    elif host.kind == "smooth":
        r = np.sqrt(u * u + v * v * np.float32(1 / host.axis_ratio**2))
        disk = exponential_profile(r, host.disk_scale, host.axis_ratio)
        halo = population_fluxes("old", host.color_shift - 0.07, bands)
        _add(image, disk, _scaled(host.flux * (1 - host.bulge_fraction), halo))
    else:
        _render_disk(image, host, grid, bands, u, v * np.float32(1 / host.axis_ratio), old)
    if host.knots:
        _render_knots(image, host, grid, bands)


def _render_disk(image, host, grid, bands, u, w, old):
    """Add a disk with its bar, ring, arms and dust; (u, w) are coordinates in its plane."""
    r2 = u * u + w * w + np.float32(1e-4)
    r = np.sqrt(r2)
    light = host.flux * (1 - host.bulge_fraction - host.bar_fraction - host.knot_fraction)
    disk = exponential_profile(r, host.disk_scale, host.axis_ratio)
    old_disk = population_fluxes("disk", host.color_shift, bands)
    young = population_fluxes("young", host.color_shift, bands)
    mixed = [
        (1 - host.disk_young) * a + host.disk_young * b
        for a, b in zip(old_disk, young, strict=True)
    ]
    azimuth = None
    if host.arm_contrast or host.lopsided:
        azimuth = np.arctan2(w, u)
    if host.lopsided:
        tilt = np.minimum(r * np.float32(0.5 / host.disk_scale), 1) * np.float32(host.lopsided)
        disk *= 1 + tilt * np.cos(azimuth - np.float32(host.arm_phase))
    if host.ring_strength:
        offset = (r - np.float32(host.ring_radius)) * np.float32(1 / (0.16 * host.ring_radius))
        ring = np.exp(offset * offset * np.float32(-0.5))
        area = 2 * math.pi * host.ring_radius**2 * 0.16 * math.sqrt(2 * math.pi) * host.axis_ratio
        _add(image, ring, _scaled(light * host.ring_strength / area, young))
        light *= 1 - host.ring_strength
    if host.arm_contrast:
        log_radius = np.log(r2) * np.float32(0.5) - np.float32(math.log(host.disk_scale))
        crests = spiral_crests(
            log_radius,
            azimuth * host.handedness,
            host.n_arms,
            host.pitch,
            host.arm_phase,
            host.arm_sharpness,
            host.arm_wobble,
        )
        soft = max(0.15 * host.disk_scale, 0.15 * host.arm_start)
        start = fade(np.float32(host.arm_start) - r, soft)
        share = start * np.float32(host.arm_contrast)
        # Arms keep their light further out than the old disk does.
        _add(image, disk * (1 - share), _scaled(light, mixed))
        _add(image, disk * share * crests, _scaled(light, young))
    else:
        _add(image, disk, _scaled(light, mixed))
    if host.bar_fraction:
        sin, cos = np.float32(math.sin(host.bar_angle)), np.float32(math.cos(host.bar_angle))
        bar = bar_profile(
            u * cos + w * sin,
            w * cos - u * sin,
            host.bar_length,
            host.bar_axis_ratio,
            host.axis_ratio,
        )
        _add(image, bar, _scaled(host.flux * host.bar_fraction, old))
    if host.dust and host.arm_contrast and host.n_arms:
        # Dust lies on the inner edge of the arms, where gas runs into them.
        lane = spiral_crests(
            log_radius,
            azimuth * host.handedness,
            host.n_arms,
            host.pitch,
            host.arm_phase + 0.9,
            5.0,
            host.arm_wobble,
        )
        depth = lane * start * np.exp(r * np.float32(-0.5 / host.disk_scale))
        _redden(image, depth, 0.16 * host.dust, bands)


def _redden(image, depth, tau, bands):
    """Dim a picture by dust of optical depth ``tau * depth`` in r."""
    for plane, band in zip(image, bands, strict=True):
        plane *= np.exp(depth * np.float32(-tau * _EXTINCTION[band]))


def _render_edge_on(image, host, grid, bands, u, v):
    """Add a disk seen from its side."""
    light = host.flux * (1 - host.bulge_fraction - host.knot_fraction)
    thin = edge_on_profile(u, v, host.disk_scale, host.disk_height)
    old_disk = population_fluxes("disk", host.color_shift, bands)
    young = population_fluxes("young", host.color_shift, bands)
    mixed = [
        (1 - host.disk_young) * a + host.disk_young * b
        for a, b in zip(old_disk, young, strict=True)
    ]
    thick = edge_on_profile(u, v, 1.1 * host.disk_scale, 2.2 * host.disk_height)
    _add(image, thin, _scaled(0.8 * light, mixed))
    _add(image, thick, _scaled(0.2 * light, old_disk))
    if host.dust:
        lane = np.exp(
            np.abs(u) * np.float32(-0.6 / host.disk_scale)
            - np.abs(v) * np.float32(1 / 0.5 * host.disk_height)
        )
        _redden(image, lane, host.dust, bands)


def _render_knots(image, host, grid, bands):
    """Add star-forming knots, smaller than a pixel."""
    x, y, share = np.array(host.knots).T
    sin, cos = math.sin(host.position_angle), math.cos(host.position_angle)
    if host.kind != "edge-on":
        y = y * host.axis_ratio
    fluxes = np.array(
        _scaled(host.flux * host.knot_fraction, population_fluxes("knot", 0.0, bands))
    )
    grid.deposit(
        image, host.x - x * sin + y * cos, host.y + x * cos + y * sin, fluxes[:, None] * share
    )


def render_galaxy(image, galaxy, grid, bands):
    """Add a galaxy, companions and debris included, to a picture.

    Parameters
    ----------
    image : array, shape (n_band, size, size)
        Surface brightness in nmgy per square arcsec, float32; changed in place.
    galaxy : Galaxy
        What to draw.
    grid : Grid
        Where the pixels are.
    bands : tuple of str
        Bands of the picture.
    """
    alone = len(galaxy.hosts) == 1
    for host in galaxy.hosts:
        if alone or not host.dust:
            _render_host(image, host, grid, bands)
        else:  # its dust must not dim the companion
            body = np.zeros_like(image)
            _render_host(body, host, grid, bands)
            image += body
    main = galaxy.hosts[0]
    if not galaxy.tails and not galaxy.shells:
        return
    x, y = grid.x - np.float32(main.x), grid.y - np.float32(main.y)
    r = np.sqrt(x * x + y * y)
    angle = np.arctan2(-x, y)
    for tail in galaxy.tails:
        azimuth = np.mod(
            (angle - np.float32(tail.angle)) * tail.handedness, np.float32(2 * math.pi)
        )
        stream = tail_profile(r, azimuth, tail.start, tail.extent, tail.pitch, tail.width)
        _add(
            image,
            stream,
            _scaled(tail.flux, population_fluxes("disk", tail.color_shift - 0.1, bands)),
        )
    for radius, azimuth, share in galaxy.shells:
        shell = shell_profile(r, angle - np.float32(azimuth), radius)
        _add(
            image,
            shell,
            _scaled(share * main.flux, population_fluxes("old", main.color_shift, bands)),
        )


@dataclass
class Foreground:
    """What else is in the frame; positions in arcsec to the west and north, fluxes in r-band nmgy.

    ``stars`` holds (x, y, flux, g - r, r - z), ``neighbours`` holds (x, y, flux, g - r, r - z,
    effective radius, Sersic index, axis ratio, position angle), ``faint`` the same as stars for
    unresolved distant galaxies.
    """

    stars: list = field(default_factory=list)
    neighbours: list = field(default_factory=list)
    faint: list = field(default_factory=list)


def draw_foreground(rng):
    """Draw the stars and unrelated galaxies around a galaxy.

    Parameters
    ----------
    rng : `~numpy.random.Generator`
        Source of the draw.

    Returns
    -------
    Foreground
        About 0.6 stars and 0.8 galaxies brighter than magnitude 21.5, and 6 fainter ones, in 33 x
        33 arcsec.
    """
    foreground = Foreground()
    n_stars, n_neighbours, n_faint = rng.poisson((2.6, 3.6, 26.0)).tolist()

    def place():
        return _FIELD * (rng.random() - 0.5), _FIELD * (rng.random() - 0.5)

    for _ in range(n_stars):
        x, y = place()
        # No bright star on the galaxy: catalogues leave such galaxies out.
        mag = 21.0 - 5.5 * rng.random() ** 1.8
        mag = max(mag, 18.5) if x * x + y * y < 100 else mag
        blue = rng.random() < 0.45
        g_r = (
            (0.45 + 0.1 * rng.standard_normal()) if blue else (1.35 + 0.15 * rng.standard_normal())
        )
        r_z = (0.2 + 0.08 * rng.standard_normal()) if blue else (1.2 + 0.5 * rng.standard_normal())
        foreground.stars.append((x, y, 10 ** (0.4 * (22.5 - mag)), g_r, r_z))
    for _ in range(n_neighbours):
        x, y = place()
        mag = 21.5 - 3.5 * rng.random() ** 2.2
        radius = math.exp(math.log(0.75) + 0.22 * (21.0 - mag) + 0.3 * rng.standard_normal())
        shape = (
            min(radius, 2.5),
            0.8 + 2.2 * rng.random(),
            0.3 + 0.7 * rng.random(),
            math.pi * rng.random(),
        )
        color = (0.4 + 0.7 * rng.random(), 0.3 + 0.7 * rng.random())
        foreground.neighbours.append((x, y, 10 ** (0.4 * (22.5 - mag)), *color, *shape))
    for x, y, m, g_r, r_z in rng.random((n_faint, 5)).tolist():
        mag = 24.5 - 3.0 * m**2
        foreground.faint.append(
            (
                _FIELD * (x - 0.5),
                _FIELD * (y - 0.5),
                10 ** (0.4 * (22.5 - mag)),
                0.2 + 1.2 * g_r,
                0.2 + r_z,
            )
        )
    return foreground


def render_neighbours(image, foreground, grid, bands):
    """Add the unrelated galaxies of a frame to a picture, as `render_galaxy` does."""
    for x, y, flux, g_r, r_z, radius, index, axis_ratio, angle in foreground.neighbours:
        window = grid.window(x, y, 5 * radius)
        if any(part.stop - part.start < 2 for part in window):
            continue
        dx, dy = grid.x[window] - np.float32(x), grid.y[window] - np.float32(y)
        sin, cos = np.float32(math.sin(angle)), np.float32(math.cos(angle))
        shape = sersic_profile(
            dy * cos - dx * sin,
            dx * cos + dy * sin,
            radius,
            index,
            axis_ratio,
            pixel_scale=grid.pixel_scale,
        )
        _add(image[(slice(None), *window)], shape, _scaled(flux, band_fluxes(g_r, r_z, bands)))
    faint = foreground.faint
    if faint:
        colors = np.array([band_fluxes(*source[3:], bands) for source in faint])
        x, y, flux = np.array([source[:3] for source in faint]).T
        grid.deposit(image, x, y, flux * colors.T)
