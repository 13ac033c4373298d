"""BigEarthNet as published: patches of Sentinel-1 and Sentinel-2, labels and splits."""
