from .detection.data.dataset import DetectionDataset as DetectionDataset
from .detection.data.dataset import collate_detections as collate_detections
from .detection.detectors.oriented_rcnn import OrientedRCNN as OrientedRCNN
from .detection.rotated_boxes import min_area_rect as min_area_rect
from .detection.rotated_boxes import rotated_iou as rotated_iou
from .detection.rotated_boxes import rotated_nms as rotated_nms
from .detection.tiled_inference import detect_in_tiles as detect_in_tiles
from .detection.tiled_inference import merge_tiles as merge_tiles
from .detection.tiled_inference import tile_plan as tile_plan
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
    "DetectionDataset",
    "FinetuneRecipe",
    "OrientedRCNN",
    "Task",
    "TaskConfig",
    "TaskModel",
    "TaskScores",
    "collate_detections",
    "detect_in_tiles",
    "finetune",
    "load_finetune_recipe",
    "merge_tiles",
    "min_area_rect",
    "register_task",
    "rotated_iou",
    "rotated_nms",
    "tile_plan",
]
