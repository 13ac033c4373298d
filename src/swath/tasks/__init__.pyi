from .finetuning import finetune as finetune
from .model import TaskModel as TaskModel
from .protocol import Task as Task
from .protocol import TaskConfig as TaskConfig
from .protocol import register_task as register_task
from .recipe import FinetuneRecipe as FinetuneRecipe
from .recipe import load_finetune_recipe as load_finetune_recipe
from .scores import TaskScores as TaskScores
from .splits import DataSplits as DataSplits

__all__ = [
    "DataSplits",
    "FinetuneRecipe",
    "Task",
    "TaskConfig",
    "TaskModel",
    "TaskScores",
    "finetune",
    "load_finetune_recipe",
    "register_task",
]
