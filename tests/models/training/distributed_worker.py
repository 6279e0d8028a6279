"""One process of test_distributed: prints nothing, writes what it computed to the given file."""

from __future__ import annotations

import sys

import numpy as np
import torch
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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
