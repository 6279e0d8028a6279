"""On what terms an image encoder is handed out, and what it was pretrained on, for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sthisto.models.encoders import pathology
from sthisto.models.encoders.encoder import TEXTURE, Encoder
from sthisto.models.encoders.given import PREFIX
from sthisto.models.encoders.loading import PACKAGED, RANDOM

_UNKNOWN: Final = "unknown"
_IMAGENET: Final = ("in1k", "in12k", "in21k", "in22k")


@dataclass(frozen=True)
class EncoderTerms:
    """What is known of an image encoder.

    Attributes
    ----------
    license
        Its license, as its page states it.
    cohort
        What it was pretrained on.
    hub_id
        Its name on the Hugging Face hub, "" where it has none.
    """

    name: str
    license: str
    cohort: str
    hub_id: str = ""


def terms_of(encoder: Encoder) -> EncoderTerms:
    """Return what is known of an encoder by its name; nothing is loaded for it."""
    name = encoder.name
    if name == TEXTURE:
        return EncoderTerms(name, "that of sthisto", "nothing: measures of stain and texture without weights")
    if name.startswith(PREFIX):
        return EncoderTerms(name, f"{_UNKNOWN}: features that were computed elsewhere", _UNKNOWN)
    own_weights = bool(encoder.weights) and encoder.weights != RANDOM
    if known := pathology.find(name):
        hub_id = name.partition(":")[2].partition("@")[0]
        return EncoderTerms(name, known.license, known.cohort, hub_id)
    if own_weights or (":" in name and not name.startswith(pathology.HUB)):
        return EncoderTerms(name, f"{_UNKNOWN}: weights of the user's own", _UNKNOWN)
    if name.startswith(pathology.HUB):
        return EncoderTerms(name, f"{_UNKNOWN}: see its page", _UNKNOWN, name.partition(":")[2].partition("@")[0])
    return _of_timm(name)


def _of_timm(name: str) -> EncoderTerms:
    import timm

    config = timm.get_pretrained_cfg("tf_efficientnet_lite0" if name == PACKAGED else name)
    if config is None:
        return EncoderTerms(name, _UNKNOWN, _UNKNOWN)
    tag = str(config.tag or "")
    cohort = (
        "photographs of ImageNet" if any(part in tag for part in _IMAGENET) else f"{_UNKNOWN} (timm's tag: {tag!r})"
    )
    return EncoderTerms(name, str(config.license or _UNKNOWN), cohort, str(config.hf_hub_id or ""))
