"""CPU time of photometric changes of batches as training has them."""

from __future__ import annotations

import statistics
import time

import torch

from swath.augmentations.photometric import make_photometric
from swath.augmentations.photometric_options import PhotometricStrengths
from swath.keyed_random import sample_keys
from swath.sensors.registry import get_sensor

# sensor, option, samples, side of the images in pixels
CASES = [
    ("rgb_aerial", "auto", 64, 96),
    ("rgb_aerial", "auto", 16, 224),
    ("rgb_aerial", "paper", 16, 224),
    ("sentinel2_l2a", "auto", 64, 96),
    ("sentinel2_l2a", PhotometricStrengths(blur=1.0), 64, 96),
    ("sentinel2_l2a", PhotometricStrengths(noise=0.05), 64, 96),
    ("sentinel1_grd", "auto", 64, 96),
]

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, option, count, side in CASES:
        sensor = get_sensor(name)
        batch = {
            "image": torch.randn(count, len(sensor.bands), side, side),
            "valid": torch.ones(count, side, side, dtype=torch.bool),
            "key": sample_keys(0, 0, torch.arange(count)),
        }
        change = make_photometric(option, sensor)
        spent = []
        for _ in range(6):
            start = time.process_time()
            change(batch, "benchmark")
            spent.append((time.process_time() - start) / count * 1000)
        shown = option if isinstance(option, str) else ", ".join(option.requested())
        print(
            f"{name:14} {shown:6} {len(sensor.bands):2} bands, {side:3} px: "
            f"{statistics.median(spent[1:]):5.2f} ms an image"
        )
