"""Building blocks of the networks: channels-first Keras layers, kept fast on a CPU.

Arrays are (n, channel, y, x). Weights and activations lie in memory as channels-last, which is
several times quicker on a CPU than the plain order; the order of the axes is not touched.
"""

import math

import torch
from torch.nn import functional

from ._backend import keras

__all__ = [
    "BlurPool",
    "Convolution",
    "GroupNormalization",
    "Linear",
    "PixelConvolution",
    "ResidualBlock",
    "UpsampledTransposedConvolution",
    "halve_by_maximum",
    "sum_per_channel",
    "to_channels_last",
]

register = keras.saving.register_keras_serializable(package="astro_morphvae")


def to_channels_last(x):
    """Lay a (n, channel, y, x) tensor out in memory with the channel running fastest.

    Where the network computes at a lower precision the tensor is rounded first: half the bytes
    then change places.
    """
    return _as_computed(x).contiguous(memory_format=torch.channels_last)


def _as_computed(x):
    """Tensor in the type that ``torch.autocast`` would give it in a convolution."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def halve_by_maximum(x):
    """Maximum of every 2 × 2 pixels of ``x``, (n, channel, y, x), with y and x even."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return functional.max_pool2d(x, 2)
    # Without a gradient to prepare nobody asks which pixel it was, which makes it twice as fast.
    rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def _uniform(gain, fan_in, seed):
    limit = math.sqrt(3.0 * gain / fan_in)
    return keras.initializers.RandomUniform(-limit, limit, seed=seed)


class _TorchLayer(keras.layers.Layer):
    """A layer whose inputs keep the type that ``torch.autocast`` gave them."""

    def __init__(self, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)


