"""What a training on very many studies needs, by arithmetic: bytes, hours, cost, and where its first limit is.

What this program can measure, it measures on the machine that it runs on: how fast a core reads records and cuts
batches, how much memory and time the index of the slices takes, how well slices compress. The rest are assumptions,
each a flag, and printed as such.

    python benchmarks/scale_arithmetic.py
    python benchmarks/scale_arithmetic.py --studies=20000 --devices=8 --per-host=8
"""

import argparse
import dataclasses
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.data.dataset.blank import BlankDataset
from heartseg_jax.data.dataset.records import Patient
from heartseg_jax.data.examples import SliceStore, order_of
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.models import cost
from heartseg_jax.preprocess.contract import input_spec

TB, GB, GIB = 1e12, 1e9, 2**30
STATE_COPIES = 3  # weights and Adam's two moments, float32


def arguments() -> argparse.Namespace:
    """Return the assumptions, as they were given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {
        "studies": (100_000, "studies with labels"),
        "slices": (300, "slices per study"),
        "stored": (512, "pixels a side, as stored"),
        "size": (256, "pixels a side, as the network sees them; records are stored at this size"),
        "epochs": (10, "passes over all slices"),
        "devices": (64, "devices"),
        "per-host": (8, "devices per host, which is one process each or one in all"),
        "batch": (16, "slices per device and step"),
        "width": (64, "filters of the network's first level"),
        "levels": (5, "levels of the network"),
        "cores": (96, "processor cores per host"),
        "save-minutes": (30, "minutes between checkpoints"),
        "index-slices": (60_000, "slices of the index that is measured"),
    }
    rates = {
        "peak": (989, "TFLOP/s of a device in bfloat16, as its maker states"),
        "mfu": (0.3, "share of the peak that training reaches (assumed; not measured yet)"),
        "read": (2.0, "GB/s that a host reads from object storage"),
        "network": (25.0, "GB/s between two hosts, for gradients"),
        "price": (3.0, "USD per device and hour"),
        "storage-price": (0.023, "USD per GB and month of object storage"),
    }
    for name, (default, meaning) in (numbers | rates).items():
        kind = int if name in numbers else float
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{meaning} (default: %(default)s)")
    return parser.parse_args()


def seconds_of(work: Callable[[], object], least_s: float = 1.0) -> float:
    """Return the CPU seconds of one call: the fewest of several that together take `least_s`."""
    found, began = math.inf, time.process_time()
    while time.process_time() - began < least_s or found == math.inf:
        start = time.process_time()
        work()
        found = min(found, time.process_time() - start)
    return found


def measured_records(size: int) -> tuple[float, float]:
    """Return (stored bytes per byte of a slice, CPU seconds to read one at random) of an ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    phantom = generate(0, 0, PhantomSpec(shape=(16, size, size), spacing_mm=(9.0, 300 / size, 300 / size)))
    images, labels = phantom.volume.voxels.astype(np.int16), phantom.labels.astype(np.uint8)
    raw = [image.tobytes() + label.tobytes() for image, label in zip(images, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slices.array_record"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for record in raw:
            writer.write(record)
        writer.close()
        ratio = file.stat().st_size / sum(map(len, raw))
        reader = ArrayRecordReader(str(file))
        rows = list(np.random.default_rng(0).permutation(len(raw)))
        each = seconds_of(lambda: [np.frombuffer(record, np.uint8) for record in reader.read(rows)]) / len(rows)
        reader.close()
    return ratio, each


def blank(slices: int, per_study: int, size: int) -> BlankDataset:
    """Return a dataset without files, of studies of `per_study` slices."""
    none = ((size * size,) + (0,) * HEART.num_classes,) * per_study
    names, splits = tuple(f"slice_{z:04d}" for z in range(per_study)), ("train",) * per_study
    digests = dict.fromkeys(("images", "labels"), "0" * 64)
    patients = tuple(
        Patient(f"p{n:08d}", (1.0, 1.0, 1.0), True, HEART.all_known, none, names, splits, digests)
        for n in range(slices // per_study)
    )
    return BlankDataset(Path(), "HU", size, size, "patient", {}, patients, HEART)


def measured_index(slices: int, per_study: int, size: int) -> dict[str, float]:
    """Return what the index costs per slice (bytes in memory, seconds, bytes of dataset.json), and a batch's slice."""
    config = load.load("configs/scratch.py", {"data.size": str(size)})[1]
    dataset = blank(slices, per_study, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    store = SliceStore(dataset, "train", input_spec(config.data, "HU"), cache_gb=0.0)
    spent = time.process_time() - began
    kept = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    entry = len(json.dumps(dataclasses.asdict(dataset.patients[0])))
    numbers, mask = np.arange(16) * 7 % len(store), np.ones(16, np.float32)
    began = time.process_time()
    order_of(0, 0, len(store), None)
    return {
        "bytes": kept / len(store),
        "seconds": spent / len(store),
        "json": entry / per_study,
        "order": (time.process_time() - began) / len(store),
        "gather": seconds_of(lambda: store.gather(numbers, mask)) / 16,
    }


def rows_of(asked: argparse.Namespace, records: tuple[float, float], index: dict[str, float]) -> list[tuple[str, str]]:
    """Return the table: what is needed, each with its arithmetic."""
    slices = asked.studies * asked.slices
    ratio, read_s = records
    shape = cost.Shape(3, asked.width, asked.levels, HEART.num_classes, "batch")
    parameters = sum(layer.parameters for layer in cost.layer_costs(asked.size, asked.size, shape))
    flops = cost.step_flops(asked.size, asked.size, shape)
    per_device = asked.peak * 1e12 * asked.mfu / flops
    pace, hosts = per_device * asked.devices, asked.devices / asked.per_host
    hours = slices * asked.epochs / pace / 3600
    stored, record = (3 * side**2 for side in (asked.stored, asked.size))
    step_s = asked.batch / per_device
    gradients = 2 * (hosts - 1) / hosts * 4 * parameters / (asked.network * GB)
    state = 4 * STATE_COPIES * parameters
    core = 1 / (read_s + index["gather"])
    on_disk = slices * record * ratio
    return [
        ("slices", f"{slices:,}"),
        ("as stored, .npy, int16 and uint8", f"{slices * stored / TB:.1f} TB"),
        ("at the network's size", f"{slices * record / TB:.1f} TB"),
        (
            f"ArrayRecord, {ratio:.2f} of that (measured)",
            f"{on_disk / TB:.1f} TB, {on_disk / GIB:,.0f} shards of 1 GiB",
        ),
        ("object storage", f"{on_disk / GB * asked.storage_price:,.0f} USD per month"),
        ("parameters; FLOPs of a step per slice", f"{parameters / 1e6:.1f} million; {flops / 1e9:.0f} GFLOP"),
        ("slices per second, each device and all", f"{per_device:,.0f}; {pace:,.0f}"),
        (f"{asked.epochs} epochs", f"{hours:.1f} h, {hours * asked.devices * asked.price:,.0f} USD"),
        ("read by each host", f"{pace / hosts * record * ratio / GB:.2f} GB/s of {asked.read:g}"),
        ("cores per host that read and cut batches", f"{pace / hosts / core:.1f} of {asked.cores}"),
        ("gradients between hosts, of a step", f"{1e3 * gradients:.0f} of {1e3 * step_s:.0f} ms"),
        ("a checkpoint, written by all hosts", f"{state / GB:.2f} GB, every {asked.save_minutes} min"),
        ("dataset.json", f"{index['json'] * slices / GB:.1f} GB"),
        (
            "index of slices, in every process",
            f"{index['bytes'] * slices / GB:.0f} GB, {index['seconds'] * slices:.0f} s",
        ),
        ("order of an epoch, in every process", f"{8 * slices / GB:.2f} GB, {index['order'] * slices:.1f} s"),
        (
            "check of all labels and digests at the first start, by process 0",
            f"{slices * stored / (asked.read * GB) / 3600:.1f} h",
        ),
    ]


def main() -> None:
    """Print assumptions, measurements and the table."""
    asked = arguments()
    given = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in vars(asked).items())
    records = measured_records(asked.size)
    index = measured_index(asked.index_slices, asked.slices, asked.size)
    print(f"assumed: {given}\n")
    print(
        f"measured here, one core: a record read in {1e6 * records[1]:.0f} us, its slice cut for a batch in "
        f"{1e6 * index['gather']:.0f} us; the index has {index['bytes']:.0f} bytes per slice, made in "
        f"{1e6 * index['seconds']:.1f} us\n"
    )
    table = rows_of(asked, records, index)
    width = max(len(name) for name, _ in table)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in table))


if __name__ == "__main__":
    main()
