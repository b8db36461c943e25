"""The sections of a recipe. The docstring after each field gives its meaning, its unit and its special values.

The size of the images is not part of a recipe: it is read from the manifest of the shards.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator, model_validator

from preprocess.errors import UsageError

Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class ConfigError(UsageError):
    """A recipe or an override cannot be used."""


def resumable(default: Any, **limits: Any) -> Any:
    """A field that may change when a run is resumed, because the finished steps do not depend on it."""
    return Field(default=default, json_schema_extra={"resumable": True}, **limits)


class Section(BaseModel):
    """Base of all sections: frozen, without unknown keys and without infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(Section):
    """Where the shards are and how they are loaded."""

    path: str = resumable("shards/")
    """Folder with manifest.json and the tar shards, or an address from which they are streamed."""
    horizontal_flip: bool = False
    """Mirror each image with probability 1/2. The choice depends on (seed, epoch, sample)."""
    shift: float = Field(default=0, ge=0)
    """Standard deviation, in pixels, of a random shift of each image in both directions."""
    affine: float = Field(default=0, ge=0, le=1)
    """Rotate, scale and shear each image: standard deviation of the four numbers of its linear map. Like shift, for
    splits so small that the encoder would memorize them. The latents then encode the change too."""
    verify: Literal["sha256", "size"] = resumable("sha256")
    """Check of every train and valid shard before the first step: its content, or only its size."""
    damaged: Literal["refuse", "skip"] = resumable("refuse")
    """skip: train without damaged or missing shards of a folder. Each one is named and left out whole."""
    mode: Literal["auto", "mapped", "resident", "streamed"] = resumable("auto")
    """mapped: npy shards on a local disk; resident: the whole split on the device; streamed: all other shards. auto =
    resident on a GPU if the split takes at most a quarter of its free memory, otherwise mapped; streamed for addresses
    and compressed shards. mapped and resident give the same batches."""
    shuffle_window: int = Field(default=0, ge=0)
    """Samples that are shuffled together after the shards were shuffled; 0 = the whole split (streamed: 8192). A split
    larger than memory needs a window: it is then read in sequence instead of at random."""
    workers: int = resumable(0, ge=0)
    """streamed: processes per rank that read and decode; 0 = a thread of the training process. A resumed stream with
    another number repeats some images of the current epoch and skips others."""
    prefetch_batches: int = resumable(4, ge=1)
    """Batches prepared ahead of the current step."""


class ModelConfig(Section):
    """The network. Layer 0 is the bottom (shallow) layer; lists run from bottom to top."""

    layers: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        max_length=32, default=("64, 64/2", "128, 128/2, 256/2", "256, 512/2, 512", "fc1024, fc1024")
    )
    """The blocks of each layer, e.g. '128, 128/2' (convolution widths, '/2' = stride 2) or 'fc1024'."""
    latents: tuple[int, ...] = (10, 10, 10, 10)
    """Latent dimensions of each layer."""
    separate_inference_branches: bool = True
    """Each layer infers its latents through its own convolutions (published network) instead of the shared trunk."""
    kernel_size: Literal[3, 4] = 3
    """Of stride-1 convolutions; stride-2 convolutions are always 4x4."""
    norm: Literal["group", "batch"] = "group"
    """GroupNorm does not depend on the batch or the rank; batch = BatchNorm, as published."""
    latent_injection: Literal["concat", "gated"] = "concat"
    """How latents enter the decoder: concatenated, or added through a gate that starts at 0.1."""
    contribution_grid: tuple[int, ...] | None = None
    """Cells per side of each layer's contribution before it is resized to its feature map; 0 = the whole map. With a
    coarse grid a layer can change colors and light but cannot draw shapes. null = the whole map on every layer."""
    initial_std: float = Field(default=0.05, gt=0.001, lt=1)
    """Posterior standard deviation before training. At the published 0.5 the top layers collapse."""
    max_std: float = Field(default=1.0, gt=0, le=1)
    """Upper bound on the posterior standard deviation. Below 1 the noise alone cannot match the prior, so the means
    have to vary with x. At 1 (published) a layer can satisfy the MMD with a standard deviation of 1 and carry no
    information."""
    weight_init_std: float | None = Field(default=None, gt=0)
    """Standard deviation of the initial weights; null = PyTorch's fan-in initialization."""
    relu_top_mean: bool = False
    """Apply ReLU to the top layer's mean, a bug of the published code, for exact reproduction."""

    @model_validator(mode="after")
    def _lists_have_one_value_per_layer(self) -> ModelConfig:
        depth, grid = len(self.layers), self.contribution_grid
        if len(self.latents) != depth:
            raise ValueError(f"{depth} layers but {len(self.latents)} latent sizes: give one per layer")
        if grid is not None and (len(grid) != depth or min(grid) < 0):
            raise ValueError(f"contribution_grid needs {depth} numbers of at least 0, one per layer")
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
    """Gaussian 2·sigma²; null = d², as in the published code, for a layer of d dimensions."""
    scales: tuple[PositiveFloat, ...] = Field(default=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), min_length=1)
    """rbf and imq: multiples s of the base width 2·d (WAE: C = s · 2d · sigma_p²)."""


