"""Whether `features=` names kinds of features or slots of ``obsm``, and whether the method can take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sthisto._sdata.features import feature_keys
from sthisto.models import METHODS, Encoder, ExpressionModel
from sthisto.models.encoders.given import PREFIX
from sthisto.models.registry import method_name


def kinds_option(features: str | Sequence[str] | None, method: str) -> dict[str, Any]:
    """Return {"features": features} if they are kinds, an option of the method that is an argument of `fit` too."""
    if features is None or "features" not in METHODS[method_name(method)].option_names():
        return {}
    names = [features] if isinstance(features, str) else features
    return {} if any(name.startswith(PREFIX) for name in names) else {"features": features}


def given_slots(features: str | Sequence[str] | None, cls: type[ExpressionModel], options: Any) -> list[str]:
    """Return the slots of ``obsm`` with features that take the encoder's place, none where it stays.

    Raises
    ------
    ValueError
        The names are no slots, or the method uses no encoder, or trains it.
    """
    if features is None or kinds_option(features, cls.method):
        return []
    slots = feature_keys(features)
    if not cls.needs_encoder(options) or cls.trains_encoder(options):
        why = "trains its image encoder" if cls.trains_encoder(options) else "uses no image encoder"
        msg = f"Method {cls.method!r} {why}, so features={features!r} can't take its place. Leave one of them out."
        raise ValueError(msg)
    return slots


def check_trainable(encoder: Encoder, cls: type[ExpressionModel], options: Any) -> None:
    """Raise ValueError where an encoder without weights is to be trained."""
    if cls.trains_encoder(options) and not any(True for _ in encoder.parameters()):
        msg = (
            f"image_encoder={encoder.name!r} has no weights, so finetune=True has nothing to train. Leave out "
            "finetune=True, or choose another image_encoder."
        )
        raise ValueError(msg)
