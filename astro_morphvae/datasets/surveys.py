"""Imaging surveys as the simulator sees them: bands, pixel scale, seeing, depth and sky.

The noise of a preset is not a free number: it follows from the 5-sigma galaxy depth and seeing,
which are published for coadds and measured for single exposures, and the photon conversion from
that noise and the night-sky brightness.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from astropy import units as u
from scipy import fft

from ..surveys.registry import get_survey_info

__all__ = [
    "BASS_MZLS",
    "BOK_MOSAIC_EXPOSURE",
    "DECALS",
    "DECAM_EXPOSURE",
    "Survey",
    "get_survey",
    "moffat",
]

# Half-light radius of the round exponential galaxy to which Legacy Survey depths are quoted.
_DEPTH_GALAXY_RADIUS = 0.45  # arcsec
# Scale length of an exponential disk = half-light radius / 1.678347.
_HALF_LIGHT_TO_SCALE = 1.678346990


@dataclass(frozen=True, eq=False)
class Survey:
    """What of an imaging survey shapes a picture.

    Parameters
    ----------
    name : str
        Name of the survey.
    bands : tuple of str
        Filters, out of g, r, i, z.
    psf_fwhm : `~astropy.units.Quantity`, shape (n_band,)
        Full width at half maximum of the point-spread function, pixel response included.
    galaxy_depth : `~astropy.units.Quantity`, shape (n_band,), mag
        AB magnitude at which a round exponential galaxy of half-light radius 0.45 arcsec is
        detected at 5 sigma.
    sky_brightness : `~astropy.units.Quantity`, shape (n_band,), mag / arcsec2
        Brightness of the dark sky.
    pixel_scale : `~astropy.units.Quantity`
        Width of the delivered (coadd) pixels.
    native_pixel_scale : `~astropy.units.Quantity`, shape (n_band,)
        Width of the detector pixels; for information, the seeing above includes them.
    moffat_beta : float
        Exponent of the Moffat profile of the point-spread function.
    ra_range, dec_range : `~astropy.units.Quantity`, shape (2,)
        Box of sky in which simulated galaxies are placed.
    layer : str
        Name of the survey's layer in the Legacy Survey viewer, if it has one.
    """

    name: str
    bands: tuple
    psf_fwhm: u.Quantity
    galaxy_depth: u.Quantity
    sky_brightness: u.Quantity
    pixel_scale: u.Quantity = field(default_factory=lambda: 0.262 * u.arcsec)
    native_pixel_scale: u.Quantity | None = None
    moffat_beta: float = 3.5
    ra_range: u.Quantity = field(default_factory=lambda: [120.0, 250.0] * u.deg)
    dec_range: u.Quantity = field(default_factory=lambda: [0.0, 34.0] * u.deg)
    layer: str = ""

    def __post_init__(self):
        for name in ("psf_fwhm", "galaxy_depth", "sky_brightness"):
            value = getattr(self, name)
            if np.shape(value) != (len(self.bands),):
                raise ValueError(
                    f"{name} needs one value for each of the bands {self.bands}, got {value!r}"
                )
        if not self.moffat_beta > 1:
            raise ValueError(f"moffat_beta must be above 1, got {self.moffat_beta!r}")

    def sky_noise(self, pixel_scale=None):
        """Compute the standard deviation of the sky in one pixel.

        A galaxy of profile P (per square arcsec, after the point-spread function) measured with its
        own profile as weight has the flux error ``sigma / (scale * sqrt(integral of P**2))`` where
        ``sigma`` is the noise of a pixel of width ``scale``. Setting it to a fifth of the flux at
        the quoted depth gives ``sigma``.

        Parameters
        ----------
        pixel_scale : `~astropy.units.Quantity`, optional
            Width of the pixels; the survey's own by default. Coarser pixels hold more sky, so that
            the depth stays the same.

        Returns
        -------
        `~astropy.units.Quantity`, shape (n_band,), nmgy

        References
        ----------
        .. [1] King 1983, PASP 95, 163 (noise-equivalent area).
        .. [2] Dey et al. 2019, AJ 157, 168, section 7 (depth of a 0.45 arcsec exponential galaxy).
        """
        scale = (self.pixel_scale if pixel_scale is None else pixel_scale).to_value(u.arcsec)
        flux_error = 10 ** (0.4 * (22.5 - self.galaxy_depth.value)) / 5
        density = [_squared_profile(w, self.moffat_beta) for w in self.psf_fwhm.to_value(u.arcsec)]
        return flux_error * np.sqrt(density) * scale * u.nmgy

    def electrons_per_nmgy(self):
        """Compute the photo-electrons that one nanomaggy makes in the whole exposure.

        The sky of a pixel holds ``K * S`` electrons, S its flux in nanomaggies; where the noise is
        that of the sky, ``sigma**2 = S / K``, which gives K.

        Returns
        -------
        `~astropy.units.Quantity`, shape (n_band,), electron / nmgy
        """
        sky = (
            10 ** (0.4 * (22.5 - self.sky_brightness.value))
            * self.pixel_scale.to_value(u.arcsec) ** 2
        )
        return sky / self.sky_noise().value ** 2 * u.electron / u.nmgy

    def psf(self, size, pixel_scale=None):
        """Draw the point-spread function of each band, centred, of unit sum on the infinite plane.

        Parameters
        ----------
        size : int
            Width in pixels; odd puts the centre on a pixel.
        pixel_scale : `~astropy.units.Quantity`, optional
            Width of the pixels; the survey's own by default.

        Returns
        -------
        array, shape (n_band, size, size), float64
        """
        scale = (self.pixel_scale if pixel_scale is None else pixel_scale).to_value(u.arcsec)
        offset = (np.arange(size) - (size - 1) / 2) * scale
        r2 = offset[:, None] ** 2 + offset**2
        fwhm = self.psf_fwhm.to_value(u.arcsec)
        return np.stack([moffat(r2, width, self.moffat_beta) for width in fwhm]) * scale**2


def moffat(r2, fwhm, beta):
    """Moffat profile of unit flux.

    Parameters
    ----------
    r2 : array
        Squared distance from the centre, arcsec2.
    fwhm : float
        Full width at half maximum, arcsec.
    beta : float
        Exponent, above 1.

    Returns
    -------
    array
        Flux per square arcsec, in the type of ``r2``.

    References
    ----------
    .. [1] Moffat 1969, A&A 3, 455. [2] Trujillo et al. 2001, MNRAS 328, 977.
    """
    core2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
    return (beta - 1) / (np.pi * core2) * (1 + r2 / core2) ** -beta


@lru_cache(maxsize=64)
def _squared_profile(fwhm, beta):
    """Integral of the squared profile of the depth galaxy seen through a Moffat, 1 / arcsec2."""
    step, width = 0.06, 512
    axis = (np.arange(width) - width // 2) * step
    r2 = axis[:, None] ** 2 + axis**2
    disk = np.exp(-np.sqrt(r2) * _HALF_LIGHT_TO_SCALE / _DEPTH_GALAXY_RADIUS)
    psf = moffat(r2, fwhm, beta)
    profile = fft.irfft2(fft.rfft2(disk / disk.sum()) * fft.rfft2(psf / psf.sum()))
    return float(np.sum(profile**2) / step**2)


# Sky brightness: nominal dark sky by which the Legacy Surveys set their exposure times (the same
# for the three telescopes). Moffat exponent: median of fits to PSFEx models of single exposures of
# these cameras, 3.5 for DECam, 3.6 to 3.7 for 90prime and Mosaic3. The Legacy Surveys resample
# every camera to coadds of 0.262 arcsec per pixel, in the north as in the south.
_SKY = [22.04, 20.91, 18.46] * u.mag / u.arcsec**2


def _published(layer, **details):
    """Preset of a layer of the Legacy Surveys, with the seeing and depth that are published."""
    info = get_survey_info(layer)
    return Survey(
        name=info.name,
        layer=info.layer,
        bands=info.bands,
        psf_fwhm=info.psf_fwhm,
        galaxy_depth=info.depth,
        pixel_scale=info.pixel_scale,
        sky_brightness=_SKY,
        **details,
    )


#: Dark Energy Camera Legacy Survey: DECam g, r, z, south of declination 34 degrees.
DECALS = _published("ls-dr9-south", native_pixel_scale=[0.262, 0.262, 0.262] * u.arcsec)

#: Beijing-Arizona Sky Survey (90prime g, r) and Mayall z-band Legacy Survey (Mosaic3 z), in the
#: north.
BASS_MZLS = _published(
    "ls-dr9-north",
    native_pixel_scale=[0.454, 0.454, 0.26] * u.arcsec,
    moffat_beta=3.6,
    dec_range=[32.0, 80.0] * u.deg,
)

# Single exposures: medians over 17 CCDs of DECam (6 of g, 5 of r, 6 of z), 8 of 90prime (4 of g,
# 4 of r) and 3 of Mosaic3: images and PSFEx models that come with legacypipe, as measured by
# benchmarks/measure_exposures.py. The depths give the median noise of a pixel of the detector:
# 0.0053, 0.0098 and 0.0262 nmgy (DECam), 0.0113 and 0.0258 (90prime), 0.0228 (Mosaic3).

#: One exposure of DECam in g, r and z, as measured on 17 CCDs.
DECAM_EXPOSURE = Survey(
    name="DECam exposure",
    bands=("g", "r", "z"),
    psf_fwhm=[1.14, 1.00, 0.82] * u.arcsec,
    galaxy_depth=[23.91, 23.33, 22.39] * u.mag,
    sky_brightness=_SKY,
    native_pixel_scale=[0.263, 0.263, 0.263] * u.arcsec,
    moffat_beta=3.4,
)

#: One exposure of 90prime in g and r and of Mosaic3 in z, as measured on 8 and 3 CCDs. Wings differ
#: by band: the exponents of the bands are 5.8, 4.2 and 3.2, that of all CCDs is 4.0.
BOK_MOSAIC_EXPOSURE = Survey(
    name="90prime and Mosaic3 exposure",
    bands=("g", "r", "z"),
    psf_fwhm=[1.70, 1.30, 0.86] * u.arcsec,
    galaxy_depth=[23.40, 22.72, 22.53] * u.mag,
    sky_brightness=_SKY,
    native_pixel_scale=[0.453, 0.453, 0.258] * u.arcsec,
    moffat_beta=4.0,
    dec_range=[32.0, 80.0] * u.deg,
)

# By their names without spaces, hyphens and underscores, in lower case.
_PRESETS = {
    "decals": DECALS,
    "bass+mzls": BASS_MZLS,
    "bassmzls": BASS_MZLS,
    "bass": BASS_MZLS,
    "decamexposure": DECAM_EXPOSURE,
    "90primeandmosaic3exposure": BOK_MOSAIC_EXPOSURE,
    "bokmosaicexposure": BOK_MOSAIC_EXPOSURE,
}


def get_survey(survey):
    """Find a survey by its name.

    Parameters
    ----------
    survey : str or Survey
        "DECaLS", "BASS+MzLS", "DECam exposure" or "90prime and Mosaic3 exposure" (also
        "Bok Mosaic exposure"), in any case; a `Survey` is handed back as it is.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        If there is no preset of that name.
    """
    if isinstance(survey, Survey):
        return survey
    key = str(survey).lower()
    preset = _PRESETS.get("".join(letter for letter in key if letter not in " -_"))
    if preset is None:
        names = ", ".join(dict.fromkeys(repr(known.name) for known in _PRESETS.values()))
        raise ValueError(f"survey must be a Survey or one of {names}, got {survey!r}")
    return preset
