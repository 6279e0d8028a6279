"""Models in records of Zenodo, checked before they are loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from torch import nn

from sthisto._utils.arguments import checked
from sthisto._utils.atomic import atomic_folder
from sthisto._utils.settings import settings
from sthisto._utils.validate import listed
from sthisto.models import bundle
from sthisto.models.base import ExpressionModel
from sthisto.models.manifest import CONFIG, MANIFEST, ModelFolder, check_size
from sthisto.models.registry import METHODS
from sthisto.models.torch_state import plain_torch

if TYPE_CHECKING:
    from requests import Response

ZENODO: Final = "https://zenodo.org"
_BLOCK: Final = 2**20
_TIMEOUT_S: Final = 30
_ZENODO_DOI: Final = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?10\.5281/zenodo\.(\d{1,12})", re.IGNORECASE)


@checked()
@plain_torch()
def from_zenodo(
    doi: str,
    *,
    image_encoder: str | nn.Module | None = None,
    allow_download: bool = False,
) -> ExpressionModel:
    """Load a model from a record of Zenodo that holds the files of a saved model.

    The files are kept in ``settings.cache_dir / "models"``, so that the second call needs no network. Each must have
    the size and the checksum that the record states, and the SHA-256 of the model's own manifest. Nothing in them is
    run.

    Parameters
    ----------
    doi
        Of the record, "10.5281/zenodo.1234567". That of one version always gives the same model.
    image_encoder, allow_download
        Of `load`.

    Returns
    -------
    The fitted model.

    Raises
    ------
    OSError
        Zenodo can't be reached, or has no such record, and the model was not fetched before.
    ValueError
        `doi` is not of Zenodo, the record holds no saved model, a file is not what the record says, or as for `load`.

    Examples
    --------
    >>> import sthisto as sth
    >>> model = sth.models.from_zenodo("10.5281/zenodo.1234567")  # doctest: +SKIP
    """
    found = _ZENODO_DOI.fullmatch(doi.strip())
    if found is None:
        msg = f"`doi` is {doi!r}; expected one of Zenodo, as '10.5281/zenodo.1234567'."
        raise ValueError(msg)
    folder = settings.cache_dir / "models" / f"zenodo-{found[1]}"
    if not folder.exists():
        _fetch_record(found[1], folder)
    return bundle.load(folder, METHODS, image_encoder, allow_download=allow_download)


def _fetch_record(number: str, folder: Path) -> None:
    """Fetch the files of a record of Zenodo to a folder: all of them, or none."""
    with _get(f"{ZENODO}/api/records/{number}") as answer:
        files = _files_of(answer, number)
    with atomic_folder(folder, overwrite=False) as staged:
        for name in (MANIFEST, CONFIG):
            _fetch(files[name], staged / name)
        for name in sorted(ModelFolder(staged).listed or ()):
            if name not in files:
                msg = f"Record {number} of Zenodo lacks {name}, which the model's manifest lists."
                raise ValueError(msg)
            if not (staged / name).exists():
                _fetch(files[name], staged / name)


def _files_of(answer: Response, number: str) -> dict[str, Any]:
    """Return name -> what a record says of a file.

    Raises
    ------
    ValueError
        It is no record, or none of a saved model.
    """
    try:
        entries = answer.json()["files"]
        files = {str(entry["key"]): entry for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        msg = f"Zenodo's answer about record {number} can't be read: {error}."
        raise ValueError(msg) from error
    if missing := [name for name in (MANIFEST, CONFIG) if name not in files]:
        msg = (
            f"Record {number} of Zenodo holds no saved model: it has no {listed(missing)}, but {listed(files)}. A "
            "model is shared by uploading all files of the folder that model.save wrote."
        )
        raise ValueError(msg)
    return files


def _fetch(entry: dict[str, Any], path: Path) -> None:
    """Fetch a file of a record, and compare its size and checksum with those that the record states."""
    try:
        size, url = int(entry["size"]), str(entry["links"]["self"])
        kind, _, digest = str(entry["checksum"]).partition(":")
        state = hashlib.new(kind, usedforsecurity=False)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"Zenodo states no size, address or checksum of {path.name} that can be used: {error}."
        raise ValueError(msg) from error
    check_size(path.name, size, "Zenodo")
    if urlsplit(url)[:2] != urlsplit(ZENODO)[:2]:
        msg = f"Zenodo's record leads to {url} for {path.name}, which is not on {ZENODO}. It is not fetched."
        raise ValueError(msg)
    written = 0
    with _get(url) as answer, path.open("wb") as stream:
        for block in _limited(answer.iter_content(_BLOCK), size):
            stream.write(block)
            state.update(block)
            written += len(block)
    if written != size or state.hexdigest() != digest:
        msg = (
            f"{path.name} arrived damaged: {written} of {size} bytes, {kind} {state.hexdigest()}, not {digest}. Try "
            "again."
        )
        raise ValueError(msg)


def _limited(blocks: Iterable[bytes], size: int) -> Iterable[bytes]:
    """Yield blocks until more than `size` bytes have come."""
    for block in blocks:
        yield block
        size -= len(block)
        if size < 0:
            return


def _get(url: str) -> Response:
    """Return the answer to a request, whose content is not read yet.

    Raises
    ------
    OSError
        The server can't be reached or refuses.
    """
    import requests

    try:
        answer = requests.get(url, stream=True, timeout=_TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException as error:
        msg = (
            f"{url} could not be fetched ({type(error).__name__}: {error}). Without a network, download the record's "
            "files where there is one, put them into one folder, and call sthisto.models.load(folder)."
        )
        raise OSError(msg) from error
    return answer
