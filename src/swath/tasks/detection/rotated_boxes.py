"""Oriented boxes: their conventions, conversions, exact overlap, and non-maximum suppression.

A box is (cx, cy, w, h, angle): its center and sides in pixels, and how far its first side is turned from the
x axis, in radians. The x axis points right and the y axis down, so a positive angle turns clockwise on the
screen. Everything that Swath hands out is in the *le90* convention ("long edge, 90 degrees", as in
mmrotate): w >= h and -90 deg <= angle < 90 deg, by which a box has one description (a square has two). What
takes boxes takes them in any convention.

**Overlap.** Two boxes' common area is exact, by Green's theorem rather than by building the common polygon.
In the frame of the first box, which there is the rectangle |x| <= a, |y| <= b, the area that it shares with
another polygon P is the integral of clamp(x, -a, a) dy around P, taken where |y| <= b. On an edge of P, x is
linear in y, so its part of the integral is a sum of three pieces in closed form. There are no vertices to
find, sort or count, hence no special cases: touching, identical, nested and degenerate boxes come out right
by themselves, all pairs in a handful of tensor operations, with gradients. Computed in float64.

Legend: N, M boxes; P pairs; V vertices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PAIRS_AT_ONCE = 1 << 18  # of which the intermediate results are about 100 MB
PAIRS_IN_CACHE = 1 << 12  # and of these about 2 MB: what a core keeps near itself


def le90(boxes: Tensor) -> Tensor:
    """Boxes [..., 5] in the le90 convention: the same rectangles, w >= h, angle in [-pi/2, pi/2)."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    swap = w < h
    angle = torch.where(swap, angle + math.pi / 2, angle)
    half = math.pi / 2
    angle = torch.remainder(angle + half, math.pi) - half
    angle = torch.where(angle >= half, angle.new_tensor(-half), angle)  # where rounding has reached the end
    return torch.stack([cx, cy, torch.maximum(w, h), torch.minimum(w, h), angle], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """Corners [..., 4, 2] of boxes [..., 5], clockwise on the screen, from the box's own upper left."""
    return torch.stack(_corners(boxes), dim=-1).movedim(0, -2)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The corners' x and y, each [4, ...]."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    cos, sin = torch.cos(angle) / 2, torch.sin(angle) / 2
    ux, uy, vx, vy = w * cos, w * sin, -h * sin, h * cos  # from the center to the middles of two sides
    return (
        torch.stack([cx - ux - vx, cx + ux - vx, cx + ux + vx, cx - ux + vx]),
        torch.stack([cy - uy - vy, cy + uy - vy, cy + uy + vy, cy - uy + vy]),
    )


def min_area_rect(polygons: Tensor) -> Tensor:
    """The smallest rectangle around each polygon: [..., V, 2] -> boxes [..., 5], le90.

    Exact for any set of points: the smallest rectangle has a side along a side of the convex hull, and the
    lines through all pairs of points hold those. Of several equally small ones the first is taken.
    """
    count = polygons.shape[-2]
    first, second = torch.triu_indices(count, count, 1, device=polygons.device)
    side = polygons[..., second, :] - polygons[..., first, :]  # [..., D, 2]
    length = side.norm(dim=-1, keepdim=True)
    x_axis = torch.tensor([1.0, 0.0], dtype=polygons.dtype, device=polygons.device)
    u = torch.where(length > 0, side / length, x_axis)
    v = torch.stack([-u[..., 1], u[..., 0]], dim=-1)
    center = polygons.mean(dim=-2, keepdim=True)
    points = (polygons - center).transpose(-1, -2)
    along, across = u @ points, v @ points  # [..., D, V]
    low = torch.stack([along.amin(-1), across.amin(-1)], dim=-1)
    high = torch.stack([along.amax(-1), across.amax(-1)], dim=-1)
    size = high - low
    # Among rectangles of no area (all points on a line) the shortest: the one along the line.
    area, perimeter = size.prod(-1), size.sum(-1)
    best = (area + perimeter * area.amax(-1, keepdim=True).clamp_min(1e-12) * 1e-12).argmin(-1, keepdim=True)

    def chosen(x: Tensor) -> Tensor:
        return x.gather(-2, best.unsqueeze(-1).expand(*best.shape, 2)).squeeze(-2)

    u, v, size = chosen(u), chosen(v), chosen(size)
    middle = chosen((low + high) / 2)
    place = center.squeeze(-2) + middle[..., :1] * u + middle[..., 1:] * v
    angle = torch.atan2(u[..., 1], u[..., 0])
    return le90(torch.cat([place, size, angle.unsqueeze(-1)], dim=-1))


def from_xyxy(boxes: Tensor) -> Tensor:
    """Upright boxes (left, top, right, bottom) [..., 4] as oriented ones [..., 5], le90."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return le90(torch.cat([(low + high) / 2, high - low, torch.zeros_like(low[..., :1])], dim=-1))


def to_xyxy(boxes: Tensor) -> Tensor:
    """The upright boxes [..., 4] (left, top, right, bottom) that just hold oriented ones [..., 5]."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    cos, sin = torch.cos(angle).abs(), torch.sin(angle).abs()
    x, y = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
    return torch.stack([cx - x, cy - y, cx + x, cy + y], dim=-1)


def intersection_area(boxes: Tensor, polygons: Tensor) -> Tensor:
    """Area that each box shares with its polygon, pair by pair.

    Args:
        boxes: [P, 5].
        polygons: [P, V, 2], convex or not, without self-crossings.

    Returns:
        [P] float64, in square pixels, with gradients.
    """
    x, y = polygons.double().permute(2, 1, 0).contiguous()
    return _common_area(boxes.double(), x, y)


def _common_area(boxes: Tensor, px: Tensor, py: Tensor) -> Tensor:
    """The same from the polygons' x and y, each [V, P]: pairs come last, so that inner loops are long."""
    cx, cy, w, h, angle = boxes.unbind(1)
    a, b = w / 2, h / 2
    cos, sin = torch.cos(angle), torch.sin(angle)
    right, down = px - cx, py - cy
    x, y = right * cos + down * sin, down * cos - right * sin  # [V, P], in the box's frame
    dx, dy = x.roll(-1, 0) - x, y.roll(-1, 0) - y
    # The part of each edge with |y| <= b: from its first point y0 to its last y1, and x there.
    y0 = torch.clamp(y, -b, b)
    y1 = y0.roll(-1, 0)
    rise = torch.where(dy == 0, 1.0, dy)  # a level edge adds nothing, whatever x is
    x0, x1 = x + (y0 - y) / rise * dx, x + (y1 - y) / rise * dx
    # The mean of clamp(x, -a, a) between x0 and x1: shares left of the rectangle, right of it, and between.
    low, high = torch.minimum(x0, x1), torch.maximum(x0, x1)
    length = torch.where(high > low, high - low, 1.0)
    left = ((-a - low) / length).clamp(0, 1)
    beyond = ((high - a) / length).clamp(0, 1)
    middle = (torch.clamp(low, -a, a) + torch.clamp(high, -a, a)) / 2
    mean = torch.where(high > low, a * (beyond - left) + (1 - left - beyond) * middle, middle)
    return (mean * (y1 - y0)).sum(dim=0).abs()


def overlapping_pairs(first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices ([P], [P]) of the pairs of boxes [N, 5] and [M, 5] whose upright bounds overlap.

    Of all other pairs the common area is 0. Without `second` the pairs within `first`, each once (in either
    order). Sorted by the first index.

    The second boxes are sorted into bands of y, in each by x. Bands are as high as the largest two boxes
    reach together, so that a first box looks at a strip of three bands only: thousands of boxes need no
    N x M matrix.
    """
    alone = second is None
    first = first.detach().double()
    second = first if second is None else second.detach().double()
    count, device = len(second), first.device
    if not len(first) or not count:
        return (torch.zeros(0, dtype=torch.int64, device=device),) * 2
    rank = torch.arange(count, device=device)
    order = second[:, 0].argsort()
    x, y, wide, high = _extents(first)
    x2, y2, wide2, high2 = (values[order] for values in _extents(second))
    top, bottom = y2.aminmax()
    # Higher by a little than what reaches over one border only, so that rounding loses nobody; and no more
    # bands than boxes.
    band = torch.maximum((high.max() + high2.max()) * (1 + 1e-9), (bottom - top) / count).clamp_min(1e-9)

    def first_of(y: Tensor) -> Tensor:
        """The key of the band that each y lies in: keys are a band and a rank in x, hence exact integers."""
        return ((y - top) / band).clamp(-2, count + 2).floor().long() * count

    keys, within = (first_of(y2) + rank).sort()
    reach = wide + wide2.max()
    strip = first_of(y)[:, None] + count * torch.arange(0 if alone else -1, 2, device=device)
    low = torch.searchsorted(keys, strip + torch.searchsorted(x2, x - reach)[:, None])
    end = torch.searchsorted(keys, strip + torch.searchsorted(x2, x + reach, right=True)[:, None])
    order, x2, y2, wide2, high2 = (values[within] for values in (order, x2, y2, wide2, high2))
    if alone:  # in its own band each box looks at those after it, and for those above it they look down
        low[order, 0] = rank + 1
    many = end - low
    found = []
    rows = torch.arange(len(first), device=device)
    for block in torch.split(rows, max(1, 4 * PAIRS_AT_ONCE // max(1, int(many.sum(1).max())))):
        own = many[block].flatten()
        i = block.repeat_interleave(many[block].sum(1))
        start = low[block].flatten() + own - own.cumsum(0)
        j = torch.arange(len(i), device=device) + start.repeat_interleave(own)
        near = (x[i] - x2[j]).abs_() < wide[i] + wide2[j]
        near &= (y[i] - y2[j]).abs_() < high[i] + high2[j]
        found.append((i[near], order[j[near]]))
    return torch.cat([i for i, _ in found]), torch.cat([j for _, j in found])


def _extents(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centers' x and y [N], and how far the boxes reach from there to either side in x and in y."""
    cx, cy, w, h, angle = boxes.T.contiguous()
    cos, sin = torch.cos(angle).abs(), torch.sin(angle).abs()
    return cx, cy, (w * cos + h * sin) / 2, (w * sin + h * cos) / 2


def pair_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union [P] (float64, with gradients) of boxes [P, 5] and [P, 5], pair by pair."""
    parts = []
    some = PAIRS_IN_CACHE if first.device.type == "cpu" else PAIRS_AT_ONCE
    for start in range(0, len(first), some):
        one, other = (boxes[start : start + some].double() for boxes in (first, second))
        area_one, area_other = (boxes[:, 2:4].prod(1) for boxes in (one, other))
        # In the smaller box's frame: there the rounding is smallest, and a pair gives the same either way.
        turn = (area_one > area_other)[:, None]
        small, large = torch.where(turn, other, one), torch.where(turn, one, other)
        common = _common_area(small, *_corners(large)).minimum(torch.minimum(area_one, area_other))
        union = area_one + area_other - common
        parts.append(common / torch.where(union > 0, union, 1.0))
    return torch.cat(parts) if parts else first.new_zeros(0, dtype=torch.float64)


def rotated_iou(first: Tensor, second: Tensor, *, of: str = "union") -> Tensor:
    """Overlap [N, M] (float64) of all boxes [N, 5] with all boxes [M, 5].

    Args:
        first: [N, 5], in any convention.
        second: [M, 5].
        of: "union": intersection over union; "first": the share of each first box that lies in the second.

    A box without area overlaps nothing.
    """
    if of not in ("union", "first"):
        raise ValueError(f"of is 'union' or 'first', not {of!r}")
    i, j = overlapping_pairs(first, second)
    result = torch.zeros(len(first), len(second), dtype=torch.float64, device=first.device)
    iou = pair_iou(first[i], second[j])
    if of == "first":
        one, other = (boxes.double()[k, 2:4].prod(1) for boxes, k in ((first, i), (second, j)))
        iou = iou / (1 + iou) * (one + other) / torch.where(one > 0, one, 1.0)  # from i / (a + b - i)
    return result.index_put_((i, j), iou)


def rotated_nms(boxes: Tensor, scores: Tensor, threshold: float, *, labels: Tensor | None = None) -> Tensor:
    """Non-maximum suppression: drop a box that overlaps a kept one of higher score by more than `threshold`.

    Args:
        boxes: [N, 5], in any convention.
        scores: [N]; of equal scores the earlier box comes first.
        threshold: IoU.
        labels: [N] class of each box; boxes of different classes do not meet. None: all are of one.

    Returns:
        [K] int64 indices of the kept boxes, by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    i, j = overlapping_pairs(boxes)
    i, j = torch.minimum(i, j), torch.maximum(i, j)
    if labels is not None:
        same = labels[order][i] == labels[order][j]
        i, j = i[same], j[same]
    meet = pair_iou(boxes[i], boxes[j]) > threshold
    return order[_unsuppressed(i[meet], j[meet], len(boxes))]


def _unsuppressed(i: Tensor, j: Tensor, count: int) -> Tensor:
    """Indices of what is kept of `count` boxes sorted by score, where i suppresses j if it is kept itself.

    In rounds: whatever waits for no undecided box is kept, and what it suppresses is gone. There are as many
    rounds as the longest chain of boxes that overlap one another in turn, a few even in a crowd.
    """
    undecided = torch.ones(count, dtype=torch.bool, device=i.device)
    keep = torch.zeros_like(undecided)
    while len(i):
        waits = torch.zeros_like(undecided)
        waits[j] = True
        free = undecided & ~waits
        keep |= free
        gone = torch.zeros_like(undecided)
        gone[j[free[i]]] = True
        undecided &= ~(free | gone)
        open_pairs = undecided[i] & undecided[j]
        i, j = i[open_pairs], j[open_pairs]
    return (keep | undecided).nonzero().squeeze(1)
