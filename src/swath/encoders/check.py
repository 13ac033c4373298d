"""`check_encoder` and `check_pyramid`: everything that an encoder promises, run against yours.

In the spirit of scikit-learn's `check_estimator`: call it in a test of your own package::

    from swath.encoders.check import check_encoder

    def test_my_encoder():
        check_encoder(lambda bands: MyEncoder(bands=bands))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from swath.encoders.protocol import Encoder, EncoderFeatures, MaskableEncoder
from swath.encoders.pyramid import build_pyramid

Factory = Callable[[int | Mapping[str, int]], nn.Module]


def check_encoder(factory: Factory, *, size: int | None = None, tolerance: float = 1e-5) -> None:
    """Run every check of the protocol; small encoders keep it to a second or two.

    An encoder with the attributes of `MaskableEncoder` is held to that promise, too.

    Args:
        factory: ``factory(bands)`` builds the encoder for a number of bands, or for a mapping sensor name ->
            number of bands.
        size: Side of the square test images in pixels; by default twice the coarsest stride.
        tolerance: Largest difference allowed where results must be equal up to rounding.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    for bands in (1, 3, 13):
        encoder = factory(bands).eval()
        _check_attributes(encoder)
        strides: tuple[int, ...] = encoder.strides  # type: ignore[assignment]
        side = size or 2 * max(strides)
        for height, width in ((side, side), (side, 2 * side)):
            _check_features(encoder, bands, height, width)
    encoder = factory(3).eval()
    _check_single_equals_batch(encoder, 3, side, tolerance)
    _check_gsd_matters_by_sample(encoder, 3, side, tolerance)
    _check_no_hidden_state(encoder, 3, side)
    _check_gradients(factory(3), 3, side)
    _check_autocast(encoder, 3, side)
    _check_save_and_load(factory, 3, side)
    _check_sensors(factory, side)
    if isinstance(encoder, MaskableEncoder):
        _check_masked(encoder, 3, side, tolerance)


