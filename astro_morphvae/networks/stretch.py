"""The asinh stretch: flux to a scale on which bright cores and faint arms both count."""

import numpy as np
import torch

from ._backend import keras

__all__ = ["AsinhStretch", "fit_softening"]


def _per_band(name, values):
    values = np.atleast_1d(np.asarray(values, dtype=np.float32))
    if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"{name} must be positive and finite, one value per band, got {values!r}")
    return [float(value) for value in values]


def _asinh(x):
    """Inverse hyperbolic sine, as exact as torch's and more than twice as fast on a CPU.

    It is log1p(|x| + x² / (1 + sqrt(1 + x²))) with the sign of x; the logarithm has a vector kernel
    in torch, the inverse hyperbolic sine has not. Beyond the range of x² torch's own is taken.
    """
    square = x * x
    if x.requires_grad or x.device.type != "cpu" or not torch.isfinite(square.sum()):
        return torch.asinh(x)
    square.div_((square + 1.0).sqrt_().add_(1.0))
    return square.add_(x.abs()).log1p_().copysign_(x)


@keras.saving.register_keras_serializable(package="astro_morphvae")
class AsinhStretch(keras.layers.Layer):
    r"""Inverse hyperbolic sine of the flux over a softening per band [1]_.

    .. math:: f(x) = \operatorname{asinh}(x / b), \qquad
              f'(x) = (x^2 + b^2)^{-1/2}, \qquad f^{-1}(y) = b \sinh y

    Linear below the softening ``b``, logarithmic above it; negative flux is kept and nothing is
    clipped, so that the inverse is exact.

    Parameters
    ----------
    softening : sequence of float, (n_band,)
        Softening of each band, in the unit of the flux (nmgy for calibrated images). About three
        times the noise of a sky pixel is a good choice (see `fit_softening`).

    Raises
    ------
    ValueError
        If a softening is not positive and finite.

    References
    ----------
    .. [1] Lupton, Gunn & Szalay 1999, AJ 118, 1406.
    """

    def __init__(self, softening, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.softening = _per_band("softening", softening)
        self.built = True

    def _softening(self, x):
        values = torch.tensor(self.softening, dtype=torch.float32, device=x.device)
        return values.reshape(1, -1, 1, 1)

    def call(self, x):
        """Stretch flux ``x``, (n, band, y, x)."""
        return _asinh(x * (1.0 / self._softening(x)))

    def inverse(self, y):
        """Flux, (n, band, y, x), of the stretched image ``y``."""
        return torch.sinh(y.float()) * self._softening(y)

    def derivative(self, x):
        """Slope of the stretch at flux ``x``, (n, band, y, x)."""
        return torch.rsqrt(x * x + self._softening(x) ** 2)

    def propagate_inverse_variance(self, ivar, x):
        """Inverse variance of the stretched flux: ``ivar / f'(x)**2``.

        Parameters
        ----------
        ivar : tensor, (n, band, y, x)
            Inverse variance of the flux, one over its unit squared.
        x : tensor, (n, band, y, x)
            Flux.
        """
        return ivar * (x * x + self._softening(x) ** 2)

    def compute_output_shape(self, input_shape):
        """Shape of the result, that of the input."""
        return input_shape

    def get_config(self):
        """Return the constructor arguments."""
        return {**super().get_config(), "softening": list(self.softening)}


def fit_softening(data, ivar=None, *, factor=3.0, max_images=256):
    """Softening of each band from the noise of its pixels.

    Where the inverse variance is known, the noise is the median of ``ivar**-0.5`` of good pixels.
    Otherwise it is estimated from second differences of neighbouring pixels, whose scatter is the
    noise wherever the image is smooth: ``1.4826 median |x_(i-1) - 2 x_i + x_(i+1)| / 6**0.5`` [1]_.

    Parameters
    ----------
    data : array, (n, band, y, x)
        Flux; non-finite pixels are left out.
    ivar : array, (n, band, y, x), optional
        Inverse variance of the flux; pixels of zero are left out.
    factor : float, optional
        Softening in units of the noise.
    max_images : int, optional
        Images looked at, spread evenly over the set.

    Returns
    -------
    softening : array, (n_band,)
        In the unit of ``data``. A band without noise gets a thousandth of its largest pixel.

    References
    ----------
    .. [1] Stoehr et al. 2008, "DER_SNR", ASP Conf. Ser. 394, 505, who take every other pixel.
    """
    step = max(1, -(-len(data) // max_images))
    sample = np.asarray(data[::step], dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        if ivar is not None:
            weight = np.asarray(ivar[::step], dtype=np.float32)
            good = np.isfinite(sample) & np.isfinite(weight) & (weight > 0)
        else:
            difference = np.diff(sample, n=2, axis=-1)
            good = np.isfinite(difference)
    softening = np.empty(sample.shape[1], dtype=np.float32)
    for band in range(sample.shape[1]):
        chosen = good[:, band]
        if ivar is not None:
            noise = np.median(weight[:, band][chosen] ** -0.5) if chosen.any() else 0.0
        else:
            noise = np.median(np.abs(difference[:, band][chosen])) if chosen.any() else 0.0
            noise *= 1.4826 / np.sqrt(6.0)
        if not noise > 0:
            finite = sample[:, band][np.isfinite(sample[:, band])]
            noise = np.abs(finite).max(initial=0.0) * 1e-3 / factor or 1.0
        softening[band] = factor * noise
    return softening
