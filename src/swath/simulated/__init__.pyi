from .aerial import KINDS as KINDS
from .aerial import SimulatedScene as SimulatedScene
from .aerial import simulate_scene as simulate_scene
from .aerial import write_simulated as write_simulated
from .change import CHANGES as CHANGES
from .change import SimulatedChange as SimulatedChange
from .change import simulate_change as simulate_change
from .landscape.rasterize import Landscape as Landscape
from .landscape.rasterize import simulate_landscape as simulate_landscape
from .landscape.surfaces import CLASSES as CLASSES
from .pairs import SimulatedPairs as SimulatedPairs
from .sensing import SENSORS as SENSORS
from .sensing import render as render
from .sensing import simulate_pair as simulate_pair
from .writing import write_simulated_change as write_simulated_change
from .writing import write_simulated_pairs as write_simulated_pairs

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
    "write_simulated_change",
    "write_simulated_pairs",
]
