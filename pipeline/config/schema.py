"""The training configuration: a YAML recipe, overridden key by key, validated whole before anything is loaded.

Every field is followed by its meaning, with unit and sentinel. Sizes of the images are no part of it:
they are read from the shards' manifest.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator, model_validator

Decay = Annotated[float, Field(ge=0, lt=1)]
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")

MAX_RECIPE_BYTES = 1 << 20


class ConfigError(ValueError):
    """A recipe or an override that cannot be used; the message is one sentence for the terminal."""


class Section(BaseModel):
    """Base of all sections: frozen; an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the shards are and how they are fed."""

    path: str = "shards/"
    """Folder with manifest.json and the tar shards, or an address from which they are streamed."""
    horizontal_flip: bool = False
    """Mirror each image with probability 1/2, keyed by (seed, epoch, sample)."""
    shift: float = Field(default=0, ge=0)
    """Move each image, across and down: standard deviation in pixels, keyed by (seed, epoch, sample)."""
    affine: float = Field(default=0, ge=0, le=1)
    """Turn, scale and shear each image: standard deviation of its linear map's four numbers about the identity's.

    Like shift for splits so small that the encoder would learn them by heart; latents then code it too.
    """
    verify: Literal["sha256", "size"] = "sha256"
    """Check of every train and valid shard before the first step: content, or byte count alone."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """skip: train without the shards of a folder that are damaged or missing, each named; they are left out whole."""
    mode: Literal["auto", "mapped", "resident", "streamed"] = "auto"
    """mapped: npy shards on this machine's disk; resident: the whole split on the device; streamed: anything, anywhere.

    auto = resident on a GPU where the split takes at most a quarter of its free memory, else mapped; for addresses
    and compressed shards streamed. mapped and resident give the same batches.
    """
    shuffle_window: int = Field(default=0, ge=0)
    """Samples shuffled among each other after the shards were permuted; 0 = the whole split (streamed: 8192).

    A split larger than memory needs a window: reads are then sequential, where a full shuffle would seek.
    """
    workers: int = Field(default=0, ge=0)
    """streamed: processes that read and decode, for each rank; 0 = a thread of the training process."""
    prefetch_batches: int = Field(default=4, ge=1)
    """Batches made ahead of the step."""


class ModelConfig(Section):
    """The ladder. Layer 0 is the bottom (shallow) one; lists run from bottom to top."""

    layers: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        max_length=32, default=("64, 64/2", "128, 128/2, 256/2", "256, 512/2, 512", "fc1024, fc1024")
    )
    """One rung a layer, e.g. '128, 128/2' (convolution widths, '/2' = stride 2) or 'fc1024'."""
    latents: tuple[int, ...] = (10, 10, 10, 10)
    """Latent dimensions of each layer."""
    separate_inference_branches: bool = True
    """Each layer infers its latents through convolutions of its own (published network), not from the trunk."""
    kernel_size: Literal[3, 4] = 3
    """Of stride-1 convolutions; stride-2 convolutions are always 4x4."""
    norm: Literal["group", "batch"] = "group"
    """GroupNorm never sees the batch or the rank; batch = the published network's BatchNorm."""
    latent_injection: Literal["concat", "gated"] = "concat"
    """How a layer's latents meet the decoder: concatenated, or added through a gate that starts at 0.1."""
    contribution_grid: tuple[int, ...] | None = None
    """Cells a side of each layer's contribution before it is spread over its feature map; 0 = the whole map.

    A coarse grid lets a layer change colors and light but draw no shapes. null = the whole map on every layer.
    """
    initial_std: float = Field(default=0.05, gt=0.001, lt=1)
    """Posterior standard deviation before training; 0.5 is the published start, which kills top layers."""
    max_std: float = Field(default=1.0, gt=0, le=1)
    """Largest posterior standard deviation. Below 1, noise alone cannot pass for the prior: the means must spread.

    At 1, as published, the MMD is content with a layer whose deviation has risen to 1, which says nothing of x.
    """
    weight_init_std: float | None = Field(default=None, gt=0)
    """Weights ~ N(0, this); null = PyTorch's fan-in initialization."""
    relu_top_mean: bool = False
    """The published code's bug, for exact reproduction: ReLU on the top layer's mean."""

    @model_validator(mode="after")
    def _one_latent_size_a_stage(self) -> ModelConfig:
        if len(self.latents) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers but {len(self.latents)} latent sizes: one of each a layer")
        if self.contribution_grid is not None and (
            len(self.contribution_grid) != len(self.layers) or min(self.contribution_grid) < 0
        ):
            raise ValueError(f"contribution_grid needs {len(self.layers)} numbers from 0 up, one a layer")
        if self.initial_std >= self.max_std:
            raise ValueError(f"initial_std ({self.initial_std}) must be below max_std ({self.max_std})")
        if min(self.latents, default=0) < 1:
            raise ValueError("needs at least one layer, each with at least one latent dimension")
        return self


