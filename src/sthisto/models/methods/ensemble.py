"""The same method fitted from several seeds, and the mean of what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sthisto._utils.arguments import checked
from sthisto._utils.checks import mapping
from sthisto._utils.validate import check_choice
from sthisto.models.base import ExpressionModel
from sthisto.models.combined import CombinedModel, Member
from sthisto.models.options import MethodOptions
from sthisto.models.registry import METHODS


@dataclass(frozen=True)
class EnsembleOptions(MethodOptions):
    """Options of `Ensemble`.

    Parameters
    ----------
    member
        Name of the method; one that is trained from a seed.
    n_models
        How many of it, from consecutive seeds.
    options
        Options of the method.
    """

    member: str = "danet"
    n_models: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        trained = [name for name, cls in METHODS.items() if cls.has_epochs and not cls.combines_models]
        check_choice(self.member, trained, name="method, where n_models is given,")
        if self.n_models < 2:
            msg = f"`n_models` must be at least 2, found {self.n_models}. Leave it out for a single model."
            raise ValueError(msg)
        METHODS[self.member].make_options(self.options)


class Ensemble(CombinedModel):
    """Several models of one method from consecutive seeds: ``tl.fit(sdata, n_models=5)``.

    Embeddings are those of the first model. The spread of a prediction holds what the models disagree on.
    """

    method = "ensemble"
    label = "Ensemble"
    Options = EnsembleOptions

    @classmethod
    def needs_patches(cls, options: Any) -> bool:
        """Return whether the members look at patches."""
        from sthisto.models import METHODS

        member = METHODS[options.member]
        return member.needs_patches(member.make_options(options.options))

    def _plan(self) -> Sequence[Member]:
        n_models = self.options.n_models
        return [Member(self.options.member, self.options.options, 1 / n_models)] * n_models


@checked(options=mapping("a mapping of options"))
def resolve_method(method: str, options: Mapping[str, Any]) -> tuple[type[ExpressionModel], Any]:
    """Return what a method and its options stand for: its class, or an ensemble of it.

    Parameters
    ----------
    method
        A name in `METHODS`.
    options
        Options of the method; "n_models" asks for an ensemble of a method that is a single model.

    Returns
    -------
    The class and its checked options.
    """
    check_choice(method, METHODS, name="method")
    cls = METHODS[method]
    if "n_models" not in options or cls.combines_models or "n_models" in cls.option_names():
        return cls, cls.make_options(options)
    rest = {name: value for name, value in options.items() if name != "n_models"}
    ensemble = {"member": cls.method, "n_models": options["n_models"], "options": rest}
    return Ensemble, Ensemble.make_options(ensemble)
