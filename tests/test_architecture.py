"""The laws of the house, read from the source; nothing of ours is imported to check them.

Each checker takes a path (relative to the root, with slashes) and a source text and returns its
violations as "path:line: rule". Each is also shown a planted violation, so that it can fail.
"""

from __future__ import annotations

import ast
import fnmatch
import graphlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

Checker = Callable[[str, str], list[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("assistant", "retrieval", "safety", "rlhf")
OURS = (*PACKAGES, "app", "bench")

TREE = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "LOG.md",
    "Makefile",
    "README.md",
    "app.py",
    "assistant",
    "bench",
    "constraints.txt",
    "docs",
    "examples",
    "models",
    "presets",
    "pyproject.toml",
    "retrieval",
    "rlhf",
    "safety",
    "tests",
}

#: What a package may import of ours: a dotted name, and all below it.
SERVED = (
    "schema",
    "config",
    "errors",
    "build",
    "prompt",
    "policy",
    "phrases",
    "fit.base",
    "training",
)
MAY_IMPORT = {
    "retrieval": ("retrieval",),
    "safety": ("safety",),
    "assistant": ("assistant", "retrieval", "safety"),
    "rlhf": ("rlhf", "retrieval", "safety", *(f"assistant.{name}" for name in SERVED)),
}

#: The files named for a heavy library; `*` crosses slashes.
HEAVY = {
    "torch": (
        "assistant/policy/local.py",
        "assistant/policy/quote.py",
        "assistant/policy/_decode.py",
        "assistant/fit/guard.py",
        "assistant/fit/support.py",
        "retrieval/embed/*.py",
        "retrieval/rerank/*.py",
        "retrieval/fit/*.py",
        "safety/moderator/_causal.py",
        "rlhf/fit/_network.py",
        "rlhf/fit/pretrain.py",
        "rlhf/fit/sft.py",
        "rlhf/fit/_exam.py",
        "rlhf/objectives.py",
        "rlhf/ppo.py",
        "rlhf/_ppo_*.py",
        "rlhf/actors.py",
        "rlhf/actor_*.py",
        "rlhf/_actor_*.py",
        "rlhf/fit/reward.py",
        "rlhf/feedme.py",
        "rlhf/_loop_gates.py",
        "rlhf/_loop_imitate.py",
        "rlhf/_loop_watch.py",
        "rlhf/fit/loop.py",
        "rlhf/fit/_plain.py",
        "rlhf/fit/_pupils.py",
        "rlhf/simulation.py",
        "rlhf/_simulation*.py",
        "rlhf/worlds.py",
        "rlhf/samplers/*.py",
    ),
    "sklearn": (
        "rlhf/_surface.py",
        "assistant/fit/guard.py",
        "assistant/fit/_guard_levels.py",
        "assistant/fit/support.py",
    ),
    "openvino": ("retrieval/embed/_openvino.py",),
    "transformers": (
        "assistant/policy/local.py",
        "assistant/policy/quote.py",
        "retrieval/embed/*.py",
        "retrieval/rerank/*.py",
        "retrieval/fit/*.py",
        "safety/moderator/_causal.py",
        "rlhf/fit/_network.py",
        "rlhf/fit/pretrain.py",
        "rlhf/fit/sft.py",
        "rlhf/fit/_exam.py",
        "rlhf/fit/loop.py",
    ),
    "sentence_transformers": ("retrieval/embed/*.py", "retrieval/rerank/*.py"),
    "peft": ("assistant/policy/local.py", "rlhf/actor_causal.py"),
    "accelerate": ("rlhf/worlds.py",),
    "ray": ("rlhf/world_ray.py",),
    "vllm": ("rlhf/samplers/vllm.py",),
    "faiss": ("retrieval/index/*.py",),
    "gradio": ("assistant/ui/*.py",),
    "openai": ("assistant/policy/remote.py", "retrieval/embed/remote.py"),
    "langchain": ("*/langchain.py", "*/_langchain.py"),
    "pypdfium2": ("retrieval/parse/*.py",),
    "markitdown": ("retrieval/parse/*.py",),
    "lxml": ("retrieval/parse/*.py",),
    "rapidocr": ("retrieval/parse/_ocr.py",),
    "cv2": ("retrieval/parse/_ocr.py",),
    "docutils": ("retrieval/parse/*.py",),
    "jieba": ("retrieval/text.py",),
    "rjieba": ("retrieval/text.py", "retrieval/fit/_vocabulary.py"),
    "opencc": ("retrieval/text.py", "retrieval/fit/_vocabulary.py", "safety/_fold.py"),
    "sqlalchemy": (
        "retrieval/store*.py",
        "retrieval/tables.py",
        "retrieval/lexical.py",
        "retrieval/sqlite.py",
        "retrieval/versions.py",
        "assistant/memory*.py",
        "assistant/server/keys.py",
        "assistant/server/records.py",
        "assistant/server/shelf.py",
        "rlhf/preferences*.py",
        "rlhf/tables.py",
        "rlhf/rows.py",
        "rlhf/examples.py",
    ),
    "prometheus_client": ("assistant/server/metrics.py",),
    "opentelemetry": ("assistant/server/tracing.py",),
}

#: Where everything may be caught, and why.
CATCH_ALL = {
    "safety/guard.py": "a moderator that breaks in any way must block, not let pass",
    "assistant/live.py": "a new policy that breaks in any way must not take the old one down",
    "assistant/policy/langchain.py": "each provider's package raises errors of its own",
    "assistant/ui/*.py": "the service boundary: a reader sees a sentence, not a traceback",
    "assistant/server/gate.py": "the service boundary: a client gets an error body",
    "assistant/server/front.py": "the service boundary: a page gets an error body",
    "assistant/server/engine.py": "what a worker raises is carried to the request it worked for",
    "assistant/server/operation.py": "a look that breaks is a server that is not ready",
    "assistant/server/streaming.py": "a stream that breaks ends with an error event",
    "retrieval/parse/_child.py": "the worker's outermost boundary: any parser bug is one bad file",
}

DYNAMIC_IMPORT = ("retrieval/menu.py", "safety/menu.py")
UNSAFE_MODULES = ("pickle", "joblib", "shelve", "marshal", "dill", "cloudpickle")
UNSAFE_CALLS = ("torch.load", "yaml.load", "yaml.unsafe_load", "eval", "exec")
UNSAFE_KEYWORDS = ("trust_remote_code", "allow_dangerous_deserialization", "allow_pickle")

#: Names that were the standard library's, and why they are harmless.
SHADOWS = {"retrieval/chunk.py": "the standard library's own left it in Python 3.13"}

FILE_LINES, FUNCTION_LINES, TRAIN_LINES = 400, 60, 120


@cache
def parse(source: str) -> ast.Module:
    """Parse once however many laws look at the file."""
    return ast.parse(source)


def at(path: str, node: ast.AST, rule: str) -> str:
    """Name the place and the rule broken there."""
    return f"{path}:{getattr(node, 'lineno', 1)}: {rule}"


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of a name or attribute chain, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def imports(path: str, tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield each imported dotted name; `from a import b` is `a.b`; relative ones are resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = PurePosixPath(path).parent.parts
            base = [*folder[: len(folder) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node, f"{module}.{alias.name}") for alias in node.names)


def below(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of `prefixes` or stands below one."""
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether a path fits one of the globs."""
    return any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def import_law(path: str, source: str) -> list[str]:
    """Arrows point down: leaves know nothing of ours, nothing imports app."""
    package = path.split("/")[0]
    if package not in MAY_IMPORT:
        return []
    return [
        at(path, node, f"{package} may not import {name}")
        for node, name in imports(path, parse(source))
        if below(name, (*OURS, "tests")) and not below(name, MAY_IMPORT[package])
    ]


def late_imports(path: str, source: str) -> list[str]:
    """Our own code is imported at the top of a file; only the menus import by name."""
    found = []
    for node in ast.walk(parse(source)):
        if isinstance(node, Function):
            found += [
                at(path, late, f"{name} is imported inside a function")
                for late, name in imports(path, node)
                if below(name, OURS)
            ]
        elif isinstance(node, ast.Call) and path not in DYNAMIC_IMPORT:
            called = dotted(node.func)
            if called.split(".")[-1] in ("import_module", "__import__"):
                found.append(at(path, node, f"{called}: only {', '.join(DYNAMIC_IMPORT)} may"))
    return found


def heavy_libraries(path: str, source: str) -> list[str]:
    """Keep heavy libraries to the files named for them."""
    found = []
    for node, name in imports(path, parse(source)):
        library = name.split(".")[0]
        allowed = HEAVY.get("langchain" if library.startswith("langchain") else library)
        if allowed is not None and not matches(path, allowed):
            found.append(at(path, node, f"{library} belongs to {', '.join(allowed)}"))
    return found


def ceilings(path: str, source: str) -> list[str]:
    """Keep a file to 400 lines, a function to 60, a training loop to 120."""
    lines = len(source.splitlines())
    found = [f"{path}:{lines}: file of {lines} lines, {FILE_LINES} at most"]
    found = found if lines > FILE_LINES else []
    for node in ast.walk(parse(source)):
        if isinstance(node, Function):
            loop = path.startswith("rlhf/") and node.name.startswith("train")
            ceiling = TRAIN_LINES if loop else FUNCTION_LINES
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > ceiling:
                found.append(at(path, node, f"{node.name} has {length} lines, {ceiling} at most"))
    return found


def unsafe_loading(path: str, source: str) -> list[str]:
    """Nothing that runs code out of data: pickles, eval, unsafe loaders."""
    tree = parse(source)
    found = [
        at(path, node, f"{name} runs code out of data")
        for node, name in imports(path, tree)
        if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in UNSAFE_CALLS:
            found.append(at(path, node, f"{dotted(node.func)} runs code out of data"))
        if isinstance(node, ast.keyword) and node.arg in UNSAFE_KEYWORDS:
            off = isinstance(node.value, ast.Constant) and node.value.value is False
            if not off:
                found.append(at(path, node, f"{node.arg} must stay off"))
    return found


def caught_all(path: str, source: str) -> list[str]:
    """Where everything is caught and kept, boundary or not; tidying up and raising on is not."""
    found = []
    for node in ast.walk(parse(source)):
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            if isinstance(last, ast.Raise) and last.exc is None:
                continue
            if node.type is None:
                found.append(at(path, node, "bare except"))
            else:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "suppress":
            caught = node.args
        for kind in caught:
            if dotted(kind).split(".")[-1] in ("Exception", "BaseException"):
                found.append(at(path, node, f"{dotted(kind)} is caught outside a boundary"))
    return found


def catch_all(path: str, source: str) -> list[str]:
    """Leave uncaught what is not expected, but at the boundaries named for it."""
    return [] if matches(path, tuple(CATCH_ALL)) else caught_all(path, source)


def prints(path: str, source: str) -> list[str]:
    """Only the command line and the benchmarks print."""
    if path == "app.py" or path.startswith("bench/"):
        return []
    return [
        at(path, node, "print: return a value or log it")
        for node in ast.walk(parse(source))
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]


def module_names(path: str, source: str) -> list[str]:
    """No module is called as one of the standard library is."""
    stem = PurePosixPath(path).stem
    if path in SHADOWS or stem.startswith("__") or stem not in sys.stdlib_module_names:
        return []
    return [f"{path}:1: {stem} shadows the standard library"]


def docstrings(path: str, source: str) -> list[str]:
    """Every public function, class and method of the packages says what it is for."""
    if path.split("/")[0] not in PACKAGES:
        return []

    def visit(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield at(path, node, f"{node.name} is public and has no docstring")
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body)

    return list(visit(parse(source).body))


def settings_fields(path: str, source: str) -> dict[str, tuple[ast.AnnAssign, bool]]:
    """Return the fields of a config file that hold a value, and whether each is described."""
    fields = {}
    for node in parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        if not {dotted(base) for base in node.bases} & {"BaseModel", "BaseSettings"}:
            continue
        for line in node.body:
            if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
                continue
            if dotted(line.annotation).endswith("Settings"):
                continue
            call = line.value if isinstance(line.value, ast.Call) else None
            described = call is not None and any(k.arg == "description" for k in call.keywords)
            fields[f"{node.name}.{line.target.id}"] = (line, described)
    return fields


def described_settings(path: str, source: str) -> list[str]:
    """Every setting has a description."""
    if PurePosixPath(path).name != "config.py":
        return []
    return [
        at(path, node, f"{name} has no description")
        for name, (node, described) in settings_fields(path, source).items()
        if not described
    ]


def unread_settings(sources: Mapping[str, str]) -> list[str]:
    """Every setting is read, by its name, somewhere outside the settings themselves."""
    configs = {p: s for p, s in sources.items() if PurePosixPath(p).name == "config.py"}
    read = {
        node.attr
        for path in sources.keys() - configs.keys()
        for node in ast.walk(parse(sources[path]))
        if isinstance(node, ast.Attribute)
    }
    return [
        at(path, node, f"{name} is a setting that nothing reads")
        for path, source in configs.items()
        for name, (node, _) in settings_fields(path, source).items()
        if name.split(".")[-1] not in read
    ]


def cycles(sources: Mapping[str, str]) -> list[str]:
    """Return one import cycle among the modules, [] where there is none."""
    modules = {}
    for path in sources:
        parts = PurePosixPath(path).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for module, path in modules.items():
        for _, name in imports(path, parse(sources[path])):
            parts = tuple(name.split("."))
            targets = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            target = next((t for t in targets if t in modules), None)
            if target is not None:
                graph[module].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        ring = error.args[1]
        return [f"{modules[ring[0]]}:1: cycle {' <- '.join(ring)}"]
    return []


CHECKERS: tuple[Checker, ...] = (
    import_law,
    late_imports,
    heavy_libraries,
    ceilings,
    unsafe_loading,
    catch_all,
    prints,
    module_names,
    docstrings,
    described_settings,
)
BENCH_IS_FREE = (heavy_libraries, docstrings)

PLANTED: tuple[tuple[Checker, str, str, int], ...] = (
    (import_law, "retrieval/a.py", "import safety.guard\n", 1),
    (import_law, "safety/a.py", "\nfrom retrieval import text\n", 2),
    (
        import_law,
        "assistant/a.py",
        "if TYPE_CHECKING:\n    from rlhf.schema import Preference\n",
        2,
    ),
    (import_law, "assistant/a.py", "import app\n", 1),
    (import_law, "rlhf/a.py", "from assistant.dialogue import Assistant\n", 1),
    (import_law, "rlhf/a.py", "from assistant import Assistant\n", 1),
    (import_law, "retrieval/parse/a.py", "from ...safety import guard\n", 1),
    (late_imports, "app.py", "def f():\n    from assistant import build\n", 2),
    (late_imports, "assistant/a.py", "import importlib\nimportlib.import_module('x')\n", 2),
    (late_imports, "assistant/a.py", "__import__('x')\n", 1),
    (heavy_libraries, "assistant/a.py", "import torch.nn\n", 1),
    (heavy_libraries, "retrieval/a.py", "def f():\n    from langchain_core import x\n", 2),
    (ceilings, "bench/a.py", "x = 1\n" * 401, 401),
    (ceilings, "safety/a.py", "def train():\n" + "    x = 1\n" * 60, 1),
    (ceilings, "rlhf/a.py", "async def train_it():\n" + "    x = 1\n" * 120, 1),
    (unsafe_loading, "app.py", "import pickle\n", 1),
    (unsafe_loading, "rlhf/a.py", "from torch import load\n", 1),
    (unsafe_loading, "rlhf/a.py", "x = torch.load('x')\n", 1),
    (unsafe_loading, "rlhf/a.py", "eval('1')\n", 1),
    (unsafe_loading, "rlhf/a.py", "load(x, trust_remote_code=True)\n", 1),
    (unsafe_loading, "rlhf/a.py", "load(x, allow_dangerous_deserialization=flag)\n", 1),
    (unsafe_loading, "rlhf/a.py", "yaml.load(x)\n", 1),
    (catch_all, "rlhf/a.py", "try:\n    f()\nexcept Exception:\n    pass\n", 3),
    (catch_all, "rlhf/a.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass\n", 3),
    (catch_all, "rlhf/a.py", "try:\n    f()\nexcept:\n    pass\n", 3),
    (catch_all, "rlhf/a.py", "with contextlib.suppress(Exception):\n    f()\n", 1),
    (prints, "assistant/a.py", "print('x')\n", 1),
    (module_names, "retrieval/parse/html.py", "", 1),
    (docstrings, "safety/a.py", "def f():\n    pass\n", 1),
    (docstrings, "safety/a.py", "class A:\n    '''A.'''\n    def f(self):\n        pass\n", 3),
    (described_settings, "rlhf/config.py", "class A(BaseModel):\n    n: int = Field(1)\n", 2),
)

LAWFUL: tuple[tuple[Checker, str, str], ...] = (
    (import_law, "rlhf/a.py", "from assistant import prompt\nimport assistant.policy.base\n"),
    (import_law, "assistant/a.py", "from retrieval.schema import Passage\nimport numpy\n"),
    (late_imports, "retrieval/menu.py", "import importlib\nimportlib.import_module('x')\n"),
    (late_imports, "assistant/a.py", "def f():\n    import json\n"),
    (heavy_libraries, "retrieval/index/flat.py", "import faiss\n"),
    (heavy_libraries, "assistant/langchain.py", "from langchain_core.tools import tool\n"),
    (ceilings, "rlhf/a.py", "def train():\n" + "    x = 1\n" * 119),
    (unsafe_loading, "rlhf/a.py", "model.eval()\nload(x, trust_remote_code=False)\n"),
    (catch_all, "safety/guard.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (catch_all, "rlhf/a.py", "try:\n    f()\nexcept BaseException:\n    tidy()\n    raise\n"),
    (prints, "bench/a.py", "print('x')\n"),
    (module_names, "retrieval/parse/__init__.py", ""),
    (docstrings, "safety/a.py", "def _f():\n    pass\n"),
    (described_settings, "rlhf/config.py", "class A(BaseModel):\n    parse: ParseSettings = x\n"),
)


@cache
def product() -> dict[str, str]:
    """Return every source file of the product by its path."""
    files = [ROOT / "app.py"] if (ROOT / "app.py").is_file() else []
    for folder in (*PACKAGES, "bench"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}


def report(violations: list[str]) -> str:
    """Set violations one a line, for pytest's message."""
    return "\n" + "\n".join(sorted(set(violations)))


@pytest.mark.parametrize("check", CHECKERS, ids=lambda c: c.__name__)
def test_the_source_keeps_the_law(check: Checker) -> None:
    """Every file of the product keeps every law."""
    found = [
        violation
        for path, source in product().items()
        if not (path.startswith("bench/") and check in BENCH_IS_FREE)
        for violation in check(path, source)
    ]
    assert not found, report(found)


def test_no_cycles() -> None:
    """Modules import each other in one direction only."""
    found = cycles(product())
    assert not found, report(found)


def test_every_setting_is_read() -> None:
    """A setting that nothing reads is a promise that nothing keeps."""
    found = unread_settings(product())
    assert not found, report(found)


def test_every_exemption_is_needed() -> None:
    """An exemption from the law on catching lives only as long as its need."""
    stale = [
        f"{glob}:1: exempt ({reason}), but nothing is caught there"
        for glob, reason in CATCH_ALL.items()
        if not any(caught_all(p, s) for p, s in product().items() if matches(p, (glob,)))
    ]
    assert not stale, report(stale)


@pytest.mark.parametrize(("check", "path", "source", "line"), PLANTED)
def test_a_planted_violation_is_caught(check: Checker, path: str, source: str, line: int) -> None:
    """Each checker can fail, and names the place."""
    assert any(found.startswith(f"{path}:{line}: ") for found in check(path, source))


@pytest.mark.parametrize(("check", "path", "source"), LAWFUL)
def test_lawful_code_is_left_alone(check: Checker, path: str, source: str) -> None:
    """Each checker passes what the law allows."""
    assert check(path, source) == []


def test_planted_cycles_and_unread_settings_are_caught() -> None:
    """The two laws about several files can fail too."""
    ring = {"safety/a.py": "from safety.b import x\n", "safety/b.py": "import safety.a\n"}
    assert "safety.a" in cycles(ring)[0]
    assert cycles({**ring, "safety/b.py": "import json\n"}) == []
    setting = {"safety/config.py": "class A(BaseModel):\n    n: int = Field(description='n')\n"}
    assert unread_settings(setting) == ["safety/config.py:2: A.n is a setting that nothing reads"]
    assert unread_settings({**setting, "safety/a.py": "x = settings.n\n"}) == []


def test_the_tree_is_the_one_drawn() -> None:
    """At the top stands what the map of the house names, and nothing else."""
    ignored = tuple(
        line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    )
    present = {p.name for p in ROOT.iterdir() if not matches(p.name, (".git", *ignored))}
    assert not present ^ TREE, f"unexpected {present - TREE}, missing {TREE - present}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_ours(package: str) -> None:
    """The four names resolve inside the repository, whatever else is installed."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert Path(spec.origin or "").resolve().is_relative_to(ROOT)


def test_importing_the_assistant_is_light() -> None:
    """`import assistant` loads no heavy library; a backend does when it is chosen."""
    heavy = "{'torch', 'faiss', 'gradio', 'transformers', 'sentence_transformers', 'openai'}"
    code = f"import sys, assistant; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_importing_rlhf_imports_no_trainer() -> None:
    """`import rlhf` loads nothing of its training stages, nor what they need."""
    code = (
        "import sys, rlhf; print([m for m in sys.modules if m.startswith(('rlhf.fit', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
