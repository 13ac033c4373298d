"""How Oriented R-CNN writes an oriented box as numbers that a network can regress, and back.

Both from Xie et al., "Oriented R-CNN for Object Detection", ICCV 2021, arXiv 2108.05699 (section 3). First
stage: *midpoint offsets*, six numbers against an upright anchor: its shift and stretch to the upright box
around the object, and how far the object's top and right corners lie from the middles of that box's top and
right sides. Second stage: five numbers against an oriented proposal, measured along its own sides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from swath.tasks.detection.rotated_boxes import corners, le90, to_xyxy

MAX_STRETCH = math.log(1000 / 16)  # a side grows by no more than this factor's logarithm
SCALE = (0.1, 0.1, 0.2, 0.2, 0.1)  # of the five numbers, so that they are about 1
_TILT = 1e-4  # which of two corners of about one height is the top one: the right one


def midpoint_encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """The six numbers [N, 6] of oriented boxes [N, 5] against upright anchors [N, 4]."""
    x, y, w, h = _centered(anchors)
    bx, by, bw, bh = _centered(to_xyxy(boxes))
    points = corners(boxes)
    top = (points[..., 1] - _TILT * points[..., 0]).argmin(1, keepdim=True)
    right = (points[..., 0] + _TILT * points[..., 1]).argmax(1, keepdim=True)
    alpha = (points[..., 0].gather(1, top).squeeze(1) - bx) / bw
    beta = (points[..., 1].gather(1, right).squeeze(1) - by) / bh
    return torch.stack([(bx - x) / w, (by - y) / h, torch.log(bw / w), torch.log(bh / h), alpha, beta], 1)


def midpoint_decode(anchors: Tensor, numbers: Tensor) -> Tensor:
    """The oriented boxes [N, 5], le90, of six numbers [N, 6] against upright anchors [N, 4].

    In general the numbers describe a parallelogram; its shorter diagonal is stretched to the length of the
    longer one, which makes it a rectangle.
    """
    x, y, w, h = _centered(anchors)
    x, y = x + numbers[:, 0] * w, y + numbers[:, 1] * h
    w, h = (side * numbers[:, i].clamp(max=MAX_STRETCH).exp() for side, i in ((w, 2), (h, 3)))
    alpha, beta = (numbers[:, i].clamp(-0.5, 0.5) for i in (4, 5))
    top, right = torch.stack([alpha * w, -h / 2], 1), torch.stack([w / 2, beta * h], 1)  # from the center
    reach = [one.norm(dim=1, keepdim=True).clamp_min(1e-6) for one in (top, right)]
    longer = torch.maximum(*reach)
    top, right = top * (longer / reach[0]), right * (longer / reach[1])
    first, second = right - top, right + top  # the sides: from top to right, and from bottom to right
    angle = torch.atan2(first[:, 1], first[:, 0])
    return le90(torch.stack([x, y, first.norm(dim=1), second.norm(dim=1), angle], 1))


def delta_encode(proposals: Tensor, boxes: Tensor) -> Tensor:
    """The five numbers [N, 5] of oriented boxes against oriented proposals, both [N, 5].

    Of a box's two descriptions (sides swapped, a right angle on) the one whose angle is nearer to the
    proposal's is taken, so that the turn is never more than 45 degrees.
    """
    shift = boxes[:, :2] - proposals[:, :2]
    cos, sin = torch.cos(proposals[:, 4]), torch.sin(proposals[:, 4])
    w, h = proposals[:, 2].clamp_min(1e-3), proposals[:, 3].clamp_min(1e-3)
    turn = _half_turn(boxes[:, 4] - proposals[:, 4])
    swap = turn.abs() > math.pi / 4
    turn = torch.where(swap, turn - torch.sign(turn) * math.pi / 2, turn)
    bw = torch.where(swap, boxes[:, 3], boxes[:, 2]).clamp_min(1e-3)
    bh = torch.where(swap, boxes[:, 2], boxes[:, 3]).clamp_min(1e-3)
    numbers = torch.stack(
        [
            (cos * shift[:, 0] + sin * shift[:, 1]) / w,
            (cos * shift[:, 1] - sin * shift[:, 0]) / h,
            torch.log(bw / w),
            torch.log(bh / h),
            turn,
        ],
        1,
    )
    return numbers / numbers.new_tensor(SCALE)


def delta_decode(proposals: Tensor, numbers: Tensor) -> Tensor:
    """The oriented boxes [N, 5], le90, of five numbers against oriented proposals, both [N, 5]."""
    numbers = numbers * numbers.new_tensor(SCALE)
    cos, sin = torch.cos(proposals[:, 4]), torch.sin(proposals[:, 4])
    along, across = numbers[:, 0] * proposals[:, 2], numbers[:, 1] * proposals[:, 3]
    sides = proposals[:, 2:4] * numbers[:, 2:4].clamp(max=MAX_STRETCH).exp()
    center = proposals[:, :2] + torch.stack([cos * along - sin * across, sin * along + cos * across], 1)
    return le90(torch.cat([center, sides, (proposals[:, 4] + numbers[:, 4]).unsqueeze(1)], 1))


def _centered(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Center and sides, no side shorter than a thousandth of a pixel, of upright boxes [N, 4]."""
    left, top, right, bottom = boxes.unbind(1)
    w, h = (right - left).clamp_min(1e-3), (bottom - top).clamp_min(1e-3)
    return (left + right) / 2, (top + bottom) / 2, w, h


def _half_turn(angle: Tensor) -> Tensor:
    """Angle in [-pi/2, pi/2): a rectangle turned by pi is the same."""
    return torch.remainder(angle + math.pi / 2, math.pi) - math.pi / 2
