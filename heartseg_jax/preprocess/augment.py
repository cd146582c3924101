"""Augmentation on the device: `(key, image, label) -> (image, label)`, inside the jitted step.

Written for one example; `vmap` makes the batch. Geometry is one coordinate map per example, so image and label
move together and are interpolated once. Only the preset `as_original` flips: a flip swaps the heart's sides.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.preprocess.augment_settings import PRESETS, AugmentSettings, Range


def augment(
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    settings: AugmentSettings,
    *,
    size: int | None = None,
    codes: jax.Array | None = None,
    draw: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return image [B, S, S, C] float in [0, 1] and label [B, S, S] int32, each example changed by its own draws.

    All channels of an example are changed alike, noise included, so that repeated channels stay equal. What comes from
    outside the image is air (0) in the image and ignored (255) in the label. `settings` are static: they decide what
    is compiled.

    Args:
        key: of the whole batch.
        image: [B, H, W, C] float in [0, 1].
        label: [B, H, W] int32.
        settings: what is changed, and how.
        size: S; by default the image's own size. A larger image has the detail that a closer view shows.
        codes: [B, H, W, P], moved with the image by nearest neighbour.
        draw: from (image, moved codes) to the image whose intensities are changed next; needs `codes`.
    """
    size = size or image.shape[1]
    if settings == PRESETS["none"] and size == image.shape[1]:
        return (image if draw is None or codes is None else draw(image, codes)), label
    keys = jax.random.split(key, image.shape[0])
    shaded = jax.vmap(lambda k, i: _shade_one(k, i, settings))
    if settings.moves or size != image.shape[1]:
        moved = jax.vmap(lambda k, i, lab, c: _move_one(k, i, lab, c, settings, size), in_axes=(0, 0, 0, 0))
        image, label, codes = moved(keys, image, label, codes)
    image, label, codes = jax.vmap(lambda k, *moved: _flip(_draws(k), moved, settings))(keys, image, label, codes)
    if draw is not None and codes is not None:
        image = draw(image, codes)
    return shaded(keys, image), label


CHANGES = (
    *("rotation", "scale", "shift_rows", "shift_columns", "elastic", "flip_up_down", "flip_left_right"),
    *("blur", "low_resolution", "remap", "gamma", "contrast", "noise"),
)
Draws = dict[str, jax.Array]
"""By change: two numbers in [0, 1), for whether it happens and for how strongly."""


def _split(key: jax.Array) -> jax.Array:
    """The keys of an example: for chances, displacement, the intensity curve, and noise."""
    return jax.random.split(key, 4)


def _draws(key: jax.Array) -> Draws:
    # One draw for all: XLA compiles each call of the generator separately, which took ten seconds here.
    drawn = jax.random.uniform(_split(key)[0], (2 * len(CHANGES),)).reshape(-1, 2)
    return dict(zip(CHANGES, drawn, strict=True))


