"""Opening a run: what stays the same from its first step to its last, and the state that it goes on from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from heartseg_jax import distributed
from heartseg_jax import workdir as runs
from heartseg_jax.anatomy import IGNORED, LABEL_SETS
from heartseg_jax.config.channels import parse
from heartseg_jax.data import examples as slices
from heartseg_jax.data.dataset.join import copies
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.data.dataset.verify import check_arrays
from heartseg_jax.data.examples import SliceStore
from heartseg_jax.data.learned import learned_from
from heartseg_jax.data.run_dataset import dataset_for, dataset_identity
from heartseg_jax.errors import UserError
from heartseg_jax.files import write_json
from heartseg_jax.findings import apply_policy
from heartseg_jax.models import cost, registry
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.contract import Contract, input_spec
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.preprocess.learned import UNRECORDED, Learned, inherited
from heartseg_jax.progress import Progress, bar, say
from heartseg_jax.training import devices, guards, phases, steps
from heartseg_jax.training.cadence import Cadence, cadence
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.phase_steps import PhaseProgram, phase_program
from heartseg_jax.training.phases import Phase
from heartseg_jax.training.saved import Saved

MAX_IMAGES_LOOKED_AT = 24


class Run(NamedTuple):
    """What stays the same from the first step to the last.

    Attributes:
      key: the root key that all randomness is derived from, on every device.
      watched: the validation slices, or the training slices where there are none.
      contract: what every checkpoint states of its input, its data and its phases.
    """

    config: Any
    folder: runs.Workdir
    dataset: Dataset
    examples: SliceStore
    watched: SliceStore
    model: UNet
    mesh: Mesh
    key: jax.Array
    cadence: Cadence
    phases: tuple[Phase, ...]
    contract: Contract

    @property
    def total_steps(self) -> int:
        """The run's last step."""
        return self.cadence.total_steps

    @property
    def transfers(self) -> bool:
        """Whether phases or weights from elsewhere are asked for: then the run keeps their log."""
        asked = self.config
        return asked.transfer.schedule != "none" or bool(asked.pretrained.path or asked.pretrained.recalibrate_batches)

    @property
    def tag(self) -> str:
        """'val' where there are validation patients; 'fit' where the training slices are watched if there are none."""
        return "val" if self.dataset.examples("validation") else "fit"

    def first_batches(self, count: int) -> Iterator[Batch]:
        """Yield the first `count` batches of the training slices, in the order of training."""
        size = self.config.data.batch_size
        for step in range(count):
            yield slices.batch_at(self.examples, self.config.seed, step, size)

    def step_flops(self, number: int) -> int:
        """Return the FLOPs per image of a step of phase `number` (from 0)."""
        size, frozen = self.config.data.size, self.phases[number].frozen
        return cost.step_flops(size, size, cost_shape(self.config), frozen)

    def program(self, number: int) -> PhaseProgram:
        """Return the program of phase `number` (from 0)."""
        found = phase_program(self.config, self.model, self.phases, number)
        return found._replace(init=lambda params: devices.replicate(self.mesh, found.init(params)))


def open_run(config: Any, folder: runs.Workdir) -> Run:
    """Open the data, show them to the guards, and build the model.

    Raises:
      UserError: the data or the devices do not fit the config, or a step does not fit the memory.
      GuardStop: a guard refuses the data.
    """
    devices.check_memory(step_memory_bytes(config))  # before anything is read or compiled; the step is checked again
    before = _inherited(config.pretrained, folder)  # what is wrong there is said before minutes are spent on data
    devices.data_mesh(config.data.batch_size)  # the devices must fit before phantoms are made for minutes
    dataset = dataset_for(config, folder.path)
    if not dataset.examples("train"):
        raise UserError(f"{dataset.path} has no training patients; prepare it with others, or fewer test patients")
    names = ", ".join(
        f"{len(dataset.patients_in(s))} {s} ({len(dataset.examples(s))} slices)"
        for s in ("train", "validation", "test")
    )
    say(f"data: {dataset.path}; patients: {names}; computing on {devices.describe()}")
    spec = input_spec(config.data, dataset.intensity)
    if distributed.is_first():  # the others wait where the opening ends
        check_arrays(dataset, bar("patients compared with their digests"))
        warnings = inspect_data(dataset, config.guards, bar("patients inspected by the guards"))
        for warning in (*warnings, *copies(dataset), *slices.misfits(spec, dataset.patients)):
            say(f"WARNING {warning}")
    return run_of(config, folder, dataset, before)


