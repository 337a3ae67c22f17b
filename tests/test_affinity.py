"""A picture's questions go to the replica that has it, unless that one is much busier than its neighbours."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID

from serving.affinity import ASIDE, SPILL_OVER, PictureAffinity
from serving.model import Ask, Picture, Pixels

REPLICAS = [ReplicaID(name, DeploymentID("M3", "m3")) for name in "abcd"]


def router_of() -> Any:
    router: Any = PictureAffinity.__new__(PictureAffinity)  # without a cluster
    router._deployment_id = REPLICAS[0].deployment_id
    router._replicas = {replica: SimpleNamespace(replica_id=replica) for replica in REPLICAS}
    router.initialize_state()
    router._rebuild_ring(frozenset(REPLICAS))
    return router


def request(picture: str, tokens: int = 9, pictures: int = 1) -> Any:
    metadata = SimpleNamespace(session_id=picture, internal_request_id=f"{picture} {tokens}")
    ask = Ask((Picture(Pixels(1, 1, bytes(3)), picture),) * pictures, "?", tokens, 8)
    return SimpleNamespace(metadata=metadata, args=[ask], routing_context=SimpleNamespace())


def ranking(picture: str, router: Any | None = None) -> list[ReplicaID]:
    """Replicas that a picture's request would be offered to, in order."""
    router = router or router_of()
    ranks = asyncio.run(router.choose_replicas(list(router._replicas.values()), request(picture)))
    return [rank[0].replica_id for rank in ranks]


def test_the_same_picture_always_finds_the_same_replica_and_pictures_spread():
    owners = [ranking(str(picture))[0] for picture in range(200)]
    assert owners == [ranking(str(picture))[0] for picture in range(200)]
    assert all(owners.count(replica) >= 20 for replica in REPLICAS)


@pytest.mark.parametrize(("more", "stays"), [(0, True), (SPILL_OVER, True), (SPILL_OVER + 1, False)])
def test_a_busy_owner_is_spared(more: int, stays: bool):
    """With too many tokens under way beyond the least busy of its neighbours, that one takes its pictures."""
    router, quiet = router_of(), ranking("picture")
    for number, replica in enumerate(quiet):
        router.on_request_routed(request(str(number), 50 + (more if replica == quiet[0] else 0)), replica, None)
    busy = ranking("picture", router)
    assert (busy[0] == quiet[0]) is stays and set(busy) == set(quiet)


def test_what_is_complete_keeps_nobody_busy():
    """Requests count until they end, each once, also those that never arrived."""
    router, quiet = router_of(), ranking("picture")
    long = request("long", 10 * SPILL_OVER)
    router.on_request_routed(long, quiet[0], None)
    assert ranking("picture", router)[0] != quiet[0]
    for _ in range(2):
        router.on_request_completed(quiet[0], long.metadata.internal_request_id)
    assert ranking("picture", router) == quiet


def test_every_picture_of_a_request_counts():
    """Two at half the tokens keep a replica as busy as one, but for what every answer takes."""
    router = router_of()
    router.on_request_routed(request("one", 576), REPLICAS[0], None)
    router.on_request_routed(request("two", 288, pictures=2), REPLICAS[1], None)
    assert router._busy[REPLICAS[0]] == router._busy[REPLICAS[1]] == ASIDE + 576