class ObjectiveConfig(Section):
    """Reconstruction + regularizer (paper, section 2.4)."""

    reconstruction: Literal["l1", "l2"] = "l1"
    """l1 = Laplace likelihood, l2 = Gaussian likelihood; both are averaged over pixels and channels."""
    reconstruction_weight: float = Field(default=100.0, gt=0)
    """Factor of the reconstruction in the loss; published: 100."""
    laplacian_weight: float = Field(default=0.0, ge=0)
    """Factor of the same likelihood on the bands of a Laplacian pyramid, which makes small features count."""
    laplacian_band_weights: tuple[Weight, ...] = ()
    """Weight of each band, finest first. Bands without a weight are left out; an empty list = the mean of all. One over
    the energy of each band makes all scales count alike (whitening)."""
    face_weight: float = Field(default=1.0, ge=1)
    """How many times more an error in the middle of an aligned face counts than one far from it; 1 = all pixels
    alike."""
    regularizer: Literal["mmd", "kl"] = "mmd"
    """mmd = the paper; kl = the term of the evidence lower bound, as a baseline."""
    regularizer_weight: float = Field(default=100.0, ge=0)
    """Factor of the sum of MMDs (or KLs) over the layers in the loss; published: 100."""
    kernel: KernelConfig = KernelConfig()
    estimator: Literal["biased", "unbiased"] = "unbiased"
    """Estimator of the MMD in the loss; the logged `mmd` is always the unbiased one."""

    @model_validator(mode="after")
    def _bands_have_an_effect(self) -> ObjectiveConfig:
        if self.laplacian_band_weights and not self.laplacian_weight:
            raise ValueError("laplacian_band_weights has no effect while laplacian_weight is 0; set that to 1 as well")
        return self


class DenoisingConfig(Section):
    """Noise on the encoder's input; the target stays clean."""

    salt_and_pepper: float = Field(default=0.0, ge=0, le=1)
    """Share of the pixels that become black or white."""
    gaussian: float = Field(default=0.0, ge=0)
    """Standard deviation of additive noise, in units of the [-1, 1] image."""


class GrowthConfig(Section):
    """Progressive growth, layer by layer (after Li et al. 2020, proVLAE); off when share is 0."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Share of all steps during which the layers are faded in, one after the other. A run that is resumed with more
    steps keeps the course of its growth."""
    first: Literal["bottom", "top"] = "bottom"
    """The layer that is active from the start."""


