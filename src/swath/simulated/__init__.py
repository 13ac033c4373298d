"""Simulated scenes with labels: drawn by code, documented as simulated, never evidence for a claim.

Two simulators. `aerial` draws RGB scenes of one class each, with natural sizes in metres. The others make
landscapes (`landscape`: fields, woods, water, towns, with labels, mask and boxes) that any sensor can look at
(`optical`, `radar`, `sensing`), alone, in pairs (`pairs`) or at two dates (`change`); `writing` puts them
into files.
"""

from swath.simulated.aerial import KINDS, SimulatedScene, simulate_scene, write_simulated
from swath.simulated.change import CHANGES, SimulatedChange, simulate_change
from swath.simulated.landscape.rasterize import Landscape, simulate_landscape
from swath.simulated.landscape.surfaces import CLASSES
from swath.simulated.pairs import SimulatedPairs
from swath.simulated.sensing import SENSORS, render, simulate_pair

__all__ = [
    "CHANGES",
    "CLASSES",
    "KINDS",
    "SENSORS",
    "Landscape",
    "SimulatedChange",
    "SimulatedPairs",
    "SimulatedScene",
    "render",
    "simulate_change",
    "simulate_landscape",
    "simulate_pair",
    "simulate_scene",
    "write_simulated",
]
