"""Modules of another library made ours, in place."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from nequip_fast.errors import InputError


class Adoptable:
    """A module class that can take over live modules of the class it replaces.

    The object stays, for parents, hooks, optimizers and whoever else holds it, with its parameters, buffers, submodules
    and state dict. Only the code that runs is another; constants that it needs may join the buffers that are not saved.

    Attributes:
        parts_in_use: submodules that this code still calls; the others remain for the state dict.
    """

    parts_in_use: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def adopt(cls, module: nn.Module) -> None:
        """Make ``module`` one of this class.

        Raises:
            InputError: it has something that this class does not do, or lacks something; it is left as it was.
        """
        original, attributes = type(module), dict(vars(module))
        try:
            module.__class__ = cls  # type: ignore[assignment]
            module._prepare()  # type: ignore[operator]
            module._compare(original)  # type: ignore[operator]
        except Exception as error:
            module.__class__ = original
            vars(module).clear()
            vars(module).update(attributes)
            if isinstance(error, InputError):
                raise
            # of this name, but another thing: whatever then fails
            raise InputError(f"it is not what its name says ({type(error).__name__}: {error})") from None

    def _prepare(self) -> None:
        """What the code of this class needs, from the attributes that the replaced class has."""
        raise NotImplementedError

    def _compare(self, original: type[nn.Module]) -> None:
        """Refuse a module whose own code, in another version of its package, computes something else.

        Raises:
            InputError: it does.
        """
