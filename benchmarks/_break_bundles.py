"""Saved models that are damaged and forged: each must be refused, or predict what it did before."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _break_data import DANET, PATCH, SMALL, digest, make_sections
from safetensors import safe_open
from safetensors.torch import save_file

import sthisto as sth
from sthisto.models.manifest import write_manifest

METHODS: dict[str, dict[str, Any]] = {
    "danet": {"image_encoder": "texture", "genes": SMALL["genes"], "patch_size": PATCH, **DANET},
    "ridge": {"image_encoder": "texture", "genes": SMALL["genes"], "patch_size": PATCH},
    "color": SMALL,
}
CANARY = "canary.txt"
SOURCE = str(Path(sth.__file__).parent)
NONSENSE: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        2.5,
        1e308,
        10**30,
        "",
        "nope",
        "../../canary.txt",
        "a\0b",
        "x" * 5000,
        [],
        {},
        [None],
        [[[]]],
    ),
    *("local-dir:.", "hf-hub:somebody/model", "file:///etc/passwd", {"a": {"b": None}}, ["x"] * 3, "module:os"),
)
_opened: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].endswith(CANARY):
        _opened.append(arguments[0])
    if event in ("socket.connect", "subprocess.Popen", "os.system"):
        _opened.append(event)


def break_bundles(folder: Path, n: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of tampering."""
    folder.mkdir(parents=True)
    sys.addaudithook(_watch)
    sth.settings.progress = False
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    models = {}
    for seed, suffix in ((0, ""), (1, "-other")):
        for method, options in METHODS.items():
            model = sth.tl.fit(make_sections(seed), method=method, seed=seed, **options)
            model.save(folder / f"{method}{suffix}")
            models[f"{method}{suffix}"] = _predicted(model)
    (folder / CANARY).write_text("{}")
    for kind, tamper in KINDS.items():
        why, share = [], max(1, n // len(KINDS))
        for _ in range(share):
            method = str(rng.choice(list(METHODS)))
            bundle = folder / "tampered"
            shutil.rmtree(bundle, ignore_errors=True)
            shutil.copytree(folder / method, bundle)
            _opened.clear()
            done = tamper(bundle, folder / f"{method}-other", rng)
            why += _judged(bundle, models[method], kind, f"{method}: {done}")
        yield {"what": f"tamper {kind}", "tried": share, "fell": len(why), "why": why}


def _judged(bundle: Path, expected: str, kind: str, done: str) -> list[str]:
    try:
        model = sth.models.load(bundle)
        changed = _predicted(model) != expected
    except Exception as error:  # noqa: BLE001  which it is, is what is judged
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        if type(error) in (ValueError, TypeError, FileNotFoundError) and place.startswith(SOURCE):
            return [] if str(bundle) in str(error) else [f"{done}: no path in {error}"]
        return [f"{done}: {type(error).__name__} from {place}: {error}"]
    if _opened:
        return [f"{done}: reached {_opened[0]}"]
    # a forged manifest is no signature: a model that is whole may differ
    return [f"{done}: taken"] if changed and not kind.startswith("forged") else []


def _predicted(model: Any) -> str:
    sdata = make_sections()
    sth.tl.predict(sdata, model)
    return digest(np.asarray(sdata["counts"].layers["sthisto_pred"]))


def _any_file(bundle: Path, rng: np.random.Generator) -> Path:
    return bundle / str(rng.choice(sorted(path.name for path in bundle.iterdir())))


def _flip(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    file = _any_file(bundle, rng)
    content = bytearray(file.read_bytes())
    place = int(rng.integers(len(content)))
    content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)
    return f"a bit of byte {place} of {file.name}"


def _cut(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    file = _any_file(bundle, rng)
    content = file.read_bytes()
    length = int(rng.integers(len(content)))
    file.write_bytes(content[:length] + (b"" if rng.random() < 0.5 else rng.bytes(len(content) - length)))
    return f"{file.name} from byte {length}"


def _mix(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    file = _any_file(bundle, rng)
    shutil.copyfile(other / file.name, file)
    return f"{file.name} of another fit"


def _link(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    file = _any_file(bundle, rng)
    file.unlink()
    file.symlink_to(bundle.parent / CANARY)
    return f"{file.name} is a link"


def _replace(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    file = _any_file(bundle, rng)
    file.unlink()
    if rng.random() < 0.5:
        file.mkdir()
    return f"{file.name} is gone, or a folder"


def _forge_config(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    config = json.loads((bundle / "config.json").read_text())
    holder, key = config, str(rng.choice(list(config)))
    while isinstance(holder[key], dict) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = str(rng.choice(list(holder)))
    value = NONSENSE[int(rng.integers(len(NONSENSE)))]
    holder[key] = value
    (bundle / "config.json").write_text(json.dumps(config))
    write_manifest(bundle)
    return f"{key} = {str(value)[:40]!r}"


def _forge_tensors(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    file = bundle / str(rng.choice(["model.safetensors", "bank.safetensors"]))
    with safe_open(file, framework="pt") as stored:
        tensors, metadata = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    if not tensors:
        return "nothing"
    name = str(rng.choice(sorted(tensors)))
    one = tensors[name]
    change = str(rng.choice(["nan", "drop", "more", "half", "shape", "text"]))
    if change == "nan" and one.is_floating_point() and one.numel():
        tensors[name] = one.clone().fill_(float("nan"))
    elif change == "drop":
        del tensors[name]
    elif change == "more":
        tensors["more"] = one.clone()
    elif change == "half" and one.is_floating_point():
        tensors[name] = one.half()
    elif change == "shape":
        tensors[name] = one.reshape(-1, 1).repeat(1, 2)
    elif change == "text":
        metadata = {**(metadata or {}), "genes": "0" * 32}
    save_file({key: value.contiguous() for key, value in tensors.items()}, file, metadata=metadata)
    write_manifest(bundle)
    return f"{change} of {name} in {file.name}"


def _forge_json(bundle: Path, other: Path, rng: np.random.Generator) -> str:
    contents = [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a": NaN}',
        b"\xff\xfe",
        b'{"format": 99}',
        b"{" + b'"a":1,' * 9,
    ]
    which = int(rng.integers(len(contents)))
    (bundle / "config.json").write_bytes(contents[which])
    write_manifest(bundle)
    return f"config.json holds {contents[which][:20]!r}"


KINDS: dict[str, Callable[[Path, Path, np.random.Generator], str]] = {
    "flipped bit": _flip,
    "cut or overwritten file": _cut,
    "file of another fit": _mix,
    "link out of the folder": _link,
    "missing file": _replace,
    "forged config": _forge_config,
    "forged tensors": _forge_tensors,
    "forged JSON": _forge_json,
}
