"""The same run on a Ray cluster: Ray Data hands shards to one actor for each device.

Only names of shards travel. The images and the folder of the shards must be seen by every machine
under the same path (NFS, a mounted bucket); an actor writes its shards there itself, whole or not
at all, so a shard whose worker was killed is simply done again by another.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from cv_superpoint.errors import SuperPointError, require
from cv_superpoint.extract.plan import ExtractError, Plan, Shard
from cv_superpoint.extract.work import Worker

SECONDS_TO_ANSWER = 5


class ShardActor:
    """A Ray actor: holds the network on its device and extracts the shards it is given.

    Args:
        plan: The run.
        readers: Threads that decode for it.
    """

    def __init__(self, plan: Plan, readers: int) -> None:
        self.plan = plan
        self.worker = Worker(plan.images, plan.format, plan.config, readers=readers)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Extract the shards of a batch of their numbers."""
        shards = [self.plan.shards[index] for index in batch["shard"].tolist()]
        missing = [shard for shard in shards if not shard.path.exists()]
        for _ in self.worker.run(missing):
            pass
        return {"shard": batch["shard"]}


def run_on_ray(
    plan: Plan, address: str | None, *, actors: int | None, gpus: float, readers: int
) -> Iterator[Shard]:
    """Extract the shards of a plan; yields each when it is done.

    Args:
        plan: The run.
        address: Address of the cluster, such as "ray://host:10001" or "auto"; None starts a local
            one.
        actors: Workers; None takes one for each GPU, or one for each two CPUs without any.
        gpus: GPUs for each worker; 0 runs on CPUs.
        readers: Threads that decode for each worker.

    Raises:
        ExtractError: If the cluster does not answer or a shard fails for good.
    """
    ray = require("ray", "ray")
    data = require("ray.data", "ray")
    started = not ray.is_initialized()
    if started:
        _connect(ray, address)
    try:
        if actors is None:
            resources = ray.cluster_resources()
            actors = int(resources.get("GPU", 0) if gpus else resources.get("CPU", 2) // 2)
        count = max(1, min(actors, len(plan.shards)))
        data.DataContext.get_current().enable_progress_bars = False
        # One shard in a block, so that each is retried on its own.
        shards = data.from_items(
            [{"shard": shard.index} for shard in plan.shards],
            override_num_blocks=len(plan.shards),
        )
        done = shards.map_batches(
            ShardActor,
            fn_constructor_args=(plan, readers),
            compute=data.ActorPoolStrategy(size=count),
            batch_size=1,
            num_gpus=gpus or None,
        )
        for row in done.iter_rows():
            yield plan.shards[int(row["shard"])]
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        text = " ".join(str(cause).strip().splitlines()[-1].split())
        raise ExtractError(
            f"the Ray run failed: {text}; run the same command again, finished shards are kept"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    try:
        if address is not None and address != "auto":
            _knock(address)
        ray.init(
            address=address,
            log_to_driver=False,
            include_dashboard=False if address is None else None,
            logging_level="ERROR",
        )
    except (OSError, ray.exceptions.RayError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ExtractError(
            f"the Ray cluster at {address} does not answer ({text}); check the address and that "
            "'ray status' works there"
        ) from error


def _knock(address: str) -> None:
    """Connect to the port, because Ray itself tries for ten minutes.

    Raises:
        OSError: If no server answers.
        ValueError: If it is no address.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise SuperPointError("an address is HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
