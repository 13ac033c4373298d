"""Sine-cosine positions that stretch with the ground sample distance (Scale-MAE, section 3).

The ordinary two-dimensional sine-cosine table counts in patches. Here a position is the patch index times
the image's GSD (in units of the model's reference GSD), so equal phases mean equal distances on the ground
and images of different scale can share a batch. With a GSD of 1 it is the table of MAE.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gsd_positions(
    grid_h: int,
    grid_w: int,
    dim: int,
    gsd: Tensor,
    *,
    cls: bool = True,
    at: Tensor | None = None,
    centered: bool = False,
) -> Tensor:
    """GSD-aware positions of a grid of patches, row-major.

    For a patch in row r and column c of a sample with GSD g, and frequencies w_k = 10000^(-k / (dim / 4)):
    ``[sin(c g w), cos(c g w), sin(r g w), cos(r g w)]``; the class token's position is all zeros.

    Args:
        grid_h: Rows of patches.
        grid_w: Columns of patches.
        dim: Width of the encoding; a multiple of 4.
        gsd: [B] one GSD a sample, relative to the reference GSD, of any floating or integer type.
        cls: Put a zero row for the class token first.
        at: [B, K] flat indices of the patches wanted, in that order; all N = grid_h * grid_w by default.
        centered: Measure to the middle of a patch, (c + 1/2) g - 1/2, so that patches of different size over
            the same ground agree; the same at a GSD of 1. Scale-MAE measures to the corner, c g.

    Returns:
        [B, (1 +) N or K, dim] float32 on gsd's device, whatever the ambient precision: at 30 m and beyond,
        half precision loses the phase altogether.
    """
    if dim % 4:
        raise ValueError(f"the width of sine-cosine positions must be a multiple of 4, not {dim}")
    if gsd.ndim != 1:
        raise ValueError(f"gsd must be one number a sample, shape [B], not {tuple(gsd.shape)}")
    quarter = dim // 4
    exponent = torch.arange(quarter, dtype=torch.float32, device=gsd.device) / quarter
    frequency = 1.0 / 10000.0**exponent
    gsd = gsd.to(torch.float32)

    def axis(count: int) -> Tensor:  # [B, count, dim / 2]
        index = torch.arange(count, dtype=torch.float32, device=gsd.device)
        # (index * gsd) first and then the frequency: at large GSDs the order decides the last digits.
        place = (index + 0.5) * gsd[:, None] - 0.5 if centered else index * gsd[:, None]
        phase = place.unsqueeze(-1) * frequency
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    column, row = axis(grid_w), axis(grid_h)
    half = dim // 2
    if at is None:
        table = torch.cat(
            [
                column[:, None].expand(-1, grid_h, -1, -1),
                row[:, :, None].expand(-1, -1, grid_w, -1),
            ],
            dim=-1,
        ).flatten(1, 2)
    else:
        column_at, row_at = (at % grid_w).unsqueeze(-1), (at // grid_w).unsqueeze(-1)
        table = torch.cat(
            [column.gather(1, column_at.expand(-1, -1, half)), row.gather(1, row_at.expand(-1, -1, half))],
            dim=-1,
        )
    if cls:
        table = torch.cat([table.new_zeros(table.shape[0], 1, dim), table], dim=1)
    return table
