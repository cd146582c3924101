"""Networks by name."""

import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import HEART, TUMOUR
from heartseg_jax.config import schema
from heartseg_jax.config.schema import TABLE
from heartseg_jax.models import cost, registry


def test_every_architecture_can_be_chosen_and_no_other():
    field = next(field for field in TABLE if field.name == "model.architecture")
    assert set(field.choices) == set(registry.ARCHITECTURES)


def test_the_classes_are_the_label_sets():
    model = schema.defaults().model
    for labels in (HEART, TUMOUR):
        network = registry.build_model(model, labels)
        image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
        logits, _ = jax.eval_shape(lambda x, n=network: n.init_with_output(jax.random.key(0), x, train=False), image)
        assert logits.shape == (2, 16, 16, labels.num_classes)
        assert cost.shape_of(model, labels, 3) == cost.Shape(3, 64, 3, labels.num_classes, "none")
