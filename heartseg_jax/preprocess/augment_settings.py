"""How training slices are augmented: settings, and the presets that `data.augment` names. No JAX."""

from dataclasses import dataclass, replace

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentSettings:
    """How often (`*_probability`, per example) and how strongly each change is made; at 0 it is not compiled.

    Attributes:
        rotation_degrees: largest angle to either side.
        scale: smallest and largest magnification, drawn evenly in its logarithm.
        shift: largest shift along each axis, as a share of the image's side.
        elastic: standard deviation of the displacement at the nodes, as a share of the image's side.
        elastic_nodes: nodes per side of the grid of displacements, between which they are interpolated smoothly.
        focus: share of the image's side that the box around the labels fills, smallest and largest, where the view is
            moved there: what the second look of `InputSpec.closer` shows. Slices without labels are left as they are.
        blur_px: smallest and largest standard deviation of a Gaussian, in pixels.
        low_resolution: smallest and largest size of the coarse pixels that a scan is averaged over, in pixels.
        remap_knots: pieces of the random monotone curve that intensity is sent through.
        remap_spread: standard deviation of the logarithm of the curve's steps; 0 is the identity.
        gamma: smallest and largest exponent, drawn evenly in its logarithm.
        contrast: smallest and largest factor on the distance from the image's mean.
        noise: largest standard deviation of Gaussian noise, of the 0..1 range.
        flip_left_right_probability: chance of mirroring columns.
        flip_up_down_probability: chance of mirroring rows.
        unmixed_probability: chance that an image made from tissues has a right heart with unmixed contrast medium.
        dissection_probability: chance that an image made from tissues has a dissected aorta.
    """

    rotation_probability: float = 0.0
    rotation_degrees: float = 15.0
    scale_probability: float = 0.0
    scale: Range = (0.85, 1.15)
    shift_probability: float = 0.0
    shift: float = 0.06
    elastic_probability: float = 0.0
    elastic: float = 0.02
    elastic_nodes: int = 5
    focus_probability: float = 0.0
    focus: Range = (0.4, 0.8)
    blur_probability: float = 0.0
    blur_px: Range = (0.4, 1.2)
    low_resolution_probability: float = 0.0
    low_resolution: Range = (1.2, 3.0)
    remap_probability: float = 0.0
    remap_knots: int = 6
    remap_spread: float = 0.8
    gamma_probability: float = 0.0
    gamma: Range = (0.7, 1.5)
    contrast_probability: float = 0.0
    contrast: Range = (0.75, 1.25)
    noise_probability: float = 0.0
    noise: float = 0.04
    flip_left_right_probability: float = 0.0
    flip_up_down_probability: float = 0.0
    unmixed_probability: float = 0.0
    dissection_probability: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether any change of geometry other than a flip can happen."""
        chances = (self.rotation_probability, self.scale_probability, self.shift_probability)
        return any(chance > 0 for chance in (*chances, self.elastic_probability, self.focus_probability))


PRESETS: dict[str, AugmentSettings] = {
    "none": AugmentSettings(),
    "default": AugmentSettings(
        rotation_probability=0.5,
        scale_probability=0.5,
        shift_probability=0.5,
        elastic_probability=0.3,
        blur_probability=0.2,
        gamma_probability=0.3,
        contrast_probability=0.3,
        noise_probability=0.3,
    ),
    # What the original did: each of the three with a chance of 25 %, independently.
    "as_original": AugmentSettings(
        flip_left_right_probability=0.25, flip_up_down_probability=0.25, blur_probability=0.25
    ),
    # For training on phantoms only: intensities vary as much as scanners, windows and phases do.
    "randomised": AugmentSettings(
        rotation_probability=0.7,
        rotation_degrees=20.0,
        scale_probability=0.8,
        scale=(0.6, 1.5),
        shift_probability=0.7,
        shift=0.1,
        elastic_probability=0.6,
        elastic=0.03,
        blur_probability=0.4,
        blur_px=(0.4, 1.6),
        low_resolution_probability=0.25,
        remap_probability=0.6,
        gamma_probability=0.5,
        gamma=(0.5, 2.0),
        contrast_probability=0.5,
        contrast=(0.6, 1.5),
        noise_probability=0.5,
        noise=0.08,
    ),
    # For the heart model: real and synthesised slices, seen whole or closely.
    "heart": AugmentSettings(
        rotation_probability=0.7,
        rotation_degrees=20.0,
        scale_probability=0.7,
        scale=(0.7, 1.3),
        shift_probability=0.7,
        shift=0.08,
        elastic_probability=0.5,
        elastic=0.02,
        focus_probability=0.7,
        blur_probability=0.3,
        low_resolution_probability=0.15,
        remap_probability=0.4,
        remap_spread=0.5,
        gamma_probability=0.5,
        gamma=(0.6, 1.7),
        contrast_probability=0.5,
        contrast=(0.7, 1.4),
        noise_probability=0.4,
        noise=0.06,
    ),
}
# The same, with blood that is not of one brightness in a share of the synthesised images.
PRESETS["heart_flow"] = replace(PRESETS["heart"], unmixed_probability=0.4, dissection_probability=0.2)
