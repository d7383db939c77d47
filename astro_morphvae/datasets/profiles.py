"""Light profiles of galaxy components on a grid: what a galaxy looks like before the atmosphere.

Arrays only: every function takes coordinates in arcsec and gives surface brightness per square
arcsec for unit flux, in float32.
"""

import math
from functools import lru_cache

import numpy as np
from scipy import special

__all__ = [
    "bar_profile",
    "boxy_profile",
    "edge_on_profile",
    "exponential_profile",
    "fade",
    "sersic_b",
    "sersic_profile",
    "shell_profile",
    "spiral_crests",
    "tail_profile",
]

_TRUNCATION = 4.2  # radius at which disks fade, in scale lengths
_FADE = 0.35
_CUSP_SAMPLES = 5  # samples along a side of a pixel near the centre of a Sersic profile


def fade(x, width):
    """Logistic step from 1 at negative ``x`` to 0 at positive ``x``."""
    return np.float32(0.5) - np.float32(0.5) * np.tanh(x * np.float32(0.5 / width))


def _falloff(x):
    """Smooth end of a disk: 1 inside, 0 beyond the truncation radius."""
    return fade(x - np.float32(_TRUNCATION), _FADE)


def _integral(y, x):
    """Integral of samples on an even grid, by the trapezoidal rule."""
    return (y.sum() - 0.5 * (y[0] + y[-1])) * (x[1] - x[0])


@lru_cache(maxsize=1)
def _disk_norms():
    """Integrals of the face-on (x dx) and of the edge-on (dx) truncated disk, in scale lengths."""
    x = np.linspace(0, 9, 9001)
    fall = 1 / (1 + np.exp((x - _TRUNCATION) / _FADE))
    face_on = _integral(x * np.exp(-x) * fall, x)
    edge_on = _integral(np.sqrt(1 + 0.5 * np.pi * x) * np.exp(-x) * fall, x)
    return float(face_on), float(edge_on)


def exponential_profile(r, scale, axis_ratio):
    """Exponential disk that fades at 4.2 scale lengths.

    Parameters
    ----------
    r : array
        Radius in the plane of the disk, arcsec.
    scale : float
        Scale length, arcsec.
    axis_ratio : float
        Apparent axis ratio.

    Returns
    -------
    array

    References
    ----------
    .. [1] Freeman 1970, ApJ 160, 811. [2] Pohlen & Trujillo 2006, A&A 454, 759 (truncations).
    """
    x = r * np.float32(1 / scale)
    norm = 1 / (2 * math.pi * scale**2 * axis_ratio * _disk_norms()[0])
    return np.exp(-x) * _falloff(x) * np.float32(norm)


def edge_on_profile(u, v, scale, height):
    """Disk seen from its side: projected exponential along the plane, sech squared across it.

    The projection of an exponential disk is x K1(x) of x = |u| / scale, here approximated by sqrt(1
    + pi x / 2) exp(-x), which is right at both ends.

    Parameters
    ----------
    u, v : array
        Distance along and across the plane, arcsec.
    scale, height : float
        Scale length, and sech squared scale height, arcsec.

    Returns
    -------
    array

    References
    ----------
    .. [1] van der Kruit & Searle 1981, A&A 95, 105.
    """
    x = np.abs(u) * np.float32(1 / scale)
    across = np.exp(np.abs(v) * np.float32(-2 / height))
    norm = 1 / (2 * scale * _disk_norms()[1] * 2 * height)
    along = np.sqrt(1 + x * np.float32(0.5 * math.pi)) * np.exp(-x) * _falloff(x)
    return along * across / (1 + across) ** 2 * np.float32(4 * norm)


@lru_cache(maxsize=1)
def _cusp_offsets():
    """Sub-pixel offsets, in pixels, that divide a pixel into 5 x 5."""
    middle = (_CUSP_SAMPLES - 1) / 2
    offsets = ((np.arange(_CUSP_SAMPLES) - middle) / _CUSP_SAMPLES).astype(np.float32)
    return offsets


def sersic_b(index):
    """Coefficient b_n of the Sersic profile (Ciotti & Bertin 1999, A&A 352, 447)."""
    n = index
    return 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2) + 131 / (1148175 * n**3)


def _sersic_shape(r2, index, b):
    """Profile relative to the effective radius; ``r2`` in units of its square, above 0."""
    power = np.exp(np.log(r2) * np.float32(0.5 / index))
    return np.exp((power - 1) * np.float32(-b))


