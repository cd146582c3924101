"""One side of `peers.py`, in a process of its own: a network is built, checked, and run when the parent asks for it.

Started by `peers.py`, never by hand: once with "write", for the files that all sides start from, then for each side.
Speaks JSON lines: says what it has built, then answers each line of stdin ({"work": "train", "infer" or "study",
"seconds": 2.0}) with the times of the steps that it has taken.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WARM_UP_S = 0.5
STUDY = 8
"""Batches of a study."""


class Side(NamedTuple):
    """What a side offers.

    Attributes:
      parameters: how many the network has, BatchNorm's statistics not counted.
      probabilities: gives those of the batch, in inference mode; None where the network is another one.
      train: takes one step and waits for it; returns the loss before the step.
      infer: predicts the batch and waits for it.
      study: predicts the batch `STUDY` times, as the slices of a study are; by default one after the other.
      about: versions and choices, for the table.
    """

    parameters: int
    probabilities: Callable[[], np.ndarray] | None
    train: Callable[[], Any]
    infer: Callable[[], Any]
    about: dict[str, Any]
    study: Callable[[], Any] | None = None


def write(config: Any, place: Path) -> None:
    """Write what all sides start from: weights, a batch, and what the network is given of it."""
    from heartseg_jax.interop import to_keras

    made = seeded(config)
    np.save(place / "input.npy", made["input"])
    np.save(place / "label.npy", made["batch"].label)
    np.savez(place / "weights.npz", **arrays_by_path(made))
    np.savez(place / "batch.npz", **{k: v for k, v in made["batch"]._asdict().items() if v is not None})
    to_keras.export(
        made["params"],
        made["stats"],
        model=config.model,
        size=config.data.size,
        channels=made["channels"],
        target=place / "net.keras",
    )


def read(config: Any, place: Path) -> dict[str, Any]:
    """Return the model, its weights and the batch that `write` wrote, as a prediction reads weights and draws none."""
    from heartseg_jax.anatomy import LABEL_SETS
    from heartseg_jax.models.registry import build_model
    from heartseg_jax.models.tree import nested
    from heartseg_jax.preprocess import host

    with np.load(place / "weights.npz") as stored:
        weights = nested(dict(stored))
    with np.load(place / "batch.npz") as stored:
        batch = host.Batch(**{name: stored.get(name) for name in host.Batch._fields})
    model = build_model(config.model, LABEL_SETS[config.data.task])
    return {"model": model, "params": weights["params"], "stats": weights["stats"], "batch": batch}


def seeded(config: Any) -> dict[str, Any]:
    """Return {weights, batch, input} of a config, drawn from fixed seeds. The weights are nobody's initial ones."""
    import jax

    from heartseg_jax.anatomy import LABEL_SETS
    from heartseg_jax.models.registry import build_model
    from heartseg_jax.preprocess import host
    from heartseg_jax.preprocess.contract import input_spec
    from heartseg_jax.preprocess.device import network_input
    from heartseg_jax.training import steps

    size, count = config.data.size, config.data.batch_size
    labels = LABEL_SETS[config.data.task]
    draws = np.random.default_rng(0)
    spec = input_spec(config.data, "HU")
    coarse = draws.integers(0, labels.num_classes, (count, size // 8, size // 8))
    label = coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    noise = draws.normal(0, 40, (count, size, size, len(spec.offsets)))
    image = (60.0 * label[..., None] + noise).astype(np.int16)
    windows = host.windows_of(spec, image[..., 0])
    merge = np.tile(np.arange(labels.num_classes, dtype=np.int32), (count, 1))
    batch = host.Batch(image, windows, label, merge, np.ones(count, np.float32))
    model = build_model(config.model, labels)
    params, stats = steps.init_params(model, jax.random.key(0), size, len(spec.channels))
    # Biases and statistics of zero and one would hide an exchange of the two.
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + draws.normal(0, 0.01, leaf.shape).astype(np.float32), params)
    stats = jax.tree.map(lambda leaf: np.asarray(leaf) + draws.uniform(0, 0.1, leaf.shape).astype(np.float32), stats)
    return {
        "model": model,
        "params": params,
        "stats": stats,
        "batch": batch,
        "input": np.asarray(network_input(batch)),
        "channels": len(spec.channels),
    }


def ours(root: Path, config: Any, place: Path, asked: dict[str, Any]) -> Side:
    """This project's own jitted step and predictor, of the checkout at `root`."""
    import jax

    from heartseg_jax.inference.predictor import WORKERS, make_predictor
    from heartseg_jax.preprocess.augment_settings import PRESETS
    from heartseg_jax.threads import map_in_order
    from heartseg_jax.training import phases, steps

    if importlib.util.find_spec("heartseg_jax.native"):  # a checkout may be of an earlier version
        from heartseg_jax.native.library import turn_on

        turn_on()
    made = read(config, place)
    if asked["work"] == "train":  # a run draws its weights, whichever it then takes; so does PyTorch's network
        drawn = made["model"], config.data.size, asked["channels"]
        steps.init_params(drawn[0], jax.random.key(0), *drawn[1:])
        if hasattr(steps, "forget_initialiser"):  # a checkout may be of an earlier version
            steps.forget_initialiser(*drawn)
    count = sum(leaf.size for leaf in jax.tree.leaves(made["params"]))
    # Only what is measured is made, and the arrays that the weights were drawn into are let go: a run that predicts has
    # no optimizer, and none keeps its weights twice.
    model, size, params, stats = made["model"], config.data.size, made.pop("params"), made.pop("stats")
    if asked["work"] == "train":
        phase = phases.Phase(0, 10**6, tuple((group, 1.0) for group in phases.groups(config.model.levels)))
        tx, step = steps.compiled_phase(model, config.train, PRESETS["none"], phase, 10**6, 0, size=size)
        state = jax.device_put(steps.begin(tx._replace(init=jax.jit(tx.init)), params, stats))
        batch, key = jax.device_put(made["batch"]), jax.random.key(0)
    else:
        predictor = make_predictor(model, [(params, stats)], config.data.batch_size)
    del params, stats

    def train() -> Any:
        nonlocal state
        state, metrics = step(state, batch, key)
        jax.block_until_ready((state, metrics))
        return metrics["loss"]

    def infer() -> Any:
        return jax.block_until_ready(predictor.predict(made["batch"]))

    about = {"version": f"jax {jax.__version__}", "device": jax.devices()[0].device_kind}
    study = lambda: deque(map_in_order(lambda _: infer(), range(STUDY), WORKERS), maxlen=0)  # noqa: E731
    return Side(count, lambda: np.asarray(infer().probabilities), train, infer, about, study)


def arrays_by_path(made: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the weights and statistics by path."""
    from heartseg_jax.models.tree import named_leaves

    return {k: np.asarray(v) for k, v in named_leaves({"params": made["params"], "stats": made["stats"]}).items()}


def torch_side(root: Path, config: Any, place: Path, asked: dict[str, Any]) -> Side:
    """PyTorch: `nchw` or `nhwc`, and whether it is compiled."""
    import torch

    from benchmarks.peers_torch import UNet, load_weights, loss_of

    torch.set_num_threads(asked["threads"])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    layout = torch.channels_last if asked["layout"] == "nhwc" else torch.contiguous_format
    network = UNet(config, asked["channels"])
    load_weights(network, np.load(place / "weights.npz"))
    network = network.to(device).to(memory_format=layout)
    image = torch.from_numpy(np.load(place / "input.npy")).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    image = image.to(device, memory_format=layout)
    label = torch.from_numpy(np.load(place / "label.npy").astype(np.int64)).to(device)
    half = torch.autocast("cuda", torch.bfloat16, enabled=cuda and asked["dtype"] == "bfloat16")
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": config.train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.train.learning_rate, fused=True)
    run = torch.compile(network) if asked["compiled"] else network
    predicting = run
    if asked["compiled"] and not cuda:
        torch._inductor.config.freezing = asked["work"] != "train"  # its advice for inference on a CPU

    def train() -> Any:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with half:
            logits = run(image)
        loss = loss_of(logits.float(), label, config.train)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_norm)
        optimizer.step()
        return loss.item()

    def infer() -> Any:
        network.eval()
        with torch.inference_mode(), half:
            found = torch.softmax(predicting(image).float(), dim=1)
        if cuda:
            torch.cuda.synchronize()
        return found

    count = sum(p.numel() for p in network.parameters())
    probabilities = lambda: infer().permute(0, 2, 3, 1).cpu().numpy()  # noqa: E731
    about = {"version": f"torch {torch.__version__}", "device": str(device)}
    if not asked.get("pair"):
        return Side(count, probabilities, train, infer, about)
    pool = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(max(asked["threads"] // 2, 1),))
    return Side(count, probabilities, train, infer, about, lambda: deque(pool.map(lambda _: infer(), range(STUDY)), 0))


def keras_side(root: Path, config: Any, place: Path, asked: dict[str, Any]) -> Side:
    """Keras 3 with `fit`'s own step, `train_on_batch`, on the backend that KERAS_BACKEND names."""
    import keras
    from keras import ops

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(asked["threads"])
    whole = keras.models.load_model(place / "net.keras")
    network = keras.Model(whole.inputs, whole.layers[-2].output)
    image, label = np.load(place / "input.npy"), np.load(place / "label.npy").astype(np.int32)
    classes = whole.output_shape[-1]

    def loss_fn(truth: Any, logits: Any) -> Any:
        truth = ops.one_hot(ops.cast(truth, "int32"), classes)
        log_p = ops.log_softmax(logits, axis=-1)
        cross_entropy = -ops.mean(ops.sum(log_p * truth, axis=-1))
        p = ops.exp(log_p)
        overlap, predicted, true = (ops.sum(x, axis=(0, 1, 2))[1:] for x in (p * truth, p, truth))
        present = ops.cast(true > 0, "float32")
        dice = 2 * overlap / ops.maximum(predicted + true, 1e-12)
        dice_loss = ops.sum(present * (1 - dice)) / ops.maximum(ops.sum(present), 1)
        return config.train.dice_weight * dice_loss + config.train.cross_entropy_weight * cross_entropy

    optimizer = keras.optimizers.Adam(config.train.learning_rate, global_clipnorm=config.train.clip_norm)
    network.compile(optimizer=optimizer, loss=loss_fn)
    whole.compile()

    def infer() -> Any:
        return whole.predict_on_batch(image)

    count = sum(int(np.prod(w.shape)) for w in network.trainable_weights)
    about = {"version": f"keras {keras.__version__} on {keras.backend.backend()}", "device": "its default"}
    return Side(count, lambda: np.asarray(infer()), lambda: float(network.train_on_batch(image, label)), infer, about)


def monai_side(root: Path, config: Any, place: Path, asked: dict[str, Any]) -> Side:
    """MONAI's BasicUNet as its users run it: its own norm, activation, weights, and DiceCELoss. Five levels, always."""
    import monai
    import torch

    torch.set_num_threads(asked["threads"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, classes = config.model.width, 9
    features = (*(width * 2**level for level in range(5)), width)
    network = monai.networks.nets.BasicUNet(2, asked["channels"], classes, features).to(device)
    image = torch.from_numpy(np.load(place / "input.npy")).permute(0, 3, 1, 2).contiguous().to(device)
    label = torch.from_numpy(np.load(place / "label.npy").astype(np.int64))[:, None].to(device)
    loss_fn = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), config.train.learning_rate)
    half = torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and asked["dtype"] == "bfloat16")

    def train() -> Any:
        network.train()
        optimizer.zero_grad()
        with half:
            loss = loss_fn(network(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer() -> Any:
        network.eval()
        with torch.inference_mode(), half:
            found = torch.softmax(network(image).float(), dim=1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return found

    count = sum(p.numel() for p in network.parameters())
    about = {"version": f"monai {monai.__version__}, torch {torch.__version__}", "device": str(device)}
    return Side(count, None, train, infer, about)


SIDES = {"ours": ours, "torch": torch_side, "keras": keras_side, "monai": monai_side}


def peak_bytes() -> int:
    """Return the peak of resident memory since `clear_peak` (Linux), or since the process began."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clear_peak() -> None:
    """Begin to measure the peak of resident memory again, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def timed(step: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Take steps for `seconds`, at least two; return their times and what they cost together."""
    before, times = resource.getrusage(resource.RUSAGE_SELF), []
    until = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < until:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "times": times,
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
        "peak_bytes": peak_bytes(),
    }


def main() -> None:
    """Build the side that argv describes, then serve."""
    asked = json.loads(sys.argv[1])
    root, place = Path(asked["root"]), Path(asked["place"])
    sys.path.insert(0, str(root))
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    from heartseg_jax.config import load

    _, config = load.load(f"{root / asked['config']}", asked["overrides"])
    if "optimizer" in config.train:  # a checkout may be of an earlier version, with Adam only
        config = load.changed(config, {"train.optimizer": "adamw"})
    if asked.get("write"):
        write(config, place)
        return
    from heartseg_jax.allocator import give_back
    from heartseg_jax.config.channels import parse

    asked["channels"] = len(parse(config.data.channels, None))
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    began = time.perf_counter()
    side = SIDES[asked["kind"]](root, config, place, asked)
    loss = None
    if asked["work"] == "train":
        loss = float(side.train())
    elif side.probabilities is not None:
        np.save(place / f"{asked['name'].replace('/', '_')}.probabilities.npy", side.probabilities())
    one_by_one = lambda: [side.infer() for _ in range(STUDY)]  # noqa: E731
    step = {"train": side.train, "infer": side.infer, "study": side.study or one_by_one}[asked["work"]]
    timed(step, WARM_UP_S)
    if asked["kind"] == "ours":
        give_back()  # as a run does once its step is compiled
    clear_peak()
    ready = {"parameters": side.parameters, "loss": loss, "about": side.about, "ready_s": time.perf_counter() - began}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(step, json.loads(line)["seconds"])), file=answers, flush=True)
    os._exit(0)  # what XLA and OpenMP have running need not be waited for


if __name__ == "__main__":
    main()
