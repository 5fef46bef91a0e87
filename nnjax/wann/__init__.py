"""Weight-agnostic network search: topologies that work with any one weight for all connections (Gaier and Ha, 2019)."""

from nnjax.wann.champion import Champion, from_csv, from_json, load_champion, read_champion, to_json
from nnjax.wann.course import SHARED_WEIGHTS, Config, History, State
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import Trajectory, evaluate, returns, trajectory
from nnjax.wann.genome import (
    Genome,
    Space,
    alive,
    check,
    connection_count,
    forward,
    layers,
    minimal,
    node_count,
    resize,
)
from nnjax.wann.search import search
from nnjax.wann.selection import Info, Selection, crowding, fronts, next_generation, order
from nnjax.wann.variation import Rates, mutate, mutate_population

__all__ = [
    "SHARED_WEIGHTS",
    "Champion",
    "Config",
    "EdgeGenome",
    "Genome",
    "History",
    "Info",
    "Rates",
    "Selection",
    "Space",
    "State",
    "Trajectory",
    "alive",
    "check",
    "connection_count",
    "crowding",
    "evaluate",
    "forward",
    "from_csv",
    "from_json",
    "fronts",
    "layers",
    "load_champion",
    "minimal",
    "mutate",
    "mutate_population",
    "next_generation",
    "node_count",
    "order",
    "read_champion",
    "resize",
    "returns",
    "search",
    "to_json",
    "trajectory",
]
