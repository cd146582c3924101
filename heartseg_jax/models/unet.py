"""The U-Net as Linen modules: encoder, decoder and head.

Counting by arithmetic (parameters, FLOPs, receptive field) is in `cost.py`; losses are in `training/`.
"""

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from heartseg_jax.models import convolution, kernels
from heartseg_jax.models.cost import NORMS
from heartseg_jax.models.norm import NormReLU, scale_and_shift
from heartseg_jax.models.pointwise import pointwise

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of the standard normal cut at two."""


def scaled_normal(variance: Callable[[tuple[int, ...]], float]) -> nn.initializers.Initializer:
    """Normal cut at two standard deviations, of a variance that the kernel's shape decides.

    The same numbers as `nn.initializers.variance_scaling`, but drawn in one dimension and then given their shape:
    XLA:CPU compiles that 3.5 times faster, and the initialisers were most of the time before the first step.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        draws = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), dtype)
        return draws.reshape(shape) * jnp.asarray(math.sqrt(variance(tuple(shape))) / TRUNCATED_STD, dtype)

    return init


he_normal = scaled_normal(lambda shape: 2 / math.prod(shape[:-1]))


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Halve height and width by the maximum of each 2x2 square.

    Equal to `nn.max_pool(x, (2, 2), (2, 2))` forward. Its gradient is much faster on CPUs; where corners tie
    (common after ReLU) they share the gradient instead of the first taking it all.
    [B, H, W, C], H and W even -> [B, H/2, W/2, C].
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    top = jnp.maximum(x[:, :, 0, :, 0], x[:, :, 0, :, 1])
    bottom = jnp.maximum(x[:, :, 1, :, 0], x[:, :, 1, :, 1])
    return jnp.maximum(top, bottom)


def fold_pixels(x: jax.Array, fold: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/fold, W/fold, fold * fold * C]: each square of pixels becomes one of more channels."""
    if fold == 1:
        return x
    b, h, w, c = x.shape
    squares = x.reshape(b, h // fold, fold, w // fold, fold, c).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(b, h // fold, w // fold, fold * fold * c)


def unfold_pixels(x: jax.Array, fold: int) -> jax.Array:
    """The inverse of `fold_pixels`: [B, H, W, fold * fold * C] -> [B, H * fold, W * fold, C]."""
    if fold == 1:
        return x
    b, h, w, c = x.shape
    squares = x.reshape(b, h, w, fold, fold, c // fold**2).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(b, h * fold, w * fold, c // fold**2)


class UpConv(nn.Module):
    """Transposed 2x2 convolution with stride 2, as the matrix product that it is.

    The kernel is [2, 2, out, in] as Keras keeps it: the output square at (2i, 2j) is `kernel @ x[i, j]`.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2H, 2W, features] of the same dtype."""
        # Each output pixel sees one tap of the kernel, so the fan-in is `in`, not 4 * in.
        init = scaled_normal(lambda shape: 1 / shape[-1])
        kernel = self.param("kernel", init, (2, 2, self.features, x.shape[-1]), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return pointwise(x, kernel.astype(x.dtype), bias.astype(x.dtype))


class Conv3x3(nn.Module):
    """3x3 convolution with bias, and with ReLU if `relu`; parameters as those of `nn.Conv`."""

    features: int
    relu: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *images: jax.Array, scale: Any = 1.0, shift: Any = 0.0) -> jax.Array:
        """One image [B, H, W, C], or two that stand side by side in its channels -> [B, H, W, features].

        `scale` and `shift`, [features] each, are those of a BatchNorm behind it, in inference mode.
        """
        inside = sum(image.shape[-1] for image in images)
        kernel = self.param("kernel", he_normal, (3, 3, inside, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel, bias = kernel * scale, bias * scale + shift
        given = [image.astype(self.dtype) for image in images]
        return convolution.convolve(given, kernel.astype(self.dtype), bias.astype(self.dtype), relu=self.relu)


class ConvBlock(nn.Module):
    """(3x3 convolution with bias, BatchNorm if `norm`, ReLU) twice, with dropout between the two."""

    features: int
    norm: bool = False
    dropout: float = 0.0
    batch_norm_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *images: jax.Array, train: bool) -> jax.Array:
        """One image [B, H, W, C], or two that stand side by side in its channels -> [B, H, W, features]."""
        for index in (1, 2):
            norm = NormReLU(self.batch_norm_momentum, self.dtype, name=f"norm{index}")
            # In inference mode a native kernel does all three at once; XLA fuses the last two in any case.
            folded = self.norm and not train and kernels.uses_native() and not self.is_initializing()
            relu = not self.norm or folded
            conv = Conv3x3(self.features, relu=relu, dtype=self.dtype, name=f"conv{index}")
            if folded:
                x = conv(*images, **scale_and_shift(norm.variables))
            else:
                x = conv(*images)
                x = norm(x, train) if self.norm else x
            if index == 1 and self.dropout > 0:
                x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
            images = (x,)
        return x


class Encoder(nn.Module):
    """Stages 1 to `levels`, a pooling between each two; the last stage is the bottom of the U.

    `block` makes a stage: a `ConvBlock` with everything but its features given.
    """

    width: int
    levels: int
    block: Callable[..., ConvBlock]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, frozen: Collection[str] = ()) -> list[jax.Array]:
        """[B, H, W, C] -> the output of each stage, [B, H/2^k, W/2^k, width * 2^k], finest first."""
        outputs: list[jax.Array] = []
        for level in range(self.levels):
            if level > 0:
                x = max_pool_2x2(x)
            learns = train and f"encoder/stage{level + 1}" not in frozen
            x = self.block(self.width * 2**level, name=f"stage{level + 1}")(x, train=learns)
            outputs.append(x)
        return outputs


class DecoderStage(nn.Module):
    """Upsample, append the skip, convolve twice."""

    features: int
    block: Callable[..., ConvBlock]

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] and the skip [B, 2H, 2W, features] -> [B, 2H, 2W, features]."""
        x = UpConv(self.features, name="up")(x)
        # The order [upsampled, skip] is the one the original's kernels are laid out for.
        return self.block(self.features, name="block")(x, skip, train=train)


