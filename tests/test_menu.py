from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval import menu
from retrieval.errors import BackendMissing

FILES = {
    "__init__.py": "",
    "base.py": "class Protocol: ...\n",
    "_helper.py": "",
    "plain.py": "def build(options: object) -> str:\n    return 'built'\n",
    "needy.py": "import no_such_library\n",
    "adapted.py": "raise ModuleNotFoundError('no peft', name='peft.tuners')\n",
    "misspelt.py": "from retrieval.no_such_module import thing\n",
}


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder of backends, importable as `kitchen`."""
    folder = tmp_path / "kitchen"
    folder.mkdir()
    for name, source in FILES.items():
        (folder / name).write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "kitchen"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "package", ["retrieval.embed", "retrieval.index", "retrieval.rerank", "assistant.policy"]
)
def test_the_menu_is_the_folder(package: str, root: Path) -> None:
    """What a folder offers is the names of its files, protocol and helpers left out."""
    files = {f.stem for f in root.joinpath(*package.split(".")).glob("*.py")}
    expected = sorted(n for n in files if n != "base" and not n.startswith("_"))
    assert list(menu.available(package)) == expected


def test_the_menu_is_sorted_and_hides_what_is_no_backend(kitchen: Path) -> None:
    """Names come sorted; `base` and names with an underscore are no backends."""
    assert menu.available("kitchen") == ("adapted", "misspelt", "needy", "plain")


def test_a_file_dropped_in_is_a_backend(kitchen: Path) -> None:
    """Adding a backend is adding a file, and nothing else."""
    (kitchen / "fresh.py").write_text("def build(options):\n    return 'fresh'\n")
    assert "fresh" in menu.available("kitchen")
    assert menu.load("kitchen", "fresh").build(None) == "fresh"


def test_a_backend_is_loaded_by_its_name(kitchen: Path) -> None:
    """The file's name is the backend's name."""
    module = menu.load("kitchen", "plain")
    assert module.__name__ == "kitchen.plain"
    assert module.build(None) == "built"


@pytest.mark.parametrize("name", ["os", "base", "_helper", "plain.x", ".plain", "../plain", ""])
def test_only_what_is_on_the_menu_is_imported(kitchen: Path, name: str) -> None:
    """A settings file cannot import other code, and is told what there is."""
    with pytest.raises(BackendMissing, match=r"there are: adapted, misspelt, needy, plain"):
        menu.load("kitchen", name)


def test_a_missing_library_is_named(kitchen: Path) -> None:
    """A backend whose library is missing says which, and what to install."""
    with pytest.raises(BackendMissing, match=r"needs 'no_such_library'; install plumbline$"):
        menu.load("kitchen", "needy")


def test_a_missing_library_names_its_extra(kitchen: Path) -> None:
    """Where an extra brings the library, the remedy is that extra."""
    with pytest.raises(BackendMissing, match=r"needs 'peft'; install plumbline\[adapters\]$"):
        menu.load("kitchen", "adapted")


def test_a_misspelt_import_of_ours_is_not_a_missing_library(kitchen: Path) -> None:
    """A bug in our own imports stays what it is."""
    with pytest.raises(ModuleNotFoundError, match=r"no_such_module"):
        menu.load("kitchen", "misspelt")
