"""Several alignments at once, and the names under which alignments are asked for."""

from dataclasses import dataclass
from itertools import islice

from .adversarial import Adversarial
from .coral import Coral
from .method import Method
from .mmd import MMD
from .paired import Paired

__all__ = ["METHODS", "Combined", "get_method"]


@dataclass(frozen=True)
class Combined(Method):
    """A weighted sum of alignments.

    Parameters
    ----------
    parts : sequence of (float, method), optional
        Weights and methods. By default pairs, where there are any, with maximum mean discrepancy
        and correlation alignment.
    """

    parts: tuple = ((1.0, Paired()), (1.0, MMD()), (1.0, Coral()))

    def __post_init__(self):
        for part in self.parts:
            if len(part) != 2 or not part[0] > 0 or not isinstance(part[1], Method):
                raise ValueError(f"parts must be pairs of a positive weight and a method: {part!r}")
        if not self.parts:
            raise ValueError("parts must name one method at least, got none")

    @property
    def n_layers(self):
        """Layers of all parts."""
        return sum(method.n_layers for _, method in self.parts)

    @property
    def crosses(self):
        """Whether a part decodes images across surveys."""
        return any(method.crosses for _, method in self.parts)

    def prepare(self, latent_dim, n_surveys, seed):
        """Make the layers the parts train beside the network."""
        return [
            layer
            for _, method in self.parts
            for layer in method.prepare(latent_dim, n_surveys, seed)
        ]

    def loss(self, agreement, layers):
        """Weighted sum of the parts; see `Method`."""
        layers = iter(layers)
        return sum(
            weight * method.loss(agreement, list(islice(layers, method.n_layers)))
            for weight, method in self.parts
        )


METHODS = {
    "mmd": MMD,
    "coral": Coral,
    "adversarial": Adversarial,
    "paired": Paired,
    "combined": Combined,
}


def get_method(method):
    """Return a method as it is, or the default one of a name.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]()
    if isinstance(method, Method):
        return method
    raise ValueError(f"method must be a method or one of {sorted(METHODS)}, got {method!r}")
