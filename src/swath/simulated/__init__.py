"""Simulated scenes with labels: drawn by code, documented as simulated, never evidence for a claim.

`aerial` draws single-class RGB scenes with natural sizes in metres.
"""

from swath.simulated.aerial import KINDS, SimulatedScene, simulate_scene, write_simulated

__all__ = ["KINDS", "SimulatedScene", "simulate_scene", "write_simulated"]
