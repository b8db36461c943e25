"""What is logged about the steps: sums on the device, read once in ``training.log_every_steps``."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.losses.objective import Losses
from pipeline.optim.optimizer import learning_rate
from pipeline.run.state import Run


class StepMetrics:
    """Sums over the steps since the last line of the log, kept on the device so that no step waits for the host."""

    def __init__(self, run: Run) -> None:
        """Starts at the present step of ``run``."""
        device = run.accelerator.device
        layers = len(run.model.vlae.latent_sizes)
        self._parameter_names = [name for name, p in run.model.vlae.named_parameters() if p.requires_grad]
        self._nonfinite = torch.zeros(len(self._parameter_names), dtype=torch.bool, device=device)
        self._losses = torch.zeros(2 + layers, dtype=torch.float64, device=device)
        self._gradient_norm = torch.zeros((), device=device)
        self._nonfinite_in_a_row = torch.zeros((), device=device)
        self._skipped = torch.zeros((), device=device)
        self._finite = torch.zeros((), device=device)
        self.reset(run)

    @property
    def nonfinite_in_a_row(self) -> int:
        """Steps up to the last one whose gradients were not finite. Waits for the device."""
        return int(self._nonfinite_in_a_row.item())

    def reset(self, run: Run) -> None:
        """Starts the sums of the next line."""
        self._losses.zero_()
        self._gradient_norm.zero_()
        self._finite.zero_()
        self._begin, self._first_step = time.perf_counter(), run.step
        self._waited_before = run.data.train.waited_seconds

    def add(self, losses: Losses, world_size: int, norms: Tensor, norm: Tensor) -> None:
        """Adds one step.

        Args:
            losses: Of this rank.
            world_size: Number of ranks.
            norms: (P,) norm of each parameter's gradient, averaged over ranks.
            norm: () norm of all of them.
        """
        shares = [losses.loss.detach() / world_size, losses.reconstruction, *losses.regularizer]
        finite = norm.isfinite()
        self._losses += torch.where(finite, torch.stack([s.double() for s in shares]), 0.0)
        self._gradient_norm += torch.where(finite, norm, 0.0)
        self._finite += finite
        self._skipped += ~finite
        self._nonfinite = torch.where(finite, self._nonfinite, ~norms.isfinite())
        self._nonfinite_in_a_row = torch.where(finite, 0.0, self._nonfinite_in_a_row + 1)

    def read(self, run: Run) -> dict[str, Any]:
        """Returns the line of metrics.jsonl of the steps so far, summed over ranks. Every rank must call it."""
        losses = self._losses.clone()
        if dist.is_initialized():
            dist.all_reduce(losses)
        loss, reconstruction, *regularizer = (losses / self._finite).tolist()  # nan where no step was finite
        seconds = time.perf_counter() - self._begin
        batch = run.config.training.global_batch_size
        return {
            "step": run.step,
            "epoch": run.data.sampler.epoch_of(run.step),
            "samples": run.step * batch,
            "loss": loss,
            "reconstruction": reconstruction,
            run.config.objective.regularizer: regularizer,
            "lr": learning_rate(run.config, run.step - 1),
            "gradient_norm": float(self._gradient_norm / self._finite),
            "images_per_second": (run.step - self._first_step) * batch / seconds,
            "data_wait_share": (run.data.train.waited_seconds - self._waited_before) / seconds,
            "skipped_steps": int(self._skipped.item()),
        }

    def nonfinite_parameters(self) -> str:
        """Names the parameters whose gradients were not finite in the last such step, in words."""
        flags = zip(self._parameter_names, self._nonfinite.tolist(), strict=True)
        names = [name for name, nonfinite in flags if nonfinite]
        if len(names) == len(self._parameter_names):
            return "in every layer (the loss itself was not finite)"
        return f"in {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