class OptimizerConfig(Section):
    """Adam or Muon with a warm-up and a cosine or constant schedule."""

    name: Literal["adam", "muon"] = "adam"
    """muon = orthogonalized momentum for matrices (Jordan et al. 2024); it learns small features sooner."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Momentum of Muon's matrices; vectors follow betas."""
    learning_rate: float = resumable(1e-3, gt=0)
    """The highest learning rate, reached after the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's decay rates of the gradient's mean and of its square; Muon's for vectors."""
    weight_decay: float = Field(default=0.0, ge=0)
    """For matrices and convolutions; norms, gates and biases are not decayed."""
    decoupled_weight_decay: bool = True
    """true = AdamW; false = L2 in the gradient, as published."""
    warmup_images: int = Field(default=10_000, ge=0)
    """Images over which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate, from the warm-up to the last step."""
    final_share: float = Field(default=0.02, ge=0, le=1)
    """Cosine: the last learning rate divided by the highest."""
    base_fan_in: int = Field(default=512, ge=0)
    """Weights with more inputs than this get a proportionally lower learning rate; 0 = one rate, as published. One Adam
    step moves an output by up to rate x inputs. The heads of the lower layers read whole feature maps; at the rate of
    the other weights they would diverge, and their layer would collapse (Yang et al. 2022, Table 3, for Adam)."""
    clip_norm: float = resumable(0.0, ge=0)
    """Largest norm of the whole gradient; 0 = no clipping."""

    @model_validator(mode="after")
    def _muon_decays_weights_directly(self) -> OptimizerConfig:
        if self.name == "muon" and not self.decoupled_weight_decay:
            raise ValueError("muon supports only decoupled weight decay: leave decoupled_weight_decay at true")
        return self


class TrainingConfig(Section):
    """Length, precision and intervals of a run. Intervals are in optimizer steps unless the name says otherwise."""

    steps: int = resumable(10_000, ge=1)
    """Optimizer steps of the whole run."""
    global_batch_size: int = Field(default=256, ge=2)
    """Images per step over all ranks; a multiple of the number of ranks."""
    mixed_precision: Literal["no", "bf16", "fp16"] = resumable("bf16")
    """Precision of the network under autocast; losses and the MMD are always float32. GPUs compute the float32 parts of
    the network, or all of it with "no", in TF32."""
    ema_images: float = Field(default=100_000, ge=0)
    """Time constant, in images, of the moving average of the weights; 0 = no averaging."""
    log_every_steps: int = resumable(20, ge=1)
    """Interval of the lines in metrics.jsonl and on the terminal; each is a mean since the last."""
    validate_every_steps: int = resumable(1_000, ge=0)
    """Interval of validations with the averaged weights, which also measure each layer's effect; 0 = never."""
    validation_samples: int = resumable(10_000, ge=2)
    """Largest number of images of the valid split in a validation."""
    preview_every_steps: int = resumable(1_000, ge=0)
    """Interval of the pictures under previews/; 0 = never."""
    checkpoint_every_steps: int = resumable(1_000, ge=0)
    """Interval of checkpoints; 0 = only at the end. A killed run loses the steps since its last checkpoint."""
    checkpoint_every_minutes: float = resumable(15.0, ge=0)
    """Write a checkpoint also after this many minutes without one; 0 = never."""
    keep_checkpoints: int = resumable(3, ge=1)
    """Newest checkpoints kept under checkpoints/, besides best.pt, the one with the lowest validation error."""
    compile: Literal["auto", "always", "never"] = resumable("auto")
    """torch.compile of encoder and decoder; auto = on GPUs only. Falls back to eager mode where compilation fails."""
    max_non_finite_steps: int = resumable(20, ge=1)
    """Consecutive steps with a non-finite gradient after which the run stops."""
    collective_timeout_seconds: float = resumable(100.0, gt=0)
    """How long a rank waits for the others, after the first step, before the run ends and names the silent rank. It
    must cover the work that one rank does alone: previews, and a checkpoint on a slow disk."""
    trackers: tuple[Tracker, ...] = resumable(("tensorboard",))
    """Where metrics are shown. All but tensorboard are extras to install."""

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _read_unquoted_no(cls, value: object) -> object:
        return "no" if value is False else value  # YAML 1.1 reads an unquoted no as false

    @field_validator("trackers")
    @classmethod
    def _name_each_tracker_once(cls, names: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
        return tuple(dict.fromkeys(names))


class Config(Section):
    """A whole recipe."""

    name: str = resumable("run", pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run; the default output folder is runs/NAME."""
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
    def _is_a_folder_name(cls, name: str) -> str:
        if set(name) == {"."}:
            raise ValueError("a name made of dots cannot name a folder")
        return name

    def plain(self) -> dict[str, Any]:
        """The recipe as plain dicts, lists, numbers and strings, for YAML and for the checkpoint."""
        return self.model_dump(mode="json")