class Decoder(nn.Module):
    """From the bottom back to full resolution; `stageK` here meets the skip of the encoder's `stageK`."""

    width: int
    block: Callable[..., ConvBlock]

    @nn.compact
    def __call__(self, stages: list[jax.Array], train: bool) -> jax.Array:
        """The encoder's outputs, finest first -> [B, H, W, width]."""
        *skips, x = stages
        for level in reversed(range(len(skips))):
            x = DecoderStage(self.width * 2**level, self.block, name=f"stage{level + 1}")(x, skips[level], train)
        return x


class Head(nn.Module):
    """1x1 convolution to class logits, in float32 whatever the compute dtype.

    With `fold`, each place gives the logits of a square of `fold` x `fold` pixels.
    """

    num_classes: int
    fold: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> logits [B, fold * H, fold * W, num_classes] float32."""
        # Unit-variance logits: started smaller, training first learns "all background" and stays there for long.
        init = nn.initializers.lecun_normal()
        outputs = self.num_classes * self.fold**2
        kernel = self.param("kernel", init, (1, 1, x.shape[-1], outputs), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        # Bias is added after pixels are where they belong, but where they are so at once.
        added = bias if self.fold == 1 else jnp.zeros(outputs)
        y = pointwise(x.astype(jnp.float32), kernel.swapaxes(2, 3), added)
        return y if self.fold == 1 else unfold_pixels(y, self.fold) + bias


class UNet(nn.Module):
    """U-Net with `width * 2^k` filters at level k; `width=64, levels=3` is the original's network.

    Parameters and BatchNorm statistics are float32 whatever `dtype` is; logits too.

    Attributes:
        width: filters at full resolution.
        levels: stages of the encoder, the bottom included; the image is halved `levels - 1` times.
        num_classes: channels of the logits, background included.
        norm: 'none', 'batch' (encoder and decoder) or 'encoder' (only there, as in the brain model).
        dropout: rate between the two convolutions of each decoder stage; needs the rng 'dropout' to train.
        batch_norm_momentum: share of the old statistics kept at each training step.
        fold: squares of `fold` x `fold` pixels become channels before the first stage, and the head's channels become
            pixels again: a network of `size / fold` that reads and draws `size`. 1: none.
        dtype: dtype of the computation.
    """

    width: int
    levels: int
    num_classes: int
    norm: str = "none"
    dropout: float = 0.0
    batch_norm_momentum: float = 0.9
    fold: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool, frozen: Collection[str] = ()) -> jax.Array:
        """[B, H, W, C] float -> logits [B, H, W, num_classes] float32.

        With `train`, BatchNorm uses the batch's own statistics (and updates the running ones) and dropout is on, but
        in `frozen` (of 'encoder/stage1' ... 'decoder'), which stay in inference mode.

        Raises:
            ValueError: H or W is not divisible by fold * 2^(levels - 1), or `norm` is unknown.
        """
        if self.norm not in NORMS:
            raise ValueError(f"norm {self.norm!r} is unknown; choose one of {', '.join(NORMS)}")
        divisor = self.fold * 2 ** (self.levels - 1)
        height, width = image.shape[1:3]
        if height % divisor or width % divisor:
            raise ValueError(
                f"a U-Net of {self.levels} levels needs height and width divisible by {divisor}, got {height}x{width}"
            )
        block = functools.partial(ConvBlock, batch_norm_momentum=self.batch_norm_momentum, dtype=self.dtype)
        down = functools.partial(block, norm=self.norm != "none")
        up = functools.partial(block, norm=self.norm == "batch", dropout=self.dropout)
        image = fold_pixels(image.astype(self.dtype), self.fold)
        stages = Encoder(self.width, self.levels, down, name="encoder")(image, train, frozen)
        x = Decoder(self.width, up, name="decoder")(stages, train and "decoder" not in frozen)
        return Head(self.num_classes, self.fold, name="head")(x)
