"""Every field once: its default, its unit, its meaning. The other configs change what they must."""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    del variant
    config = ConfigDict()
    config.seed = 0  # every random choice of a run follows from this one number

    config.data = ConfigDict()
    config.data.path = ""  # dataset folder made by `prepare`; empty: phantom patients, made by the run itself
    config.data.task = "heart"  # what the dataset's labels stand for: 'heart', or 'tumour' (configs/brain.py)
    config.data.test_patients = ()  # ids: these are the test patients, whatever the dataset's own split says
    config.data.validation_patients = ()  # ids, only beside data.test_patients; all others train
    config.data.size = 512  # pixels: the network sees size x size
    config.data.mm_per_pixel = 0.0  # mm; 0: the slice's longer side is scaled to data.size
    config.data.batch_size = 4  # slices a step, over all devices
    config.data.channels = "repeat"  # 'repeat': one slice three times; 'adjacent': slices z-1, z, z+1
    config.data.normalise = "window"  # 'window': data.window_hu to 0..1; 'percentile': each slice by its own
    config.data.window_hu = (-200.0, 600.0)  # HU that become 0 and 1
    config.data.percentiles = (1.0, 99.0)  # percent, for 8-bit images of unknown window
    config.data.augment = "default"  # 'none', 'default', 'as_original' (with flips) or 'randomised'
    config.data.threads = 2  # threads that load slices while the device computes
    config.data.cache_gb = 2.0  # GB of resampled slices kept in memory; 0: every slice is read anew

    config.data.phantom = ConfigDict()  # used only while data.path is empty
    config.data.phantom.train = 24  # patients
    config.data.phantom.validation = 3  # patients
    config.data.phantom.test = 6  # patients
    config.data.phantom.seed = 0  # of the generator, apart from the run's
    config.data.phantom.shape = (32, 80, 80)  # voxels (z, y, x)
    config.data.phantom.spacing_mm = (4.5, 3.0, 3.0)  # mm (z, y, x)
    config.data.phantom.randomised_contrast = False  # tissue brightness drawn at random, as configs/synthetic.py

    config.model = ConfigDict()
    config.model.width = 64  # filters of the first level; doubled at each level
    config.model.levels = 3  # resolutions, the bottom included
    config.model.num_classes = 9  # background and the eight structures
    config.model.norm = "none"  # 'none', 'batch', or 'encoder': BatchNorm there alone, as in the brain model
    config.model.batch_norm_momentum = 0.9  # share of the old running statistics kept at each step
    config.model.dropout = 0.0  # rate between the two convolutions of a decoder level
    config.model.dtype = "float32"  # compute: 'float32' or 'bfloat16'; parameters and loss stay float32

    config.pretrained = ConfigDict()
    config.pretrained.path = ""  # '' (random), 'brain16' (comes with the project), a Keras file, or a run's folder
    config.pretrained.load = "encoder"  # 'encoder', or 'all' from a run of the same network
    config.pretrained.recalibrate_batches = 0  # batches that BatchNorm's statistics are measured on anew; 0: kept

    config.transfer = ConfigDict()
    config.transfer.schedule = "none"  # 'none', 'frozen', 'full', 'lp_ft', 'staged', 'surgical' or 'custom'
    config.transfer.phases = ()  # of 'custom', each 'LENGTH:GROUP[*RATE]+...', such as '2:decoder+head'
    config.transfer.encoder_multiplier = 1.0  # of the learning rate, for encoder stages that have thawed
    config.transfer.rewarm_steps = 20  # steps over which the learning rate rises again after each thaw
    config.transfer.control = False  # then train the same with a frozen encoder of random weights, to compare with

    config.train = ConfigDict()
    config.train.epochs = 75  # passes over the training slices
    config.train.steps = 0  # steps, whatever train.epochs says; 0: as many as the epochs have
    config.train.learning_rate = 1e-3  # peak of the schedule
    config.train.schedule = "cosine"  # after the warm-up: 'cosine' down to 1 % of the peak, or 'constant'
    config.train.warmup_steps = 50  # steps of linear rise from 0; at most a tenth of the run
    config.train.weight_decay = 0.0  # AdamW's, on kernels alone
    config.train.clip_norm = 1.0  # of the gradient's global norm; 0: not clipped
    config.train.dice_weight = 1.0  # of the batch Dice in the loss
    config.train.cross_entropy_weight = 1.0  # of the cross-entropy in the loss

    config.lab = ConfigDict()  # read by the verb `lab` alone
    config.lab.arms = ()  # names of the arms to compare; (): all
    config.lab.seeds = 2  # how often each arm is trained on each fold
    config.lab.splits = ()  # 'patient' (each left out in turn), 'slice' (folds of slices at random); (): both
    config.lab.train_patients = ()  # numbers of training patients, such as '2'; '0': all others; (): that alone
    config.lab.learning_rates = ()  # tried on an inner patient, by every arm alike; (): train.learning_rate, untried
    config.lab.looks = 6  # evaluations in the course of a run, for its learning curve
    config.lab.synthetic_run = ""  # folder of a run on phantoms, which the arm synthetic_full starts from
    config.lab.replicas = "auto"  # folds at once in one program: 'vmap', 'one' after the other, or whichever is faster
    config.lab.workers = 0  # processes that share the arms and the cores; 0: one a core on a CPU, else one
    config.lab.budget_only = False  # print what it would cost, and stop there

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 200  # steps between checkpoints; the last step always has one
    config.checkpoint.keep = 2  # newest checkpoints kept

    config.log = ConfigDict()
    config.log.every_steps = 20  # steps between lines of metrics.jsonl
    config.log.evaluate_every_epochs = 1  # epochs between evaluations of the validation patients ...
    config.log.evaluate_every_steps = 0  # ... and the least steps; 0: so that they take a tenth of the run at most
    config.log.figures = True  # write the figures

    config.guards = ConfigDict()  # each 'stop', 'warn' or 'off'
    config.guards.non_finite = "stop"  # the loss is NaN or infinite
    config.guards.divergence = "stop"  # the loss stays far above its start
    config.guards.divergence_factor = 10.0  # times the first loss ...
    config.guards.divergence_steps = 10  # ... for so many steps in a row
    config.guards.collapse = "stop"  # nearly nothing but background is predicted
    config.guards.collapse_share = 0.02  # predicted foreground below this share of the true foreground ...
    config.guards.collapse_evaluations = 4  # ... at so many evaluations in a row
    config.guards.frozen = "stop"  # what a phase freezes has changed, or what it trains has not
    config.guards.missing_labels = "stop"  # a structure the sources claim to know is in no training slice
    config.guards.images = "stop"  # images that are constant, or outside what their unit allows
    config.guards.labels = "stop"  # label values that are neither 0..8 nor 255
    return config