def run_of(config: Any, folder: runs.Workdir, dataset: Dataset, before: tuple[Learned, ...] = ()) -> Run:
    """Return the run of a config on a dataset; `before` is what its initial weights had learned from."""
    spec = input_spec(config.data, dataset.intensity)
    examples = SliceStore(dataset, "train", spec.finer(config.data.detail), config.data.cache_gb)
    # The training slices are watched where there are no others: as they are stored, or as the network sees them.
    validates, watched = bool(dataset.examples("validation")), examples
    if validates or config.data.detail > 1:
        watched = SliceStore(dataset, "validation" if validates else "train", spec, config.data.cache_gb)
    per_epoch = slices.steps_per_epoch(len(examples), config.data.batch_size)
    total_steps = config.train.steps or per_epoch * config.train.epochs
    planned = phases.plan(config.transfer, config.model.levels, total_steps)
    mesh = devices.data_mesh(config.data.batch_size)
    return Run(
        config,
        folder,
        dataset,
        examples,
        watched,
        registry.build_model(config.model, dataset.label_set),
        mesh,
        devices.replicate(mesh, jax.random.key(config.seed)),
        cadence(config, per_epoch, total_steps, len(watched)),
        planned,
        Contract(
            spec,
            dataset.label_set.name,
            dataset.location,
            dataset_identity(dataset),
            per_epoch,
            # Where the last phase ends may change: a run can go on. Where the others begin may not.
            tuple({"first_step": phase.first + 1, "multipliers": dict(phase.multipliers)} for phase in planned),
            (*learned_from(dataset), *before),
        ),
    )


def _inherited(pretrained: Any, folder: runs.Workdir) -> tuple[Learned, ...]:
    """Return what the initial weights had learned from; refuse those that are nowhere.

    Whether they fit is seen when they are read. A run that resumes needs them no more: its checkpoint states it.
    """
    if not pretrained.path:
        return ()
    from heartseg_jax.interop.encoder import SHIPPED
    from heartseg_jax.training.networks import is_network, read_contract

    if pretrained.path in SHIPPED:
        return ()
    if runs.has_checkpoint(folder):
        with contextlib.suppress(UserError):  # none is whole, or `first_state` will say that it is damaged
            known = read_contract(folder.path).learned_from
            return tuple(one for one in known if one.inherited) if known else (UNRECORDED,)
    if is_network(pretrained.path):
        source = read_contract(pretrained.path).learned_from or (UNRECORDED,)
        return inherited(source, head=pretrained.load == "all")
    if not Path(pretrained.path).exists():
        raise UserError(
            f"pretrained.path={pretrained.path} does not exist; give a Keras file, the folder of a run or a package, "
            "or brain16"
        )
    return ()  # a Keras file gives an encoder, and states nothing of what it was trained on


def inspect_data(dataset: Dataset, policy: Any, progress: Progress) -> list[str]:
    """Return the guards' warnings about a dataset; raises GuardStop where the config says stop.

    Every label of every patient is read; of the images, slices evenly spaced through each patient.
    """
    warnings: list[str] = []
    label_set = dataset.label_set
    for number, patient in enumerate(dataset.patients, 1):
        labels = dataset.labels(patient)
        for plane in labels:
            # One slice at a time: its counts show whether a value is out of range.
            counts = np.bincount(np.asarray(plane).ravel(), minlength=256)
            if counts[label_set.num_classes : IGNORED].any():
                warnings += apply_policy(
                    guards.check_labels(f"patient {patient.id}", np.asarray(labels), label_set), policy
                )
                break
        images = dataset.images(patient)
        chosen = np.unique(np.linspace(0, len(images) - 1, MAX_IMAGES_LOOKED_AT).round().astype(int))
        unit = dataset.part_of(patient).intensity
        found = guards.check_images(f"patient {patient.id}", np.stack([images[z] for z in chosen]), unit)
        warnings += apply_policy(found, policy)
        progress(number, len(dataset.patients))
    training = dataset.patients_in("train")
    counts = np.array(
        [np.sum([c for c, s in zip(p.class_counts, p.splits, strict=True) if s == "train"], axis=0) for p in training]
    )
    return warnings + apply_policy(
        guards.check_known_structures(counts, [p.merge for p in training], label_set), policy
    )


def cost_shape(config: Any) -> cost.Shape:
    """Return what the cost of a config's network depends on."""
    return cost.shape_of(config.model, LABEL_SETS[config.data.task], len(parse(config.data.channels, None)))


