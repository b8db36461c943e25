"""Runs shard tasks on any `concurrent.futures` executor, a few at a time, and survives workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import UserError

TASKS_AHEAD = 2  # per worker: enough to keep it busy, few enough to keep memory flat
MAX_DEATHS_IN_A_ROW = 3
_WORKER_MODULE = "preprocess.build.worker"


def local_processes(workers: int) -> Executor:
    """A pool of processes that is forked from a server in which torch is imported once."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([_WORKER_MODULE])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)


def run_tasks(
    tasks: Sequence[ShardTask], workers: int, make_executor: Callable[[int], Executor] = local_processes
) -> Generator[ShardRecord, None, None]:
    """Yields the record of each task as it is done, in no fixed order; closing it waits for the workers to end.

    A worker that dies (out of memory, killed) costs its own shard only: it is made again by a new one.

    Raises:
        OSError: a shard could not be written.
        UserError: workers die again and again.
    """
    remaining = {task.file: task for task in tasks}
    deaths = 0
    while remaining:
        try:
            with closing(_run_until_a_death(list(remaining.values()), workers, make_executor)) as records:
                for record in records:
                    del remaining[record.file]
                    deaths = 0
                    yield record
        except BrokenProcessPool:
            deaths += 1
            if deaths == MAX_DEATHS_IN_A_ROW:
                raise UserError(
                    f"worker processes were killed {deaths} times in a row (out of memory?): finished shards are kept; "
                    "run the same command again, with fewer --workers"
                ) from None
        except CancelledError:  # not ours: what a client does with its futures when it loses the cluster
            raise UserError(
                "the Dask cluster was lost: finished shards are kept; run the same command again when it is back"
            ) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "distributed":  # Dask has tried again itself
                raise UserError(f"the Dask cluster gave up ({error}): finished shards are kept") from None
            raise


def _run_until_a_death(
    tasks: list[ShardTask], workers: int, make_executor: Callable[[int], Executor]
) -> Generator[ShardRecord, None, None]:
    executor = make_executor(min(workers, len(tasks)))
    waiting = iter(tasks)
    running: set[Future[ShardRecord]] = set()
    failure: BaseException | None = None
    try:
        while True:
            while not failure and len(running) < workers * TASKS_AHEAD and (task := next(waiting, None)) is not None:
                running.add(executor.submit(_work, task))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if error is None:
                    yield future.result()
                failure = failure or error
            if failure:  # what other workers are about to finish is kept
                running = {future for future in running if not future.cancel()}
        if failure:
            raise failure
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _work(task: ShardTask) -> ShardRecord:
    from preprocess.build.worker import make_shard  # noqa: PLC0415 - imports torch, which only workers need

    return make_shard(task)


def _start_worker() -> None:
    """Ctrl-C is the parent's business; and a worker whose parent was killed must not live on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