def _move_one(
    key: jax.Array, image: jax.Array, label: jax.Array, codes: jax.Array | None, settings: AugmentSettings, size: int
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Image [H, W, C], label [H, W] and codes [H, W, P] at `size` x `size`, moved alike."""
    rows, columns = _coordinates(key, label, settings, size)
    moved = sample_linear(image.astype(jnp.float32), rows, columns).astype(image.dtype)
    if codes is not None:
        planes = [_sample_nearest(codes[..., p], rows, columns, outside=0) for p in range(codes.shape[-1])]
        codes = jnp.stack(planes, axis=-1)
    return moved, _sample_nearest(label, rows, columns, outside=IGNORED), codes


def _shade_one(key: jax.Array, image: jax.Array, settings: AugmentSettings) -> jax.Array:
    """The image [S, S, C] with its intensities changed."""
    dtype, draws = image.dtype, _draws(key)
    _, _, curve, noise = _split(key)
    # The physical order: optics blur, the display maps intensities, noise comes last.
    image = _soften(draws, image.astype(jnp.float32), settings)
    image = _map_intensity(curve, draws, image, settings)
    if settings.noise_probability > 0:
        strength = _strength(draws["noise"], settings.noise_probability, (0.0, settings.noise), neutral=0.0)
        height, width = image.shape[:2]
        # Drawn in one dimension: XLA:CPU compiles that twice as fast.
        grain = jax.random.normal(noise, (height * width,)).reshape(height, width)
        image = jnp.clip(image + strength * grain[..., None], 0.0, 1.0)
    return image.astype(dtype)


def _strength(draw: jax.Array, probability: float, limits: Range, neutral: float, log: bool = False) -> jax.Array:
    """One strength, evenly in `limits` (or in their logarithms), or `neutral` where the change does not happen."""
    low, high = limits
    value = low * (high / low) ** draw[1] if log else low + (high - low) * draw[1]
    return jnp.where(draw[0] < probability, value, neutral)


def _coordinates(key: jax.Array, label: jax.Array, settings: AugmentSettings, size: int) -> tuple[jax.Array, jax.Array]:
    """Rows and columns [S, S] float32 of the input [H, W] at which each output pixel looks."""
    height, width = label.shape
    draws, bend = _draws(key), _split(key)[1]
    limit = settings.rotation_degrees
    angle = jnp.deg2rad(_strength(draws["rotation"], settings.rotation_probability, (-limit, limit), 0.0))
    scale = _strength(draws["scale"], settings.scale_probability, settings.scale, neutral=1.0, log=True)
    limits = (-settings.shift, settings.shift)
    down = size * _strength(draws["shift_rows"], settings.shift_probability, limits, neutral=0.0)
    right = size * _strength(draws["shift_columns"], settings.shift_probability, limits, neutral=0.0)
    middle_row: jax.Array | float = (height - 1) / 2
    middle_column: jax.Array | float = (width - 1) / 2
    stride_row, stride_column = height / size, width / size  # pixels of the input between two of the output
    closer: jax.Array | float = 1.0
    if settings.focus_probability > 0:
        # Drawn apart from the others, so that presets without it draw what they always drew.
        drawn = jax.random.uniform(jax.random.fold_in(bend, len(CHANGES)), (2,))
        wanted = _strength(drawn, settings.focus_probability, settings.focus, neutral=0.0)
        row, column, side = _box(label)
        found = (wanted > 0) & (side > 0)
        closer = jnp.where(found, jnp.clip(wanted * max(height, width) / jnp.maximum(side, 1.0), 0.8, 4.0), 1.0)
        middle_row = jnp.where(found, row, middle_row)
        middle_column = jnp.where(found, column, middle_column)
    y = (jnp.arange(size) - (size - 1) / 2 - down)[:, None] * stride_row / scale / closer
    x = (jnp.arange(size) - (size - 1) / 2 - right)[None, :] * stride_column / scale / closer
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    rows = y * cosine - x * sine + middle_row
    columns = y * sine + x * cosine + middle_column
    if settings.elastic_probability > 0:
        strength = _strength(draws["elastic"], settings.elastic_probability, (0.0, settings.elastic), 0.0)
        nodes = settings.elastic_nodes
        coarse = strength * jax.random.normal(bend, (2 * nodes * nodes,)).reshape(2, nodes, nodes)
        displacement = jax.image.resize(coarse, (2, size, size), "cubic")
        rows, columns = rows + height / closer * displacement[0], columns + width / closer * displacement[1]
    return rows, columns


def _box(label: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Middle (row, column) and longer side of the box around the labels of [H, W]; the side is 0 where it has none."""
    marked = label > 0
    ends = []
    for axis in (1, 0):
        line = marked.any(axis=axis)
        first, last = jnp.argmax(line), line.size - 1 - jnp.argmax(line[::-1])
        ends.append(((first + last) / 2, last - first + 1))
    (row, high), (column, wide) = ends
    return row, column, jnp.where(marked.any(), jnp.maximum(high, wide), 0)


def sample_linear(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Bilinear samples of [H, W, C] at float coordinates; 0 outside."""
    height, width, channels = image.shape
    # A border of air makes the outside an ordinary place to look up.
    flat = jnp.pad(image, ((1, 2), (1, 2), (0, 0))).reshape(-1, channels)
    rows = jnp.clip(rows, -1.0, height) + 1.0
    columns = jnp.clip(columns, -1.0, width) + 1.0
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    corner = top.astype(jnp.int32) * (width + 3) + left.astype(jnp.int32)
    above = flat[corner] * (1 - right) + flat[corner + 1] * right
    below = flat[corner + width + 3] * (1 - right) + flat[corner + width + 4] * right
    return above * (1 - down) + below * down


def _sample_nearest(label: jax.Array, rows: jax.Array, columns: jax.Array, outside: int) -> jax.Array:
    """Nearest label of [H, W] at float coordinates; `outside` beyond the image."""
    height, width = label.shape
    row, column = jnp.round(rows).astype(jnp.int32), jnp.round(columns).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    return jnp.where(inside, label.ravel()[index], jnp.asarray(outside, label.dtype))


def _flip(
    draws: Draws, moved: tuple[jax.Array, jax.Array, jax.Array | None], settings: AugmentSettings
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Image, label and codes, rows and columns first, mirrored alike."""
    chances = (settings.flip_up_down_probability, settings.flip_left_right_probability)
    for axis, (name, chance) in enumerate(zip(("flip_up_down", "flip_left_right"), chances, strict=True)):
        if chance > 0:
            happens = draws[name][0] < chance
            moved = jax.tree.map(lambda part, a=axis, h=happens: jnp.where(h, jnp.flip(part, a), part), moved)
    return moved


def _soften(draws: Draws, image: jax.Array, settings: AugmentSettings) -> jax.Array:
    """Blur, then average over coarse pixels, both as matrices along each axis, so that strengths can be drawn."""
    if settings.blur_probability == 0 and settings.low_resolution_probability == 0:
        return image
    for axis, side in enumerate(image.shape[:2]):
        matrix = jnp.eye(side)
        if settings.blur_probability > 0:
            sigma = _strength(draws["blur"], settings.blur_probability, settings.blur_px, neutral=0.0)
            matrix = _gaussian_matrix(side, sigma)
        if settings.low_resolution_probability > 0:
            chance, sizes = settings.low_resolution_probability, settings.low_resolution
            coarse = _coarse_matrix(side, _strength(draws["low_resolution"], chance, sizes, neutral=1.0))
            matrix = jnp.matmul(coarse, matrix, precision="highest")
        subscripts = "ij,jkc->ikc" if axis == 0 else "ij,kjc->kic"
        image = jnp.einsum(subscripts, matrix, image, precision="highest")
    return jnp.clip(image, 0.0, 1.0)


def _gaussian_matrix(side: int, sigma: jax.Array) -> jax.Array:
    """[side, side], rows summing to 1; the identity where sigma is 0."""
    distance = jnp.arange(side)[:, None] - jnp.arange(side)[None, :]
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 1e-3)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _coarse_matrix(side: int, size: jax.Array) -> jax.Array:
    """[side, side]: average over pixels of `size` >= 1, interpolate back linearly; the identity where size is 1."""
    fine = jnp.arange(side)
    centres = (fine + 0.5) * size - 0.5
    distance = fine[:, None] - centres[None, :]
    # The overlap of a fine pixel with a coarse one; coarse pixels beyond the image have none and drop out.
    overlap = jnp.clip((size + 1) / 2 - jnp.abs(distance), 0.0, 1.0)
    total = overlap.sum(axis=0)
    down = overlap / jnp.maximum(total, 1e-6)
    up = jnp.clip(1 - jnp.abs(distance) / size, 0.0, 1.0) * (total > 1e-6)
    return jnp.matmul(up / up.sum(axis=1, keepdims=True), down.T, precision="highest")


def _map_intensity(key: jax.Array, draws: Draws, image: jax.Array, settings: AugmentSettings) -> jax.Array:
    if settings.remap_probability > 0:
        knots = settings.remap_knots
        spread = jnp.where(draws["remap"][0] < settings.remap_probability, settings.remap_spread, 0.0)
        steps = jax.nn.softmax(spread * jax.random.normal(key, (knots,)))
        # A sum of ramps: each piece adds its step as intensity passes through it.
        ramps = (steps[k] * jnp.clip(image * knots - k, 0.0, 1.0) for k in range(knots))
        image = sum(ramps, start=jnp.zeros_like(image))
    if settings.gamma_probability > 0:
        image = image ** _strength(draws["gamma"], settings.gamma_probability, settings.gamma, 1.0, log=True)
    if settings.contrast_probability > 0:
        factor = _strength(draws["contrast"], settings.contrast_probability, settings.contrast, neutral=1.0)
        mean = image.mean()
        image = jnp.clip(mean + factor * (image - mean), 0.0, 1.0)
    return image
