"""BatchNorm's statistics, measured on given images."""

import jax
import numpy as np

from heartseg_jax.models.norm import BATCH_NORM_EPSILON
from heartseg_jax.models.unet import UNet
from heartseg_jax.training import steps
from heartseg_jax.training.initial_weights import recalibrate
from tests.training.test_steps import batch_of


def test_the_first_layers_statistics_are_those_of_all_pixels():
    model = UNet(width=4, levels=2, num_classes=9, norm="encoder", dropout=0.5)
    params, stats = steps.init_params(model, jax.random.key(0), 32)
    batches = [batch_of(seed) for seed in range(3)]
    found = recalibrate(model, params, stats, iter(batches))
    conv = params["encoder"]["stage1"]["conv1"]
    image = np.concatenate([np.clip((b.image.astype(np.float32) + 200) / 800, 0, 1) for b in batches])
    image = np.repeat(image, 3, axis=-1)
    out = np.asarray(
        jax.lax.conv_general_dilated(image, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ) + np.asarray(conv["bias"])
    norm = found["encoder"]["stage1"]["norm1"]
    np.testing.assert_allclose(norm["mean"], out.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["var"], out.var(axis=(0, 1, 2)), rtol=1e-3, atol=1e-6)


def test_a_deep_random_encoder_keeps_its_signal():
    model = UNet(width=4, levels=4, num_classes=9, norm="encoder")
    params, stats = steps.init_params(model, jax.random.key(1), 32)
    found = recalibrate(model, params, stats, [batch_of(0)])
    image = np.repeat(np.clip((batch_of(0).image.astype(np.float32) + 200) / 800, 0, 1), 3, axis=-1)

    def bottom(batch_stats):
        _, kept = model.apply(
            {"params": params, "batch_stats": batch_stats}, image, train=False, capture_intermediates=True, mutable=True
        )
        last = batch_stats["encoder"]["stage4"]["norm2"]
        convolved = np.asarray(kept["intermediates"]["encoder"]["stage4"]["conv2"]["__call__"][0])
        return float(np.std((convolved - last["mean"]) / np.sqrt(last["var"] + BATCH_NORM_EPSILON)))

    assert abs(bottom(found) - 1) < 0.05
    assert bottom(stats) < 0.6 * bottom(found)
