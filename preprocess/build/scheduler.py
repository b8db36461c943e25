"""The same tasks on a Dask cluster: one that runs already (tcp://host:8786), or one started here."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from preprocess.build.executors import local_processes
from preprocess.errors import UsageError, UserError

LOCAL_CLUSTER = "local-cluster"
_SECONDS_TO_CONNECT = 20


def choose_executor(scheduler: str | None) -> Callable[[int], Executor]:
    """What makes the executor for a number of workers: local processes by default.

    Raises:
        UsageError: the scheduler is not understood, or Dask is not installed.
    """
    if scheduler is None:
        return local_processes
    if scheduler != LOCAL_CLUSTER and not scheduler.startswith(("tcp://", "tls://")):
        raise UsageError(f"--scheduler {scheduler} is neither an address like tcp://host:8786 nor {LOCAL_CLUSTER}")
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--scheduler needs Dask: pip install distributed")
    return lambda workers: DaskExecutor(scheduler, workers)


class DaskExecutor(Executor):
    """Hands tasks to Dask, which runs those of a worker that died again. Source and --out must be shared folders."""

    def __init__(self, scheduler: str, workers: int) -> None:
        # an extra, which the type checker need not find
        from distributed import Client, LocalCluster  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

        self._cluster = None
        try:
            if scheduler == LOCAL_CLUSTER:
                self._cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,  # pyright: ignore[reportArgumentType] - None = no dashboard
                    silence_logs=logging.CRITICAL,
                )
            self._client = Client(self._cluster or scheduler, timeout=_SECONDS_TO_CONNECT)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"the Dask scheduler {scheduler} cannot be reached: {error}") from None
        self._executor = self._client.get_executor(pure=False)  # a task is also its effect: a file

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets go of the cluster. A task under way cannot be waited for: what it still writes is a whole shard."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