class _KernelLayer(_TorchLayer):
    """What convolutions share: a kernel in torch's order, a bias and a seeded initialisation.

    Parameters
    ----------
    n_in, n_out : int
        Channels that come in and go out.
    kernel_size : int
        Side of the square kernel, in pixels.
    gain : float, optional
        Variance of the initial weights in units of 1 / fan-in: 2 keeps the variance through a
        rectifier [1]_, 1/3 is PyTorch's default.
    seed : int, optional
        Seed of the initial weights.

    References
    ----------
    .. [1] He et al. 2015, arXiv:1502.01852.
    """

    _transposed = False

    def __init__(self, n_in, n_out, kernel_size=3, *, use_bias=True, gain=2.0, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.n_in, self.n_out, self.kernel_size = int(n_in), int(n_out), int(kernel_size)
        self.use_bias, self.gain, self.seed = bool(use_bias), float(gain), seed
        self.build()

    def build(self, input_shape=None):
        """Create the weights; done at construction."""
        if self.built:
            return
        first, second = (self.n_in, self.n_out) if self._transposed else (self.n_out, self.n_in)
        fan_in = (self.n_out if self._transposed else self.n_in) * self.kernel_size**2
        self.kernel = self.add_weight(
            name="kernel",
            shape=(first, second, self.kernel_size, self.kernel_size),
            initializer=_uniform(self.gain, fan_in, self.seed),
        )
        weight = self.kernel.value
        weight.data = to_channels_last(weight.data)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.n_out,), initializer="zeros")
        self.built = True

    @property
    def _weights_now(self):
        return self.kernel.value, None if self.bias is None else self.bias.value

    def get_config(self):
        """Return the constructor arguments."""
        names = ("n_in", "n_out", "kernel_size", "use_bias", "gain", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class Convolution(_KernelLayer):
    """Convolution with symmetric zero padding, as PyTorch's ``padding=kernel_size // 2``.

    Keras' own ``padding="same"`` pads a strided convolution on one side only, which shifts the
    image by half a pixel and is not what published PyTorch networks do.

    Parameters
    ----------
    n_in, n_out, kernel_size, use_bias, gain, seed
        See the attributes of the same name; the kernel is (n_out, n_in, side, side).
    strides : int, optional
        Step between output pixels, in input pixels.
    """

    def __init__(self, n_in, n_out, kernel_size=3, *, strides=1, **kwargs):
        self.strides = int(strides)
        super().__init__(n_in, n_out, kernel_size, **kwargs)

    def call(self, x):
        """Convolve ``x``, (n, n_in, y, x)."""
        kernel, bias = self._weights_now
        return functional.conv2d(x, kernel, bias, self.strides, self.kernel_size // 2)

    def compute_output_shape(self, input_shape):
        """Shape of the result for an input of ``input_shape``."""
        n, _, ny, nx = input_shape
        return (n, self.n_out, -(-ny // self.strides), -(-nx // self.strides))

    def get_config(self):
        """Return the constructor arguments."""
        return {**super().get_config(), "strides": self.strides}


@register
class PixelConvolution(Convolution):
    """A 3 × 3 convolution with few output channels, such as the bands of an image.

    A CPU works on 16 channels at a time, so that 3 cost as much as 16. The same sums are arranged
    here as one convolution of 4 × 4 pixels and stride 2 which gives four neighbouring pixels at
    once. Parameters are those of `Convolution`.
    """

    def call(self, x):
        """Convolve ``x``, (n, n_in, y, x)."""
        kernel, bias = self._weights_now
        even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        if x.device.type != "cpu" or not even or self.n_out > 4 or self.kernel_size != 3:
            return super().call(x)
        shifted = [
            functional.pad(kernel, (dx, 1 - dx, dy, 1 - dy)) for dy in (0, 1) for dx in (0, 1)
        ]
        block = torch.stack(shifted, dim=1).flatten(0, 1)
        if bias is not None:
            bias = bias.repeat_interleave(4)
        y = functional.conv2d(x, block.contiguous(memory_format=torch.channels_last), bias, 2, 1)
        return functional.pixel_shuffle(y, 2)


class _TransposedConvolution(torch.autograd.Function):
    """Transposed convolution of stride 4 whose bias has a quick gradient.

    On a CPU, torch sums the gradient of the bias over a channels-last image at a pixel a time,
    which takes several times as long as the rest of the backward pass.
    """

    @staticmethod
    def forward(ctx, x, kernel, bias):
        ctx.save_for_backward(x, kernel)
        return functional.conv_transpose2d(x, kernel, bias, 4, 1, 1)

    @staticmethod
    def backward(ctx, gradient):
        x, kernel = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
            gradient,
            x,
            kernel,
            [kernel.shape[1]],
            [4, 4],
            [1, 1],
            [1, 1],
            True,
            [1, 1],
            1,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )
        return of_x, of_kernel, sum_per_channel(gradient)


def sum_per_channel(x):
    """Sum of ``x``, (n, channel, y, x) and channels-last in memory, over all but the channel."""
    pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return torch.mv(pixels.t(), torch.ones(len(pixels), dtype=x.dtype, device=x.device))


@register
class UpsampledTransposedConvolution(_KernelLayer):
    """Nearest-neighbour upsampling by 2, then a transposed 3 × 3 convolution of stride 2.

    Both are linear, so one transposed convolution of stride 4 does their work: its 5 × 5 kernel is
    the 3 × 3 kernel convolved with the 2 × 2 box, spread two pixels apart. It needs 25 products per
    input pixel and pair of channels in place of 36, and no intermediate image.
    The weights are those of the 3 × 3 kernel, (n_in, n_out, 3, 3).
    """

    _transposed = True

    def call(self, x):
        """Enlarge ``x``, (n, n_in, y, x), to (n, n_out, 4 y, 4 x)."""
        kernel, bias = self._weights_now
        wide = functional.pad(kernel, (0, 2, 0, 0)) + functional.pad(kernel, (2, 0, 0, 0))
        wide = functional.pad(wide, (0, 0, 0, 2)) + functional.pad(wide, (0, 0, 2, 0))
        bias = torch.zeros_like(wide[0, :, 0, 0]) if bias is None else _as_computed(bias)
        return _TransposedConvolution.apply(_as_computed(x), to_channels_last(wide), bias)

    def compute_output_shape(self, input_shape):
        """Shape of the result for an input of ``input_shape``."""
        n, _, ny, nx = input_shape
        return (n, self.n_out, 4 * ny, 4 * nx)


@register
class Linear(_TorchLayer):
    """Affine map of the last axis: ``x @ kernel.T + bias``, kernel (n_out, n_in)."""

    def __init__(self, n_in, n_out, *, gain=1.0, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.n_in, self.n_out, self.gain, self.seed = int(n_in), int(n_out), float(gain), seed
        self.build()

    def build(self, input_shape=None):
        """Create the weights; done at construction."""
        if self.built:
            return
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.n_out, self.n_in),
            initializer=_uniform(self.gain, self.n_in, self.seed),
        )
        self.bias = self.add_weight(name="bias", shape=(self.n_out,), initializer="zeros")
        self.built = True

    def call(self, x):
        """Apply to ``x``, (n, n_in)."""
        return functional.linear(x, self.kernel.value, self.bias.value)

    def compute_output_shape(self, input_shape):
        """Shape of the result for an input of ``input_shape``."""
        return (*input_shape[:-1], self.n_out)

    def get_config(self):
        """Return the constructor arguments."""
        names = ("n_in", "n_out", "gain", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class BlurPool(_TorchLayer):
    """Halve an image after smoothing it with (1, 3, 3, 1) / 8 on both axes.

    The smoothing removes what the coarser grid cannot hold, so that a shift of the galaxy by a
    pixel moves the features instead of changing them [1]_. An even kernel keeps the image centred,
    so that the symmetries of the square are symmetries of the result too.

    References
    ----------
    .. [1] Zhang 2019, "Making convolutional networks shift-invariant again", arXiv:1904.11486.
    """

    def call(self, x):
        """Reduce ``x``, (n, channel, y, x), to (n, channel, y / 2, x / 2)."""
        n_channels = x.shape[1]
        # A mean over 2 × 2 pixels at every position, taken twice with stride 1 and 2, is that
        # kernel but for its wings: (1, 1) * (1, 1) * (1, 1) = (1, 3, 3, 1).
        line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8.0
        kernel = torch.outer(line, line).expand(n_channels, 1, 4, 4)
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.conv2d(padded, to_channels_last(kernel), stride=2, groups=n_channels)

    def compute_output_shape(self, input_shape):
        """Shape of the result for an input of ``input_shape``."""
        n, n_channels, ny, nx = input_shape
        return (n, n_channels, ny // 2, nx // 2)


@register
class GroupNormalization(_TorchLayer):
    """Normalise groups of channels of each object: the same result in any batch, of any size [1]_.

    References
    ----------
    .. [1] Wu & He 2018, "Group normalization", arXiv:1803.08494.
    """

    def __init__(self, n_channels, *, groups=8, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.n_channels, self.epsilon = int(n_channels), float(epsilon)
        self.groups = math.gcd(int(groups), self.n_channels)
        self.build()

    def build(self, input_shape=None):
        """Create the weights; done at construction."""
        if self.built:
            return
        self.scale = self.add_weight(name="scale", shape=(self.n_channels,), initializer="ones")
        self.offset = self.add_weight(name="offset", shape=(self.n_channels,), initializer="zeros")
        self.built = True

    def call(self, x):
        """Normalise ``x``, (n, n_channels, y, x)."""
        return functional.group_norm(
            x, self.groups, self.scale.value, self.offset.value, self.epsilon
        )

    def compute_output_shape(self, input_shape):
        """Shape of the result, that of the input."""
        return input_shape

    def get_config(self):
        """Return the constructor arguments."""
        names = ("n_channels", "groups", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class ResidualBlock(_TorchLayer):
    """Two normalised 3 × 3 convolutions beside a shortcut (pre-activation, SiLU) [1]_.

    The second convolution starts small, so that a deep stack begins close to its shortcuts.

    References
    ----------
    .. [1] He et al. 2016, "Identity mappings in deep residual networks", arXiv:1603.05027.
    """

    def __init__(self, n_in, n_out, *, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.n_in, self.n_out, self.seed = int(n_in), int(n_out), int(seed)
        self.norm_1 = GroupNormalization(self.n_in)
        self.norm_2 = GroupNormalization(self.n_out)
        self.conv_1 = Convolution(self.n_in, self.n_out, seed=self.seed)
        self.conv_2 = Convolution(self.n_out, self.n_out, gain=0.1, seed=self.seed + 1)
        self.shortcut = None
        if self.n_in != self.n_out:
            self.shortcut = Convolution(
                self.n_in, self.n_out, 1, use_bias=False, gain=1.0, seed=self.seed + 2
            )
        self.built = True

    def call(self, x):
        """Refine ``x``, (n, n_in, y, x), to (n, n_out, y, x)."""
        change = self.conv_1(functional.silu(self.norm_1(x)))
        change = self.conv_2(functional.silu(self.norm_2(change)))
        return (x if self.shortcut is None else self.shortcut(x)) + change

    def compute_output_shape(self, input_shape):
        """Shape of the result for an input of ``input_shape``."""
        return (input_shape[0], self.n_out, *input_shape[2:])

    def get_config(self):
        """Return the constructor arguments."""
        names = ("n_in", "n_out", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
