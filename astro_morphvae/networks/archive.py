"""A network and what is known of it in one ``.keras`` file, written at once or not at all."""

import json
import zipfile
from pathlib import Path

from .._writing import writing
from ._backend import keras
from .vae import VAE

__all__ = ["read_network", "write_network"]

_MEMBER = "astro_morphvae.json"  # of the .keras archive: what is not the network


def write_network(network, path, extra, *, overwrite=False):
    """Write a network beside ``path``, add ``extra``, and rename the file.

    Parameters
    ----------
    network : VAE
        The network.
    path : path-like
        Must end in ``.keras``.
    extra : dict
        Of what JSON can hold.
    overwrite : bool, optional
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        If the path does not end in ``.keras``.
    FileExistsError
        If the file exists and ``overwrite`` is false.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"path must end in '.keras', got {str(path)!r}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"path {str(path)!r} exists; pass overwrite=True to replace it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path {str(path)!r}: there is no such folder")
    text = json.dumps(extra, indent=1)
    with writing(path) as beside:
        network.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr(_MEMBER, text)


def read_network(path):
    """Read what `write_network` wrote. Nothing in the file is executed.

    Parameters
    ----------
    path : path-like
        The ``.keras`` file.

    Returns
    -------
    network : VAE
    extra : dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged, or was not written by this package.
    """
    path = Path(path)
    name = f"path {str(path)!r}"
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such model file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            members = archive.namelist()
            extra = json.loads(archive.read(_MEMBER)) if _MEMBER in members else None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{name} is truncated, damaged or not a .keras file: {error}") from error
    if damaged is not None:
        raise ValueError(f"{name} is damaged in its member {damaged!r}")
    if extra is None:
        raise ValueError(f"{name} was not written by LatentModel.write: it has no {_MEMBER!r}")
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and h5py raise many kinds
        raise ValueError(f"{name} holds no readable network: {error}") from error
    if not isinstance(network, VAE):
        raise ValueError(f"{name} holds a {type(network).__name__}, not a VAE")
    return network, extra
