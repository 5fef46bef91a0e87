"""What an import loads, and what the package offers."""

import importlib
import subprocess
import sys

import pytest

import nnjax

HEAVY = ("xarray", "matplotlib", "sklearn")


def loaded(statement):
    """The top-level packages in memory after ``statement`` in a fresh process, warnings being errors."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_package_itself_loads_nothing():
    modules = loaded("import nnjax")
    assert not modules & {*HEAVY, "flax", "orbax", "jax", "numpy", "optax", "scipy", "rich"}
    assert "nnjax" in modules


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_training_and_sweeping_load_neither_plots_nor_tables(name):
    modules = loaded(f"import nnjax.{name}")
    assert not modules & {*HEAVY, "flax", "orbax", "pandas", "rich", "torch", "yaml"}
    assert "jax" in modules


def test_models_load_flax_and_none_of_the_rest():
    assert not loaded("import nnjax.models, nnjax.losses, nnjax.train") & {*HEAVY, "orbax", "pandas", "scipy", "torch"}


def test_submodules_load_when_first_named():
    code = "import nnjax; assert 'nnjax.losses' not in sys.modules; nnjax.losses.cross_entropy"
    assert "optax" in loaded(code)


@pytest.mark.parametrize("name", nnjax._SUBMODULES)
def test_every_offered_name_imports_and_is_listed(name):
    module = getattr(nnjax, name)
    assert module is importlib.import_module(f"nnjax.{name}")
    assert module.__doc__
    assert dir(nnjax).count(name) == 1


def test_every_file_is_offered():
    import pkgutil

    files = {info.name for info in pkgutil.iter_modules(nnjax.__path__)}
    assert files == set(nnjax._SUBMODULES)
    assert list(nnjax._SUBMODULES) == sorted(nnjax._SUBMODULES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nnjax' has no attribute 'trian'"):
        _ = nnjax.trian
    assert not hasattr(nnjax, "os")
    assert nnjax.__version__
    assert "__version__" in dir(nnjax)


@pytest.mark.parametrize("module", ["nnjax.models"])
def test_what_a_family_exports_exists(module):
    module = importlib.import_module(module)
    assert list(module.__all__) == sorted(module.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    for name in module.__all__:
        assert getattr(module, name).__doc__
