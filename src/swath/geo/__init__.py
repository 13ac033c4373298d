"""Where on the Earth, and how large a pixel: CRS, grids, footprints, areas."""
