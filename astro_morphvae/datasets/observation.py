"""The telescope: point-spread function, stars, sky, photon noise and what goes wrong."""

import math

import numpy as np
from astropy import units as u
from scipy import fft

from .scenes import Grid, band_fluxes
from .surveys import moffat

__all__ = ["Telescope"]

# Surface brightness of a full pixel: a star of magnitude 15.6 in 1.2 arcsec seeing.
_SATURATION = 250.0  # nmgy / arcsec2


def _standard_normal(generators, shape):
    """Draw standard normal deviates by the transform of Box and Muller (1958), for its speed.

    Float32 numbers on [0, 1) end at 1 - 2**-24, so that no deviate lies beyond 5.8 sigma.

    Parameters
    ----------
    generators : list of `~numpy.random.Generator`
        One for each picture.
    shape : tuple of int
        Shape of a picture.

    Returns
    -------
    array, shape (len(generators), *shape)
    """
    size = math.prod(shape)
    half = (size + 1) // 2
    uniform = np.empty((len(generators), 2, half), np.float32)
    for generator, numbers in zip(generators, uniform, strict=True):
        generator.random(out=numbers, dtype=np.float32)
    radius, angle = uniform[:, 0], uniform[:, 1] * np.float32(2 * math.pi)
    radius = np.sqrt(np.log(np.float32(1) - radius) * np.float32(-2))
    np.multiply(np.cos(angle), radius, out=uniform[:, 0])
    np.multiply(np.sin(angle), radius, out=uniform[:, 1])
    return uniform.reshape(len(generators), -1)[:, :size].reshape(-1, *shape)


