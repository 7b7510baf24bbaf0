"""A recipe: what is trained, on what, in which stages, with every hyperparameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tdc_deploy.errors import TdcError
from tdc_deploy.types import check_number
from tdc_train.checks import check_choice, check_share, check_types, check_whole
from tdc_train.search.spec import SearchSpec

Kind = Literal["dense", "admm", "search", "decompose", "project", "finetune", "slices"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "step", "constant"]
Distillation = Literal["none", "hard", "soft", "feature"]
Init = Literal["hosvd", "hooi", "data-aware"]
# Kinds of stages that need to be told ranks, unless they have a set.
PLANNED = ("admm", "decompose")
# Those that may have a set, and those that can come after a projection to one.
SET_KINDS = ("admm", "project")
HOLDING = ("dense", "finetune", *SET_KINDS)


@dataclass(frozen=True)
class ModelSpec:
    """A network of `models.registry`, or module:factory, and weights to start from (a file)."""

    name: str = "resnet20"
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class DataSpec:
    """A data set of `data.registry` with its folder."""

    name: str = "shapes"
    root: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class OptimizerSpec:
    """SGD with momentum, or AdamW. Weight decay spares vectors (norms, biases) if `decay_all` is off."""

    name: Optimizer = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_all: bool = True
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("optimizer name", self.name, Optimizer)
        check_number("lr", self.lr, positive=True)
        check_number("weight_decay", self.weight_decay)
        for name in ("momentum", "beta1", "beta2"):
            check_share(name, getattr(self, name))
        if self.nesterov and not self.momentum:
            raise TdcError("nesterov without momentum", expected="momentum above 0")


SLICES_OPTIMIZER = OptimizerSpec("adamw", 1e-3, weight_decay=0.0)


@dataclass(frozen=True)
class ScheduleSpec:
    """The learning rate over the epochs, as a share of the optimizer's.

    A linear rise in `warmup` epochs; then half a cosine down to `floor`, or times `gamma` every
    `step` epochs, or constant.
    """

    name: Schedule = "cosine"
    warmup: float = 0.0
    floor: float = 0.0
    step: int = 30
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_choice("schedule name", self.name, Schedule)
        check_number("warmup", self.warmup)
        check_number("gamma", self.gamma, positive=True)
        check_share("floor", self.floor)
        check_whole("step", self.step, 1)


@dataclass(frozen=True)
class DistillSpec:
    """Distillation from a teacher.

    `teacher` is the name of an earlier stage, whose model at its end teaches, or a checkpoint file,
    or a network of the registry, whose weights are `weights`. `weight` is the share of the
    teacher's term in the loss, `temperature` that of soft distillation.
    """

    name: Distillation = "none"
    teacher: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("distillation name", self.name, Distillation)
        check_number("weight", self.weight)
        if self.weight > 1:
            raise TdcError(f"weight is {self.weight!r}", expected="from 0 to 1")
        check_number("temperature", self.temperature, positive=True)
        if self.name != "none" and not self.teacher:
            raise TdcError(
                f"{self.name} distillation without a teacher",
                expected="teacher: an earlier stage's name, a checkpoint or a network's name",
            )


@dataclass(frozen=True)
class RanksSpec:
    """Ranks: a plan's file, or the layers themselves as in a plan, or a rule.

    The rule: each 3x3 (or larger) convolution of at least `min_channels` on both sides becomes
    Tucker-2 with ranks of `ratio` times its channels, rounded to a multiple of `step`.
    """

    plan: str | None = None
    layers: Mapping[str, Any] = field(default_factory=dict)
    ratio: float = 0.0
    step: int = 16
    min_channels: int = 32

    def __post_init__(self) -> None:
        check_types(self)
        check_share("ratio", self.ratio)
        check_whole("step", self.step, 1)
        check_whole("min_channels", self.min_channels, 1)
        if sum(map(bool, (self.plan, self.layers, self.ratio))) > 1:
            raise TdcError("plan, layers and ratio", expected="one of them")

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return bool(self.plan or self.layers or self.ratio)


@dataclass(frozen=True)
class AdmmSpec:
    """ADMM's ρ, or 0 for one scaled to the steps and learning rates. The sets are the plan's forms, or the
    stage's `set`.
    """

    rho: float = 0.0

    def __post_init__(self) -> None:
        check_number("rho", self.rho)


@dataclass(frozen=True)
class InitSpec:
    """How a decomposition starts, and on how many training images what is measured is measured."""

    name: Init = "hosvd"
    images: int = 1024
    re_estimate: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("init name", self.name, Init)
        check_whole("images", self.images, 1)


@dataclass(frozen=True)
class StageSpec:
    """One stage; `name` is its kind if not given.

    Args:
        batch: images per step over all processes; per process if `per_process`, and then the
            learning rate is multiplied by their number too.
        mixup: α of the Beta distribution; 0: none.
        clip: largest norm of the gradient; 0: none.
        ema: decay of the moving average of the weights; 0: none.
        amp: half precision where it is safe: bfloat16 on a CPU, float16 on a GPU.
        optimizer, schedule: of slices AdamW at 1e-3 without weight decay if not given, and half a cosine.
        ranks: for admm and decompose; without any, those of the stage before, or what it found.
        set: for admm instead of ranks: the constraint set's name and parameters
            (`projections.sets.registry`); for project, where it is the admm stage's before if not given.
        search: for search, which also takes `distill`: "feature" pulls each searched layer's feature map
            to the teacher's.
    """

    kind: Kind
    name: str = ""
    epochs: int = 20
    batch: int = 64
    per_process: bool = False
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    amp: bool = False
    channels_last: bool = True
    distill: DistillSpec = DistillSpec()
    ranks: RanksSpec = RanksSpec()
    set: Mapping[str, Any] = field(default_factory=dict)
    admm: AdmmSpec = AdmmSpec()
    init: InitSpec = InitSpec()
    search: SearchSpec = field(default_factory=SearchSpec)

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("kind", self.kind, Kind)
        check_whole("epochs", self.epochs, 1)
        check_whole("batch", self.batch, 1)
        for name in ("mixup", "clip"):
            check_number(name, getattr(self, name))
        for name in ("label_smoothing", "ema"):
            check_share(name, getattr(self, name))
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        if "/" in self.name:
            raise TdcError(f"a stage's name is {self.name!r}", expected="a name for a file")
        if self.schedule.warmup > self.epochs:
            raise TdcError(
                f"warmup of {self.schedule.warmup} epochs", expected=f"at most {self.epochs}"
            )
        self._check_kind()
        if self.kind == "admm" and self.optimizer.name == "adamw" and not self.admm.rho:
            raise TdcError(
                "admm by AdamW without rho",
                expected="a rho: how far it pulls is known beforehand for SGD only",
            )
        if self.mixup and self.distill.name != "none":
            raise TdcError("mixup and distillation", expected="one of them in a stage")

    def _check_kind(self) -> None:
        if self.kind == "slices":
            self._check_slices()
        if self.kind == "search":
            self._check_search()
        if self.set:
            self._check_set()

    def _check_set(self) -> None:
        # It needs torch, which reading a recipe does not.
        from tdc_train.projections.sets.registry import chosen_set

        if self.kind not in SET_KINDS:
            raise TdcError(
                f"a set for a stage of kind {self.kind}", expected=f"for {' or '.join(SET_KINDS)}"
            )
        if self.ranks.given:
            raise TdcError("a set and ranks", expected="one of them")
        chosen_set(self.set)

    def _check_search(self) -> None:
        if self.ranks.given:
            raise TdcError("a search with ranks", expected="none: it finds them")
        if self.search.warmup >= self.epochs:
            raise TdcError(
                f"a search of {self.epochs} epochs with {self.search.warmup} of warmup",
                expected="more epochs than that: the logits rest until then",
            )

    def _check_slices(self) -> None:
        if not self.distill.teacher:
            raise TdcError("slices without a teacher", expected="teacher in [stages.distill]")
        if self.optimizer == OptimizerSpec():
            # SGD's rate is a hundred times too large for them.
            object.__setattr__(self, "optimizer", SLICES_OPTIMIZER)
        if self.optimizer.name != "adamw":
            raise TdcError(
                f"slices by {self.optimizer.name}",
                expected='optimizer = { name = "adamw", lr = 1e-3, weight_decay = 0.0 } or none',
            )
        if self.schedule != ScheduleSpec():
            raise TdcError(
                "slices with a schedule", expected="none: it is half a cosine for each slice"
            )


@dataclass(frozen=True)
class Recipe:
    """Stages, run in order on one model."""

    stages: tuple[StageSpec, ...]
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    seed: int = 0
    deterministic: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_whole("seed", self.seed)
        if not self.stages:
            raise TdcError("a recipe without stages", expected="at least one [[stages]]")
        names = [stage.name for stage in self.stages]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise TdcError(f"two stages named {name!r}", fix="give each a name of its own")
        self._check_ranks()
        self._check_sets()

    def _check_ranks(self) -> None:
        known = decomposed = False
        for stage in self.stages:
            known = known or stage.ranks.given or stage.kind == "search"
            if stage.kind in PLANNED and not known and not stage.set:
                raise TdcError(
                    f"stage {stage.name!r} without ranks",
                    expected="plan, layers or ratio in [stages.ranks], its own or before, or a search",
                )
            if stage.kind in (*PLANNED, "search") and decomposed:
                raise TdcError(f"stage {stage.name!r} after a decomposition", expected="before it")
            # What the weights hold is seen when they are read.
            if stage.kind == "slices" and not decomposed and not self.model.weights:
                raise TdcError("slices of a dense model", expected="a decompose stage before")
            decomposed = decomposed or stage.kind == "decompose"

    def _check_sets(self) -> None:
        aimed = projected = False
        for stage in self.stages:
            aimed = aimed or bool(stage.set)
            if projected and stage.kind not in HOLDING:
                raise TdcError(
                    f"stage {stage.name!r} ({stage.kind}) after a projection",
                    expected=f"{', '.join(HOLDING)}",
                )
            if stage.kind == "admm" and not stage.set and projected:
                raise TdcError(
                    f"stage {stage.name!r} without a set", expected="one, after a projection"
                )
            if stage.kind == "project":
                if not aimed:
                    raise TdcError(
                        f"stage {stage.name!r} without a set",
                        expected="set = { name = ... } in it, or in an admm stage before",
                    )
                aimed, projected = False, True
