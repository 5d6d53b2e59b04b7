"""Drop-ins for names of ``e3nn.o3``: same arguments, conventions and results, on fast kernels."""

from nequip_fast.o3.spherical_harmonics import SphericalHarmonics, spherical_harmonics

__all__ = ["SphericalHarmonics", "spherical_harmonics"]
