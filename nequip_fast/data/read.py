"""Structures with reference values from any file ASE reads; extended XYZ first of all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nequip_fast.data.neighbors import MIN_DISTANCE, overlapping_pair
from nequip_fast.errors import InputError, nearest, require

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(
    path: str | os.PathLike[str],
    *,
    energy_key: str = "energy",
    forces_key: str = "forces",
    stress_key: str = "stress",
    index: str = ":",
    require_labels: bool = True,
) -> list[Atoms]:
    """Read structures and hang their reference values on a single-point calculator, whatever the file calls them.

    Args:
        path: a file in a format ASE knows.
        energy_key: name of the energy (eV) in the comment line or calculator.
        forces_key: name of the forces (eV/Å) among the columns.
        stress_key: name of the stress (eV/Å³, positive under tension), as 3x3 matrix or xx yy zz yz xz xy. A structure
            may lack it; but a key other than the usual one must occur somewhere.
        index: which structures, as in ASE: ":", "-1", "::10", ...
        require_labels: energy and forces are needed of every structure.

    Returns:
        The structures in file order, each with a ``SinglePointCalculator`` if it has any of the three.

    Raises:
        InputError: no such file, an empty or damaged one, labels that are missing or misshapen, values that are not
            finite, two atoms at the same place; the message names file and structure, counted from 0 among those read.
    """
    frames = _read(path, index)
    single_point = require("ase.calculators.singlepoint", "md").SinglePointCalculator
    any_stress = False
    for number, atoms in enumerate(frames):
        where = f"{path}: structure {number}"
        _check_geometry(atoms, where)
        results = {} if atoms.calc is None else dict(atoms.calc.results)
        per_structure, per_atom = {**atoms.info, **results}, {**atoms.arrays, **results}
        labels: dict[str, Any] = {}
        if energy_key in per_structure:
            labels["energy"] = float(_finite(per_structure[energy_key], (), where, "energy", energy_key))
        elif require_labels:
            raise InputError(_missing(where, "energy", energy_key, _energy_like(per_structure)))
        if forces_key in per_atom:
            labels["forces"] = _finite(per_atom[forces_key], (len(atoms), 3), where, "forces", forces_key)
        elif require_labels:
            raise InputError(_missing(where, "forces", forces_key, _forces_like(per_atom, len(atoms))))
        if stress_key in per_structure:
            labels["stress"] = _voigt(per_structure[stress_key], where, stress_key)
            any_stress = True
        atoms.calc = single_point(atoms, **labels) if labels else None
    if stress_key != "stress" and not any_stress:
        raise InputError(f"{path}: no structure has a stress under {stress_key!r}; correct stress_key or leave it out")
    return frames


def _read(path: str | os.PathLike[str], index: str) -> list[Atoms]:
    io = require("ase.io", "md")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; it should hold structures, for instance as extended XYZ")
    try:
        frames = io.read(path, index=index, do_not_split_by_at_sign=True)
    except Exception as error:  # each format of ASE fails with exceptions of its own
        reason = _xyz_damage(path) or f"ASE cannot read it ({type(error).__name__}: {error})"
        raise InputError(f"{path}: {reason}") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise InputError(f"{path}: no structures at index {index!r}; check the file and the index")
    return frames


def _xyz_damage(path: str | os.PathLike[str]) -> str:
    """What is wrong with the first damaged structure of an (extended) XYZ file; "" for other files."""
    if not str(path).endswith((".xyz", ".extxyz")):
        return ""
    lines = Path(path).read_text(errors="replace").splitlines()
    start, number = 0, 0
    while start < len(lines) and lines[start].strip():
        if not lines[start].strip().isdigit():
            return f"line {start + 1} should be the number of atoms of structure {number}, but is {lines[start][:60]!r}"
        count = int(lines[start])
        atoms = lines[start + 2 : start + 2 + count]
        columns = len(atoms[0].split()) if atoms else 0
        if len(atoms) < count or len(atoms[-1].split()) < columns:
            return (
                f"structure {number} (line {start + 1}) is cut short: it announces {count} atoms and the file ends at "
                f"line {len(lines)}; remove this structure or copy the file again"
            )
        start, number = start + 2 + count, number + 1
    return ""


def _check_geometry(atoms: Atoms, where: str) -> None:
    if len(atoms) == 0:
        raise InputError(f"{where} has no atoms; remove it")
    _finite(atoms.positions, (len(atoms), 3), where, "positions", "positions")
    try:
        pair = overlapping_pair(atoms.positions, np.array(atoms.cell), atoms.pbc)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if pair:
        raise InputError(
            f"{where}: atoms {pair[0]} and {pair[1]} are at the same place (closer than {MIN_DISTANCE} Å); remove one"
        )


def _finite(value: Any, shape: tuple[int, ...], where: str, what: str, key: str) -> NDArray[np.float64]:
    """``value`` as an array of this shape without NaN and infinity."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}: the {what} under {key!r} is not numeric: {str(value)[:60]!r}") from None
    if array.shape != shape:
        raise InputError(f"{where}: {what} under {key!r} has shape {array.shape}; it should be {shape}")
    if not np.isfinite(array).all():
        at = f" of atom {int(np.argwhere(~np.isfinite(array))[0][0])}" if shape and shape[0] == len(array) else ""
        raise InputError(f"{where}: {what} under {key!r}{at} is not a finite number; remove or mend this structure")
    return array


def _voigt(value: Any, where: str, key: str) -> NDArray[np.float64]:
    """Stress as xx yy zz yz xz xy from that, from nine numbers or from a matrix."""
    array = np.asarray(value)
    if array.size == 9:
        matrix = _finite(array.reshape(3, 3), (3, 3), where, "stress", key)
        if not np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6):
            raise InputError(f"{where}: the stress under {key!r} is not symmetric; it should be in eV/Å³, xx xy xz ...")
        array = (0.5 * (matrix + matrix.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return _finite(array, (6,), where, "stress", key)


def _missing(where: str, what: str, key: str, found: list[str]) -> str:
    listed = f"it has {', '.join(map(repr, found))}" if found else f"it has nothing that could be {what}"
    return f"{where} has no {what} under {key!r}: {listed}; set {what}_key{nearest(key, found)}"


def _energy_like(values: dict[str, Any]) -> list[str]:
    return sorted(key for key, value in values.items() if np.ndim(value) == 0 and isinstance(value, (int, float)))


def _forces_like(values: dict[str, Any], num_atoms: int) -> list[str]:
    return sorted(key for key, value in values.items() if np.shape(value) == (num_atoms, 3) and key != "positions")
