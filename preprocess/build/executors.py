"""Runs tasks on local processes or on a Dask cluster, a few at a time, and survives workers that die."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import TypeVar

from preprocess.errors import UsageError, UserError

TASKS_AHEAD = 2  # per worker: enough to keep it busy, few enough to keep memory flat
MAX_DEATHS_IN_A_ROW = 3
LOCAL_CLUSTER = "local-cluster"
_SECONDS_TO_CONNECT = 20

Task = TypeVar("Task")
Result = TypeVar("Result")
Opener = Callable[[int], contextlib.AbstractContextManager[Executor]]
"""Opens an executor with a number of workers; closing it waits for them."""


def choose_executor(scheduler: str | None) -> Opener:
    """Chooses local processes, or a Dask cluster for `tcp://host:8786` or `local-cluster`, which starts one.

    Raises:
        UsageError: the scheduler is not understood, or Dask is not installed.
    """
    if scheduler is None:
        return _local_processes
    if scheduler != LOCAL_CLUSTER and not scheduler.startswith(("tcp://", "tls://")):
        raise UsageError(f"--scheduler {scheduler} is neither an address like tcp://host:8786 nor {LOCAL_CLUSTER}")
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--scheduler needs Dask: pip install 'mmd-vlae[dask]'")
    return partial(_dask, scheduler)


def _local_processes(workers: int) -> Executor:
    """A pool of processes, forked from a server process that imports torch once."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["torch", "preprocess.images.decode", "preprocess.build.worker"])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)


def start_worker() -> None:
    """Prepares a worker process: it ignores Ctrl-C, which the parent handles, and it exits when its parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Waits for the end of the parent; without this, workers of a killed parent would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _dask(scheduler: str, workers: int) -> Iterator[Executor]:
    """A Dask cluster, which repeats the tasks of a worker that died. Source and --out must be shared folders.

    A running task cannot be waited for at the end; if it still writes, it writes an undamaged shard.
    """
    # an optional dependency, which the type checker need not find
    from distributed import Client, LocalCluster  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    with contextlib.ExitStack() as opened:
        address = scheduler
        try:
            if scheduler == LOCAL_CLUSTER:
                address = opened.enter_context(
                    LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        dashboard_address=None,  # pyright: ignore[reportArgumentType] - None = no dashboard
                        silence_logs=logging.CRITICAL,
                    )
                )
            client = opened.enter_context(Client(address, timeout=_SECONDS_TO_CONNECT))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"the Dask scheduler {scheduler} cannot be reached: {error}") from None
        executor = client.get_executor(pure=False)  # a task writes a file, so its result is not cached
        opened.callback(executor.shutdown, wait=False)
        yield executor


def run_tasks(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int, open_executor: Opener, made: str
) -> Generator[Result, None, None]:
    """Yields the result of each task when it is done, in any order; closing the generator waits for the workers to end.

    A worker that dies (out of memory, killed) loses only its own task, which a new worker does. `made` names the
    results in messages, such as "finished shards".

    Raises:
        OSError: a result could not be written.
        UserError: workers die again and again, or the cluster is lost.
    """
    remaining = dict(enumerate(tasks))
    deaths = 0
    while remaining:
        try:
            with contextlib.closing(_run_until_a_death(work, remaining, workers, open_executor)) as done:
                for number, result in done:
                    del remaining[number]
                    deaths = 0
                    yield result
        except BrokenProcessPool:
            deaths += 1
            if deaths == MAX_DEATHS_IN_A_ROW:
                raise UserError(
                    f"worker processes were killed {deaths} times in a row (out of memory?): {made} are kept; "
                    "run the same command again, with fewer --workers"
                ) from None
        except CancelledError:  # a Dask client cancels its futures when it loses the cluster
            raise UserError(
                f"the Dask cluster was lost: {made} are kept; run the same command again when it is back"
            ) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "distributed":  # Dask has retried already
                raise UserError(f"the Dask cluster gave up ({error}): {made} are kept") from None
            raise


def _run_until_a_death(
    work: Callable[[Task], Result], tasks: dict[int, Task], workers: int, open_executor: Opener
) -> Generator[tuple[int, Result], None, None]:
    """Yields the number and the result of each task."""
    waiting = iter(list(tasks.items()))
    running: dict[Future[Result], int] = {}
    failure: BaseException | None = None
    with open_executor(min(workers, len(tasks))) as executor:
        try:
            while True:
                if not failure:
                    for number, task in islice(waiting, workers * TASKS_AHEAD - len(running)):
                        running[executor.submit(work, task)] = number
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number, error = running.pop(future), future.exception()
                    if error is None:
                        yield number, future.result()
                    failure = failure or error
                if failure:  # results that other workers are about to finish are kept
                    running = {future: number for future, number in running.items() if not future.cancel()}
        finally:
            for future in running:
                future.cancel()
    if failure:
        raise failure