class Telescope:
    """A survey's camera at one cutout size and pixel scale: what all cutouts have in common.

    Parameters
    ----------
    survey : Survey
        What survey observes.
    size : int
        Pixels along a side of a cutout.
    pixel_scale : float
        Width of a pixel, arcsec.
    """

    def __init__(self, survey, size, pixel_scale):
        self.survey = survey
        self.size = size
        self.pixel_scale = pixel_scale
        self.bands = survey.bands
        self.psf_fwhm = survey.psf_fwhm.to_value(u.arcsec)
        # The picture is drawn with a margin, so that light from outside the frame is smeared into
        # it and the periodic convolution wraps around outside it.
        margin = math.ceil(1.6 * self.psf_fwhm.max() / pixel_scale)
        self.padded = fft.next_fast_len(size + 2 * margin, real=True)
        self.padded += (self.padded - size) % 2
        self.margin = (self.padded - size) // 2
        self.grid = Grid(self.padded, pixel_scale)
        self.frame = Grid(size, pixel_scale)
        self.sky_noise = survey.sky_noise(pixel_scale * u.arcsec).value.astype(np.float32)
        self.electrons = survey.electrons_per_nmgy().value.astype(np.float32)
        self._psf = self._transfer_function()

    def _transfer_function(self):
        """Fourier transform of the sampled point-spread function, real because it is symmetric."""
        offset = fft.fftfreq(self.padded, 1 / self.padded) * self.pixel_scale
        r2 = offset[:, None] ** 2 + offset**2
        psf = np.stack([moffat(r2, fwhm, self.survey.moffat_beta) for fwhm in self.psf_fwhm])
        psf /= psf.sum(axis=(1, 2), keepdims=True)
        return fft.rfft2(psf).real.astype(np.float32)

    def blank(self, n):
        """Make ``n`` empty padded pictures, surface brightness in nmgy per square arcsec."""
        return np.zeros((n, len(self.bands), self.padded, self.padded), np.float32)

    def image(self, pictures):
        """Look at pictures through the atmosphere: flux in the pixels of the cutouts.

        Parameters
        ----------
        pictures : array, shape (n, n_band, padded, padded)
            Surface brightness, nmgy per square arcsec.

        Returns
        -------
        array, shape (n, n_band, size, size)
            Flux in nmgy per pixel.
        """
        spectrum = fft.rfft2(pictures, workers=1)
        spectrum *= self._psf
        blurred = fft.irfft2(spectrum, s=pictures.shape[-2:], workers=1, overwrite_x=True)
        inner = slice(self.margin, self.margin + self.size)
        return blurred[..., inner, inner] * np.float32(self.pixel_scale**2)

    def add_star(self, image, x, y, flux, g_r, r_z):
        """Add a star to a cutout in nmgy per pixel; in place."""
        beta = self.survey.moffat_beta
        fluxes = band_fluxes(g_r, r_z, self.bands)
        for plane, fwhm, noise, f in zip(image, self.psf_fwhm, self.sky_noise, fluxes, strict=True):
            peak = flux * f * self.pixel_scale**2 * moffat(0.0, fwhm, beta)
            core2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
            reach = math.sqrt(core2 * max((peak / (0.15 * noise)) ** (1 / beta) - 1, 1.0))
            window = self.frame.window(x, y, reach)
            if any(part.stop <= part.start for part in window):
                continue
            dx, dy = self.frame.x[window] - np.float32(x), self.frame.y[window] - np.float32(y)
            wing = np.log(1 + (dx * dx + dy * dy) * np.float32(1 / core2))
            plane[window] += np.exp(wing * np.float32(-beta)) * np.float32(peak)

    def spoil(self, image, rng, artifact):
        """Add an artifact to a cutout, in place, and tell which pixels it makes useless.

        Parameters
        ----------
        image : array, shape (n_band, size, size)
            Flux, nmgy per pixel.
        rng : `~numpy.random.Generator`
            Source of its shape.
        artifact : str
            "saturated-star", "satellite-trail" or "missing-data".

        Returns
        -------
        array of bool, shape (n_band, size, size)
            True where there is no measurement.
        """
        bad = np.zeros(image.shape, bool)
        x, y = self.frame.x, self.frame.y
        area = np.float32(self.pixel_scale**2)
        if artifact == "saturated-star":
            x0, y0 = 4 * rng.standard_normal(2)
            flux = 10 ** (0.4 * (22.5 - (8.5 + 2.5 * rng.random())))
            self.add_star(image, x0, y0, flux, 0.5, 0.3)
            dx, dy = np.abs(x - np.float32(x0)), np.abs(y - np.float32(y0))
            # Spikes of the support of the secondary mirror, and charge that bleeds along a row.
            spikes = np.exp(dx * -3) / (dy + 1) ** 2 + np.exp(dy * -3) / (dx + 1) ** 2
            length = 3 + 9 * rng.random()
            image += spikes * area * np.float32(3e-3 * flux)
            bad |= image > np.float32(_SATURATION) * area
            bad |= (dy < 0.5) & (dx < length)
        elif artifact == "satellite-trail":
            angle, offset = math.pi * rng.random(), 5 * rng.standard_normal()
            across = (
                x * np.float32(math.cos(angle))
                + y * np.float32(math.sin(angle))
                - np.float32(offset)
            )
            band = int(rng.random() * len(image))
            width = 0.5 + 0.3 * rng.random()
            brightness = 10 ** (0.4 * (22.5 - (20.6 + 1.6 * rng.random())))
            image[band] += (
                np.exp(across * across * np.float32(-0.5 / width**2))
                * area
                * np.float32(brightness)
            )
        else:
            edge = self.frame.x if rng.random() < 0.5 else self.frame.y
            side = -1 if rng.random() < 0.5 else 1
            reach = self.size * self.pixel_scale / 2
            lost = edge * side > np.float32(reach * (0.7 * rng.random() - 0.3))
            bands = slice(None) if rng.random() < 0.5 else int(rng.random() * len(image))
            bad[bands] |= lost
        return bad

    def expose(self, images, generators):
        """Add the noise of sky and photons.

        There are hundreds of sky electrons in every pixel, so that the Poisson law is a normal law
        whose variance is that of the sky plus flux over conversion.

        Parameters
        ----------
        images : array, shape (n, n_band, size, size)
            True flux, nmgy per pixel; the noise is added in place.
        generators : list of `~numpy.random.Generator` or None
            Source of the noise of each cutout; None adds none.

        Returns
        -------
        array, shape (n, n_band, size, size)
            Inverse variance of the pixels, 1 / nmgy2.
        """
        variance = np.maximum(images, 0)
        variance *= (1 / self.electrons)[:, None, None]
        variance += (self.sky_noise**2)[:, None, None]
        if generators is not None:
            deviates = _standard_normal(generators, images.shape[1:])
            deviates *= np.sqrt(variance)
            images += deviates
        return np.reciprocal(variance, out=variance)
