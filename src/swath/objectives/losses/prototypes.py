"""Agreement of places on prototypes: a teacher says which of K prototypes a place is, the student learns to.

CMID's local branch (section 1.4), which is DINO's loss (Caron et al. 2021) on matched cells instead of whole
images: sharpened and centred teacher probabilities, cross entropy, no negatives. Centering keeps one
prototype from taking everything, sharpening keeps all from being alike.

Legend: B samples, M cells of each, C channels, K prototypes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from swath.cpu.linear import OneDnnLinear
from swath.objectives.losses.all_reduce import all_reduce_mean
from swath.objectives.losses.precision import full_precision


class PrototypeHead(nn.Module):
    """Three layers to a unit vector, then its cosine with each prototype.

    Args:
        inputs: C.
        hidden: Width of the two hidden layers.
        bottleneck: Length of the unit vector.
        prototypes: K.
        batch_norm: A BatchNorm over all places after each hidden layer (CMID with CNNs).
    """

    def __init__(
        self, inputs: int, hidden: int, bottleneck: int, prototypes: int, *, batch_norm: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, hidden):
            layers += [OneDnnLinear(width, hidden)]
            layers += [nn.BatchNorm1d(hidden)] if batch_norm else []
            layers += [nn.GELU()]
        self.mlp = nn.Sequential(*layers, OneDnnLinear(hidden, bottleneck))
        self.prototypes = nn.Parameter(
            torch.empty(prototypes, bottleneck)
        )  # of any length; their directions count
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, C, M] -> cosines [B, K, M]."""
        batch, _, cells = x.shape
        rows = self.mlp(x.transpose(1, 2).reshape(batch * cells, -1))
        # In float32: at a temperature of 0.04 half precision shows.
        cosines = (
            F.normalize(full_precision(rows), dim=1) @ F.normalize(full_precision(self.prototypes), dim=1).T
        )
        return cosines.view(batch, cells, -1).transpose(1, 2)


class PrototypeLoss(nn.Module):
    """Cross entropy between the student's and the teacher's prototypes, with a moving center.

    Args:
        prototypes: K.
        student_temperature: Divides the student's cosines.
        center_momentum: Share of the old center that stays at each update.
    """

    centre: Tensor

    def __init__(
        self, prototypes: int, student_temperature: float = 0.1, center_momentum: float = 0.9
    ) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(
        self, student: Tensor, teacher: Tensor, teacher_temperature: float, weight: Tensor | None = None
    ) -> Tensor:
        """The loss; afterwards the centre moves towards the mean of the teacher's cosines.

        Args:
            student: [B, K, M] cosines.
            teacher: [B, K, M] cosines, without gradient.
            teacher_temperature: Smaller is sharper.
            weight: [B, M] of each match, 0 for none; by default all count.

        Returns:
            Scalar: the mean over what has weight, 0 where nothing has. Under torchrun the mean over ranks is
            that of all ranks' matches, however many each has.
        """
        wanted = F.softmax((teacher.detach() - self.centre[:, None]) / teacher_temperature, dim=1)
        error = -(wanted * F.log_softmax(student / self.student_temperature, dim=1)).sum(dim=1)
        if self.training:
            self._move(teacher.detach(), weight)
        if weight is None and not (dist.is_available() and dist.is_initialized()):
            return error.mean()
        weight = torch.ones_like(error) if weight is None else weight
        count = all_reduce_mean(weight.sum())  # every rank takes part, also one where all count
        return (error * weight).sum() / torch.where(count > 0, count, 1.0)

    @torch.no_grad()
    def _move(self, teacher: Tensor, weight: Tensor | None) -> None:
        if weight is None:
            total, count = teacher.sum(dim=(0, 2)), torch.tensor(float(teacher.shape[0] * teacher.shape[2]))
        else:
            total, count = (teacher * weight[:, None]).sum(dim=(0, 2)), weight.sum()
        count = count.to(total)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
            dist.all_reduce(count)
        mean = total / count.clamp_min(1.0)
        keep = torch.where(count > 0, self.center_momentum, 1.0)
        self.centre.mul_(keep).add_(mean * (1 - keep))
