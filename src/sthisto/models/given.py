"""The model that a user passes: fitted in this session, or the path of a saved one."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sthisto._utils.checks import shown
from sthisto.models.base import ExpressionModel


def given_model(model: ExpressionModel | str | PathLike[str]) -> ExpressionModel:
    """Return a fitted model; a path is loaded.

    Raises
    ------
    TypeError
        It is neither a model nor a path.
    FileNotFoundError
        There is no model at the path.
    RuntimeError
        The model is not fitted.
    """
    from sthisto.models import load

    if isinstance(model, str | PathLike):
        return load(Path(model))
    if not isinstance(model, ExpressionModel):
        msg = (
            f"`model` must be a fitted model or the path of a saved one, found {shown(model)}. Pass what sth.tl.fit "
            "or sth.models.load returned."
        )
        raise TypeError(msg)
    if not model.is_fitted:
        msg = f"This {model.method!r} model is not fitted. Pass what sth.tl.fit or sth.models.load returned."
        raise RuntimeError(msg)
    return model
