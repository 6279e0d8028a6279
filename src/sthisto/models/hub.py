"""Models on pages of the Hugging Face hub, checked before they are loaded."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from torch import nn

from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto.models import bundle
from sthisto.models.base import ExpressionModel
from sthisto.models.encoders.network import offline_without_network
from sthisto.models.manifest import CONFIG, MANIFEST, ModelFolder, check_size
from sthisto.models.registry import METHODS
from sthisto.models.torch_state import plain_torch

_REPOSITORY: Final = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")


@checked()
@plain_torch()
def from_hub(
    repository: str,
    *,
    revision: str | None = None,
    image_encoder: str | nn.Module | None = None,
    allow_download: bool = False,
) -> ExpressionModel:
    """Load a model from a page of the Hugging Face hub, which `push_to_hub` made.

    Files that were fetched before are read from the hub's own cache on disk. Nothing in them is run.

    Parameters
    ----------
    repository
        Owner and name of the page, "org/model".
    revision
        Commit, tag or branch. None: the newest of "main", which may change from one day to the next; name the commit in
        what you publish.
    image_encoder, allow_download
        Of `load`.

    Returns
    -------
    The fitted model.

    Raises
    ------
    OSError
        The page can't be reached or doesn't exist, and the model was not fetched before.
    ValueError
        A file is larger than any model's, or as for `load`.

    Examples
    --------
    >>> import sthisto as sth
    >>> model = sth.models.from_hub("org/liver", revision="v1.0")  # doctest: +SKIP
    """
    _check_repository(repository)
    with tempfile.TemporaryDirectory(prefix="sthisto-") as name, offline_without_network():
        folder = Path(name)
        commit = _hub_file(repository, MANIFEST, revision, folder).parent.name  # as the hub's cache names folders
        _hub_file(repository, CONFIG, commit, folder)
        for file in sorted(ModelFolder(folder).listed or ()):
            if not (folder / file).exists():
                _hub_file(repository, file, commit, folder)
        logger.info("%s is at the commit %s.", repository, commit)
        return bundle.load(folder, METHODS, image_encoder, allow_download=allow_download)


@checked()
def push_to_hub(
    model: ExpressionModel,
    repository: str,
    *,
    revision: str | None = None,
    private: bool = True,
) -> None:
    """Save a model to a page of the Hugging Face hub, which is made where there is none.

    Log in before, with ``hf auth login`` or the environment variable HF_TOKEN. A model holds features of its training
    spots and their expression: share it only where these may be shared.

    Parameters
    ----------
    model
        Fitted model.
    repository
        Owner and name of the page, "org/model".
    revision
        Branch to commit to. None: "main".
    private
        Whether a page that is made is private. A page that is there stays as it is.

    Raises
    ------
    OSError
        The hub can't be reached, or refuses.

    Examples
    --------
    >>> import sthisto as sth
    >>> sth.models.push_to_hub(model, "org/liver")  # doctest: +SKIP
    """
    from huggingface_hub import HfApi

    _check_repository(repository)
    api = HfApi(endpoint=_endpoint())
    with tempfile.TemporaryDirectory(prefix="sthisto-") as name:
        model.save(Path(name) / "model")
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                folder_path=Path(name) / "model",
                revision=revision,
                commit_message=f"{model.method} of {len(model.genes)} genes",
            )
        except (OSError, RuntimeError) as error:
            msg = (
                f"The model could not be saved to {repository!r}: {error}. Log in with `hf auth login`, or save it to "
                "a folder with model.save and upload that."
            )
            raise OSError(msg) from error


def _check_repository(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        msg = f"`repository` is {repository!r}; expected owner and name, as 'org/model'."
        raise ValueError(msg)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _hub_file(repository: str, name: str, revision: str | None, folder: Path) -> Path:
    """Copy a file of a page to `folder` and return its path in the hub's cache.

    Raises
    ------
    OSError
        It can't be fetched.
    ValueError
        It is too large.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        kept = try_to_load_from_cache(repository, name, revision=revision) if _is_commit(revision) else None
        if not isinstance(kept, str) and not constants.HF_HUB_OFFLINE:
            url = hf_hub_url(repository, name, revision=revision, endpoint=_endpoint())
            check_size(name, get_hf_file_metadata(url, endpoint=_endpoint()).size, url)
        if not isinstance(kept, str):
            kept = hf_hub_download(repository, name, revision=revision, endpoint=_endpoint())
    except (OSError, RuntimeError, HFValidationError, HfHubHTTPError, HTTPError) as error:
        at = "" if revision is None else f" at {revision!r}"
        msg = (
            f"{name} of {repository!r}{at} could not be fetched from {_endpoint()}: {' '.join(str(error).split())}\n"
            "Check the name and the revision; a private page needs `hf auth login`. Without a network, run `hf "
            f"download {repository} --local-dir FOLDER` where there is one, copy the folder, and call "
            "sthisto.models.load(FOLDER)."
        )
        raise OSError(msg) from error
    shutil.copyfile(Path(kept).resolve(), folder / name)
    return Path(kept)


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None
