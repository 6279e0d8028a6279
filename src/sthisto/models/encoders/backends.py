"""Frozen encoders on the CPU through OpenVINO or ONNX Runtime, where one is installed; checked against torch."""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from sthisto._utils.logging import logger
from sthisto._utils.settings import settings

TORCH: Final = "torch"
BACKENDS: Final = ("openvino", "onnxruntime")
"""Backends in the order in which "auto" looks for them."""
_PACKAGES: Final = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx")}
_MOST_APART: Final = 1e-4
"""How far features may be from torch's, relative to the largest of them."""
_COMPARED: Final = 2
_WORTH_IT: Final = 256
"""Patches after which "auto" converts: fewer are encoded before a conversion, which takes seconds, is done."""
_KEPT: Final = 4

Run = Callable[[np.ndarray], np.ndarray]
_PROGRAMS: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_LOCK: Final = threading.Lock()


def backend_name(device: torch.device, precision: str) -> str:
    """Return what frozen encoders are computed with: "torch" but for float32 on a CPU.

    Raises
    ------
    ImportError
        ``settings.encoder_backend`` names one that is not installed.
    """
    wanted = settings.encoder_backend
    if wanted == TORCH or device.type != "cpu" or precision != "32":
        return TORCH
    if wanted == "auto":
        return next((name for name in BACKENDS if _is_installed(name)), TORCH)
    if not _is_installed(wanted):
        msg = (
            f"settings.encoder_backend is {wanted!r}, which is not installed: pip install "
            f"{' '.join(_PACKAGES[wanted])}, or set it to 'auto' or 'torch'."
        )
        raise ImportError(msg)
    return wanted


def _is_installed(name: str) -> bool:
    return all(find_spec(package) is not None for package in _PACKAGES[name])


class BackendModule(nn.Module):
    """A module whose output another library computes, after the first patches agreed with torch's.

    With ``settings.encoder_backend = "auto"``, torch computes the first 256 patches. Where the conversion fails, or the
    output is further than 1e-4 from torch's, torch goes on, with a warning.

    Parameters
    ----------
    module
        In evaluation mode, on the CPU; it is left as it is.
    backend
        "openvino" or "onnxruntime".
    digest
        Of the module's weights and architecture: programs are kept in the process under it.
    name
        What the encoder is called, for messages.
    """

    def __init__(self, module: nn.Module, backend: str, digest: str, name: str) -> None:
        super().__init__()
        self._torch = [module]  # in a list, so that it is no part of this module
        self._backend, self._digest, self._name = backend, digest, name
        self._runs: dict[tuple[int, ...], Run | None] = {}
        self._waits_for = _WORTH_IT if settings.encoder_backend == "auto" else 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Return what the module returns for (batch, 3, height, width), in inference mode."""
        size = tuple(pixels.shape[2:])
        self._waits_for -= len(pixels)
        if size not in self._runs and self._waits_for < 0:
            self._runs[size] = self._checked(pixels)
        run = self._runs.get(size)
        if run is None:
            output: Tensor = self._torch[0](pixels)
            return output
        return torch.from_numpy(run(_as_array(pixels)))

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of the module's layers, (batch, n_channels, rows, columns) each, which torch computes."""
        found: list[Tensor] = self._torch[0].maps(pixels)  # type: ignore[operator]
        return found

    @property
    def layers(self) -> Any:
        """The layers of the module."""
        return self._torch[0].layers

    def _checked(self, pixels: Tensor) -> Run | None:
        """Return what computes patches of this size, (batch, 3, height, width), None where that is torch."""
        some = pixels[:_COMPARED]
        expected = np.asarray(self._torch[0](some))
        try:
            program = _program(self._torch[0], self._backend, self._digest, tuple(pixels.shape[2:]))
            run = _RUNS[self._backend](program)
            found = run(_as_array(some))
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ImportError) as error:
            self._warn(f"it can't be converted ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
            return None
        apart = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
        if found.shape != expected.shape or not apart <= _MOST_APART:
            self._warn(f"its features differ by {apart:.1e} of the largest")
            return None
        return run

    def _warn(self, why: str) -> None:
        logger.warning("%s does not compute %r: %s. Torch does.", self._backend, self._name, why)


def _as_array(pixels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.float().numpy())


def _program(module: nn.Module, backend: str, digest: str, size: tuple[int, ...]) -> Any:
    """Return the compiled program for patches of one size; of each process, the last few are kept."""
    key = (digest, backend, size, torch.get_num_threads())
    with _LOCK:
        if key in _PROGRAMS:
            _PROGRAMS.move_to_end(key)
        else:
            _PROGRAMS[key] = _COMPILERS[backend](module, torch.zeros(_COMPARED, 3, *size))
            while len(_PROGRAMS) > _KEPT:
                _PROGRAMS.popitem(last=False)
        return _PROGRAMS[key]


def _openvino_program(module: nn.Module, example: Tensor) -> Any:
    import openvino
    from openvino.frontend import FrontEndManager  # openvino.convert_model would send usage statistics
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(action="ignore"), torch.inference_mode(mode=False), torch.no_grad():
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(_Plain(module).eval(), example_input=example)
        model = frontend.convert(frontend.load(decoder))  # which does not keep the decoder alive
        model.reshape(openvino.PartialShape([-1, *example.shape[1:]]))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return openvino.Core().compile_model(model, "CPU", options)


def _openvino_run(program: Any) -> Run:
    request = program.create_infer_request()  # one for each thread
    return lambda pixels: np.array(request.infer([pixels])[0])


def _onnx_program(module: nn.Module, example: Tensor) -> Any:
    import onnxruntime

    stored = io.BytesIO()
    quiet = io.StringIO()
    with (
        warnings.catch_warnings(action="ignore"),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        redirect_stdout(quiet),
        redirect_stderr(quiet),
    ):
        torch.onnx.export(
            _Plain(module).eval(),
            (example,),
            stored,  # type: ignore[arg-type]
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "batch"}, "features": {0: "batch"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(stored.getvalue(), options, providers=["CPUExecutionProvider"])


def _onnx_run(program: Any) -> Run:
    return lambda pixels: np.asarray(program.run(None, {"pixels": pixels})[0])


class _Plain(nn.Module):
    """A module with one tensor in and one out, without the hooks and caches of a `LayerMeans`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        output: Tensor = self.module(pixels)
        return output


_COMPILERS: Final = {"openvino": _openvino_program, "onnxruntime": _onnx_program}
_RUNS: Final = {"openvino": _openvino_run, "onnxruntime": _onnx_run}
