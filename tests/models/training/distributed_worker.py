"""The processes of test_distributed: each prints nothing and writes what it computed to its file of a folder.

They are forked from one process where the system can, so that what all of them import is imported once.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric  # noqa: F401 - imported once, before the processes are forked
from torch import nn

from sthisto import settings
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.retrieval.contrastive import TwoTowers
from sthisto.models.training.devices import is_first_process
from sthisto.models.training.gather import gather_rows, share_of
from sthisto.models.training.loop import Training, train
from sthisto.nn import GeneEncoder, ResidualKAN, contrastive_loss

N_SPOTS, N_GENES = 23, 7


class NormInEvaluation(nn.BatchNorm2d):
    def train(self, mode: bool = True):
        return super().train(False)


def towers() -> TwoTowers:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), NormInEvaluation(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    return TwoTowers(
        image_head=ResidualKAN(6, 8, bottleneck=4, dropout=0.0),
        gene_encoder=GeneEncoder(),
        gene_head=ResidualKAN(N_GENES, 8, bottleneck=4, dropout=0.0),
        encoder=Encoder(module, name="tiny"),
    )


def data(n_spots: int, seed: int):
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (n_spots, 16, 16, 3), dtype=np.uint8)
    return torch.from_numpy(patches), torch.from_numpy(rng.random((n_spots, N_GENES), dtype=np.float32))


def loss(module, batch, gather):
    image, gene = module(*batch)
    return contrastive_loss(gather(image), gather(gene), temperature=0.5)


def main(path: str, devices: int) -> None:
    settings.device, settings.progress = "cpu", False
    torch.set_num_threads(1)
    training = Training(max_epochs=3, batch_size=8, learning_rate=1e-3, weight_decay=1e-3, devices=devices)
    spots = data(N_SPOTS, 0)

    fabric, module = training.fabric(), towers()
    wrapped = fabric.setup(module)
    mine = torch.from_numpy(share_of(np.arange(N_SPOTS), fabric.global_rank, fabric.world_size))
    value = loss(wrapped, tuple(values[mine] for values in spots), gather_rows(fabric, N_SPOTS))
    fabric.backward(value)
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}

    seen = []

    def counted(module, batch, gather):
        if module.training:
            seen.append(len(batch[0]))
        return loss(module, batch, gather)

    trained = towers()
    history = train(
        trained,
        spots,
        loss=counted,
        validation=data(9, 1),
        groups=np.zeros(N_SPOTS, dtype=int),
        training=training,
        description="",
    )
    torch.save(
        {
            "world_size": fabric.world_size,
            "loss": value.detach(),
            "gradients": gradients,
            "weights": trained.state_dict(),
            "history": torch.tensor(history.to_numpy()),
            "seen": sum(seen),
            "writes": is_first_process(),
        },
        path,
    )


def launched_by_torchrun(rank: int, n_processes: int, port: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(n_processes),
        "LOCAL_WORLD_SIZE": str(n_processes),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
    }


def run(folder: Path, name: str, rank: int, n_processes: int, port: int) -> None:
    """Compute as one of `n_processes`, with what is written to stderr in a file."""
    if n_processes > 1:
        os.environ |= launched_by_torchrun(rank, n_processes, port)
    with (folder / f"{name}.errors").open("w") as errors:
        os.dup2(errors.fileno(), 2)
        main(str(folder / name), n_processes)


def start_all(folder: Path, port: int) -> int:
    """Run alone, and as two processes that train together, all at once; return how many of the three failed."""
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    roles = (("one", 0, 1), ("rank0", 0, 2), ("rank1", 1, 2))
    processes = [context.Process(target=run, args=(folder, *role, port)) for role in roles]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(process.exitcode != 0 for process in processes)


if __name__ == "__main__":
    sys.exit(start_all(Path(sys.argv[1]), int(sys.argv[2])))