def sersic_profile(u, v, radius, index, axis_ratio, *, pixel_scale, rotation=None):
    """Sersic profile, with its cusp averaged over pixels.

    Parameters
    ----------
    u, v : array, shape (ny, nx)
        Coordinates along the major and minor axis, arcsec, on a regular pixel grid.
    radius : float
        Effective radius along the major axis, arcsec.
    index : float
        Sersic index.
    axis_ratio : float
        Minor over major axis.
    pixel_scale : float
        Width of a pixel, arcsec.
    rotation : float, optional
        Position angle of the major axis, radians. If given, the 11 x 11 pixels around the centre
        are sampled 5 x 5 times each; otherwise the cusp is softened by 0.3 pixels, which does for
        galaxies in the background.

    Returns
    -------
    array, shape (ny, nx)

    References
    ----------
    .. [1] Sersic 1963, BAAA 6, 41. [2] Graham & Driver 2005, PASA 22, 118.
    """
    b = sersic_b(index)
    flux = 2 * math.pi * radius**2 * axis_ratio * index * math.exp(b) * b ** (-2 * index)
    norm = np.float32(1 / (flux * special.gamma(2 * index)))
    inverse, flatten = np.float32(1 / radius**2), np.float32(1 / (radius * axis_ratio) ** 2)
    # The mean of the cusp over a pixel is its value some 0.3 pixels from the centre.
    sample = pixel_scale if rotation is None else pixel_scale / _CUSP_SAMPLES
    tiny = np.float32((0.3 * sample / radius) ** 2)
    image = _sersic_shape(u * u * inverse + v * v * flatten + tiny, index, b)
    if rotation is not None:
        ny, nx = u.shape
        centre = int(np.argmin(u * u + v * v))
        y0, x0 = max(centre // nx - 5, 0), max(centre % nx - 5, 0)
        block = (slice(y0, min(centre // nx + 6, ny)), slice(x0, min(centre % nx + 6, nx)))
        offsets = _cusp_offsets() * np.float32(pixel_scale)
        dx, dy = offsets, offsets[:, None]
        sin, cos = np.float32(math.sin(rotation)), np.float32(math.cos(rotation))
        fine_u = u[block][:, :, None, None] + (dy * cos - dx * sin)
        fine_v = v[block][:, :, None, None] + (dx * cos + dy * sin)
        fine = _sersic_shape(fine_u * fine_u * inverse + fine_v * fine_v * flatten + tiny, index, b)
        image[block] = fine.mean(axis=(2, 3))
    return image * norm


def boxy_profile(u, v, radius, axis_ratio, boxiness):
    """Boxy or peanut-shaped bulge of an edge-on disk, of unit flux to some per cent.

    Isophotes are superellipses of exponent 2 + 1.6 boxiness, pinched across the centre into the X
    of a peanut.

    References
    ----------
    .. [1] Luetticke, Dettmar & Pohlen 2000, A&AS 145, 405. [2] Athanassoula et al. 1990, MNRAS 245,
       130.
    """
    power = 2 + 1.6 * boxiness
    x = np.abs(u) * np.float32(1 / radius)
    pinch = 1 + np.float32(0.35 * boxiness) * np.exp(-(x * x) * np.float32(9))
    y = np.abs(v) * np.float32(1 / (radius * axis_ratio)) * pinch
    tiny = np.float32(1e-6)
    rho = np.exp(np.log(x + tiny) * np.float32(power)) + np.exp(
        np.log(y + tiny) * np.float32(power)
    )
    r = np.exp(np.log(rho + tiny) * np.float32(1 / power))
    area = 4 * math.gamma(1 + 1 / power) ** 2 / math.gamma(1 + 2 / power)
    # exp(-0.9 r**2.2): a flat middle and a marked edge.
    k, m = 0.9, 2.2
    flux = area * radius**2 * axis_ratio * 2 / m * k ** (-2 / m) * math.gamma(2 / m)
    return np.exp(np.exp(np.log(r) * np.float32(m)) * np.float32(-k)) * np.float32(1 / flux)


def bar_profile(x, y, length, axis_ratio, inclination_ratio):
    """Flat, rectangular bar with soft ends.

    Parameters
    ----------
    x, y : array
        Coordinates along and across the bar in the plane of the disk, arcsec.
    length : float
        Semi-major axis, arcsec.
    axis_ratio : float
        Width over length.
    inclination_ratio : float
        Apparent axis ratio of the disk.

    Returns
    -------
    array

    References
    ----------
    .. [1] Freeman 1966, MNRAS 133, 47. [2] Gadotti 2011, MNRAS 415, 3308 (boxy bars).
    """
    a = np.abs(x) * np.float32(1 / length)
    b = np.abs(y) * np.float32(1 / (length * axis_ratio))
    k = 1.6
    flux = (
        4
        * length**2
        * axis_ratio
        * inclination_ratio
        * math.gamma(4 / 3)
        * math.gamma(1.5)
        * k ** (-5 / 6)
    )
    return np.exp((a * a * a + b * b) * np.float32(-k)) * np.float32(1 / flux)


def spiral_crests(log_radius, azimuth, n_arms, pitch, phase, sharpness, wobble):
    """Logarithmic spiral arms: modulation of azimuthal mean 1.

    Parameters
    ----------
    log_radius : array
        Natural logarithm of the radius in scale lengths.
    azimuth : array
        Azimuth in the plane of the disk, in the sense of the winding, radians.
    n_arms : int
        Number of arms; 0 makes a flocculent pattern of short arcs.
    pitch : float
        Pitch angle, radians.
    phase : float
        Phase of the pattern, radians.
    sharpness : float
        Concentration of the arms; the crest is ``exp(sharpness * (cos - 1))``.
    wobble : tuple of 3 floats
        Departures from the perfect spiral.

    Returns
    -------
    array

    References
    ----------
    .. [1] Seigar & James 1998, MNRAS 299, 685. [2] Davis et al. 2012, ApJS 199, 33.
    """
    wind = log_radius * np.float32(1 / math.tan(pitch))
    if n_arms == 0:
        angle = wind - azimuth
        fleece = np.cos(
            2 * angle + np.float32(phase) + np.sin(3 * log_radius + np.float32(5 * wobble[0]))
        )
        fleece += np.cos(5 * azimuth - np.float32(3.2) * wind + np.float32(4 * wobble[1]))
        fleece += np.cos(
            7 * azimuth - np.float32(6.1) * wind + np.float32(4 * wobble[2]) + 2 * phase
        )
        crest = np.exp(fleece * np.float32(0.45 * sharpness))
        return crest * np.float32(1 / special.i0(0.45 * sharpness) ** 3)
    single = azimuth - wind
    # Arms of a real galaxy are neither equally spaced nor equally strong.
    drift = np.float32(wobble[0]) * np.sin(2 * log_radius + np.float32(phase))
    uneven = np.float32(0.5 * wobble[1]) * np.sin(single + np.float32(3 * wobble[2]))
    angle = n_arms * single - np.float32(phase) + drift + uneven
    crest = np.exp((np.cos(angle) - 1) * np.float32(sharpness))
    patches = (3 + n_arms) * azimuth + 2 * log_radius + np.float32(9 * wobble[2])
    crest *= 1 + np.float32(0.35) * np.sin(patches)
    return crest * np.float32(1 / special.i0e(sharpness))


def tail_profile(r, azimuth, start, extent, pitch, width):
    """Tidal tail: a curved, widening, fading stream.

    Parameters
    ----------
    r, azimuth : array
        Polar coordinates about the galaxy; azimuth from the foot of the tail, in the sense it runs,
        0 to 2 pi.
    start : float
        Radius of the foot, arcsec.
    extent : float
        Angle that the tail covers, radians.
    pitch, width : float
        Pitch angle in radians, and standard deviation across the foot in arcsec.

    Returns
    -------
    array

    References
    ----------
    .. [1] Toomre & Toomre 1972, ApJ 178, 623.
    """
    slope = math.tan(pitch)
    crest = np.exp(azimuth * np.float32(slope)) * np.float32(start)
    along = azimuth * np.float32(1 / extent)
    spread = (along * np.float32(0.8) + 1) * np.float32(width)
    across = (r - crest) * np.float32(math.cos(pitch)) / spread
    ends = fade(along - 1, 1 / 9)
    ends *= 1 - np.exp(along * np.float32(-12))
    light = np.exp(across * across * np.float32(-0.5) - along * np.float32(0.7)) * ends
    return light * np.float32(1 / _tail_flux(start, extent, slope, width))


def _tail_flux(start, extent, slope, width):
    """Integral of the tail's light: cross-section times arc length."""
    along = np.linspace(0, 1.6, 81)
    fade = np.exp(-0.7 * along) * (1 - np.exp(-12 * along)) / (1 + np.exp(9 * (along - 1)))
    arc = start * np.exp(along * extent * slope) * math.hypot(1, slope)
    section = math.sqrt(2 * math.pi) * width * (1 + 0.8 * along)
    return extent * _integral(fade * arc * section, along)


def shell_profile(r, azimuth, radius, width=0.22, concentration=2.2):
    """Shell of an old merger: an arc with a sharp outer edge.

    References
    ----------
    .. [1] Malin & Carter 1983, ApJ 274, 534.
    """
    inside = (r - np.float32(radius)) * np.float32(1 / (width * radius))
    edge = fade(inside, 1 / 30)
    light = np.exp(np.minimum(inside, 1) + (np.cos(azimuth) - 1) * np.float32(concentration)) * edge
    flux = radius * width * radius * (1 - width) * 2 * math.pi * special.i0e(concentration)
    return light * np.float32(1 / flux)
