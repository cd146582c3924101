"""The U-Net of this project in PyTorch, with the same weights and the same loss. A peer for `peers.py`, no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-3


class Block(nn.Module):
    """(3x3 convolution, BatchNorm if `norm`, ReLU) twice."""

    def __init__(self, inputs: int, outputs: int, norm: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(outputs, eps=EPSILON, momentum=0.1) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs, eps=EPSILON, momentum=0.1) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)


class UNet(nn.Module):
    """The network of a config's `model` group; without dropout and `fold`."""

    def __init__(self, config: Any, channels: int):
        super().__init__()
        model = config.model
        if model.fold != 1 or model.dropout:
            raise SystemExit("the peers are written for model.fold=1 and model.dropout=0")
        filters = [model.width * 2**level for level in range(model.levels)]
        down, up = model.norm != "none", model.norm == "batch"
        self.encoder = nn.ModuleList(
            Block(before, after, down) for before, after in zip([channels, *filters], filters, strict=False)
        )
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * f, f, 2, stride=2) for f in filters[:-1])
        self.decoder = nn.ModuleList(Block(2 * f, f, up) for f in filters[:-1])
        self.head = nn.Conv2d(filters[0], config.model.num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> logits [B, classes, H, W]."""
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.ups))):
            x = self.decoder[level](torch.cat([self.ups[level](x), skips[level]], dim=1))
        return self.head(x)


def load_weights(network: UNet, weights: Mapping[str, np.ndarray]) -> None:
    """Fill the network from arrays by this project's paths; every array must be used."""
    used = set()

    def take(path: str) -> torch.Tensor:
        used.add(path)
        return torch.from_numpy(np.array(weights[path]))

    def convolution(layer: Any, path: str) -> None:
        layer.weight.copy_(take(f"params/{path}/kernel").permute(3, 2, 0, 1))
        layer.bias.copy_(take(f"params/{path}/bias"))

    def block(layer: Block, path: str) -> None:
        for index in (1, 2):
            convolution(getattr(layer, f"conv{index}"), f"{path}/conv{index}")
            norm, name = getattr(layer, f"norm{index}"), f"{path}/norm{index}"
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.copy_(take(f"params/{name}/scale"))
                norm.bias.copy_(take(f"params/{name}/bias"))
                norm.running_mean.copy_(take(f"stats/{name}/mean"))
                norm.running_var.copy_(take(f"stats/{name}/var"))

    with torch.no_grad():
        for level, layer in enumerate(network.encoder, 1):
            block(layer, f"encoder/stage{level}")
        for level, (up, layer) in enumerate(zip(network.ups, network.decoder, strict=True), 1):
            up.weight.copy_(take(f"params/decoder/stage{level}/up/kernel").permute(3, 2, 0, 1))
            up.bias.copy_(take(f"params/decoder/stage{level}/up/bias"))
            block(layer, f"decoder/stage{level}/block")
        convolution(network.head, "head")
    if left := set(weights) - used:
        raise SystemExit(f"the network in PyTorch has no place for {', '.join(sorted(left))}")


def loss_of(logits: torch.Tensor, label: torch.Tensor, train: Any) -> torch.Tensor:
    """Batch Dice over the foreground classes present + cross-entropy, of logits [B, C, H, W] and labels [B, H, W]."""
    log_p = F.log_softmax(logits, dim=1)
    cross_entropy = F.nll_loss(log_p, label)
    p = log_p.exp()
    truth = F.one_hot(label, logits.shape[1]).permute(0, 3, 1, 2)
    overlap, predicted, true = (x.sum((0, 2, 3))[1:] for x in (p * truth, p, truth))
    present = true > 0
    dice = 2 * overlap / torch.where(present, predicted + true, torch.ones_like(predicted))
    dice_loss = torch.where(present, 1 - dice, torch.zeros_like(dice)).sum() / present.sum().clamp(min=1)
    return train.dice_weight * dice_loss + train.cross_entropy_weight * cross_entropy
