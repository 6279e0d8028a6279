"""Nothing that the package reads is run: no pickle, no eval, no shell."""

import ast
from pathlib import Path

import pytest

import sthisto

SOURCE = Path(sthisto.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "subprocess", "pty"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"read_pickle", "to_pickle", "system", "popen", "unsafe_load", "execv", "execve", "spawnv"}
MUST_SAY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def dangers(tree):
    """Return the lines that run, or may run, what they are given."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [node.lineno for name in names if name.partition(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom) and node.module == "joblib":  # its workers are fine, its files are pickles
            found += [node.lineno for alias in node.names if alias.name in ("load", "dump")]
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        unsaid = called in MUST_SAY and not _says(options, *MUST_SAY[called])
        opened = any(_says(options, name, True) for name in ("shell", "allow_pickle", "trust_remote_code"))
        if called in BUILTINS or (called.rpartition(".")[2] in METHODS and "." in called) or unsaid or opened:
            found.append(node.lineno)
    return found


def _says(options, name, value):
    return isinstance(options.get(name), ast.Constant) and options[name].value is value


def test_nothing_that_is_read_is_run():
    paths = list(SOURCE.rglob("*.py"))
    assert len(paths) > 200
    found = {str(path.relative_to(SOURCE)): dangers(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}
    assert not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import subprocess",
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "os.system(text)",
        "run(text, shell=True)",
        "pd.read_pickle(path)",
    ],
)
def test_that_test_finds(code):
    assert dangers(ast.parse(code)) == [1]
    assert not dangers(
        ast.parse("torch.load(path, weights_only=True); np.load(path, allow_pickle=False); re.compile(x)")
    )
