"""Write the Clebsch-Gordan tables of the kernels as a C++ header (run by CMake; standard library only).

Values are e3nn's ``wigner_3j``: Racah's formula (e.g. Varshalovich, Quantum Theory of Angular Momentum,
§8.2.1) in exact fractions, brought to the basis of real spherical harmonics, norm 1.

    python generate.py L_MAX OUTPUT
"""

import sys
from fractions import Fraction
from math import factorial, sqrt
from pathlib import Path


def clebsch_gordan(j1: int, m1: int, j2: int, m2: int, j3: int, m3: int) -> float:
    """⟨j1 m1 j2 m2 | j3 m3⟩ in the complex basis, Condon-Shortley convention."""
    if m3 != m1 + m2:
        return 0.0
    lowest = max(-j1 + j2 + m3, -j1 + m1, 0)
    highest = min(j2 + j3 + m1, j3 - j1 + j2, j3 + m3)
    prefactor = Fraction(
        (2 * j3 + 1) * factorial(j3 + j1 - j2) * factorial(j3 - j1 + j2) * factorial(j1 + j2 - j3)
        * factorial(j3 + m3) * factorial(j3 - m3),
        factorial(j1 + j2 + j3 + 1) * factorial(j1 - m1) * factorial(j1 + m1) * factorial(j2 - m2) * factorial(j2 + m2),
    )  # fmt: skip
    total = sum(
        Fraction(
            (-1) ** (v + j2 + m2) * factorial(j2 + j3 + m1 - v) * factorial(j1 - m1 + v),
            factorial(v) * factorial(j3 - j1 + j2 - v) * factorial(j3 + m3 - v) * factorial(v + j1 - j2 - m3),
        )
        for v in range(lowest, highest + 1)
    )
    return sqrt(prefactor) * float(total)


def real_to_complex(l: int) -> dict[tuple[int, int], complex]:
    """Nonzero entries (complex m, real m) of the change of basis; (−i)^l makes all couplings real."""
    phase, half = (-1j) ** l, 1 / sqrt(2)
    entries: dict[tuple[int, int], complex] = {(0, 0): phase}
    for m in range(1, l + 1):
        entries[-m, m], entries[-m, -m] = phase * half, phase * -1j * half
        entries[m, m], entries[m, -m] = phase * (-1) ** m * half, phase * 1j * (-1) ** m * half
    return entries


def wigner_3j(l1: int, l2: int, l3: int) -> list[tuple[int, int, int, float]]:
    """Nonzero (m1, m2, m3, value) with m counted from 0, sorted by (m1, m3, m2)."""
    q1, q2, q3 = real_to_complex(l1), real_to_complex(l2), real_to_complex(l3)
    real: dict[tuple[int, int, int], complex] = {}
    for (c1, r1), a in q1.items():
        for (c2, r2), b in q2.items():
            coupling = clebsch_gordan(l1, c1, l2, c2, l3, c1 + c2) if abs(c1 + c2) <= l3 else 0.0
            for (c3, r3), c in q3.items():
                if c3 == c1 + c2 and coupling:
                    key = r1 + l1, r3 + l3, r2 + l2
                    real[key] = real.get(key, 0) + a * b * c.conjugate() * coupling
    assert all(abs(value.imag) < 1e-12 for value in real.values())
    norm = sqrt(sum(value.real**2 for value in real.values()))
    kept = sorted((key, value.real / norm) for key, value in real.items() if abs(value) > 1e-12)
    return [(m1, m2, m3, value) for (m1, m3, m2), value in kept]


def header(l_max: int) -> str:
    """The header: one struct ``Cg<l1, l2, l3>`` a triple that satisfies the triangle rule."""
    lines = [
        "// Written by csrc/cg/generate.py: real Clebsch-Gordan coefficients, terms sorted by (m1, m3, m2).",
        "#pragma once",
        "namespace nf {",
        f"inline constexpr int kMaxL = {l_max};",
        "template <int l1, int l2, int l3> struct Cg { static constexpr int count = 0; };",
    ]
    for l1 in range(l_max + 1):
        for l2 in range(l_max + 1):
            for l3 in range(abs(l1 - l2), min(l1 + l2, l_max) + 1):
                m1, m2, m3, values = zip(*wigner_3j(l1, l2, l3), strict=True)
                lines += [f"template <> struct Cg<{l1}, {l2}, {l3}> {{", f"  static constexpr int count = {len(m1)};"]
                for name, column in (("m1", m1), ("m2", m2), ("m3", m3)):
                    lines.append(f"  static constexpr int {name}[] = {{{', '.join(map(str, column))}}};")
                lines.append(f"  static constexpr double value[] = {{{', '.join(f'{v:.17g}' for v in values)}}};\n}};")
    return "\n".join([*lines, "}  // namespace nf", ""])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(header(int(sys.argv[1])))
