"""From a `RunSpec` to its network: trained, quantized, re-estimated; resumable."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optax
from flax import nnx

from experiments.console import Bar
from experiments.study import layout
from experiments.study.config import StudyConfig
from experiments.study.grid import (
    BATCHNORM_IMAGES,
    EVAL_BATCH,
    REESTIMATED,
    RunSpec,
)
from experiments.study.log import Log
from experiments.study.store import StudyStore
from snnjax import calibrate, checkpoint, data, models, neurons, runs, surrogate, train
from snnjax.data import Dataset
from snnjax.models import SEWResNet
from snnjax.quantize import QuantSpec
from snnjax.train import Progress, TrainState, sharding

# The blocks, or the stem's convolution and neurons and the last layer as well.
WEIGHTS = r"layer\d+\.\d+\.(conv\d|downsample\.0)"
MEMBRANES = r"layer\d+\.\d+\.(sn\d|downsample_sn)"
ALL_WEIGHTS = rf"conv1|fc|{WEIGHTS}"
ALL_MEMBRANES = rf"sn1|{MEMBRANES}"

LOG_STEPS = 50


def make_model(config: StudyConfig, dataset: Dataset, seed: int) -> SEWResNet:
    """Return the network before its training."""
    make = getattr(models, config.model)
    return make(
        dataset.num_classes,
        width=config.width,
        in_channels=dataset.images.shape[-1],
        neuron=neurons.LIF(
            decay_input=config.decay_input,
            v_reset=0.0 if config.reset == "hard" else None,
            surrogate=getattr(surrogate, config.surrogate),
        ),
        rngs=nnx.Rngs(seed),
    )


def load_baselines(
    config: StudyConfig, dataset: Dataset, store: StudyStore
) -> dict[int, SEWResNet]:
    """Return the baselines that ``config`` names and ``store`` has no copy of, by seed.

    Raises:
        ValueError: no such file, or one of another network.
    """
    loaded: dict[int, SEWResNet] = {}
    if config.baselines is None:
        return loaded
    for seed in config.seeds:
        if store.weights_of(RunSpec.reference("fp32", seed).name).is_file():
            continue
        path = config.baselines.replace("{seed}", str(seed))
        try:
            loaded[seed] = checkpoint.load(path, make_model(config, dataset, seed))
        except ValueError as error:
            raise ValueError(f"baselines, seed {seed}: {error}") from None
    return loaded


def optimizer(config: StudyConfig, schedule: optax.Schedule):
    """Return the optimizer of ``config`` with a schedule of learning rates."""
    makers = {"sgd": train.sgd, "adamw": train.adamw, "muon": train.muon}
    return makers[config.optimizer](schedule, weight_decay=config.weight_decay)


def augments(config: StudyConfig) -> bool:
    """Return True if training images are cropped and mirrored; digits never are."""
    return config.augment and config.dataset != "digits"


@functools.cache  # a step is compiled for each function
def _augment(cutout: int) -> Callable[..., Any]:
    return functools.partial(data.augment, cutout=cutout) if cutout else data.augment


def make_batchnorm_augment(config: StudyConfig) -> Callable[..., Any] | None:
    """Return the augmentation for BatchNorm's statistics: training's, but cutout."""
    return data.augment if augments(config) else None


def training_options(config: StudyConfig) -> dict[str, Any]:
    """Return the options of `train.steps` and `train.make_train_step` in common."""
    return dict(
        loss=train.smoothed_cross_entropy(config.label_smoothing)
        if config.label_smoothing
        else train.cross_entropy,
        augment=_augment(config.cutout) if augments(config) else None,
        on_nonfinite=config.on_nonfinite,
    )


@dataclasses.dataclass(eq=False)
class Recipe:
    """Makes the networks of one study.

    Baselines are kept in the study's folder, as are the checkpoints of networks in
    training: a network is trained from where it was last saved.

    Attributes:
        loaded: trained baselines of others, by seed, see `load_baselines`.
    """

    config: StudyConfig
    train_set: Dataset
    store: StudyStore
    bar: Bar
    num_devices: int = 1
    loaded: Mapping[int, SEWResNet] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.log = Log(self.store)
        self._per_epoch = train.steps_per_epoch(self.train_set, self.config.batch_size)
        self._qat_steps = self.config.qat_epochs * self._per_epoch

    def make(self, specs: Sequence[RunSpec]) -> list[SEWResNet]:
        """Return the networks of specs of one compile key, mode and seed."""
        mode, seed = specs[0].mode, specs[0].seed
        if mode == "fp32":
            return [self.baseline(specs[0])]
        networks = [self.quantized(spec) for spec in specs]
        names = [spec.name for spec in specs]
        if mode in REESTIMATED:
            return list(map(self._reestimate, names, networks))
        if mode == "ptq":
            return networks
        before = mode == "control" and self.config.qat_epochs > 1
        schedule, steps = self._qat_schedule(), self._qat_steps
        return self.train(names, networks, schedule, steps, seed, epoch_before=before)

    def _qat_schedule(self) -> optax.Schedule:
        assert self.config.qat_learning_rate is not None, "resolve() sets it"
        return train.cosine(self._qat_steps, self.config.qat_learning_rate)

    @functools.lru_cache(maxsize=4)  # noqa: B019 (they live as long as the study)
    def baseline(self, spec: RunSpec) -> SEWResNet:
        """Return the full-precision network, from a file or trained now."""
        model = make_model(self.config, self.train_set, spec.seed)
        if (trained := self.store.load_weights(spec.name, model)) is not None:
            return trained
        if spec.seed in self.loaded:
            model = self.loaded[spec.seed]
        else:
            model = self._train_baseline(spec, model)
        about = self.config.numbers() | {"seed": spec.seed}
        self.store.export_weights(spec.name, model, about)
        return model

    def _train_baseline(self, spec: RunSpec, model: SEWResNet) -> SEWResNet:
        steps, peak = self.config.epochs * self._per_epoch, self.config.learning_rate
        assert peak is not None, "resolve() sets it"
        if self.config.schedule == "cosine":
            warmup = self.config.warmup_epochs * self._per_epoch
            schedule = train.cosine(steps, peak, warmup)
        else:
            schedule = train.one_cycle(steps, peak)
        warm_start = int(self.config.warm_start * steps)
        average = self.config.average
        [model] = self.train(
            [spec.name],
            [model],
            schedule,
            steps,
            spec.seed,
            warm_start=warm_start,
            average=average,
        )
        if average:
            model = self._reestimate(spec.name, model)
        return model

    def quantized(self, spec: RunSpec) -> SEWResNet:
        """Return the baseline with the quantizers of ``spec``, not yet trained."""
        model = self.baseline(spec.baseline)
        if spec.method is None:
            return model
        quantizer = QuantSpec(
            method=spec.method,
            bits=spec.bits,
            clip=spec.clip,
            signed=bool(spec.signed),
            grid=spec.grid or "mid_rise",
        )
        if spec.target == "membrane":
            rules = {ALL_MEMBRANES if spec.quantize_all else MEMBRANES: quantizer}
            return calibrate.quantize(model, rules, membrane_site=str(spec.site))
        rules = {ALL_WEIGHTS if spec.quantize_all else WEIGHTS: quantizer}
        return calibrate.quantize(model, rules)

    def load_epoch_before(self, spec: RunSpec, model: SEWResNet) -> SEWResNet | None:
        """Return a trained control as its last epoch began; None for other runs."""
        if spec.mode != "control":
            return None
        like = train.init(model, optimizer(self.config, self._qat_schedule()))
        state = self.store.load_epoch_before(spec.name, like)
        return None if state is None else train.model_from_state(model, state)

    def train(
        self,
        names: Sequence[str],
        networks: Sequence[SEWResNet],
        schedule: optax.Schedule,
        steps: int,
        seed: int,
        *,
        warm_start: int = 0,
        average: float = 0.0,
        epoch_before: bool = False,
    ) -> list[SEWResNet]:
        """Train networks, each from where it was last saved.

        Those that were saved at the same step train side by side, as far as devices
        allow. The first ``warm_start`` steps have fewer time steps. The
        networks have an average of their weights with ``average``, its decay. With
        ``epoch_before`` the states are saved as the last epoch begins.

        Raises:
            ValueError: a loss or gradient is not finite.
            runs.PreemptedError: a signal came, and the states are saved.
        """
        self.bar.set_description(f"{names[0]}: compiling")
        tx, read = optimizer(self.config, schedule), train.model_from_state
        if average:
            tx, read = train.average_weights(tx, average), train.averaged_model
        save_at = steps - self._per_epoch if epoch_before else None
        phases = [(warm_start, self.config.warm_start_timesteps)] * bool(warm_start)
        phases.append((steps, self.config.timesteps))
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(self._open(name, train.init(model, tx)))
                for name, model in zip(names, networks, strict=True)
            ]
            for until, timesteps in phases:
                for chunk in self._chunks(opened, until, steps):
                    together = [opened[i] for i in chunk]
                    loop = train.steps(
                        [networks[i] for i in chunk],
                        self.train_set,
                        optimizer=tx,
                        steps=until,
                        timesteps=timesteps,
                        seed=seed,
                        batch_size=self.config.batch_size,
                        start=train.stack([one.state for one in together]),
                        silent_above=self.config.silent_above,
                        mesh=layout.mesh_for(len(chunk), self.num_devices),
                        **training_options(self.config),
                    )
                    self._train_together(together, loop, schedule, save_at)
        return [
            read(model, one.state) for model, one in zip(networks, opened, strict=True)
        ]

    def _chunks(
        self, opened: Sequence[runs.Resumable], until: int, steps: int
    ) -> list[list[int]]:
        """Return which runs train together up to a step; the last step is for all."""
        at_step: dict[int, list[int]] = {}
        for i, one in enumerate(opened):
            if _step(one) < until or until == steps:
                at_step.setdefault(_step(one), []).append(i)
        return [
            list(chunk)
            for same_step in at_step.values()
            for chunk in layout.chunks(same_step, self.num_devices)
        ]

    @contextlib.contextmanager
    def _open(self, name: str, state: TrainState) -> Iterator[runs.Resumable]:
        """Open the checkpoints of a run, and start from the newest."""
        with runs.resumable(
            self.store.states_of(name),
            state,
            config=self.config.numbers_of_a_run() | {"row": name},
            warn=lambda message: self.bar.print(f"{name}: {message}"),
        ) as one:
            one.name, step = name, _step(one)
            self.log.resume(name, step)
            self.bar.advance(step * self.config.batch_size)
            yield one

    def _train_together(
        self,
        opened: Sequence[runs.Resumable],
        loop: Iterator[Progress],
        schedule: optax.Schedule,
        save_at: int | None,
    ) -> None:
        """Run a training loop, show and log it; leave the states in ``opened``."""
        names = [one.name for one in opened]
        logged, logged_at = _step(opened[0]), time.monotonic()
        try:
            for progress in runs.watch(
                opened, loop, seconds=self.config.save_seconds, unstack=train.unstack
            ):
                self._show(names, progress)
                step, last = progress.step, progress.step == progress.steps
                if last or step % LOG_STEPS == 0 or any(progress.silent):
                    images = (step - logged) * self.config.batch_size
                    speed = images / max(time.monotonic() - logged_at, 1e-9)
                    skipped = sharding.to_host(progress.state.skipped)
                    self._log(names, progress, schedule, speed, skipped)
                    logged, logged_at = step, time.monotonic()
                if step == save_at:
                    states = train.unstack(progress.state)
                    for name, state in zip(names, states, strict=True):
                        self.store.save_epoch_before(name, state)
        except train.NonFiniteError as error:
            one = opened[error.index]
            step = one.latest()
            where = "from the beginning" if step is None else f"from step {step}"
            raise ValueError(
                f"{one.name}: {error}; the same command resumes {where} "
                f"({self.store.states_of(one.name)})"
            ) from error
        for one in opened:
            self.log.close(one.name)
            if skipped := int(one.state.skipped[0]):
                self.bar.print(f"{one.name}: {skipped} steps skipped")

    def _show(self, names: Sequence[str], progress: Progress) -> None:
        """Show a step on the bar, and print the layers that fell silent."""
        metrics, at = progress.metrics, f"step {progress.step}"
        self.bar.advance(self.config.batch_size * len(names))
        for i, (name, layers) in enumerate(zip(names, progress.silent, strict=True)):
            for layer in layers:
                dead = 100 * float(metrics.dead[layer][i])
                self.bar.print(
                    f"{name} {at}: {layer} fell silent "
                    f"({dead:.1f} % of its neurons below rate 0.05)"
                )
        if self.bar.should_refresh():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.bar.set_description(
                f"{names[0]}{more}: {at}/{progress.steps}, loss "
                f"{metrics.loss[0]:.3f}, accuracy {metrics.accuracy[0]:.2f}"
            )

    def _log(
        self, names: Sequence[str], progress: Progress, schedule, speed: float, skipped
    ) -> None:
        metrics = progress.metrics
        for i, name in enumerate(names):
            dead = metrics.dead.items()
            self.log.write(
                name,
                progress.step,
                steps=progress.steps,
                loss=float(metrics.loss[i]),
                accuracy=float(metrics.accuracy[i]),
                learning_rate=float(schedule(progress.step - 1)),
                images_per_second=round(speed, 1),
                skipped=int(skipped[i]),
                silent=list(progress.silent[i]),
                dead={layer: round(float(x[i]), 4) for layer, x in dead},
            )

    def _reestimate(self, name: str, model: SEWResNet) -> SEWResNet:
        self.bar.set_description(f"{name}: re-estimating BatchNorm")
        # Crops, as training saw: by whole images' statistics CIFAR-100's baseline moves
        # by an EMD of 0.015, more than by most quantizers, and by crops' 0.0014.
        size = min(EVAL_BATCH, len(self.train_set))
        return calibrate.reestimate_batchnorm(
            model,
            self.train_set,
            timesteps=self.config.timesteps,
            images=BATCHNORM_IMAGES,
            batch_size=EVAL_BATCH,
            augment=make_batchnorm_augment(self.config),
            on_step=lambda: self.bar.advance(size / 3),
        )


def _step(one: runs.Resumable) -> int:
    return int(one.state.step[0])
