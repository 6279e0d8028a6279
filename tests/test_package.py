import importlib
import inspect
import subprocess
import sys

import pytest

import sthisto

HEAVY = ("torch", "spatialdata", "matplotlib", "anndata", "scanpy", "timm", "numba", "sklearn", "pandas", "scipy")
ROOMS = ("pp", "tl", "pl", "get", "io", "datasets")


def public_functions(*rooms):
    modules = [importlib.import_module(f"sthisto.{room}") for room in rooms]
    functions = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    return [pytest.param(function, id=function.__name__) for function in functions if inspect.isfunction(function)]


def test_import_loads_nothing_heavy():
    code = f"import sys, sthisto; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["pp", "get", "pl", "io", "datasets"])
def test_rooms_that_train_nothing_do_not_load_torch(room):
    code = f"import sys, sthisto.{room}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_all_public_names_can_be_loaded():
    for name in sthisto.__all__:
        assert getattr(sthisto, name) is not None
    assert dir(sthisto) == sthisto.__all__
    lazy = set(sthisto.__all__) - {"__version__", "settings"}
    assert lazy == sthisto._SUBMODULES


def test_unknown_attribute_is_refused_by_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sthisto.nothing  # noqa: B018


@pytest.mark.parametrize("room", [*ROOMS, "metrics", "models", "nn"])
def test_all_of_a_room_can_be_loaded(room):
    module = importlib.import_module(f"sthisto.{room}")
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name)


@pytest.mark.parametrize("function", public_functions(*ROOMS))
def test_public_functions_take_at_most_three_positional_arguments(function):
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    assert sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds) <= 3


@pytest.mark.parametrize("function", public_functions("pp", "tl"))
def test_only_fit_and_tools_whose_result_is_a_table_return_something(function):
    returned = inspect.signature(function).return_annotation
    tables = ("check_alignment", "learning_curve")
    assert (returned == "None") == (function.__name__ not in ("fit", *tables))
    assert function.__name__ not in tables or returned == "pd.DataFrame"
