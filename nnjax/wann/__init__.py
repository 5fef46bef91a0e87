"""Weight-agnostic network search: topologies that work with any one weight for all connections (Gaier and Ha, 2019)."""

from nnjax.wann.champion import Champion, from_csv, from_json, load_champion, read_champion, to_json
from nnjax.wann.course import SHARED_WEIGHTS, Config, History, State
from nnjax.wann.edges import EdgeGenome
from nnjax.wann.evaluation import Trajectory, evaluate, returns, trajectory
from nnjax.wann.function import Exported, as_function
from nnjax.wann.genome import (
    Genome,
    Space,
    alive,
    check,
    connection_count,
    forward,
    from_dense,
    layers,
    minimal,
    node_count,
    resize,
    to_dense,
)
from nnjax.wann.search import search
from nnjax.wann.selection import Info, Selection, crowding, fronts, next_generation, order
from nnjax.wann.tuning import (
    accuracies,
    choose_champion,
    ensemble_accuracy,
    fixed_topology,
    four_columns,
    train_weights,
    tune_shared,
)
from nnjax.wann.variation import Rates, mutate, mutate_population

__all__ = [
    "SHARED_WEIGHTS",
    "Champion",
    "Config",
    "EdgeGenome",
    "Exported",
    "Genome",
    "History",
    "Info",
    "Rates",
    "Selection",
    "Space",
    "State",
    "Trajectory",
    "accuracies",
    "alive",
    "as_function",
    "check",
    "choose_champion",
    "connection_count",
    "crowding",
    "ensemble_accuracy",
    "evaluate",
    "fixed_topology",
    "forward",
    "four_columns",
    "from_csv",
    "from_dense",
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
    "to_dense",
    "to_json",
    "train_weights",
    "trajectory",
    "tune_shared",
]
