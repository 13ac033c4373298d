"""Training: recipes, the engine, checkpoints, and what watches over a run."""