class KernelConfig(Section):
    """The kernel of the MMD; every kernel has k(z, z) = 1."""

    name: Literal["gaussian", "rbf", "imq"] = "imq"
    """gaussian: one bandwidth (paper); rbf: Gaussian, averaged over scales; imq: inverse multiquadric (WAE)."""
    bandwidth: float | None = Field(default=None, gt=0)
    """Gaussian 2·sigma²; null = d², the published code's choice, for a layer of d dimensions."""
    scales: tuple[PositiveFloat, ...] = Field(default=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), min_length=1)
    """rbf and imq: multiples s of the base width 2·d (WAE: C = s · 2d · sigma_p²)."""


class ObjectiveConfig(Section):
    """Reconstruction + regularizer (paper, section 2.4)."""

    reconstruction: Literal["l1", "l2"] = "l1"
    """l1 = Laplace likelihood, l2 = Gaussian likelihood; both averaged over pixels and channels."""
    reconstruction_weight: float = Field(default=100.0, gt=0)
    """Factor of the likelihood in the loss; published: 100."""
    laplacian_weight: float = Field(default=0.0, ge=0)
    """Adds this much of the same likelihood on each band of a Laplacian pyramid, where small features count."""
    laplacian_band_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight of each band, finest first; a band without one is left out; none at all = their mean.

    One over the energy of each band lets all scales count alike: whitening, as light spreads over the scales of images.
    """
    regularizer: Literal["mmd", "kl"] = "mmd"
    """mmd = the paper; kl = the evidence lower bound's term, as a baseline."""
    regularizer_weight: float = Field(default=100.0, ge=0)
    """Factor of the sum over layers of MMDs (or KLs) in the loss; published: 100."""
    kernel: KernelConfig = KernelConfig()
    estimator: Literal["biased", "unbiased"] = "unbiased"
    """Of the MMD in the loss; the logged `mmd` is always the unbiased one."""

    @model_validator(mode="after")
    def _bands_count(self) -> ObjectiveConfig:
        if self.laplacian_band_weights and not self.laplacian_weight:
            raise ValueError("laplacian_band_weights without effect: laplacian_weight is 0, set it to 1 as well")
        return self


class DenoisingConfig(Section):
    """Corruption of the encoder's input; the target stays clean."""

    salt_and_pepper: float = Field(default=0.0, ge=0, le=1)
    """Share of pixels set to black or white."""
    gaussian: float = Field(default=0.0, ge=0)
    """Standard deviation of additive noise, in units of the [-1, 1] image."""


class GrowthConfig(Section):
    """Progressive growth, layer by layer (after Li et al. 2020, proVLAE); off when share is 0."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Share of all steps during which layers are faded in, one after the other."""
    first: Literal["bottom", "top"] = "bottom"
    """The layer that is there from the start."""


