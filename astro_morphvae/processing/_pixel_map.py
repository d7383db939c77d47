"""Where the pixels of one celestial grid lie on another, and how large they are there."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs.utils import wcs_to_celestial_frame

from ..cutouts._wcs import quiet_astropy

__all__ = ["PixelMap", "map_pixels"]

#: Largest error of a position that is interpolated between exact ones, in input pixels.
TOLERANCE = 1e-3
# Output pixels between the first exact positions; halved until the tolerance is met.
_STEP = 16


@dataclass(frozen=True, slots=True)
class PixelMap:
    """Positions of output pixels on the input image.

    Attributes
    ----------
    x, y : (ny, nx) array
        Input pixel coordinates of the centres, from 0; NaN where the grids do not meet.
    area : (ny, nx) array
        Input pixels in the solid angle of each output pixel.
    stretch : (float, float)
        Length of the gradient of y and of x over the output, in input pixels: the extent of a round
        output pixel along the input's axes, the largest in the map.
    span : float
        Extent of a square output pixel, with its corners, along the input's axes; likewise.
    error : float
        Bound on the error of x and y, in input pixels; 0 where all positions are exact.
    """

    x: np.ndarray
    y: np.ndarray
    area: np.ndarray
    stretch: tuple
    span: float
    error: float


def map_pixels(source, target, shape, *, tolerance=TOLERANCE):
    """Find the pixels of a target grid on a source image.

    Positions are exact on a coarse grid and interpolated linearly between its nodes; every second
    node tells how wrong that is, and the grid is refined until the error is below the tolerance,
    down to the pixels themselves. Grids that do not meet everywhere, and distortions given as
    look-up tables, which need not be smooth, are mapped pixel by pixel.

    Parameters
    ----------
    source, target : `~astropy.wcs.WCS`
        Celestial WCS of two axes of the input image and of the output. Not changed.
    shape : tuple of int
        (ny, nx) of the output.
    tolerance : float, optional
        Largest error of a position, in input pixels.

    Returns
    -------
    PixelMap
    """
    ny, nx = shape
    convert = _Converter(source, target)
    cells = [max(2, 2 * round(n / (2 * _STEP))) for n in shape]
    smooth = not convert.has_tables
    while smooth and all(4 * cell <= n for cell, n in zip(cells, shape, strict=True)):
        nodes = [_nodes(n, cell) for n, cell in zip(shape, cells, strict=True)]
        x, y = convert(nodes[1], nodes[0])
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            break
        # Half the step makes the error of a linear interpolation four times smaller, where the map
        # is as smooth as it should be; a factor of two is kept for where it is not quite.
        error = max(_error_of_every_second(values) for values in (x, y)) / 2
        if error < tolerance:
            return _interpolated(x, y, nodes, shape, error)
        cells = [2 * cell for cell in cells]
    return _exact(convert, ny, nx)


def _nodes(n, cells):
    return np.linspace(-0.5, n - 0.5, cells + 1)


def _error_of_every_second(values):
    coarse = values[::2, ::2]
    middle_x = (coarse[:, 1:] + coarse[:, :-1]) / 2
    middle_y = (coarse[1:] + coarse[:-1]) / 2
    centre = (middle_x[1:] + middle_x[:-1]) / 2
    return max(
        np.abs(values[::2, 1::2] - middle_x).max(),
        np.abs(values[1::2, ::2] - middle_y).max(),
        np.abs(values[1::2, 1::2] - centre).max(),
    )


def _interpolate(values, nodes, n, axis):
    """Linear interpolation from evenly spaced nodes to pixels 0 ... n - 1 along one axis.

    Not a matrix product, for small products in many threads fight over the cores.
    """
    position = (np.arange(n) - nodes[0]) / (nodes[1] - nodes[0])
    cell = np.minimum(position.astype(np.intp), len(nodes) - 2)
    fraction = np.expand_dims(position - cell, 1 - axis)
    lower = values.take(cell, axis=axis)
    return lower + fraction * (values.take(cell + 1, axis=axis) - lower)


def _interpolated(x, y, nodes, shape, error):
    slopes = [np.gradient(values, *nodes, edge_order=2) for values in (x, y)]
    area = np.abs(slopes[0][1] * slopes[1][0] - slopes[0][0] * slopes[1][1])
    along_y = [_interpolate(values, nodes[0], shape[0], 0) for values in (x, y, area)]
    x, y, area = (_interpolate(values, nodes[1], shape[1], 1) for values in along_y)
    return PixelMap(x, y, area, *_extents(slopes), error)


def _exact(convert, ny, nx):
    x, y = convert(np.arange(nx), np.arange(ny))
    corners = convert(np.arange(nx + 1) - 0.5, np.arange(ny + 1) - 0.5)
    slopes = []
    diagonals = []
    for values in corners:
        along, across = values[1:, 1:] - values[:-1, :-1], values[1:, :-1] - values[:-1, 1:]
        diagonals.append((along, across))
        slopes.append(((along + across) / 2, (along - across) / 2))
    # The area of a quadrilateral is half the cross product of its diagonals.
    area = 0.5 * np.abs(diagonals[0][0] * diagonals[1][1] - diagonals[0][1] * diagonals[1][0])
    lost = ~(np.isfinite(x) & np.isfinite(y) & np.isfinite(area))
    x, y, area = (np.where(lost, np.nan, values) for values in (x, y, area))
    return PixelMap(x, y, area, *_extents(slopes), 0.0)


def _extents(slopes):
    """Stretch and span, the largest of all that are finite."""
    stretch = tuple(_largest(np.hypot(*slope)) for slope in reversed(slopes))
    return stretch, max(_largest(np.abs(slope[0]) + np.abs(slope[1])) for slope in slopes)


def _largest(values):
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 1.0


class _Converter:
    """From pixels of the target to pixels of the source; NaN where they do not meet."""

    def __init__(self, source, target):
        with quiet_astropy():
            # Copies: a WCS keeps a state while it works, which threads must not share.
            self.source, self.target = source.deepcopy(), target.deepcopy()
            frames = [wcs_to_celestial_frame(wcs) for wcs in (self.target, self.source)]
        self.frames = None if frames[0].is_equivalent_frame(frames[1]) else frames
        # Where the inverse of a distortion fails, astropy warns before it says so.
        self.inverting = quiet_astropy if self.source.has_distortion else nullcontext
        matrix = self.source.pixel_scale_matrix
        self.scale = float(np.sqrt(abs(np.linalg.det(matrix))))
        tables = [
            table
            for wcs in (source, target)
            for table in (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)
        ]
        self.has_tables = any(table is not None for table in tables)

    def __call__(self, columns, rows):
        """Map the grid of some columns and rows: x and y, each (len(rows), len(columns))."""
        shape = len(rows), len(columns)
        x_out, y_out = (axis.ravel() for axis in np.meshgrid(columns, rows))
        x, y = np.full((2, x_out.size), np.nan)
        world = _to_sky(self.target, x_out, y_out)
        known = np.isfinite(world).all(axis=0)
        if known.any():
            world = self._to_source_frame(world[:, known])
            x[known], y[known] = self._to_source_pixels(world)
        return x.reshape(shape), y.reshape(shape)

    def _to_source_frame(self, world):
        if self.frames is None:
            return world
        sky = SkyCoord(*world, frame=self.frames[0], unit="deg").transform_to(self.frames[1])
        return np.stack([sky.spherical.lon.deg, sky.spherical.lat.deg])

    def _to_source_pixels(self, world):
        with self.inverting():
            position = np.stack(
                self.source.all_world2pix(
                    *_in_order(self.source, world), 0, tolerance=1e-5, maxiter=30, quiet=True
                )
            )
        # A projection may show another part of the sky at the same place (the gnomonic plane holds
        # both hemispheres), and the inverse of a distortion fails far from the image.
        finite = np.isfinite(position).all(axis=0)
        back = np.full_like(world, np.nan)
        if finite.any():
            back[:, finite] = _to_sky(self.source, *position[:, finite])
        offset = np.linalg.norm(_unit_vectors(back) - _unit_vectors(world), axis=0)
        with np.errstate(invalid="ignore"):
            apart = ~(np.degrees(offset) < TOLERANCE * self.scale)
        position[:, apart] = np.nan
        return position


def _to_sky(wcs, x, y):
    """Longitude and latitude, (2, n) in degrees."""
    return _in_order(wcs, np.stack(wcs.all_pix2world(x, y, 0)))


def _in_order(wcs, world):
    # Longitude is the second axis of some headers; to and fro is the same exchange.
    return world if wcs.wcs.lng == 0 else world[::-1]


def _unit_vectors(world):
    longitude, latitude = np.radians(world)
    across = np.cos(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])
