"""Errors that look where it is hard: focal losses of a reconstruction, in pixels and in its spectrum.

CMID's reconstruction loss (section 1.2; the focal frequency loss is Jiang et al. 2021, its masked use A2MIM,
Li et al. 2023). Hidden pixels are compared by an absolute error that is weighed by itself; the spectra of the
whole images by a squared error that is weighed by itself.

Legend: B samples, C bands, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swath.objectives.losses.all_reduce import all_reduce_mean
from swath.objectives.losses.precision import full_precision


def focal_l1(
    prediction: Tensor,
    target: Tensor,
    hidden: Tensor,
    alpha: float = 0.2,
    gamma: float = 1.0,
    *,
    over_ranks: bool = True,
) -> Tensor:
    """Absolute error d over hidden pixels, times (2 sigmoid(alpha d) - 1)^gamma: small errors count less.

    Args:
        prediction: [B, C, H, W].
        target: The same.
        hidden: [B, 1, H, W], 1 where a pixel counts.
        alpha: Steepness of the weight.
        gamma: Its power.
        over_ranks: Under torchrun the mean over ranks is that of all ranks' hidden pixels, however many each
            has; otherwise the mean of their means.

    Returns:
        Scalar mean over hidden pixels and bands.
    """
    error = (prediction - target).abs()
    error = error * (2 * torch.sigmoid(alpha * error) - 1) ** gamma
    count = all_reduce_mean(hidden.sum()) if over_ranks else hidden.sum()
    return (error * hidden).sum() / (count + 1e-5) / prediction.shape[1]


def blend_visible_target(
    prediction: Tensor, target: Tensor, hidden: Tensor, visible: float = 0.001
) -> Tensor:
    """The prediction where it was asked for; elsewhere half of it (without gradient) and half the target.

    Args:
        prediction: [B, C, H, W].
        target: The same.
        hidden: [B, 1, H, W].
        visible: Share of the gradient that visible pixels keep.
    """
    share = hidden + (1 - hidden) * visible
    return prediction * share + (0.5 * prediction.detach() + 0.5 * target) * (1 - share)


def focal_frequency(prediction: Tensor, target: Tensor, *, over_ranks: bool = True) -> Tensor:
    """Squared difference of the batch's mean spectra, frequencies weighed by the log of their own error.

    Args:
        prediction: [B, C, H, W], any precision; the spectrum is taken in float32.
        target: The same.
        over_ranks: Under torchrun, the mean is that of the batch of all processes, so that their number does
            not matter; otherwise of this process's samples, as in the released code of CMID: the fewer they
            are, the less errors cancel in the mean, and the larger is the loss.

    Returns:
        Scalar mean over bands and frequencies.
    """
    # The transform is linear: the mean of spectra is the spectrum of the mean, at one B-th of the cost.
    difference = full_precision(prediction).mean(dim=0) - full_precision(target).mean(dim=0)
    if over_ranks:
        difference = all_reduce_mean(difference)
    spectrum = torch.fft.fft2(difference, norm="ortho")
    power = spectrum.real**2 + spectrum.imag**2
    with torch.no_grad():
        weight = torch.log(power.sqrt() + 1)
        weight = (weight / weight.max()).nan_to_num(0.0).clamp(0, 1)
    mean: Tensor = (weight * power).mean()
    return mean


def focal_reconstruction(
    prediction: Tensor,
    target: Tensor,
    hidden: Tensor,
    *,
    alpha: float = 0.2,
    gamma: float = 1.0,
    visible: float = 0.001,
    over_ranks: bool = True,
) -> tuple[Tensor, Tensor]:
    """Both parts, spatial and in frequency, of a masked reconstruction; arguments as above."""
    spatial = focal_l1(
        full_precision(prediction), full_precision(target), hidden, alpha, gamma, over_ranks=over_ranks
    )
    mixed = blend_visible_target(full_precision(prediction), full_precision(target), hidden, visible)
    return spatial, focal_frequency(mixed, target, over_ranks=over_ranks)
