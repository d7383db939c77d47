"""Pictures of cutouts, and of what a model makes of them."""

import numpy as np
from astropy import units as u

from .._optional import import_optional
from ..cutouts import as_cutout_set
from ._axes import label_text, make_axes
from ._colour import fit_scale

__all__ = ["plot_cutouts", "plot_reconstructions"]

_GAP = 0.04  # between pictures, as a share of their width


def plot_cutouts(
    cutouts,
    *,
    rows=None,
    n=24,
    titles=None,
    n_columns=None,
    bands=None,
    scale_bar=True,
    ax=None,
):
    """Show cutouts as colour composites, all with one stretch.

    Parameters
    ----------
    cutouts : CutoutSet or list of `~astropy.nddata.NDData`
        The cutouts. Three bands are shown as colours after [1]_, one in grey; colour stamps as
        they are.
    rows : sequence of int, optional
        Which ones, in this order; the first ``n`` by default.
    n : int
        How many, without ``rows``.
    titles : sequence of str or str, optional
        Captions, aligned with ``cutouts``; or the name of a column of the catalog.
    n_columns : int, optional
        Pictures a line; up to 8 by default.
    bands : sequence of str, optional
        Bands to show as red, green and blue, or a single one in grey. By default the last one is
        red and the first one blue.
    scale_bar : bool
        Whether to draw a bar of a round number of arcseconds, where the pixel scale is known.
    ax : `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.

    Returns
    -------
    `~matplotlib.axes.Axes`
        With all pictures on it. Bad rows are blank and say why.

    Raises
    ------
    ValueError
        If there is nothing to show, or ``bands`` or ``titles`` do not fit.

    References
    ----------
    .. [1] Lupton et al. 2004, PASP 116, 133.
    """
    cutouts = as_cutout_set(cutouts)
    rows = _rows(cutouts, rows, n)
    if isinstance(titles, str):
        if titles not in cutouts.catalog.colnames:
            raise ValueError(f"titles={titles!r} is no column of the catalog")
        titles = cutouts.catalog[titles]
    if titles is not None and len(titles) != len(cutouts):
        raise ValueError(f"titles has {len(titles)} entries for {len(cutouts)} cutouts")

    columns = n_columns or min(len(rows), 8 if len(rows) > 12 else 6)
    lines = -(-len(rows) // columns)
    ny, nx = cutouts.size
    figsize = (1.45 * columns, 1.45 * lines * ny / nx)
    ax = make_axes(ax, "plot_cutouts", figsize)
    pictures = fit_scale(cutouts, bands)(cutouts.data[rows])
    captions = None if titles is None else label_text(titles)[rows]
    for i, row in enumerate(rows):
        place = _place(i // columns, i % columns, lines, ny / nx)
        _picture(ax, pictures[i], place, cutouts, row)
        if captions is not None:
            _caption(ax, place, captions[i])
    _finish(ax, columns, lines, ny / nx)
    if scale_bar and cutouts.good[rows[0]]:
        _scale_bar(ax, cutouts, _place(0, 0, lines, ny / nx))
    return ax


def plot_reconstructions(
    cutouts, reconstructed, *, rows=None, n=6, titles=None, bands=None, limit=5, ax=None
):
    """Show cutouts, their reconstructions, and what is left in units of the noise.

    Parameters
    ----------
    cutouts : CutoutSet or list of `~astropy.nddata.NDData`
        What went in.
    reconstructed : CutoutSet
        What came out, row-aligned, as from `LatentModel.reconstruct`.
    rows : sequence of int, optional
        Which ones; the first ``n`` by default.
    n : int
        How many, without ``rows``.
    titles : sequence of str, optional
        Captions, aligned with ``cutouts``.
    bands : sequence of str, optional
        See `plot_cutouts`.
    limit : float
        Residual, in standard deviations, at the ends of the colour scale.
    ax : `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.

    Returns
    -------
    `~matplotlib.axes.Axes`
        With a column for each galaxy: input and reconstruction in the same colours, and the
        residual, summed over bands in units of its standard deviation. This is that of the inverse
        variance where there is one, and else the scatter of the sky in the input.

    Raises
    ------
    ValueError
        If the two sets do not match, or there is nothing to show.
    """
    cutouts, reconstructed = as_cutout_set(cutouts), as_cutout_set(reconstructed)
    if cutouts.shape != reconstructed.shape:
        raise ValueError(
            f"reconstructed has shape {reconstructed.shape}, cutouts {cutouts.shape}; they must "
            "be row-aligned"
        )
    rows = _rows(cutouts, rows, n)
    ny, nx = cutouts.size
    ax = make_axes(ax, "plot_reconstructions", (1.5 * len(rows) + 1.2, 4.6 * ny / nx))
    scale = fit_scale(cutouts, bands)
    residual, measured = _residual(cutouts, reconstructed, rows)
    shown = scale(cutouts.data[rows]), scale(reconstructed.data[rows])
    for i, row in enumerate(rows):
        places = [_place(line, i, 3, ny / nx) for line in range(3)]
        for picture, place in zip(shown, places[:2], strict=True):
            _picture(ax, picture[i], place, cutouts, row)
        image = _picture(
            ax, residual[i], places[2], cutouts, row, cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        if titles is not None:
            _caption(ax, places[0], label_text(titles)[row])
    _finish(ax, len(rows), 3, ny / nx)
    centres = [_place(line, 0, 3, ny / nx)[2] + 0.5 * ny / nx for line in range(3)]
    ax.set_yticks(centres, ["input", "reconstruction", "residual"], rotation=90, va="center")
    ax.tick_params(length=0)
    if image is not None:
        height = 1 / (3 + 2 * _GAP)
        bar = ax.figure.colorbar(image, cax=ax.inset_axes([1.012, 0, 0.014, height * 0.98]))
        bar.set_label("residual / σ" if measured else "residual / sky scatter", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.set_ticks([-limit, 0, limit])
        bar.outline.set_visible(False)
    return ax


def _rows(cutouts, rows, n):
    rows = np.arange(min(n, len(cutouts))) if rows is None else np.asarray(rows)
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if not len(rows):
        raise ValueError("rows leaves no cutout to show")
    if np.any((rows < -len(cutouts)) | (rows >= len(cutouts))):
        raise ValueError(f"rows goes beyond the {len(cutouts)} cutouts: {rows.tolist()}")
    return rows


def _residual(cutouts, reconstructed, rows):
    """Return the residual in standard deviations, (n, y, x), and whether the noise was known."""
    data = np.asarray(cutouts.data[rows], dtype=float)
    left = data - np.asarray(reconstructed.data[rows], dtype=float)
    if cutouts.ivar is not None:
        ivar = np.asarray(cutouts.ivar[rows], dtype=float)
    else:
        from ._colour import _scatter

        scatter = [[_scatter(band[np.isfinite(band)]) for band in image] for image in data]
        scatter = np.array(scatter)[:, :, None, None]
        with np.errstate(divide="ignore"):
            ivar = np.where(scatter > 0, scatter**-2.0, 0) * np.ones_like(data)
    known = np.isfinite(left) & np.isfinite(ivar) & (ivar > 0)
    if cutouts.mask is not None:
        known &= ~np.asarray(cutouts.mask[rows])
    pull = np.where(known, left, 0) * np.sqrt(np.where(known, ivar, 0))
    count = known.sum(axis=1)
    # A sum over bands with unit variance, if their noise is independent.
    return np.where(
        count > 0, pull.sum(axis=1) / np.sqrt(np.maximum(count, 1)), np.nan
    ), cutouts.ivar is not None


def _place(line, column, lines, aspect):
    """Return left, right, bottom, top of a picture of unit width."""
    x = column * (1 + _GAP)
    y = (lines - 1 - line) * (aspect + _GAP)
    return x, x + 1, y, y + aspect


def _picture(ax, picture, place, cutouts, row, **options):
    """Draw one picture, or for a bad row an empty frame that says why."""
    if cutouts.good[row]:
        return ax.imshow(
            picture,
            extent=place,
            origin="lower",
            interpolation="nearest",
            aspect="equal",
            **options,
        )
    patches = import_optional("matplotlib.patches", needed_for="plot_cutouts")
    left, _, bottom, top = place
    frame = patches.Rectangle((left, bottom), 1, top - bottom, fc="#EEEEEE", ec="none")
    ax.add_patch(frame)
    why = str(cutouts.catalog["status"][row]).split(":")[0]
    ax.text(
        left + 0.5, 0.5 * (bottom + top), why, size=7, color="#555555", ha="center", va="center"
    )
    return None


def _caption(ax, place, text):
    effects = import_optional("matplotlib.patheffects", needed_for="plot_cutouts")
    ax.text(
        place[0] + 0.04,
        place[3] - 0.04,
        text,
        size=7.5,
        color="white",
        va="top",
        path_effects=[effects.withStroke(linewidth=1.8, foreground="#202020")],
    )


def _finish(ax, columns, lines, aspect):
    ax.set_xlim(0, columns * (1 + _GAP) - _GAP)
    ax.set_ylim(0, lines * (aspect + _GAP) - _GAP)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)


def _scale_bar(ax, cutouts, place):
    if cutouts.pixel_scale is None:
        return
    effects = import_optional("matplotlib.patheffects", needed_for="plot_cutouts")
    width = cutouts.size[1] * cutouts.pixel_scale.to_value(u.arcsec)
    decade = 10.0 ** np.floor(np.log10(0.45 * width))
    length = decade * max(step for step in (1, 2, 5) if decade * step <= 0.45 * width)
    stroke = [effects.withStroke(linewidth=2.4, foreground="#202020")]
    x, y = place[0] + 0.06, place[2] + 0.07
    line = ax.plot([x, x + length / width], [y, y], color="white", lw=1.4, solid_capstyle="butt")
    line[0].set_path_effects([*stroke])
    ax.text(x, y + 0.03, f"{length:g}″", size=7.5, color="white", path_effects=stroke)
