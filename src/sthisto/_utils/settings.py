"""Settings that hold for the whole session: `sthisto.settings`."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sthisto._utils.logging import LEVELS, configure
from sthisto._utils.private import private_folder, user_id


def _default_cache() -> Path:
    configured = os.environ.get("STHISTO_CACHE")
    if configured:
        return _expanded(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return _expanded(base or "~/.cache") / "sthisto"


def _expanded(path: str | Path) -> Path:
    """Return a path with "~" as the home folder; without one, as a folder among temporary files."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        start, *inside = Path(path).parts
        if start != "~":
            msg = f"There is no home folder {start!r} for the path {str(path)!r}. Pass another path."
            raise ValueError(msg) from error
        return private_folder(Path(tempfile.gettempdir()) / f"sthisto-{user_id()}").joinpath(*inside)


@dataclass
class Settings:
    """What the user may set once for all calls.

    Assigning an unknown name or an impossible value raises, so that a misspelled setting is never ignored.

    Examples
    --------
    >>> import sthisto as sth
    >>> sth.settings.progress = False
    """

    device: str = "auto"
    """Where torch computes: "auto" (CUDA, then Apple's MPS, then the CPU), "cpu", "cuda", "cuda:1", "mps"."""
    batch_size: int = 256
    """Patches that pass an image encoder at once when nothing is trained."""
    precision: str = "32"
    """What a frozen encoder computes in: "32", or "bf16", faster where it is built in. Training has its own."""
    encoder_backend: str = "auto"
    """What computes frozen encoders in float32 on a CPU: "openvino", "onnxruntime", "torch", or "auto", which takes the
    first of them that is installed. Features are equal to 1e-4 of the largest; an encoder that can't be converted, or
    differs by more, is computed by torch, with a warning."""
    image_memory: float = 4.0
    """GiB that one image level may take in memory; a larger level is read chunk by chunk."""
    progress: bool = True
    """Whether long calls show a progress bar."""
    cache_dir: Path = field(default_factory=_default_cache)
    """Where downloads and features are kept. The environment variable STHISTO_CACHE sets it too."""
    cache_features: bool = True
    """Whether features of a frozen encoder are kept on disk."""
    cache_size: float = 10.0
    """GiB that the features on disk may take; the least recently used go first."""
    faiss_above: int = 2_000_000
    """Spots in a bank above which FAISS retrieves, where it is installed."""
    verbosity: str | None = None
    """Messages that are shown: "error", "warning", "info" or "debug". None leaves the logger "sthisto" as it is."""
    log_file: Path | None = None
    """File that messages are appended to, with the time; at least those of "info". None: no file."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in {f.name for f in fields(self)}:
            known = ", ".join(f.name for f in fields(self))
            msg = f"sthisto has no setting {name!r}. There are: {known}."
            raise AttributeError(msg)
        if name == "cache_dir" or (name == "log_file" and value is not None):
            value = _expanded(value)
        if name in {"batch_size", "image_memory", "cache_size", "faiss_above"} and not value > 0:
            msg = f"settings.{name} must be positive, found {value!r}."
            raise ValueError(msg)
        if name == "precision" and value not in ("32", "bf16"):
            msg = f"settings.precision must be '32' or 'bf16', found {value!r}."
            raise ValueError(msg)
        if name == "encoder_backend" and value not in ("auto", "openvino", "onnxruntime", "torch"):
            msg = f"settings.encoder_backend must be 'auto', 'openvino', 'onnxruntime' or 'torch', found {value!r}."
            raise ValueError(msg)
        if name == "verbosity" and value not in (None, *LEVELS):
            msg = f"settings.verbosity must be one of {', '.join(map(repr, LEVELS))} or None, found {value!r}."
            raise ValueError(msg)
        before = getattr(self, name, None)
        super().__setattr__(name, value)
        if name in {"verbosity", "log_file"} and value != before:
            configure(self.verbosity, getattr(self, "log_file", None))


settings = Settings()
