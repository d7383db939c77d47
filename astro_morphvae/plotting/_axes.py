"""Small things that all figures share."""

import numpy as np

from .._optional import import_optional

__all__ = ["COLOURS", "MARKERS", "NEUTRAL", "label_text", "make_axes"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#000000")
"""Colours told apart by all kinds of colour vision (after Okabe & Ito 2008), yellow darkened."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NEUTRAL = "#B5B5B5"


def make_axes(ax, needed_for, figsize):
    """Return ``ax``, or an Axes in a figure of its own.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes` or None
        What the caller was given.
    needed_for : str
        Name of the caller, for the error where matplotlib is missing.
    figsize : (float, float)
        Width and height of a new figure in inches.

    Returns
    -------
    `~matplotlib.axes.Axes`
        To draw on.
    """
    plt = import_optional("matplotlib.pyplot", needed_for=needed_for)
    if ax is not None:
        return ax
    return plt.figure(figsize=figsize, layout="constrained").add_subplot()


def label_text(values):
    """Labels as plain strings; masked and empty ones are "unlabelled".

    Parameters
    ----------
    values : (n,) array or column
        Labels.

    Returns
    -------
    (n,) array of str
        What to write.
    """
    masked = np.ma.asarray(values)
    text = np.ma.getdata(masked).astype(str).astype(object)
    text[np.ma.getmaskarray(masked) | (text == "")] = "unlabelled"
    return text.astype(str)
