"""First stage of training m3-tiny: the tower learns to name what lies under each cell of the grid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = 192  # of each picture that the loss looks at, drawn towards those with much to name


class DenseHeads(nn.Module):
    """One linear classifier for each label of a cell; thrown away after the tower's training."""

    def __init__(self, width: int, heads: Sequence[tuple[str, int]]):
        super().__init__()
        self.names = [name for name, _ in heads]
        self.classes = [classes for _, classes in heads]
        self.linear = nn.Linear(width, sum(self.classes))

    def loss(self, features: Tensor, targets: Tensor, spelling: float) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the labels' mean cross-entropies.

        Args:
            features: (B, N, width) of the tower.
            targets: (B, N, H) class indices, negative where a label doesn't apply.
            spelling: weight of each letter of a text (labels whose name ends in a digit); the others have 1.

        Returns:
            The loss, and each label's cross-entropy by name.
        """
        weight = (targets >= 0).sum(-1).float() * torch.rand(targets.shape[:2], device=targets.device)  # (B, N)
        cells = weight.topk(CELLS, sorted=False).indices[..., None]  # (B, CELLS, 1)
        features = features.gather(1, cells.expand(-1, -1, features.shape[-1]))
        targets = targets.gather(1, cells.expand(-1, -1, targets.shape[-1]))
        logits = self.linear(features).float().flatten(0, 1)  # (B * CELLS, all classes)
        losses: dict[str, Tensor] = {}
        for i, (name, part) in enumerate(zip(self.names, logits.split(self.classes, -1), strict=True)):
            target = targets[..., i].flatten().long()
            told = (target >= 0).sum().clamp(min=1)
            losses[name] = F.cross_entropy(part, target, ignore_index=-1, reduction="sum") / told
        weights = torch.tensor([spelling if name[-1].isdigit() else 1.0 for name in self.names]).to(logits.device)
        return torch.stack(list(losses.values())) @ weights, {name: loss.item() for name, loss in losses.items()}
