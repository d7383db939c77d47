"""`LatentModel`: cutouts to latents and back, the one class that joins Keras and astropy."""

import copy
import hashlib
import json
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from tqdm import tqdm

from ._runtime import software_versions
from .cutouts import CutoutSet, as_cutout_set
from .cutouts.compatibility import check_compatible
from .io import iter_file_batches
from .networks import VAE
from .networks.archive import read_network, write_network
from .networks.batches import (
    PixelSource,
    autocast,
    in_memory,
    iterate_batches,
    on_device,
    resolve_device,
)
from .networks.symmetries import N_SYMMETRIES, encode_over_symmetries

__all__ = ["LatentModel"]

_FILES_AT_ONCE = 64  # files of one cutout read as one piece
_CHUNK_VALUES = 8 * 3 * 256 * 256  # pixel values per pass on a CPU: activations stay in its cache
_OK = "ok"


class LatentModel:
    """A network, and what is needed to use it on an astronomer's cutouts.

    Objects do not change: a fit gives a new model.

    Parameters
    ----------
    network : `~astro_morphvae.VAE`
        The network, fitted or not.
    provenance : dict, optional
        What the network was fitted on: ``bands``, ``unit``, ``pixel_scale`` (arcsec), ``size``,
        ``survey``. Fits and `read` set it.
    fit_info : dict, optional
        How it was fitted. Fits and `read` set it.

    Raises
    ------
    TypeError
        If the network is not a `~astro_morphvae.VAE`.
    """

    def __init__(self, network, *, provenance=None, fit_info=None):
        if not isinstance(network, VAE):
            raise TypeError(f"network must be a VAE, got {type(network).__name__}")
        self._network = network
        self._provenance = copy.deepcopy(dict(provenance or {}))
        self._fit_info = copy.deepcopy(dict(fit_info or {}))

    @property
    def network(self):
        """The Keras network, a `~astro_morphvae.VAE`."""
        return self._network

    @property
    def latent_dim(self):
        """Length of the latent vector."""
        return self._network.latent_dim

    @property
    def fit_info(self):
        """How the model was fitted: history, settings, times, versions; empty before a fit."""
        return copy.deepcopy(self._fit_info)

    @property
    def provenance(self):
        """What the model was fitted on; empty before a fit."""
        return copy.deepcopy(self._provenance)

    @property
    def is_fitted(self):
        """Whether the model comes from a fit."""
        return bool(self._provenance)

    @property
    def hash(self):
        """First 16 hexadecimal digits of the SHA-256 of the network's settings and weights."""
        config = self._network.get_config()
        config.pop("name", None)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for weight in self._network.weights:
            digest.update(weight.value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def meta(self):
        """What its results carry: model hash and settings, what it was fitted on, versions."""
        network = self._network
        return {
            "model": self.hash,
            "architecture": network.architecture,
            "latent_dim": network.latent_dim,
            "fitted": self.is_fitted,
            **self.provenance,
            "versions": software_versions(),
        }

    def __repr__(self):
        network = self._network
        state = "fitted" if self.is_fitted else "not fitted"
        bands = self._provenance.get("bands")
        bands = "".join(f", {','.join(bands)}" if bands else f", {network.n_bands} bands")
        return (
            f"<LatentModel {self.hash}: {network.architecture}, {network.latent_dim} latents"
            f"{bands}, {network.image_size} × {network.image_size} pixels, {state}>"
        )

    # -------------------------------------------------------------------------------- cutouts in
    def encode(
        self,
        cutouts,
        *,
        survey=None,
        batch_size=64,
        augment=None,
        precision=None,
        device=None,
        progress=False,
    ):
        """Latents of cutouts.

        The cutouts are streamed: memory holds a few batches, however long the catalog is.

        Parameters
        ----------
        cutouts : CutoutSet, list of NDData, path, or list of paths
            A path is that of a `CutoutSet` file; a list of paths, files of one cutout each. Masked
            and non-finite pixels are seen as zero flux.
        survey : str, optional
            Survey that the cutouts are of, for a model that was adapted to several; by default what
            their ``meta`` says under ``"survey"`` or ``"layer"``.
        batch_size : int, optional
            Objects read at a time.
        augment : {None, "d4"}, optional
            ``"d4"`` encodes the eight mirror images and quarter turns of every object and takes the
            mean of their means, and as variance that of the mixture: mean variance plus the
            variance of the means.
        precision : {None, "float32", "bfloat16"}, optional
            Precision of the network; `None` is float32.
        device : str or `torch.device`, optional
            By default the first CUDA device, or else the CPU.
        progress : bool, optional
            Show a progress bar.

        Returns
        -------
        latents : `~astropy.table.QTable`
            ``id``; ``ra``, ``dec`` where the catalog has them; ``z_mean``, ``z_std``, (latent_dim,)
            each; ``pose`` where the network has one; ``status``. Rows as in the input; a bad row
            has NaN latents. ``meta`` says which model and versions made it.

        Raises
        ------
        ValueError
            If an argument is out of range.
        `~astro_morphvae.exceptions.CutoutMismatchError`
            If the cutouts differ from what the model was fitted on in bands, size, unit or pixel
            scale.
        """
        if augment not in (None, "d4"):
            raise ValueError(f"augment must be None or 'd4', got {augment!r}")
        batch_size = _batch_size(batch_size)
        device = resolve_device(device)
        symmetries = range(N_SYMMETRIES) if augment == "d4" else range(1)
        columns = {"id": [], "ra": [], "dec": [], "status": []}
        latents = {"z_mean": [], "z_std": [], "pose": []}
        with tqdm(disable=not progress, desc="encode", unit="cutout") as bar:
            for part, total in _pieces(cutouts):
                self._check(part)
                network, seen_as = self._seen_by(part, survey)
                bar.total = total
                for name in columns:
                    if name in part.catalog.colnames:
                        columns[name].append(part.catalog[name])
                outputs = self._run(
                    part,
                    lambda x, network=network: encode_over_symmetries(network, x, symmetries),
                    batch_size,
                    precision,
                    device,
                    bar,
                )
                for name, values in zip(latents, outputs, strict=True):
                    if values is not None:
                        latents[name].append(values)
        table = QTable(meta={**self.meta, "augment": augment, "precision": precision or "float32"})
        if seen_as is not None:
            table.meta["survey"] = seen_as
        n_parts = len(columns["id"])
        for name in ("id", "ra", "dec"):
            if len(columns[name]) == n_parts:
                table[name] = _join(columns[name])
        for name, values in latents.items():
            if values:
                table[name] = _join(values)
        table["status"] = _join(columns["status"])
        _describe(table)
        return table

    def reconstruct(
        self,
        cutouts,
        *,
        survey=None,
        batch_size=64,
        precision=None,
        device=None,
        progress=False,
    ):
        """Cutouts as the model sees them: encoded to the mean latents and decoded again.

        Parameters
        ----------
        cutouts : CutoutSet, list of NDData, or path
            As in `encode`.
        survey, batch_size, precision, device, progress
            As in `encode`.

        Returns
        -------
        reconstructed : CutoutSet
            In memory, with the catalog, WCS, bands and unit of the input; NaN in bad rows.
        """
        cutouts = as_cutout_set(cutouts)
        self._check(cutouts)
        network, _ = self._seen_by(cutouts, survey)
        device = resolve_device(device)
        with tqdm(
            disable=not progress, desc="reconstruct", unit="cutout", total=len(cutouts)
        ) as bar:
            (images,) = self._run(
                cutouts,
                lambda x: (network(x).float(),),
                _batch_size(batch_size),
                precision,
                device,
                bar,
            )
        return CutoutSet(
            images,
            unit=cutouts.unit,
            bands=cutouts.bands,
            wcs=cutouts.wcs,
            pixel_scale=cutouts.pixel_scale,
            psf_fwhm=cutouts.psf_fwhm,
            catalog=cutouts.catalog,
            meta={**cutouts.meta, "model": self.meta},
        )

    def decode(self, z, *, pose=None, survey=None, batch_size=64, device=None):
        """Cutouts of latents.

        Parameters
        ----------
        z : array, (n, latent_dim), or `~astropy.table.Table`
            Latents, or a table as `encode` gives, of which ``z_mean`` (and ``pose``) are taken.
        pose : array, (n, k), optional
            Latents of the orientation; a standard orientation by default.
        survey : str, optional
            Survey as which an adapted model draws the cutouts; by default its first, the source.
        batch_size, device
            As in `encode`.

        Returns
        -------
        cutouts : CutoutSet
            Flux in the unit of the cutouts the model was fitted on; NaN for latents of NaN.

        Raises
        ------
        ValueError
            If ``z`` has another shape.
        """
        catalog = None
        if hasattr(z, "colnames"):
            names = [name for name in ("id", "ra", "dec", "status") if name in z.colnames]
            catalog = QTable(z[names]) if names else None
            if pose is None and "pose" in z.colnames:
                pose = z["pose"]
            z = z["z_mean"]
        z = np.ascontiguousarray(z, dtype=np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z must have shape (n, {self.latent_dim}), got {z.shape}")
        device = resolve_device(device)
        network = self._network if survey is None else self._seen_by(None, survey)[0]
        images = np.full((len(z), *self._image_shape), np.nan, dtype=np.float32)
        good = np.flatnonzero(np.isfinite(z).all(axis=1))
        with on_device(self._network, device), torch.inference_mode():
            for start in range(0, len(good), batch_size):
                rows = good[start : start + batch_size]
                turn = None
                if pose is not None:
                    turn = torch.tensor(np.asarray(pose, dtype=np.float32)[rows], device=device)
                decoded = network.decode(torch.tensor(z[rows], device=device), turn)
                images[rows] = decoded.cpu().numpy()
        fitted = self._provenance
        scale = fitted.get("pixel_scale")
        return CutoutSet(
            images,
            unit=u.Unit(fitted.get("unit", "")),
            bands=fitted.get("bands") or [f"band{i}" for i in range(self._network.n_bands)],
            pixel_scale=None if scale is None else scale * u.arcsec,
            catalog=catalog,
            meta={"model": self.meta},
        )

    def sample(self, n, *, seed=0, device=None):
        """Cutouts of galaxies that do not exist: latents drawn from the unit Gaussian.

        Parameters
        ----------
        n : int
            How many.
        seed : int, optional
            Seed of the draw.
        device
            As in `encode`.

        Returns
        -------
        cutouts : CutoutSet
        """
        if isinstance(n, bool) or int(n) != n or n < 1:
            raise ValueError(f"n must be a positive integer, got {n!r}")
        z = np.random.default_rng(seed).standard_normal((int(n), self.latent_dim))
        return self.decode(z, device=device)

    def write(self, path, *, overwrite=False):
        """Write the model to one ``.keras`` file.

        The file is written beside and renamed, so that a killed process leaves the old file or the
        new one.

        Parameters
        ----------
        path : path-like
            Must end in ``.keras``.
        overwrite : bool, optional
            Whether an existing file may be replaced.

        Raises
        ------
        ValueError
            If the path does not end in ``.keras``.
        OSError
            If the file exists and ``overwrite`` is false, or cannot be written.
        """
        extra = {
            "format": 1,
            "model": self.hash,
            "provenance": self._provenance,
            "fit_info": self._fit_info,
            "versions": software_versions(),
        }
        write_network(self._network, path, extra, overwrite=overwrite)

    @classmethod
    def read(cls, path):
        """Read a model that `write` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : path-like
            The ``.keras`` file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is truncated, or not a model of this package.
        """
        network, extra = read_network(path)
        model = cls(network, provenance=extra["provenance"], fit_info=extra["fit_info"])
        if model.hash != extra["model"]:
            raise ValueError(
                f"path {str(path)!r}: settings or weights differ from those that were written "
                f"(hash {model.hash}, expected {extra['model']})"
            )
        return model

    # ------------------------------------------------------------------------------------- inside
    @property
    def _image_shape(self):
        network = self._network
        return (network.n_bands, network.image_size, network.image_size)

    def _check(self, cutouts, name="cutouts"):
        check_compatible(self._network, self._provenance, cutouts, name)

    def _seen_by(self, cutouts, survey):
        """Network as it sees the survey of the cutouts, and that survey's name or `None`."""
        surveys = getattr(self._network, "surveys", None)
        if surveys is None:
            if survey is not None:
                raise ValueError(f"survey is for a model adapted to several, got {survey!r}")
            return self._network, None
        if survey is None:
            survey = cutouts.meta.get("survey", cutouts.meta.get("layer"))
        if survey is None or str(survey) not in surveys:
            raise ValueError(
                f"survey must be one of {surveys}, to which the model was adapted; got {survey!r}"
            )
        return self._network.for_survey(str(survey)), str(survey)

    def _run(self, cutouts, function, batch_size, precision, device, bar):
        """Apply ``function(x)``, a tuple of tensors or None, to the good rows of the cutouts."""
        n, outputs = len(cutouts), None
        good = cutouts.good
        source = PixelSource(cutouts.data, mask=cutouts.mask)
        # What lies in memory already is looked at, not copied: a thread would only be in the way.
        prefetch = 0 if in_memory(cutouts.data) and device.type == "cpu" else 2
        chunk = batch_size
        if device.type == "cpu":
            chunk = min(batch_size, max(1, _CHUNK_VALUES // int(np.prod(self._image_shape))))
        groups = [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
        with (
            on_device(self._network, device),
            torch.inference_mode(),
            autocast(precision, device),
        ):
            for batch in iterate_batches(source, groups, device=device, prefetch=prefetch):
                parts = [function(x) for x in batch.x.split(chunk)]
                if outputs is None:
                    outputs = [
                        None
                        if first is None
                        else np.full((n, *first.shape[1:]), np.nan, dtype=np.float32)
                        for first in parts[0]
                    ]
                for output, values in zip(outputs, zip(*parts, strict=True), strict=True):
                    if output is not None:
                        output[batch.rows] = torch.cat(values).float().cpu().numpy()
                bar.update(batch.rows.stop - batch.rows.start)
        for output in outputs:
            if output is not None:
                output[~good] = np.nan
        return outputs


def _batch_size(value):
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"batch_size must be a positive integer, got {value!r}")
    return int(value)


def _pieces(cutouts):
    """Cutouts in pieces that fit in memory, each with the length of the whole."""
    if (
        isinstance(cutouts, (list, tuple))
        and cutouts
        and all(isinstance(item, (str, Path)) for item in cutouts)
    ):
        for part in iter_file_batches(cutouts, _FILES_AT_ONCE):
            yield part, len(cutouts)
    else:
        whole = as_cutout_set(cutouts)
        yield whole, len(whole)


def _join(parts):
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts)


def _describe(table):
    texts = {
        "z_mean": "mean of the posterior of the latents",
        "z_std": "standard deviation of the posterior of the latents",
        "pose": "latents of the orientation",
        "status": "'ok', or why there are no latents",
    }
    for name, text in texts.items():
        if name in table.colnames:
            table[name].info.description = text
