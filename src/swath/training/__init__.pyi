from .config.recipe import PretrainRecipe as PretrainRecipe
from .config.recipe import load_recipe as load_recipe
from .engine import Trainer as Trainer
from .pretraining import pretrain as pretrain
from .run_directory import RunDirectory as RunDirectory
from .signals import TrainingInterrupted as TrainingInterrupted

__all__ = [
    "PretrainRecipe",
    "RunDirectory",
    "Trainer",
    "TrainingInterrupted",
    "load_recipe",
    "pretrain",
]