def step_memory_bytes(config: Any) -> int:
    """Return what a step of the config's own batch, image size and input channels needs on each device."""
    model, size, shape = config.model, config.data.size, cost_shape(config)
    share = -(-config.data.batch_size // len(jax.devices()))
    return cost.step_memory_bytes(share, size, size, shape, model.dtype, averaged=config.train.ema_decay > 0)


def first_state(run: Run, checkpoints: Checkpoints, feed: Any) -> steps.TrainState:
    """Return the state to go on from, on every device. Where there is a checkpoint, `feed` is set to its position.

    Raises:
      UserError: the checkpoint is of other data, of another model, or of more steps than the config asks for; or the
        weights that `pretrained.path` names do not fit.
    """
    saved = _own_checkpoint(run, checkpoints)
    key = devices.local(run.key)
    size, channels = run.config.data.size, len(run.contract.input.channels)
    params, batch_stats = steps.init_params(run.model, key, size, channels)
    steps.forget_initialiser(run.model, size, channels)
    program = run.program(phases.phase_at(run.phases, saved.step - 1 if saved else 0))
    if saved is None and run.transfers:
        from heartseg_jax.training import initial_weights  # with it come the readers of Keras files

        params, batch_stats, source = initial_weights.start(
            run.config, run.model, params, batch_stats, run.first_batches
        )
        if distributed.is_first():
            write_json(run.folder.transfer, {"pretrained": source, "phases": []})
        say(f"weights before step 1: {run.config.pretrained.path or 'random'}")
    if decay := run.config.train.ema_decay:
        say(f"weights: evaluated, scored and used for predictions as moving averages (train.ema_decay={decay:g})")
    params, batch_stats = devices.replicate(run.mesh, (params, batch_stats))
    state = devices.replicate(run.mesh, steps.begin(program, params, batch_stats, run.config.train.ema_decay))
    if saved is None:
        return state
    if saved.step < run.total_steps:
        feed.set_state(dict(saved.data))
    say(f"going on from step {saved.step} of {run.total_steps}")
    return checkpoints.restore(saved.step, state)


def _own_checkpoint(run: Run, checkpoints: Checkpoints) -> Saved | None:
    """Return what lies beside the run's newest checkpoint once it is known to fit, or None where there is none."""
    if not checkpoints.steps():
        return None
    saved = checkpoints.read(checkpoints.steps()[-1])
    where = f"the checkpoint of step {saved.step} in {run.folder.path}"
    changed = Contract.from_json(saved.contract, where).differences(run.contract)
    if changed:
        raise UserError(
            f"{run.folder.path} was trained on other data, with another input or in other phases "
            f"({', '.join(changed)} changed); give another --workdir"
        )
    if saved.step > run.total_steps:
        raise UserError(
            f"{run.folder.path} has already trained {saved.step} steps, more than the {run.total_steps} that "
            f"train.epochs={run.config.train.epochs} asks for; raise --config.train.epochs"
        )
    return saved


def write_provenance(run: Run, argv: list[str]) -> None:
    """Write `config.json` and `run.json` of this start, once it is known that the run can go on."""
    kinds = [device.device_kind for device in jax.devices()]
    decay = run.config.train.ema_decay
    record = {
        **runs.provenance(argv),
        "dataset": run.contract.to_json(),
        "devices": kinds,
        "weights": {"used": "averaged" if decay else "last", "ema_decay": decay},
    }
    runs.write_provenance(run.folder, run.config, record)


def learning_rates(run: Run) -> dict[str, np.ndarray]:
    """Return the rate of every step for each group, or for 'all' where groups have none of their own.

    All at once and beforehand: computed step by step, each would wait in the device's queue behind a step.
    """
    whole = steps.learning_rate_schedule(run.config.train, run.total_steps)
    found: dict[str, list[np.ndarray]] = {}
    for phase in run.phases:
        places = np.arange(phase.first, phase.end)
        schedule = phases.learning_rates(whole, phase, run.config.transfer.rewarm_steps)
        rates = np.broadcast_to(np.asarray(jax.jit(schedule)(places)), places.shape)  # else a program per operation
        for group, multiplier in phase.multipliers:
            found.setdefault(group, []).append(rates * multiplier)
    joined = {group: np.concatenate(parts) for group, parts in found.items()}
    return joined if run.transfers else {"all": joined["head"]}
