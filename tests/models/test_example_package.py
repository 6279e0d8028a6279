"""A package that is installed adds a method, and no line of sthisto knows of it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sthisto

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS / "example_package"
WORK = """
import sys
import warnings

import numpy as np
import sthisto as sth
from tissue import encoder, make_tissue

warnings.simplefilter("error")
warnings.filterwarnings("ignore", "'.*' deprecated - use '")  # matplotlib 3.9 with pyparsing 3.3
sth.settings.progress = False
assert "sthisto_example" not in sys.modules
assert "linear" in sth.models.available()
tissue = make_tissue("ABC")
sth.pp.split(tissue, by="patient", patient_key="patient", test=["C"])
arguments = {"image_encoder": encoder(), "patch_size": 16, "learning_rate": 0.1, "max_epochs": 60, "patience": 60}
model = sth.tl.fit(tissue, method="linear", key_added="linear", **arguments)
assert len(model.history) and model.history["val_loss"].notna().all()
assert model.parameters["dropout"] == 0.1
sth.tl.predict(tissue, model, key_added="linear")
sth.tl.evaluate(tissue, key_added="linear", n_boot=50)
scores = sth.get.scores(tissue, key_added="linear", by="section")
assert set(scores["method"]) == {"Linear"}
assert scores["pcc"].max() > 0.3, scores
assert "X_linear" in tissue["counts"].obsm

model.save(sys.argv[1])
before = sth.get.predictions(tissue, key_added="linear")
sth.tl.predict(tissue, sth.models.load(sys.argv[1], image_encoder=encoder()), key_added="linear")
np.testing.assert_array_equal(before, sth.get.predictions(tissue, key_added="linear"))

sth.tl.cross_validate(tissue, ["linear", "mean"], seeds=1, options={"linear": arguments | {"dropout": 0.2}}, **{
    "image_encoder": arguments.pop("image_encoder"), "patch_size": arguments.pop("patch_size")
})
assert set(sth.get.scores(tissue, key_added="sthisto_cv")["method"]) == {"linear", "mean"}
ensemble = sth.tl.fit(tissue, method="linear", n_models=2, image_encoder=encoder(), patch_size=16, max_epochs=1)
assert ensemble.has_embedding and not ensemble.has_gene_embedding
print("done")
"""


def lay_out(target: Path) -> None:
    """Write what `pip install` would: the module, and the package's metadata with its entry points."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = target / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    shutil.copy(PACKAGE / "sthisto_example.py", target)


def pip_install(target: Path) -> None:
    source = shutil.copytree(PACKAGE, target.parent / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)


def builds_wheels() -> bool:
    """Return whether pip can install without the index: it needs setuptools 70.1."""
    if importlib.util.find_spec("pip") is None:
        return False
    try:
        return tuple(int(part) for part in version("setuptools").split(".")[:2]) >= (70, 1)
    except PackageNotFoundError:
        return False


def test_an_installed_package_adds_a_method_that_does_all_that_others_do(tmp_path):
    install = pip_install if builds_wheels() else lay_out
    install(tmp_path / "site")
    source = Path(sthisto.__file__).parents[1]
    path = os.pathsep.join(str(part) for part in (tmp_path / "site", TESTS, source))
    found = subprocess.run(
        [sys.executable, "-c", WORK, str(tmp_path / "linear.sthisto")],
        env={**os.environ, "PYTHONPATH": path, "STHISTO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip().endswith("done")


def test_sthisto_knows_nothing_of_the_example():
    assert not [path for path in Path(sthisto.__file__).parent.rglob("*.py") if "sthisto_example" in path.read_text()]
