"""What is published of each survey: bands, pixel scale, seeing, depth, zero point, references."""

from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u

__all__ = ["SurveyInfo", "get_survey_info", "list_surveys"]


@dataclass(frozen=True, eq=False)
class SurveyInfo:
    """Published numbers of one survey, as its images are delivered.

    Parameters
    ----------
    name : str
        Name of the survey.
    layer : str
        Name under which its images are asked for: a layer of the Legacy Survey viewer, a HiPS
        (with ``{band}`` in place of the band), or the name of the service.
    bands : tuple of str
        Filters.
    pixel_scale : `~astropy.units.Quantity` [angle]
        Width of the pixels of the coadds or frames, to which the zero point belongs.
    psf_fwhm : `~astropy.units.Quantity` [angle], shape (n_band,)
        Median full width at half maximum of the point spread function; NaN where no median is
        published.
    depth : `~astropy.units.Quantity` [mag], shape (n_band,)
        Typical AB magnitude of a 5-sigma detection, of what ``depth_of`` says; NaN where none is
        published.
    depth_of : {"galaxy", "point source"}
        What the depth is for. A galaxy is a round exponential disk of half-light radius
        0.45 arcsec.
    zero_point : `~astropy.units.Quantity` [ABmag]
        AB magnitude of one unit of the images: 22.5 for nanomaggies. NaN where it differs from
        image to image.
    references : tuple of str
        Where the numbers are from.
    """

    name: str
    layer: str
    bands: tuple
    pixel_scale: u.Quantity
    psf_fwhm: u.Quantity
    depth: u.Quantity
    depth_of: str
    zero_point: u.Quantity
    references: tuple

    def __post_init__(self):
        for name in ("psf_fwhm", "depth"):
            value = getattr(self, name)
            if np.shape(value) != (len(self.bands),):
                raise ValueError(
                    f"{name}: expected one value for each of the bands {self.bands}, got {value!r}"
                )

    def psf_fwhm_of(self, bands):
        """Median seeing of some of the bands.

        Parameters
        ----------
        bands : sequence of str
            Names of the bands.

        Returns
        -------
        `~astropy.units.Quantity`, shape (n_band,), or None
            None where one of the bands is not of this survey or has no published median.
        """
        if not all(band in self.bands for band in bands):
            return None
        fwhm = self.psf_fwhm[[self.bands.index(band) for band in bands]]
        return fwhm if np.isfinite(fwhm).all() else None


_DEY = "Dey et al. 2019, AJ 157, 168, tables 3 and 4; doi:10.3847/1538-3881/ab089d"
_DR9 = "Legacy Surveys DR9, https://www.legacysurvey.org/dr9/description/"
_DR10 = "Legacy Surveys DR10, https://www.legacysurvey.org/dr10/description/"
_NANOMAGGIES = 22.5 * u.ABmag
_NAN = float("nan")

_DECALS = SurveyInfo(
    name="DECaLS",
    layer="ls-dr9-south",
    bands=("g", "r", "z"),
    pixel_scale=0.262 * u.arcsec,
    psf_fwhm=[1.29, 1.18, 1.11] * u.arcsec,
    depth=[24.0, 23.4, 22.5] * u.mag,
    depth_of="galaxy",
    zero_point=_NANOMAGGIES,
    references=(_DEY, _DR9),
)

# The coadds of the north are resampled to the pixels of the south; the detectors of 90prime have
# 0.454 arcsec pixels, those of Mosaic3 0.26 arcsec.
_BASS_MZLS = replace(
    _DECALS,
    name="BASS+MzLS",
    layer="ls-dr9-north",
    psf_fwhm=[1.61, 1.47, 1.01] * u.arcsec,
    depth=[23.6, 23.0, 22.6] * u.mag,
)

# g, r and z are those of DECaLS; medians over the i-band images, which come from many programs
# with DECam, are not published.
_DR10_SOUTH = replace(
    _DECALS,
    name="Legacy Surveys DR10",
    layer="ls-dr10-south",
    bands=("g", "r", "i", "z"),
    psf_fwhm=[1.29, 1.18, _NAN, 1.11] * u.arcsec,
    depth=[24.0, 23.4, _NAN, 22.5] * u.mag,
    references=(_DEY, _DR10),
)

_PANSTARRS = SurveyInfo(
    name="Pan-STARRS1 3pi",
    layer="PanSTARRS",
    bands=("g", "r", "i", "z", "y"),
    pixel_scale=0.25 * u.arcsec,
    psf_fwhm=[1.31, 1.19, 1.11, 1.07, 1.02] * u.arcsec,
    depth=[23.3, 23.2, 23.1, 22.3, 21.4] * u.mag,
    depth_of="point source",
    zero_point=_NAN * u.ABmag,  # 25 + 2.5 log10(exposure time) of each stack
    references=(
        "Chambers et al. 2016, arXiv:1612.05560 (depth); doi:10.48550/arXiv.1612.05560",
        "Magnier et al. 2020, ApJS 251, 5 (seeing: arXiv v1); doi:10.3847/1538-4365/abb82c",
        "Waters et al. 2020, ApJS 251, 4 (stacks, zero point, masks); doi:10.3847/1538-4365/abb82b",
    ),
)

