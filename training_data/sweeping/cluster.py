"""The sweep of records on several actors of a Ray cluster, with Ray Data.

One task reads the records and cuts them into batches, which wait in the object store; each actor holds the model, and
reads the pictures of the next batch while it answers one. What became of a batch goes back to the process that started
the sweep, which alone writes: so the questions and the label table lie on its machine, and only the pictures, unless
they are in a store, and the model's folder must have the same path on all. A batch's shard is named by its samples, so
that one that is done again, since its actor or machine died, takes its own place.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from complexity.errors import M3Error
from complexity.labels import LabelMeta
from serving.m3 import M3
from training_data.sweeping.recorded import (
    RecordStream,
    Showing,
    Swept,
    Todo,
    check_some,
    label_batch,
    load_batch,
    progress,
)
from training_data.sweeping.table import SweptTable, table_meta

AT_ONCE = 2  # batches of an actor: one is answered while the next one's pictures are read
RETRIES = 5  # of a batch whose actor died; what ends every process that tries it must not be tried for ever
MOST_LOST = 16  # batches that are given up before the sweep is


@dataclass(frozen=True)
class Cluster:
    """Where the actors run."""

    actors: int
    gpus_per_actor: float = 0.0
    address: str | None = None  # of a running cluster; None: one of this machine alone, for this sweep


def sweep_on_cluster(
    load: Callable[[], M3], source: RecordStream, out: Path, showing: Showing, cluster: Cluster
) -> tuple[Swept, str]:
    """Sweep records into the label table `out`; what was done, and the model's id.

    An actor that dies is started again, here or on another machine, and its batches are done again.

    Args:
        load: makes the model, on the actor that uses it.

    Raises:
        LabelTableError: `out` holds a table of another model, ladder, version or manner of asking.
        InvalidInput: the data hold no record at all.
        M3Error: the model can't be loaded, a store doesn't answer, or Ray or its parts for data are missing; or, when
            all else is done, a batch ended every actor that tried it.
    """
    if cluster.address is not None and "://" in cluster.address:
        raise M3Error(
            f"--address {cluster.address} is not HOST:PORT or auto, a cluster that this machine is part of: the "
            "questions and the table lie here"
        )
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise M3Error(f"--actors needs Ray Data ({error}): pip install 'm3-router[cluster]'") from None
    if cluster.address is None:
        ray.init(address="local", num_cpus=cluster.actors + 1, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=cluster.address, log_to_driver=False)
    try:
        describe = ray.remote(num_cpus=1, num_gpus=cluster.gpus_per_actor)(_describe)
        meta = ray.get(describe.remote(load, showing))
        if isinstance(meta, str):  # an error, which Ray would wrap
            raise M3Error(meta)
        table = SweptTable(out, meta)
        before = len(table.failures)
        new = 0
        for at_once in (AT_ONCE, 1):  # a batch that ends its actor takes along what else is in work there
            done = _pass(ray, load, source, table, showing, cluster, at_once)
            new += done.new
            if not done.lost:
                break
    finally:
        ray.shutdown()
    if done.lost:
        raise M3Error(
            f"{done.lost} batches aren't done: each ended {RETRIES + 1} actors, for want of memory or by a picture "
            f"that ends its decoder, or failed otherwise, as Ray says above; all others are in {out}"
        )
    check_some(source, done.records + done.problems)
    known = SweptTable(out, meta).failures  # rows that gave no record were set aside by the task that read them
    return Swept(done.records, new, len(known) - before, len(known)), meta.model


@dataclass(frozen=True)
class _Pass:
    """What became of the batches that a table didn't know."""

    records: int  # that were read
    problems: int  # rows that gave none
    new: int  # records that were labelled
    lost: int  # batches that ended their actors, at least


