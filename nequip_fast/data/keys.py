"""Names of the tensors in a graph dictionary: nequip's own (``nequip.data.AtomicDataDict``).

N atoms, E directed edges, B structures in the batch; lengths in Å, energies in eV.
"""

from typing import Final

# inputs
POSITIONS: Final = "pos"  # [N, 3] float64
ATOM_TYPES: Final = "atom_types"  # [N] int64, index into the model's type_names
EDGE_INDEX: Final = "edge_index"  # [2, E] int64, row 0 the centre (receiver) i, row 1 the neighbour (sender) j
EDGE_CELL_SHIFT: Final = "edge_cell_shift"  # [E, 3] float64, r_ij = pos[j] - pos[i] + shift @ cell
CELL: Final = "cell"  # [B, 3, 3] float64, rows are lattice vectors
PBC: Final = "pbc"  # [B, 3] bool
BATCH: Final = "batch"  # [N] int64, the structure each atom belongs to
NUM_ATOMS: Final = "num_atoms"  # [B] int64
ATOMIC_NUMBERS: Final = "atomic_numbers"  # [N] int64

# outputs and reference values
TOTAL_ENERGY: Final = "total_energy"  # [B, 1]
ATOMIC_ENERGY: Final = "atomic_energy"  # [N, 1]
FORCES: Final = "forces"  # [N, 3]
STRESS: Final = "stress"  # [B, 3, 3], eV/Å³, positive under tension
VIRIAL: Final = "virial"  # [B, 3, 3], eV, -dE/dstrain