_SDSS = SurveyInfo(
    name="SDSS",
    layer="SDSS",
    bands=("u", "g", "r", "i", "z"),
    pixel_scale=0.396 * u.arcsec,
    psf_fwhm=[_NAN, _NAN, 1.43, _NAN, _NAN] * u.arcsec,
    depth=[22.3, 23.3, 23.1, 22.3, 20.8] * u.mag,
    depth_of="point source",
    zero_point=_NANOMAGGIES,
    references=(
        "York et al. 2000, AJ 120, 1579 (depth, in 1 arcsec seeing); doi:10.1086/301513",
        "Abazajian et al. 2003, AJ 126, 2081 (seeing); doi:10.1086/378165",
        "Aihara et al. 2011, ApJS 193, 29 (calibrated frames); doi:10.1088/0067-0049/193/2/29",
    ),
)

# HiPS tiles keep the values of the images they were made from, resampled, so that their zero point
# and the pixel scale that it belongs to are those of the images.
_HIPS = "Fernique et al. 2015, A&A 578, A114 (HiPS); doi:10.1051/0004-6361/201526075"
_HIPS_LEGACY = replace(
    _DR10_SOUTH,
    name="Legacy Surveys DR10 (HiPS)",
    layer="CDS/P/DESI-Legacy-Surveys/DR10/{band}",
    references=(*_DR10_SOUTH.references, _HIPS),
)
_HIPS_SDSS = replace(
    _SDSS,
    name="SDSS DR9 (HiPS)",
    layer="CDS/P/SDSS9/{band}",
    references=(*_SDSS.references, _HIPS),
)
_HIPS_PANSTARRS = replace(
    _PANSTARRS,
    name="Pan-STARRS1 3pi (HiPS)",
    layer="CDS/P/PanSTARRS/DR1/{band}",
    references=(*_PANSTARRS.references, _HIPS),
)
_HIPS_DES = SurveyInfo(
    name="DES DR2 (HiPS)",
    layer="CDS/P/DES-DR2/{band}",
    bands=("g", "r", "i", "z", "Y"),
    pixel_scale=0.263 * u.arcsec,
    psf_fwhm=[1.11, 0.95, 0.88, 0.83, 0.90] * u.arcsec,
    # The published depths are for a signal-to-noise ratio of 10; 5 lies 2.5 log10(2) deeper.
    depth=np.add([24.7, 24.4, 23.8, 23.1, 21.7], 2.5 * np.log10(2)) * u.mag,
    depth_of="point source",
    zero_point=30.0 * u.ABmag,
    references=(
        "Abbott et al. 2021, ApJS 255, 20 (1.95 arcsec aperture); doi:10.3847/1538-4365/ac00b3",
        _HIPS,
    ),
)

_SURVEYS = {
    info.layer.lower(): info
    for info in (
        _DECALS,
        _BASS_MZLS,
        _DR10_SOUTH,
        _PANSTARRS,
        _SDSS,
        _HIPS_LEGACY,
        _HIPS_SDSS,
        _HIPS_PANSTARRS,
        _HIPS_DES,
    )
}
_ALIASES = {
    "decals": "ls-dr9-south",
    "bass+mzls": "ls-dr9-north",
    "bass-mzls": "ls-dr9-north",
    "pan-starrs": "panstarrs",
    "pan-starrs1": "panstarrs",
    "ps1": "panstarrs",
}
_VARIANTS = ("-model", "-resid")


def list_surveys():
    """Names of the surveys that are known.

    Returns
    -------
    tuple of str
        Layers, services and HiPS, each of which `get_survey_info` takes.
    """
    return tuple(info.layer for info in _SURVEYS.values())


def get_survey_info(name):
    """Find the published numbers of a survey.

    Parameters
    ----------
    name : str or SurveyInfo
        A layer of the Legacy Survey viewer (``"ls-dr9-south"``, also with ``-model`` or
        ``-resid``), ``"PanSTARRS"``, ``"SDSS"``, a HiPS such as ``"CDS/P/SDSS9/r"``, or
        ``"DECaLS"`` or ``"BASS+MzLS"``, in any case. A `SurveyInfo` is handed back as it is.

    Returns
    -------
    SurveyInfo
        For a HiPS, of its one band; with ``{band}`` in its name, of all.

    Raises
    ------
    ValueError
        If nothing is known of it.
    """
    if isinstance(name, SurveyInfo):
        return name
    key = str(name).strip().lower().replace("_", "-").replace(" ", "")
    key = _ALIASES.get(key, key)
    info = _SURVEYS.get(key)
    if info is None and key.endswith(_VARIANTS):
        info = _SURVEYS.get(key[:-6])
        info = None if info is None or "{" in info.layer else replace(info, layer=key)
    if info is None:
        info = _band_of_hips(str(name).strip())
    if info is None:
        raise ValueError(f"name: expected one of {list_surveys()}, got {name!r}")
    return info


def _band_of_hips(name):
    stem, slash, band = name.rpartition("/")
    info = _SURVEYS.get(f"{stem}{slash}{{band}}".lower())
    if info is None or band not in info.bands:
        return None
    row = info.bands.index(band)
    return replace(
        info,
        layer=name,
        bands=(band,),
        psf_fwhm=info.psf_fwhm[row : row + 1],
        depth=info.depth[row : row + 1],
    )
