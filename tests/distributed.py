"""Two processes on this machine that train one network: every case of DistributedDataParallel and fully_shard.

Run as a program, it writes what happened to a file: for each case the largest error of a gradient against that of one
process with all points, or the error that was raised.

    python distributed.py FILE
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastsiren
from fastsiren import losses

RANKS, POINTS = 2, 4


def eikonal(jacobian: Tensor) -> Tensor:
    return (jacobian.norm(dim=-1) - 1).square().mean()


def nested(net: Any, x: Tensor) -> Tensor:
    """The eikonal loss, by a gradient of the value of the (wrapped) network."""
    x = x.clone().requires_grad_()
    y = net(x)
    slopes = [torch.autograd.grad(y[:, o].sum(), x, create_graph=True)[0] for o in range(y.shape[1])]
    return eikonal(torch.stack(slopes, 1))


def with_value(net: Any, x: Tensor) -> Tensor:
    """A value term by the wrapper, and the fused loss on the network inside."""
    return net(x).square().mean() + losses.eikonal(net.module, x)


# What is asked of a wrapped network, and of the network itself in one process.
Case = tuple[Callable[[Any, Tensor], Tensor], Callable[[Any, Tensor], Tensor]]
VALUE: Case = (lambda net, x: net(x).square().mean(),) * 2
JETS: Case = (
    lambda net, x: net(x, fastsiren.laplacian).laplacian.square().mean(),
    lambda net, x: fastsiren.laplacian(net, x).laplacian.square().mean(),
)
LOSSES: Case = (lambda net, x: net(x, losses.eikonal), losses.eikonal)
NESTED: Case = (nested, losses.eikonal)
WITH_VALUE: Case = (with_value, lambda net, x: net(x).square().mean() + losses.eikonal(net, x))
JETS_OUTSIDE: Case = (lambda net, x: fastsiren.laplacian(net, x).laplacian.sum(), JETS[1])
LOSSES_OUTSIDE: Case = (losses.eikonal, losses.eikonal)


def ddp(**options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda net: DistributedDataParallel(net, **options)


def sharded_layers(net: fastsiren.Siren) -> nn.Module:
    for layer in net.net:
        fully_shard(layer)
    return fully_shard(net)


CASES: dict[str, tuple[Callable[[Any], nn.Module], Case]] = {
    "ddp value": (ddp(), VALUE),
    "ddp jets": (ddp(), JETS),
    "ddp losses": (ddp(), LOSSES),
    "ddp jets static": (ddp(static_graph=True), JETS),
    "ddp losses views": (ddp(gradient_as_bucket_view=True), LOSSES),
    "ddp nested": (ddp(), NESTED),
    "ddp nested unused": (ddp(find_unused_parameters=True), NESTED),
    "ddp nested static": (ddp(static_graph=True), NESTED),
    "ddp value static": (ddp(static_graph=True), VALUE),
    "ddp with value": (ddp(), WITH_VALUE),
    "ddp jets outside": (ddp(), JETS_OUTSIDE),
    "ddp losses outside": (ddp(), LOSSES_OUTSIDE),
    "fsdp value": (fully_shard, VALUE),
    "fsdp jets": (lambda net: fully_shard(net, reshard_after_forward=True), JETS),
    "fsdp losses": (fully_shard, LOSSES),
    "fsdp nested": (fully_shard, NESTED),
    "fsdp jets outside": (fully_shard, JETS_OUTSIDE),
    "fsdp losses outside": (fully_shard, LOSSES_OUTSIDE),
    "fsdp layers": (sharded_layers, VALUE),
}


def gradients(net: Any) -> list[Tensor]:
    found = [p.grad for p in net.parameters()]
    return [g.full_tensor() if hasattr(g, "full_tensor") else g for g in found]


def run(case: str, net: fastsiren.Siren, x: Tensor) -> dict[str, Any]:
    """The largest difference of gradients after two steps, or what was raised."""
    wrap, (asked, alone) = CASES[case]
    alone(net, x).backward()
    mine = x[dist.get_rank() * POINTS :][:POINTS]
    own = copy.deepcopy(net)
    try:
        wrapped = wrap(own)
        for _ in range(2):
            own.zero_grad()
            asked(wrapped, mine).backward()
    except (RuntimeError, TypeError) as error:
        return {"raised": type(error).__name__, "message": str(error)}
    pairs = list(zip(gradients(own), gradients(net), strict=True))
    return {"error": max(float((a - b).abs().max()) for a, b in pairs), "norm": float(pairs[0][1].norm())}


def work(rank: int, rendezvous: str, out: str) -> None:
    """One process."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=180)
    )
    x = torch.rand(RANKS * POINTS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {}
    for case in CASES:
        torch.manual_seed(0)
        found[case] = run(case, fastsiren.Siren(2, 8, 1, 2, first_omega_0=3.0, hidden_omega_0=2.0, dtype=x.dtype), x)
        dist.barrier()
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (os.path.join(folder, "rendezvous"), sys.argv[1]), RANKS)