class OptimizerConfig(Section):
    """Adam or Muon with a warm-up and a cosine or constant schedule."""

    name: Literal["adam", "muon"] = "adam"
    """muon = matrices move by orthogonalized momentum (Jordan et al. 2024): few-pixel features are learned sooner."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Of Muon's matrices; vectors follow betas."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest, after the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's decay rates of the gradient's mean and of its square; Muon's for vectors."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of matrices and convolutions; norms, gates and biases are not decayed."""
    decoupled_weight_decay: bool = True
    """True = AdamW; false = L2 in the gradient, as published."""
    warmup_images: int = Field(default=10_000, ge=0)
    """Images over which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate after the warm-up, up to the last step."""
    final_share: float = Field(default=0.02, ge=0, le=1)
    """Cosine: last learning rate over the highest."""
    base_fan_in: int = Field(default=512, ge=0)
    """Weights of more inputs than this learn slower in proportion; 0 = all alike, as published.

    One Adam step moves an output by up to rate x inputs: the heads of the lower layers, which read whole feature maps,
    would jump at a rate that suits the rest, and such a layer dies (Yang et al. 2022, Table 3, for Adam).
    """
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest norm of the whole gradient; 0 = no clipping."""

    @model_validator(mode="after")
    def _muon_decays_weights_themselves(self) -> OptimizerConfig:
        if self.name == "muon" and not self.decoupled_weight_decay:
            raise ValueError("muon knows decoupled weight decay only: leave decoupled_weight_decay at true")
        return self


class TrainingConfig(Section):
    """Length, precision and rhythm of a run. Intervals are in optimizer steps unless named otherwise; 0 = never."""

    steps: int = Field(default=10_000, ge=1)
    """Optimizer steps of the whole run."""
    global_batch_size: int = Field(default=256, ge=2)
    """Images a step over all ranks; a multiple of the world size."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    """Of the network under autocast; losses and the MMD are always float32.

    What it leaves in float32 of the network, or all of it with "no", GPUs compute in TF32.
    """
    ema_images: float = Field(default=100_000, ge=0)
    """Time constant of the weights' moving average in images; 0 = no averaging."""
    log_every_steps: int = Field(default=20, ge=1)
    """Between lines of metrics.jsonl and of the terminal; each is a mean since the last."""
    validate_every_steps: int = Field(default=1_000, ge=0)
    """Between validations with the averaged weights, which measure each layer's effect."""
    validation_samples: int = Field(default=10_000, ge=2)
    """At most this many images of the valid split a validation."""
    preview_every_steps: int = Field(default=1_000, ge=0)
    """Between pictures under previews/."""
    checkpoint_every_steps: int = Field(default=1_000, ge=0)
    """Between checkpoints; a run that is killed loses the steps since the last. There is one at the end in any case."""
    checkpoint_every_minutes: float = Field(default=15.0, ge=0)
    """A checkpoint also after so many minutes without one."""
    keep_checkpoints: int = Field(default=3, ge=1)
    """Newest checkpoints kept under checkpoints/; best.pt, of the lowest validation error, is kept besides."""
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile of encoder and decoder; auto = on GPUs only. What cannot be compiled runs as it is."""
    max_non_finite_steps: int = Field(default=20, ge=1)
    """Steps with a non-finite gradient, in a row, after which the run stops."""
    collective_timeout_seconds: float = Field(default=100.0, gt=0)
    """After the first step, how long a rank waits for the others before the run ends, naming the silent one.

    It must cover what one rank does while the others wait: previews, and a checkpoint on a slow disk.
    """
    trackers: tuple[str, ...] = ("tensorboard",)
    """Where metrics are shown: tensorboard, wandb, trackio, mlflow; all but the first are extras to install."""

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: object) -> object:
        return "no" if value is False else value  # YAML 1.1 reads an unquoted no as false

    @field_validator("trackers")
    @classmethod
    def _known_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in TRACKERS:
                near = difflib.get_close_matches(name, TRACKERS, n=1, cutoff=0.0)[0]
                raise ValueError(f"there is no tracker '{name}'; did you mean '{near}'?")
        return tuple(dict.fromkeys(names))


class Config(Section):
    """A whole recipe."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9._-]+$")
    """Names the default output folder runs/NAME."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the initial weights, the order of samples and all noise."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    denoising: DenoisingConfig = DenoisingConfig()
    growth: GrowthConfig = GrowthConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("name")
    @classmethod
    def _no_dots_alone(cls, name: str) -> str:
        if set(name) == {"."}:
            raise ValueError("a name of dots alone is no folder name")
        return name

    def plain(self) -> dict[str, Any]:
        """The configuration as plain dicts, lists, numbers and strings (YAML and checkpoint)."""
        return self.model_dump(mode="json")


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """All dotted keys of the configuration, e.g. ``objective.kernel.name``."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings as dotted keys. Raises ConfigError on a key that is not text.

    Only what is a section is opened: mappings inside mappings of a stranger's file may unfold without end.
    """
    sections = {key.rpartition(".")[0] for key in known_keys()}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ConfigError(f"the key {prefix}{reprlib.repr(key)} is not text")
        if isinstance(value, Mapping) and any(f"{s}.".startswith(f"{prefix}{key}.") for s in sections):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _put(tree: dict[str, Any], dotted: str, value: object) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = value


def build_config(leaves: Mapping[str, Any], origin: str) -> Config:
    """Validates dotted leaves into a Config. Raises ConfigError naming the key, the value and the nearest known key."""
    known = known_keys()
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        if key not in known:
            inside = [other.removeprefix(f"{key}.") for other in known if other.startswith(f"{key}.")]
            if inside:
                raise ConfigError(f"{origin}: '{key}' takes no value, only keys: {', '.join(inside[:3])}, …")
            short = key[:80]  # comparing a long text with every key would take minutes
            near = difflib.get_close_matches(short, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{origin}: there is no key '{short}'; did you mean '{near}'?")
        _put(tree, key, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the recipe"
        message = first["msg"].removeprefix("Value error, ").replace("tuple", "list")[:300]
        given = first["input"]
        said = "" if isinstance(given, Mapping) else f" (given: {reprlib.repr(given)})"  # a section says nothing
        raise ConfigError(f"{origin}: {where}: {message}{said}") from None


class _PlainLoader(yaml.SafeLoader):
    """YAML in which a key may stand only once (plain YAML takes the last one in silence), and without aliases.

    A few lines of aliases stand for more values than any memory holds.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = node.start_mark.line + 1
                    raise yaml.YAMLError(f"'{key.value[:80]}' stands there twice (line {line} and after)")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read: write the value out")
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Any:
    """Plain values from YAML. Raises yaml.YAMLError, ValueError, RecursionError."""
    return yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader


