from .geometric import paired_random_crop as paired_random_crop
from .geometric import random_flip_rotate as random_flip_rotate
from .geometric import random_resized_crop as random_resized_crop
from .geometric import resize_images as resize_images
from .photometric import make_photometric as make_photometric

__all__ = [
    "make_photometric",
    "paired_random_crop",
    "random_flip_rotate",
    "random_resized_crop",
    "resize_images",
]
