"""From arrays of cutouts to batches on the network's device: read, cleaned, turned, in order."""

import mmap
import queue
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ._backend import keras
from .layers import to_channels_last
from .symmetries import N_SYMMETRIES, apply_symmetry

__all__ = [
    "Batch",
    "PixelSource",
    "autocast",
    "in_memory",
    "iterate_batches",
    "on_device",
    "read_ahead",
    "resolve_device",
]


@dataclass(frozen=True)
class Batch:
    """Pixels of a few objects, finite, on the network's device, channels-last in memory.

    Attributes
    ----------
    rows : slice or array of int
        Where they come from.
    x : tensor, (n, band, y, x)
        Flux, zero where masked.
    ivar : tensor, (n, band, y, x), or `None`
        Inverse variance, zero where masked.
    valid : tensor, (n, band, y, x), or `None`
        One where a pixel counts, else zero; only where there is no ``ivar`` and some do not count.
    """

    rows: object
    x: torch.Tensor
    ivar: torch.Tensor | None = None
    valid: torch.Tensor | None = None

    def turned(self, symmetries):
        """Apply one of the eight symmetries of the square to each object.

        Parameters
        ----------
        symmetries : array of int, (n,)
            Index of `apply_symmetry` for each object.
        """
        groups = [
            (index, torch.from_numpy(np.flatnonzero(symmetries == index)).to(self.x.device))
            for index in range(N_SYMMETRIES)
        ]

        def turn(images):
            if images is None:
                return None
            turned = torch.empty_like(images)
            for index, members in groups:
                if len(members):
                    turned[members] = apply_symmetry(images[members], index)
            return turned

        return Batch(self.rows, turn(self.x), turn(self.ivar), turn(self.valid))


class PixelSource:
    """Arrays of cutouts, read a few rows at a time; they may be memory maps of either byte order.

    Parameters
    ----------
    data : array, (n, band, y, x)
        Flux.
    ivar : array, (n, band, y, x), optional
        Inverse variance.
    mask : array of bool, (n, band, y, x), optional
        True where a pixel is bad.
    """

    def __init__(self, data, ivar=None, mask=None):
        self.data, self.ivar, self.mask = data, ivar, mask

    def read(self, rows, *, likelihood):
        """Read rows as float32 in native byte order, with all pixels finite.

        Parameters
        ----------
        rows : slice or array of int
            Which.
        likelihood : bool
            Whether inverse variance and valid pixels are wanted too.

        Returns
        -------
        x, ivar, valid : array, (n, band, y, x), or `None`
            As in `Batch`. ``x`` may be a view of the data.
        """
        x = self._native(self.data, rows)
        ivar = self._native(self.ivar, rows) if likelihood and self.ivar is not None else None
        bad = None
        if self.mask is not None:
            bad = np.asarray(self.mask[rows])
            bad = bad if bad.any() else None
        with np.errstate(invalid="ignore", over="ignore"):
            if not _all_finite(x):
                not_finite = ~np.isfinite(x)
                bad = not_finite if bad is None else bad | not_finite
            if ivar is not None and not _all_finite(ivar):
                ivar = np.where(np.isfinite(ivar), ivar, np.float32(0))
        if bad is None:
            return x, ivar, None
        x = np.where(bad, np.float32(0), x)
        if ivar is not None:
            ivar = np.where(bad, np.float32(0), ivar)
        valid = (~bad).astype(np.float32) if likelihood and ivar is None else None
        return x, ivar, valid

    @staticmethod
    def _native(array, rows):
        part = np.ascontiguousarray(array[rows], dtype=np.float32)
        _forget_pages(array, rows)
        return part


def _all_finite(array):
    # One sum tells, at a fraction of the cost of asking every pixel; where huge values overflow it,
    # the pixels are asked. In the main thread torch sums with all its threads; elsewhere it would
    # start threads of its own beside the network's.
    if threading.current_thread() is threading.main_thread():
        return bool(torch.isfinite(_to_tensor(array, torch.device("cpu")).sum()))
    return bool(np.isfinite(array.sum()))


def _forget_pages(array, rows):
    """Tell the system that pages of a read-only memory map are not needed again.

    They would otherwise count as this process's memory until something else needs it, and a
    catalog larger than the memory would look like a leak.
    """
    if array.flags.writeable or not isinstance(rows, slice):
        return
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if not hasattr(base, "madvise"):
        return
    start = np.frombuffer(base, dtype=np.uint8).ctypes.data
    part = array[rows]
    if not part.size or not part.flags.c_contiguous:
        return
    first = part.ctypes.data - start
    page = mmap.PAGESIZE
    first, last = -(-first // page) * page, (first + part.nbytes) // page * page
    if last > first >= 0:
        base.madvise(mmap.MADV_DONTNEED, first, last - first)


def in_memory(array):
    """Whether an array lies in memory, and not in a file that is mapped."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return False
        array = array.base
    return not isinstance(array, mmap.mmap)


class _Alias:
    """A read-only array under its own address: torch reads it, and warns at read-only arrays."""

    def __init__(self, array):
        self.owner = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.ctypes.data, False),
        }


def _to_tensor(array, device):
    if array is None:
        return None
    if not array.flags.writeable:
        array = np.asarray(_Alias(array))
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return to_channels_last(tensor.pin_memory().to(device, non_blocking=True))
    return tensor.to(device)


def iterate_batches(source, groups, *, device, likelihood=False, prefetch=2):
    """Give the batches of a source in order, read by a thread ahead of the network.

    Parameters
    ----------
    source : PixelSource
        Where to read.
    groups : iterable of slice or array of int
        Rows of each batch.
    device : `torch.device`
        Where the batches go.
    likelihood : bool, optional
        Whether inverse variance and valid pixels are wanted.
    prefetch : int, optional
        Batches read ahead; 0 reads in the calling thread.

    Yields
    ------
    Batch
    """

    def load(rows):
        arrays = source.read(rows, likelihood=likelihood)
        return Batch(rows, *(_to_tensor(array, device) for array in arrays))

    if not prefetch:
        yield from map(load, groups)
        return
    with closing(read_ahead(map(load, groups), prefetch)) as batches:
        yield from batches


def read_ahead(items, size=2):
    """Give the items of an iterable, which a thread works through ahead of the caller.

    Parameters
    ----------
    items : iterable
        What to give.
    size : int, optional
        Items kept ready.
    """
    ready = queue.Queue(maxsize=size)
    stopped = threading.Event()

    def put(item):
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed to the caller, whatever it is
            put((None, error))

    thread = threading.Thread(target=work, name="astro_morphvae-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()


def resolve_device(device=None):
    """Torch device of a name; by default the first CUDA device, or else the CPU.

    Raises
    ------
    ValueError
        If the name is not a device that this machine has.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be None or a torch device, got {device!r}") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no CUDA device")
    return resolved


@contextmanager
def on_device(network, device):
    """Move a network to a device, and let Keras place tensors there inside the block."""
    network.to(device)
    with keras.device(str(device)):
        yield network


def autocast(precision, device):
    """Context in which the network computes at a precision.

    Parameters
    ----------
    precision : {None, "float32", "bfloat16"}
        `None` is float32.
    device : `torch.device`
        Where the network is.

    Raises
    ------
    ValueError
        If the precision is another.
    """
    if precision not in (None, "float32", "bfloat16"):
        raise ValueError(f"precision must be None, 'float32' or 'bfloat16', got {precision!r}")
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
    )
