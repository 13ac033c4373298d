"""Images with boxes: annotations, tiles, splits, augmentation."""