def _pass(
    ray: Any,
    load: Callable[[], M3],
    source: RecordStream,
    table: SweptTable,
    showing: Showing,
    cluster: Cluster,
    at_once: int,
) -> _Pass:
    """Read the records, and have the actors answer what isn't in the table."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = context.target_min_block_size = 1  # else one block holds all batches
    context.enable_progress_bars = False
    context.max_errored_blocks = MOST_LOST
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    batches = ray.data.read_datasource(
        _source(source, table), override_num_blocks=1, num_cpus=0, ray_remote_args={"scheduling_strategy": here}
    )
    results = batches.map_batches(
        Labeller,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=cluster.actors,
            max_tasks_in_flight_per_actor=2 * at_once - 1,  # one waits where two are in work
            max_concurrent_calls_per_actor=at_once,
            enable_true_multi_threading=True,
        ),
        num_cpus=1,
        num_gpus=cluster.gpus_per_actor,
        max_task_retries=RETRIES,
        fn_constructor_kwargs={"load": load, "showing": showing},
    )
    new = records = problems = made = done = 0
    before = len(table.failures)
    with progress(source, table) as bar:
        for row in results.iter_rows():
            if row["error"]:
                raise M3Error(row["error"])
            rows, failures = pickle.loads(row["kept"])  # made by an actor of this sweep, never a file's
            fresh = {each.sample_id for each in rows} - table.done
            table.add(rows, failures)
            new += len(fresh)
            records, problems = max(records, int(row["records"])), max(problems, int(row["problems"]))
            made, done = max(made, int(row["batches"])), done + 1
            bar.set_postfix({"set aside": len(table.failures) - before}, refresh=False)
            bar.update(len(fresh) + len(failures))
    return _Pass(records, problems, new, made - done if made else 1)  # the last was lost with another, or alone


class Labeller:
    """An actor of the sweep: holds the model and answers batches, one at a time."""

    def __init__(self, load: Callable[[], M3], showing: Showing):
        self._m3, self._showing = load(), showing
        self._turn = Lock()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Answer one batch: its records pickled, and how many were read up to it."""
        told = {name: [int(batch[name][0])] for name in ("records", "problems", "batches")}
        if batch["error"][0]:
            return {"kept": [b""], "error": [str(batch["error"][0])], **told}
        (groups,) = map(pickle.loads, batch["batch"])  # made by `_row` in this same cluster, never a file's
        torch.set_flush_denormal(True)  # of this thread
        try:
            loaded = load_batch(groups, self._m3, self._showing.layout)
            with self._turn:
                kept = label_batch(self._m3, loaded, self._showing.manner)
        except M3Error as error:  # Ray would wrap it
            return {"kept": [b""], "error": [str(error)], **told}
        return {"kept": [pickle.dumps(kept)], "error": [""], **told}


def _describe(load: Callable[[], M3], showing: Showing) -> LabelMeta | str:
    """What the model's table says of itself, or why the model can't be loaded."""
    try:
        return table_meta(load(), showing.version)
    except M3Error as error:
        return str(error)


def _source(source: RecordStream, table: SweptTable) -> Any:
    """What Ray Data reads: a row a batch, and at last one with the number of records, or what broke the reading off.

    What the table knew at the beginning is left out, so that a task that is started again gives the same.
    """
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def read() -> Iterator[pa.Table]:
        todo = Todo(source, table)
        error, rows = "", 1
        try:
            for groups in todo:
                yield _row(groups, todo)
                rows += 1
        except M3Error as told:  # Ray would wrap it
            error = str(told)
        yield _row([], todo, rows, error)  # whether it comes, and how many it tells, shows what was lost

    class Records(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
            return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]

    return Records()


def _row(groups: list[Any], todo: Todo, rows: int = 0, error: str = "") -> pa.Table:
    batch = pa.array([pickle.dumps(groups)], pa.large_binary())
    told = {"records": [todo.records], "problems": [todo.problems], "batches": [rows]}
    return pa.table({"batch": batch, "error": [error], **told})