def check_pyramid(
    encoder: nn.Module, bands: int, sensor: str | None = None, *, tolerance: float = 1e-5
) -> None:
    """Run the promise of `swath.encoders.pyramid.build_pyramid` on an encoder.

    Args:
        encoder: The encoder.
        bands: Of the images that it takes.
        sensor: Whose images those are, for an encoder of several sensors.
        tolerance: Largest difference allowed where results must be equal up to rounding.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    maps_of = build_pyramid(encoder, sensor).eval()
    assert maps_of.strides == (4, 8, 16, 32), f"strides are {maps_of.strides}"
    for height, width in ((64, 64), (96, 64), (33, 70), (5, 41)):
        images, gsd = _images(bands, height, width)
        with torch.no_grad():
            maps = maps_of(images, gsd, sensor)
            alone = maps_of(images[:1], gsd[:1], sensor)
        what = f"for {height} x {width} pixels"
        assert len(maps) == len(maps_of.channels) == 4, f"{len(maps)} maps {what}"
        for one, first, stride, channels in zip(maps, alone, maps_of.strides, maps_of.channels, strict=True):
            expected = (len(images), channels, -(-height // stride), -(-width // stride))
            assert one.shape == expected, f"a map is {tuple(one.shape)}, not {expected}, {what}"
            assert one.isfinite().all(), f"a map is not finite {what}"
            assert (one[:1] - first).abs().max() <= tolerance, f"maps depend on the rest of the batch {what}"
    images, gsd = _images(bands, 64, 96)
    maps = maps_of.train()(images, gsd, sensor)
    torch.autograd.backward([one.square().sum() for one in maps])
    own = [name for name, p in maps_of.levels.named_parameters() if p.grad is None]
    assert not own, f"parameters of the pyramid that nothing depends on: {', '.join(own)}"


def _images(bands: int, height: int, width: int, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(bands * 1000 + width)
    images = torch.randn(count, bands, height, width, generator=generator)
    return images, torch.tensor([0.3, 1.0, 10.0, 30.0])[:count]


def _check_attributes(encoder: nn.Module) -> None:
    assert isinstance(encoder, Encoder), (
        "it lacks an attribute of the protocol: embed_dim, strides or channels"
    )
    assert isinstance(encoder, nn.Module), "it is not a torch.nn.Module"
    assert len(encoder.strides) == len(encoder.channels) > 0, "strides and channels describe the same maps"
    assert list(encoder.strides) == sorted(encoder.strides), "strides go from fine to coarse"


def _check_features(encoder: nn.Module, bands: int, height: int, width: int) -> None:
    images, gsd = _images(bands, height, width)
    with torch.no_grad():
        features: EncoderFeatures = encoder(images, gsd)
    dim = encoder.embed_dim
    what = f"for {bands} bands, {height} x {width} pixels"
    assert features.pooled.shape == (3, dim), f"pooled is {tuple(features.pooled.shape)} {what}"
    assert len(features.maps) == len(encoder.strides), f"one map for each stride, {what}"  # type: ignore[arg-type]
    for one, stride, channels in zip(features.maps, encoder.strides, encoder.channels, strict=True):  # type: ignore[arg-type]
        expected = (3, channels, height // stride, width // stride)
        assert one.shape == expected, f"a map is {tuple(one.shape)}, not {expected}, {what}"
    if features.tokens is not None:
        coarse = features.maps[-1]
        assert features.tokens.shape[:2] == (3, coarse.shape[2] * coarse.shape[3]), f"token count {what}"
    if features.cls is not None:
        assert features.cls.shape == (3, dim), f"cls is {tuple(features.cls.shape)} {what}"
    for value in (features.pooled, *features.maps):
        assert torch.isfinite(value).all(), f"a feature is not finite {what}"


def _check_single_equals_batch(encoder: nn.Module, bands: int, side: int, tolerance: float) -> None:
    images, gsd = _images(bands, side, side)
    with torch.no_grad():
        together = encoder(images, gsd).pooled
        alone = torch.cat([encoder(images[i : i + 1], gsd[i : i + 1]).pooled for i in range(len(images))])
    assert (together - alone).abs().max() <= tolerance, (
        "an image's embedding depends on what else is in the batch (GSDs must be used sample by sample)"
    )


def _check_gsd_matters_by_sample(encoder: nn.Module, bands: int, side: int, tolerance: float) -> None:
    """An encoder may ignore GSD (a CNN); but a change of one sample's must not move another's embedding."""
    images, gsd = _images(bands, side, side)
    other = gsd.clone()
    other[0] *= 3
    with torch.no_grad():
        before, after = encoder(images, gsd).pooled, encoder(images, other).pooled
    assert (before[1:] - after[1:]).abs().max() <= tolerance, "one sample's GSD changes another's embedding"
    with torch.no_grad():
        doubled = encoder(images, gsd.double()).pooled
    assert (before - doubled).abs().max() <= tolerance, "a float64 GSD must give the same embedding"


def _check_no_hidden_state(encoder: nn.Module, bands: int, side: int) -> None:
    images, gsd = _images(bands, side, side)
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = encoder(images, gsd).pooled, encoder(images, gsd).pooled
    assert torch.equal(first, second), "two evaluations of one batch differ"
    assert torch.equal(torch.get_rng_state(), state), "evaluation draws from the global random generator"


def _check_gradients(encoder: nn.Module, bands: int, side: int) -> None:
    images, gsd = _images(bands, side, side)
    features = encoder.train()(images, gsd)
    loss = features.pooled.square().sum() + sum(one.square().sum() for one in features.maps)
    if features.cls is not None:
        loss = loss + features.cls.square().sum()
    loss.backward()
    without = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"parameters that nothing depends on: {', '.join(without)}"
    broken = [
        name for name, p in encoder.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
    ]
    assert not broken, f"gradients that are not finite: {', '.join(broken)}"


def _check_autocast(encoder: nn.Module, bands: int, side: int) -> None:
    images, gsd = _images(bands, side, side)
    with torch.no_grad():
        exact = encoder(images, gsd).pooled
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encoder(images, gsd).pooled.float()
    assert rough.isfinite().all(), "bf16 autocast gives values that are not finite"
    error = (rough - exact).norm() / exact.norm()
    assert error < 0.05, f"bf16 autocast is off by {error:.0%}; keep positions and norms in float32"


def _check_save_and_load(factory: Factory, bands: int, side: int) -> None:
    images, gsd = _images(bands, side, side)
    one, other = factory(bands).eval(), factory(bands).eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(images, gsd).pooled, other(images, gsd).pooled), (
            "an encoder with the same state dict gives other embeddings: something lives outside it"
        )


def _check_sensors(factory: Factory, side: int) -> None:
    encoder = factory({"first": 2, "second": 5}).eval()
    for sensor, bands in (("first", 2), ("second", 5)):
        images, gsd = _images(bands, side, side)
        with torch.no_grad():
            assert encoder(images, gsd, sensor).pooled.shape == (3, encoder.embed_dim)
    images, gsd = _images(2, side, side)
    for wrong in (None, "third"):
        message = _refusal(encoder, images, gsd, wrong)
        assert message is not None, f"sensor {wrong!r} was accepted by an encoder that does not know it"
        assert message, "refusing a sensor needs a message"


def _refusal(encoder: nn.Module, images: Tensor, gsd: Tensor, sensor: str | None) -> str | None:
    """What the encoder says against a sensor; None if it accepts it."""
    try:
        encoder(images, gsd, sensor)
    except Exception as error:  # which exception is the encoder's choice; silence is not
        return str(error)
    return None


def _check_masked(encoder: MaskableEncoder, bands: int, side: int, tolerance: float) -> None:
    images, gsd = _images(bands, side, 2 * side)
    count, cell = len(images), encoder.mask_stride
    assert side % cell == 0, f"mask_stride {cell} does not divide the coarsest stride"
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(count, side // cell, 2 * side // cell, generator=generator) < 0.6
    token = torch.randn(encoder.mask_token_shape, generator=generator)

    def features(**changed: Tensor | bool) -> list[Tensor]:
        given = {"token": token, "mask": mask} | changed
        result = encoder.masked(images, gsd, **given)  # type: ignore[arg-type]
        return [result.pooled, *result.maps]

    def equal(one: list[Tensor], other: list[Tensor]) -> bool:
        return all((a - b).abs().max() <= tolerance for a, b in zip(one, other, strict=True))

    with torch.no_grad():
        result = encoder(images, gsd)
        plain, marked = [result.pooled, *result.maps], features()
        for replace in (False, True):
            nothing = features(mask=torch.zeros_like(mask), replace=replace)
            assert equal(plain, nothing), "a mask that hides nothing must give the plain features"
        assert equal(plain, features(token=torch.zeros_like(token))), (
            "a zero token, added, must change nothing"
        )
        assert not equal(plain, marked), "the token has no effect"
        for dtype in (torch.float32, torch.uint8, torch.int64):
            assert equal(marked, features(mask=mask.to(dtype))), (
                f"a mask of {dtype} differs from a boolean one"
            )
        one = mask.clone()
        one[1:] = False
        apart = all(
            (a[1:] - b[1:]).abs().max() <= tolerance and not torch.equal(a[:1], b[:1])
            for a, b in zip(plain, features(mask=one), strict=True)
        )
        assert apart, "one sample's mask changes another's features"
        images_before, full = images, torch.ones_like(mask)
        hidden = features(mask=full, replace=True)
        images = images.flip(-1) + 1
        assert equal(hidden, features(mask=full, replace=True)), "pixels show through where all is replaced"
        images = images_before
        for wrong in (mask[:, :-1], mask[:-1]):
            try:
                features(mask=wrong)
            except ValueError:
                continue
            raise AssertionError(
                f"a mask of {tuple(wrong.shape)} was accepted for {tuple(images.shape)} images"
            )
    for replace in (False, True):
        learned = token.clone().requires_grad_()
        maps = encoder.masked(images, gsd, token=learned, mask=mask, replace=replace).maps
        torch.autograd.backward([one.square().sum() for one in maps])
        assert learned.grad is not None, "the token gets no gradient"
        assert learned.grad.isfinite().all(), "the token's gradient is not finite"
        assert learned.grad.abs().max() > 0, "the token's gradient is zero"
