"""State of a fit in one file of plain arrays, so that a killed fit goes on where it was."""

import json
import zipfile

import numpy as np
import torch

from .._writing import writing

__all__ = ["TrainingState", "read_checkpoint", "write_checkpoint"]

_FORMAT = 1
_TEXT = "astro_morphvae.json"


class TrainingState:
    """What a fit changes: weights, learned noise, moments of the optimiser.

    Everything random in a fit is drawn from the seed and the number of the epoch, so that no
    generator has a state to keep.

    Parameters
    ----------
    network : VAE
        The network in training.
    optimiser : `torch.optim.Optimizer`
        Its optimiser.
    """

    def __init__(self, network, optimiser):
        self.network, self.optimiser = network, optimiser

    def weights(self):
        """Copy the weights and the learned noise: dict of str to array."""
        arrays = {
            f"weight/{i}": weight.value.detach().cpu().numpy().copy()
            for i, weight in enumerate(self.network.weights)
        }
        if self.network.noise is not None:
            arrays["noise"] = np.asarray(self.network.noise, dtype=np.float32)
        return arrays

    def set_weights(self, arrays):
        """Put the weights and the noise of `weights` back."""
        with torch.no_grad():
            for i, weight in enumerate(self.network.weights):
                weight.value.copy_(torch.from_numpy(arrays[f"weight/{i}"]))
        if "noise" in arrays:
            self.network.set_noise(arrays["noise"])

    def moments(self):
        """Copy the optimiser's state: dict of str to array."""
        arrays = {}
        for i, state in self.optimiser.state_dict()["state"].items():
            for name, value in state.items():
                arrays[f"optimiser/{i}/{name}"] = torch.as_tensor(value).cpu().numpy().copy()
        return arrays

    def set_moments(self, arrays):
        """Put the optimiser's state of `moments` back."""
        stored = self.optimiser.state_dict()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        state = {}
        for key, array in arrays.items():
            kind, *rest = key.split("/")
            if kind != "optimiser":
                continue
            i, name = int(rest[0]), rest[1]
            value = torch.from_numpy(array.copy())
            if value.shape == parameters[i].shape:
                # Laid out in memory as its parameter: the optimiser walks through both together.
                value = torch.empty_like(parameters[i], requires_grad=False).copy_(value)
            state.setdefault(i, {})[name] = value
        self.optimiser.load_state_dict({**stored, "state": state})


def write_checkpoint(path, arrays, record):
    """Write arrays and a JSON record beside ``path``, then rename the file.

    Parameters
    ----------
    path : path-like
        Where.
    arrays : dict of str to array
        What `TrainingState` gives.
    record : dict
        Of what JSON can hold.
    """
    with writing(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_TEXT, json.dumps({"format": _FORMAT, **record}))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read_checkpoint(path):
    """Read what `write_checkpoint` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    arrays : dict of str to array
    record : dict

    Raises
    ------
    ValueError
        If the file is damaged or not a checkpoint of this package.
    """
    name = f"checkpoint {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            record = json.loads(archive.read(_TEXT))
            arrays = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as stream:
                        arrays[member[:-4]] = np.lib.format.read_array(stream, allow_pickle=False)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{name} is damaged or not a checkpoint: {error}") from error
    if record.get("format") != _FORMAT:
        raise ValueError(f"{name} has format {record.get('format')!r}, expected {_FORMAT}")
    return arrays, record
