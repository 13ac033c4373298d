"""What test_distributed.py runs under torchrun: `torchrun ... two_processes.py IMAGES OUT RECIPES`.

RECIPES is a JSON list of [name, recipe, start]; each is trained in turn by the processes together.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from helpers import toy_objective  # noqa: F401 - registers the toy method
from swath.training.config.recipe import parse_recipe
from swath.training.pretraining import pretrain
from swath.training.signals import TrainingInterrupted

if __name__ == "__main__":
    torch.set_num_threads(1)
    images, out, recipes = sys.argv[1:]
    torch.distributed.init_process_group("gloo")
    for name, recipe, start in json.loads(recipes):
        try:
            pretrain(parse_recipe(recipe), images, Path(out) / name, start=start)
        except TrainingInterrupted as stop:
            print(f"{name}: rank {os.environ['RANK']} stopped after step {stop.step}", flush=True)
    torch.distributed.destroy_process_group()
