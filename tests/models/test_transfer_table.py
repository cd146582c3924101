"""The transfer network layer by layer at 256x256x3, as the original printed it.

Each count by hand: 9 * in * out + out for a convolution, 4 * in * out + out for an upsampling, 4 * out for a
BatchNorm (scale, shift, mean and variance), in * out + out for the head.
"""

import jax
import jax.numpy as jnp
import pytest

from heartseg_jax.models.unet import UNet
from tests.models.test_unet import count

TABLE = [
    ("encoder/stage1/conv1", (256, 256, 64), 1_792),  # 9 * 3 * 64 + 64
    ("encoder/stage1/norm1", (256, 256, 64), 256),
    ("encoder/stage1/conv2", (256, 256, 64), 36_928),  # 9 * 64 * 64 + 64
    ("encoder/stage1/norm2", (256, 256, 64), 256),
    ("encoder/stage2/conv1", (128, 128, 128), 73_856),
    ("encoder/stage2/norm1", (128, 128, 128), 512),
    ("encoder/stage2/conv2", (128, 128, 128), 147_584),
    ("encoder/stage2/norm2", (128, 128, 128), 512),
    ("encoder/stage3/conv1", (64, 64, 256), 295_168),
    ("encoder/stage3/norm1", (64, 64, 256), 1_024),
    ("encoder/stage3/conv2", (64, 64, 256), 590_080),
    ("encoder/stage3/norm2", (64, 64, 256), 1_024),
    ("encoder/stage4/conv1", (32, 32, 512), 1_180_160),
    ("encoder/stage4/norm1", (32, 32, 512), 2_048),
    ("encoder/stage4/conv2", (32, 32, 512), 2_359_808),
    ("encoder/stage4/norm2", (32, 32, 512), 2_048),
    ("encoder/stage5/conv1", (16, 16, 1024), 4_719_616),
    ("encoder/stage5/norm1", (16, 16, 1024), 4_096),
    ("encoder/stage5/conv2", (16, 16, 1024), 9_438_208),
    ("encoder/stage5/norm2", (16, 16, 1024), 4_096),
    ("decoder/stage4/up", (32, 32, 512), 2_097_664),  # 4 * 1024 * 512 + 512
    ("decoder/stage4/block/conv1", (32, 32, 512), 4_719_104),  # 9 * (512 + 512) * 512 + 512
    ("decoder/stage4/block/dropout", (32, 32, 512), 0),
    ("decoder/stage4/block/conv2", (32, 32, 512), 2_359_808),
    ("decoder/stage3/up", (64, 64, 256), 524_544),
    ("decoder/stage3/block/conv1", (64, 64, 256), 1_179_904),
    ("decoder/stage3/block/dropout", (64, 64, 256), 0),
    ("decoder/stage3/block/conv2", (64, 64, 256), 590_080),
    ("decoder/stage2/up", (128, 128, 128), 131_200),
    ("decoder/stage2/block/conv1", (128, 128, 128), 295_040),
    ("decoder/stage2/block/dropout", (128, 128, 128), 0),
    ("decoder/stage2/block/conv2", (128, 128, 128), 147_584),
    ("decoder/stage1/up", (256, 256, 64), 32_832),
    ("decoder/stage1/block/conv1", (256, 256, 64), 73_792),
    ("decoder/stage1/block/dropout", (256, 256, 64), 0),
    ("decoder/stage1/block/conv2", (256, 256, 64), 36_928),
]
HEAD = {8: 520, 9: 585}  # 64 * 8 + 8, 64 * 9 + 9
TOTAL = {8: (31_048_072, 31_040_136, 7_936), 9: (31_048_137, 31_040_201, 7_936)}


@pytest.mark.parametrize("channels", [8, 9])
def test_every_layer_of_the_transfer_network_has_the_parameters_and_the_shape_of_the_original(channels):
    model = UNet(width=64, levels=5, num_classes=channels, norm="encoder", dropout=0.1)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)

    def outputs(variables, image):
        return model.apply(variables, image, train=False, capture_intermediates=True, mutable=["intermediates"])[1]

    seen = {}
    found = jax.eval_shape(outputs, variables, image)["intermediates"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        keys = [getattr(key, "key", None) for key in path]
        seen["/".join(keys[: keys.index("__call__")])] = leaf.shape[1:]

    def parameters(path):
        total = 0
        for collection in ("params", "batch_stats"):
            tree = variables[collection]
            for name in path.split("/"):
                tree = tree.get(name, {})
            total += count(tree)
        return total

    table = [*TABLE, ("head", (256, 256, channels), HEAD[channels])]
    assert [(path, seen[path], parameters(path)) for path, _, _ in table] == table
    assert sum(number for _, _, number in table) == count(variables) == TOTAL[channels][0]
    assert (count(variables["params"]), count(variables["batch_stats"])) == TOTAL[channels][1:]