def _recipe_text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_RECIPE_BYTES + 1)
    if len(content) > MAX_RECIPE_BYTES:
        raise ValueError(f"more than {MAX_RECIPE_BYTES:,} bytes")
    return content.decode("utf-8")


def read_recipe(path: Path) -> dict[str, Any]:
    """The dotted leaves of a YAML recipe. Raises ConfigError when it cannot be read or is not a mapping."""
    try:
        tree = read_yaml(_recipe_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        raise ConfigError(f"the recipe {path} is empty")
    if not isinstance(tree, Mapping):
        raise ConfigError(f"the recipe {path} must hold 'key: value' lines, not a {type(tree).__name__}")
    return dict(flatten(tree))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """``key.path=value`` words as leaves; values are YAML. Raises ConfigError on any other word."""
    leaves: dict[str, Any] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is neither an option nor a key.path=value override")
        try:
            value = read_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ConfigError(f"the value of the override '{word}' is not valid YAML") from None
        if isinstance(value, str) and _is_number(value):
            value = float(value)  # YAML 1.1 reads 1e-3 as text
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{key}."))
        else:
            leaves[key] = value
    return leaves


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def resolve(recipe: Path, overrides: Mapping[str, Any]) -> Config:
    """The recipe with overrides applied, validated. Raises ConfigError."""
    base = read_recipe(recipe)
    build_config(base, f"recipe {recipe}")
    return build_config({**base, **overrides}, "override")


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML text."""
    return yaml.safe_dump(config.plain(), sort_keys=False)
