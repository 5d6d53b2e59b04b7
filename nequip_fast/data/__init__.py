"""Structures in, graphs out: readers, neighbour lists, batching, statistics.

Importing this needs neither ase nor vesin; the functions that do say how to install them.
"""

from nequip_fast.data.batch import collate, groups
from nequip_fast.data.dataset import AtomsDataset, split_indices
from nequip_fast.data.device_neighbors import verlet_list
from nequip_fast.data.graph import graph_from_atoms
from nequip_fast.data.neighbors import VerletList, neighbor_list
from nequip_fast.data.read import read_structures
from nequip_fast.data.statistics import DatasetStatistics, statistics

__all__ = [
    "AtomsDataset",
    "DatasetStatistics",
    "VerletList",
    "collate",
    "graph_from_atoms",
    "groups",
    "neighbor_list",
    "read_structures",
    "split_indices",
    "statistics",
    "verlet_list",
]
