"""Detection: boxes, their data and measures, detectors on any encoder, and the task that trains them."""
