"""Everything that can be run on this project: ``nox -l`` lists it, ``nox`` runs the checks."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import nox

sys.path.insert(0, str(Path(__file__).parent / "instruments"))

from environments import WHEEL_IS_BUILT, environment_of, make_environment
from installed_python import is_installed
from one_at_a_time import one_at_a_time
from session_table import SessionTable
from shared_files import share_files
from side_by_side import ROWS_FILE, run_side_by_side

# Where it is set, every process would compile anew all that it imports: a framework takes more than
# twice as long to import then.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

nox.needs_version = ">=2025.2.9"  # for requires=
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = [
    *("environments", "lint", "types", "tests", "conformance", "both", "side-by-side"),
]

# MindSpore 2.7.0 has no wheel for a later Python.
PYTHON = "3.11"
#: Those that unicb itself is tested on besides, by nox -s tests-3.12 and so on.
LATER_PYTHONS = ["3.12", "3.13", "3.14"]
FRAMEWORKS = ["torch", "mindspore"]
BACKENDS = ["numpy", *FRAMEWORKS]
#: Of other makers, behind the pipeline classes of diffusers.
RUNTIMES = ["onnx", "openvino"]
STRANGER = "examples/third_party_backend"
INSTRUMENTS = str(Path(__file__).parent / "instruments")
#: Where the session "wheel" puts what it has built; inside of nox's folder, which is ignored.
WHEELS = Path(".nox", "wheels")
#: pytest's options: a worker for each core, up to 4, as each needs memory for a framework.
WORKERS = ["-n", "logical", "--maxprocesses", "4", "--dist", "worksteal"]

#: Those that need no GPU; preview_cuda and guidance_cuda are run by name.
BENCHMARKS = [
    *("preview_cost", "stop_cost", "import_cost", "bind_cost", "machinery_cost"),
    *("cut_saving", "cross_framework"),
]
#: Those that are the same on every framework.
TORCH_BENCHMARKS = ["cut_quality", "rule_quality", "rule_cost", "source_cost"]

PACKAGES = {
    "numpy": ["numpy"],
    "torch": ["torch", "diffusers", "transformers", "accelerate"],
    "mindspore": ["mindspore", "mindone", "transformers", "numpy"],
    "third-party": ["jax"],
    "onnx": ["torch", "diffusers", "transformers", "accelerate", "optimum-onnx", "onnxruntime"],
    # What optimum-intel asks for and is not listed is for quantizing, or for other models.
    "openvino": [
        *("torch", "diffusers", "transformers", "accelerate", "optimum", "openvino"),
        *("requests", "setuptools"),
    ],
}
PACKAGES["libraries"] = [
    *(*PACKAGES["torch"], "cache-dit", "compel", "DeepCache", "peft", "sdnq", "tomesd", "torchao"),
]
# Benchmarks draw plots, and their tests look at one.
PLOTTING = {"torch": ["matplotlib"]}
# Which docs/recipes.md imports; tests/ranks imports psutil, too.
RECIPES = ["psutil", "tensorboardX"]
# Which callbacks use or write for.
OPTIONAL = ["rich", "safetensors", "tqdm", *RECIPES]
# Which the tests of a framework need besides.
TESTED_WITH = {framework: [*PLOTTING.get(framework, []), *RECIPES] for framework in FRAMEWORKS}
PACKAGES["both"] = [*PACKAGES["torch"], *PACKAGES["mindspore"]]
PACKAGES["webui"] = [*PACKAGES["torch"], "playwright", "pytest"]
PACKAGES["webui-mindspore"] = [*PACKAGES["mindspore"], "playwright", "pytest"]
PACKAGES["service"] = [*PACKAGES["torch"], "httpx", "pytest"]
PACKAGES["service-mindspore"] = [*PACKAGES["mindspore"], "httpx", "pytest"]
PACKAGES["ray"] = [*PACKAGES["torch"], "httpx", "pytest"]
for each_framework in FRAMEWORKS:
    PACKAGES[f"notebook-{each_framework}"] = [
        *(*PACKAGES[each_framework], "jupyterlab", "nbclient", "playwright", "pytest"),
    ]

#: Of the documentation site.
DOCS = [
    *("mkdocs", "mkdocs-material", "mkdocs-static-i18n", "mkdocstrings", "mkdocstrings-python"),
    *("jieba", "ruff", "playwright", "pytest", "numpy", "pillow"),
]

#: What Chromium is called, where it is on the path.
CHROMIUMS = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
]


TABLE = SessionTable()
# One that runs beside others leaves it to their parent to print all rows as one table.
if ROWS_FILE in os.environ:
    atexit.register(TABLE.save, Path(os.environ[ROWS_FILE]))
else:
    atexit.register(TABLE.print)


def noted(session_function: Callable[..., None]) -> Callable[..., None]:
    """Have the session noted in the table, and two of the same name not run at once."""

    @functools.wraps(session_function)
    def run(session: nox.Session, *args: Any, **parameters: Any) -> None:
        with TABLE.row(session.name), one_at_a_time(Path(session.bin).parent, session.log):
            session_function(session, *args, **parameters)

    return run


def skip(session: nox.Session, reason: str) -> NoReturn:
    """End the session, which is no failure."""
    TABLE.skip()
    session.skip(reason)


def do_without(session: nox.Session, reason: str) -> NoReturn:
    """End the session for want of what only the machine's owner can install: it is skipped.

    Where CI=true it fails, so that nothing is left out there unnoticed.
    """
    if os.environ.get("CI") == "true":
        session.error(reason)
    skip(session, reason)


def install(session: nox.Session, constraints: str, *names: str) -> None:
    """Install the pinned versions. What is imported is compiled then, which is a part of it."""
    session.install("-q", "--no-compile", "-c", f"constraints/{constraints}.txt", *names)


@nox.session(python=PYTHON)
@noted
def wheel(session: nox.Session) -> None:
    """Build the wheel that the other sessions install, as users would get it: by way of the sdist.
    Check what both have."""
    if WHEEL_IS_BUILT in os.environ:
        return
    install(session, "tools", "hatchling")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder)
    # By the hatchling that is here, so that a second build needs no network.
    session.run_install("python", "-m", "hatchling", "build", "-d", str(folder), silent=True)
    tree, sdist = next(folder.glob("unicb-*.whl")), next(folder.glob("unicb-*.tar.gz"))
    # What is tested is what the sdist builds, which has to be the same.
    build = ["python", "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    session.run_install(*build, "-w", str(folder / "from-sdist"), str(sdist))
    built = folder / "from-sdist" / tree.name
    check = str(Path(INSTRUMENTS, "check_package.py"))
    session.run_install("python", "-P", check, str(tree), str(sdist), str(built))
    WHEELS.mkdir(parents=True, exist_ok=True)
    # In one go: another nox may be installing from there.
    built.replace(WHEELS / built.name)
    for old in set(WHEELS.iterdir()) - {WHEELS / built.name}:
        old.unlink()


#: Sessions of plain nox whose environments take long to make. The last ones link files of the first
#: two.
LARGE_ENVIRONMENTS = [
    *("conformance(mindspore)", "conformance(torch)", "conformance(third-party)", "tests"),
    *("conformance(numpy)", "webui(torch)", "notebook(torch)", "service(torch)", "both"),
]
#: Distributions so large that a new environment links their files, each with the environment that
#: these are in.
SHARED = {"torch": "conformance-torch", "mindspore": "conformance-mindspore"}


@nox.session(venv_backend="none", requires=["wheel"])
def environments(session: nox.Session) -> None:
    """Make the large environments of plain nox side by side, where they are not there yet."""
    with TABLE.row(session.name):
        script = str(Path(INSTRUMENTS, "environments.py"))
        folder = str(Path(session.cache_dir).parent)
        session.run_install(sys.executable, script, folder, *LARGE_ENVIRONMENTS, external=True)


def find_wheel(session: nox.Session) -> Path:
    """Path of the wheel that the session of this name has built."""
    found = next(WHEELS.glob("unicb-*.whl"), None)
    if found is None:
        session.error(f"there is no wheel in {WHEELS}: build it with nox -s wheel")
    return found


def install_wheel(
    session: nox.Session,
    backend: str,
    *extras: str,
    also: Sequence[str] = (),
    constraints: str = "",
) -> None:
    """Install the wheel and the backend's packages, in pinned versions: those of the backend's
    constraints, or of others. Nothing is done where the environment was made for just these."""
    wheel = find_wheel(session)
    # The framework by name rather than by unicb's extra, which allows more than we pin.
    wanted = [f"{wheel}[{','.join(extras)}]" if extras else str(wheel), *PACKAGES[backend], *also]
    if "testing" in extras:
        wanted.append("pytest-xdist")
    pins = "".join(file.read_text("utf-8") for file in sorted(Path("constraints").rglob("*.txt")))
    asked = f"{constraints or backend} {wanted}\n{pins}\n{sha256(wheel.read_bytes()).hexdigest()}"
    made_for = Path(session.bin).parent / "made-for.txt"
    if made_for.exists() and made_for.read_text(encoding="utf-8") == asked:
        return
    is_new = not made_for.exists()
    made_for.write_text("", encoding="utf-8")  # if it is interrupted now, it is not new any more
    if is_new:
        share_large_files(made_for.parent, wanted)
    install(session, constraints or backend, *wanted)
    if not is_new:
        # An environment that is used again has an older build of the same version.
        session.install("-q", "--no-deps", "--force-reinstall", str(wheel))
    made_for.write_text(asked, encoding="utf-8")


def share_large_files(environment: Path, wanted: Iterable[str]) -> None:
    """Link the files of large distributions, where these are wanted, into a new environment. pip
    then replaces those of another version, and installs those that are missing."""
    for site in environment.glob("lib/python*/site-packages"):
        for name in SHARED.keys() & set(wanted):
            donor = environment.with_name(SHARED[name])
            made_for = donor / "made-for.txt"
            if made_for.exists() and made_for.read_text("utf-8"):  # it is whole
                share_files(name, donor / site.relative_to(environment), site)


def workers(backend: str) -> list[str]:
    """pytest's options for the tests of a backend."""
    return [*WORKERS, "-p", "one_core_each"] if "mindspore" in PACKAGES[backend] else WORKERS


def run_pytest(
    session: nox.Session,
    *arguments: str,
    command: Sequence[str] = ("pytest",),
    options: Sequence[str] = WORKERS,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run tests side by side, each with one thread."""
    # Unbuffered: or where nobody looks at a terminal, the last tests of all are not seen to run.
    usual = {"PYTHONPATH": INSTRUMENTS, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    env = {**usual, **(env or {})}
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = ["-q", "-p", "frozen_heap", *options, f"--junit-xml={report}"]
        try:
            session.run(*command, *options, *arguments, env=env)
        finally:
            TABLE.count(report)


#: What is installed in an environment with nothing else in it, by name: the extras, whose
#: constraints, and what is run then.
INSTALLED = {
    "base": ("", "numpy", ["installed_package.py", "base"]),
    "torch": ("[torch]", "torch", ["installed_package.py", "torch"]),
    "mindspore": ("[mindspore]", "mindspore", ["installed_package.py", "mindspore"]),
    "webui": ("[webui]", "webui", ["-c", "import gradio, unicb"]),
    "notebook": ("[notebook]", "notebook", ["-c", "import ipykernel, ipywidgets, unicb"]),
    "testing": ("[testing]", "numpy", ["-m", "unicb.testing", "numpy", "-q", "-k", "chunk"]),
}


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"], reuse_venv=False)
@nox.parametrize("what", ["metadata", *INSTALLED, "clone"], ids=["metadata", *INSTALLED, "clone"])
@noted
def package(session: nox.Session, what: str) -> None:
    """Check what is to be published: its metadata by twine, the wheel with each extra in a clean
    environment, and README's first lines from there, and from this clone."""
    if what == "metadata":
        install(session, "tools", "hatchling", "twine")
        folder = session.create_tmp()
        session.run("python", "-m", "hatchling", "build", "-d", folder, silent=True)
        built = sorted(str(path) for path in Path(folder).glob("unicb-*"))
        session.run("twine", "check", "--strict", *built)
        return
    extras, constraints, (first, *rest) = INSTALLED["torch" if what == "clone" else what]
    # From the clone as README says it: what builds it is downloaded for that, too.
    source = "." if what == "clone" else str(find_wheel(session))
    install(session, constraints, f"{source}{extras}")
    session.run("python", "-m", "pip", "check")
    command = [str(Path(INSTRUMENTS, first)), *rest] if first.endswith(".py") else [first, *rest]
    session.run("python", "-P", *command)


@nox.session(python=PYTHON)
@noted
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    install(session, "tools", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHON)
@noted
def types(session: nox.Session) -> None:
    """Check types in unicb/ and backends/ with mypy --strict."""
    install(session, "numpy", "mypy", "numpy", "pillow", "pytest", "hypothesis")
    session.run("mypy")


def download_for_porting(session: nox.Session) -> Path:
    """Folder of the wheels that docs/porting.md installs, for a second test without a network."""
    folder = Path(session.bin).parent / "porting"
    sources = ("constraints/third-party.txt", "constraints/tools.txt", "pyproject.toml")
    made_for = "".join(Path(source).read_text(encoding="utf-8") for source in sources)
    stamp = folder / "made-for.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_for:
        shutil.rmtree(folder, ignore_errors=True)
        pip = ["python", "-m", "pip", "download", "-q", "-c", sources[0], "-d", str(folder)]
        # The page builds with hatchling, once editable.
        wanted = [f"{find_wheel(session)}[testing]", "hatchling", "editables"]
        session.run_install(*pip, *wanted)
        stamp.write_text(made_for, encoding="utf-8")
    return folder


def run_own_tests(session: nox.Session) -> None:
    """Test unicb itself on the reference backend, in this session's Python."""
    install_wheel(session, "numpy", "testing", also=OPTIONAL)
    env = {"UNICB_PORTING_WHEELS": str(download_for_porting(session).resolve())}
    run_pytest(session, *(session.posargs or ["tests"]), env=env)


@nox.session(python=PYTHON, requires=["wheel"])
@noted
def tests(session: nox.Session) -> None:
    """Test unicb itself on the reference backend, with no framework installed."""
    run_own_tests(session)


def add_tests_on(version: str) -> None:
    """Add the session that makes the same tests in another Python, if that is installed.

    nox would fail for want of it, as it does for want of PYTHON. Nobody has every Python.
    """
    name = f"tests-{version}"

    def tests_on(session: nox.Session) -> None:
        run_own_tests(session)

    def missing(session: nox.Session) -> None:
        with TABLE.row(session.name):
            do_without(session, f"there is no python{version} on the path that starts")

    if is_installed(version):
        tests_on.__doc__ = f"Test unicb itself on the reference backend, in Python {version}."
        nox.session(noted(tests_on), python=version, name=name, tags=["more"], requires=["wheel"])
    else:
        missing.__doc__ = f"Skipped: there is no Python {version} to test unicb itself in."
        nox.session(missing, name=name, tags=["more"], venv_backend="none")


for later in LATER_PYTHONS:
    add_tests_on(later)


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"])
@noted
def mutants(session: nox.Session) -> None:
    """Hold every mutant against every check of the suite, and print which fails on which."""
    install_wheel(session, "numpy", "testing", also=OPTIONAL)
    run_pytest(session, "tests/suite", "--matrix", *session.posargs, options=[])


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"], name="every-kind")
@noted
def every_kind(session: nox.Session) -> None:
    """Make every check of the suite on every kind of pipeline of MindSpore's, not on some."""
    install_wheel(session, "mindspore", "testing")
    command = [*suite_of("mindspore"), "--every-kind"]
    run_pytest(session, *session.posargs, command=command, options=workers("mindspore"))


def framework_tests(backend: str) -> list[str]:
    """Folders of a framework's tests: those that both frameworks have, and its own. Else none."""
    if backend not in FRAMEWORKS:
        return []
    return ["tests/backends/shared", f"tests/backends/unicb_{backend}"]


def suite_of(backend: str) -> list[str]:
    """The command of the conformance suite.

    -P: what is tested is the installed wheel, not the folder that this runs in.
    """
    return ["python", "-P", "-m", "unicb.testing", backend]


@nox.session(python=PYTHON, requires=["wheel"])
@nox.parametrize("backend", [*BACKENDS, "third-party"], ids=[*BACKENDS, "third-party"])
@noted
def conformance(session: nox.Session, backend: str) -> None:
    """Run the conformance suite, and the backend's own tests, on the installed wheel."""
    if backend == "third-party":
        return test_stranger(session)
    install_wheel(session, backend, "testing", also=TESTED_WITH.get(backend, ()))
    # Both in one run of pytest: a framework takes ten seconds to import, in each worker.
    tests = [*framework_tests(backend), *session.posargs]
    run_pytest(session, *tests, command=suite_of(backend), options=workers(backend))


def test_stranger(session: nox.Session) -> None:
    """Test the backend that is a distribution of its own, with JAX."""
    install_wheel(session, "third-party", "testing", also=["hatchling"])
    install(session, "third-party", "--no-build-isolation", f"./{STRANGER}")
    # Most of the time goes into compiling, for each shape: what one process has compiled, the
    # others read.
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(session.create_tmp(), "jax").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    run_pytest(session, *session.posargs, command=suite_of("jax"), env=kept)
    # JAX has float64 only where it is told so: the first run is without, the second with it, and
    # without the checks of those dtypes that are the same there.
    again = ["-k", "not (bfloat16 or float16 or float32)"]
    run_pytest(session, f"{STRANGER}/tests", *again, env={**kept, "JAX_ENABLE_X64": "1"})


def export_shapes(session: nox.Session, runtime: str) -> dict[str, str]:
    """Install a runtime, and export the trained checkpoint for it; returns what tells where."""
    install_wheel(session, runtime, "testing")
    if runtime == "openvino":
        # Alone: it asks for torchvision, whose usual build fits no torch for CPUs only.
        install(session, runtime, "--no-deps", "optimum-intel")
    folder = str(Path(session.create_tmp(), "exported").resolve())
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": INSTRUMENTS}
    session.run("python", "-P", "-m", "exported_shapes", runtime, folder, env=env)
    return {**env, "UNICB_EXPORTED": folder}


def add_sessions_of(runtime: str) -> None:
    """Add the sessions of a runtime. They are none of the others' parameters: those are run by
    plain nox, and by nox -s conformance."""

    def conformance_of(session: nox.Session) -> None:
        env = export_shapes(session, runtime)
        run_pytest(session, "--disable-warnings", *(session.posargs or ["tests/runtimes"]), env=env)

    def bench_of(session: nox.Session) -> None:
        env = export_shapes(session, runtime)
        script = ["python", "benchmarks/runtime_cost.py", "--framework", runtime]
        session.run(*script, *session.posargs, env=env)
        session.run("python", "benchmarks/report.py")

    about = f"the trained checkpoint of examples/shapes, exported for {runtime}"
    conformance_of.__doc__ = (
        f"Run the conformance suite's checks of pipelines, and more, on {about}."
    )
    bench_of.__doc__ = f"Measure what a step takes on {about}; writes docs/benchmarks.md."
    for name, function in (("conformance", conformance_of), ("bench", bench_of)):
        add = nox.session(
            python=PYTHON, requires=["wheel"], tags=["more"], name=f"{name}({runtime})"
        )
        add(noted(function))


for each_runtime in RUNTIMES:
    add_sessions_of(each_runtime)


@nox.session(python=PYTHON, requires=["wheel"])
@noted
def both(session: nox.Session) -> None:
    """Test PyTorch and MindSpore side by side in one process: the same picture from both."""
    install_wheel(session, "both", "testing")
    by_group = [*workers("both"), "--dist", "loadgroup"]
    run_pytest(session, *(session.posargs or ["tests/both"]), options=by_group)


def run_ranks(session: nox.Session, framework: str, *options: str) -> None:
    """Test several processes that share a run, in the environment of the conformance suite."""
    folder, name = Path(session.cache_dir).parent, f"conformance({framework})"
    with TABLE.row(session.name):
        # Whatever is there, it is brought up to what that session installs.
        if not make_environment(folder, name):
            session.error(f"the environment is that of nox -s '{name}', which says what is wrong")
        programs = environment_of(folder, name) / "bin"
        with one_at_a_time(programs.parent, session.log):
            python = str(programs.resolve() / "python")
            # One process of pytest, which starts the others; msrun is looked for on the path.
            env = {"PATH": os.pathsep.join((str(programs.resolve()), os.environ.get("PATH", "")))}
            tests = session.posargs or [f"tests/ranks/test_{framework}_ranks.py"]
            command = [python, "-P", "-m", "pytest"]
            run_pytest(session, *options, *tests, command=command, options=[], env=env)


@nox.session(venv_backend="none", requires=["wheel"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def ranks(session: nox.Session, framework: str) -> None:
    """Test several processes that share a run: they stop, fail and show as one."""
    run_ranks(session, framework)


@nox.session(venv_backend="none", requires=["wheel"], tags=["more"], name="ranks-long")
def ranks_long(session: nox.Session) -> None:
    """Test more of them: every engine with every stop, and three hundred deadlines (minutes)."""
    run_ranks(session, "torch", "--long")


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"])
@noted
def libraries(session: nox.Session) -> None:
    """Test unicb beside other people's libraries on the same denoiser."""
    install_wheel(session, "libraries", "testing")
    # Some compile at once what they change, for minutes.
    run_pytest(session, *(session.posargs or ["tests/libraries"]), env={"TORCHDYNAMO_DISABLE": "1"})


#: Other arithmetic than the processor's best, as older or other processors have it, by name. Each
#: library is told in its own way; one that does not know what it is told takes no notice.
ARITHMETIC = {
    "compatible": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "1",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "AVX2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",  # a thread that waits leaves the core to one that works
    },
}
#: Prints the features of this processor that numpy has code of its own for, and can do without.
NUMPY_FEATURES = """
try:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
except ImportError:  # numpy 1
    from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print(*(name for name in __cpu_dispatch__ if __cpu_features__.get(name)))
"""


@nox.session(python=PYTHON, tags=["more"], requires=["wheel"])
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
@nox.parametrize("variation", list(ARITHMETIC), ids=list(ARITHMETIC))
@noted
def arithmetic(session: nox.Session, backend: str, variation: str) -> None:
    """Run a backend's tests with the arithmetic of other processors, as far as libraries let us."""
    install_wheel(session, backend, "testing", also=TESTED_WITH.get(backend, OPTIONAL))
    suites = framework_tests(backend) or ["tests"]
    env = dict(ARITHMETIC[variation])
    if variation == "compatible":
        printed = str(session.run("python", "-P", "-c", NUMPY_FEATURES, silent=True))
        env["NPY_DISABLE_CPU_FEATURES"] = printed.splitlines()[-1]
        session.log(f"numpy does without {env['NPY_DISABLE_CPU_FEATURES']}")
    if not session.posargs:
        run_pytest(session, command=suite_of(backend), options=workers(backend), env=env)
    run_pytest(session, *(session.posargs or suites), options=workers(backend), env=env)


def look_for_chromium(session: nox.Session) -> str | None:
    """Path of a Chromium, installed first where Debian has it and this is root."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None and Path("/etc/debian_version").exists() and os.geteuid() == 0:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium"]
        for command in (["apt-get", "update", "-qq"], install):
            session.run_install(*command, env=env, external=True, success_codes=range(256))
        found = shutil.which("chromium")
    return found


def find_chromium(session: nox.Session) -> str:
    """Path of a Chromium. Without one the session is skipped, or fails where CI=true."""
    found = look_for_chromium(session)
    if found is not None:
        return found
    do_without(
        session,
        "there is no Chromium to look at the page with. Install one (Debian: apt-get install "
        "chromium; or Google's or Microsoft's), or set CHROMIUM to the path of one",
    )


@nox.session(python=PYTHON, requires=["wheel"])
@nox.parametrize(
    "framework",
    [nox.param("torch", id="torch"), nox.param("mindspore", id="mindspore", tags=["more"])],
)
@noted
def webui(session: nox.Session, framework: str) -> None:
    """Test examples/webui.py end to end in Chromium, without a window."""
    env = {
        "CHROMIUM": find_chromium(session),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": session.create_tmp(),
    }
    install_wheel(session, "webui" if framework == "torch" else f"webui-{framework}", "webui")
    arguments = ["tests/webui", "--framework", framework, *session.posargs]
    run_pytest(session, *arguments, options=[], env=env)


@nox.session(python=PYTHON, requires=["wheel"])
@nox.parametrize(
    "framework",
    [nox.param("torch", id="torch"), nox.param("mindspore", id="mindspore", tags=["more"])],
)
@noted
def service(session: nox.Session, framework: str) -> None:
    """Test examples/service.py by real HTTP clients: many at once, and those that go away."""
    install_wheel(session, "service" if framework == "torch" else f"service-{framework}", "service")
    arguments = ["tests/service", "--framework", framework, *session.posargs]
    run_pytest(session, *arguments, options=[])


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"], name="ray")
@noted
def ray_session(session: nox.Session) -> None:
    """Test examples/ray_serve.py on a Ray of this machine's own, by real HTTP clients."""
    install_wheel(session, "ray", "ray")
    run_pytest(session, "tests/ray", *session.posargs, options=[])


@nox.session(python=PYTHON, requires=["wheel"])
@nox.parametrize("framework", ["torch"], ids=["torch"])
@noted
def notebook(session: nox.Session, framework: str) -> None:
    """Run examples/notebook.ipynb in a kernel, and click on Stop in JupyterLab in Chromium, without
    a window."""
    test_notebook(session, framework, *(session.posargs or ["-k", "executed or stop_gives"]))


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"], name="notebook-long")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def notebook_long(session: nox.Session, framework: str) -> None:
    """Run the notebook in a kernel, and click on every button in JupyterLab; interrupt the kernel;
    look at pictures on a phone."""
    test_notebook(session, framework, *session.posargs)


def test_notebook(session: nox.Session, framework: str, *arguments: str) -> None:
    env = {"CHROMIUM": find_chromium(session)}
    backend = "notebook" if framework == "torch" else f"notebook-{framework}"
    install_wheel(session, f"notebook-{framework}", "notebook", constraints=backend)
    command = ["tests/notebook", "--framework", framework, *arguments]
    run_pytest(session, *command, options=[], env=env)


def install_docs(session: nox.Session) -> dict[str, str]:
    """Install what builds the documentation site; returns what tells it where things are."""
    install(session, "docs", *DOCS)
    Path("build", "docs").mkdir(parents=True, exist_ok=True)  # mkdocs wants it to be there
    return {"PYTHONPATH": INSTRUMENTS, "NO_MKDOCS_2_WARNING": "1"}


@nox.session(python=PYTHON)
@noted
def docs(session: nox.Session) -> None:
    """Build the documentation site in build/site, check its links, and look at it in Chromium."""
    env = install_docs(session)
    session.run("python", "-P", "-m", "docs_site.translations", env=env)
    session.run("mkdocs", "build", "--quiet", env=env)
    session.run("python", "-P", "-m", "docs_site.check", "build/site", env=env)
    env["CHROMIUM"] = find_chromium(session)
    # From the sources, of which the pages are made, too.
    path = os.pathsep.join(
        [INSTRUMENTS, *(str(Path(part).resolve()) for part in (".", "backends"))]
    )
    run_pytest(session, "tests/docs_site", options=[], env={**env, "PYTHONPATH": path})
    session.run("python", "-P", "-m", "docs_site.look", "build/site", *session.posargs, env=env)


#: Sessions of plain nox that wait a good part of their time, those that take longest first.
WAITING = [
    *("docs", "ranks(torch)", "webui(torch)"),
    *("service(torch)", "notebook(torch)", "ranks(mindspore)"),
]


@nox.session(venv_backend="none", requires=["wheel"], name="side-by-side")
def side_by_side(session: nox.Session) -> None:
    """Run side by side what waits for other processes, such as servers and browsers: docs, ranks,
    notebook, service and webui."""
    with TABLE.row(session.name):
        # Looked for once: two cannot install it at once.
        found = look_for_chromium(session)
        env = {WHEEL_IS_BUILT: "1", **({} if found is None else {"CHROMIUM": found})}
        rows = run_side_by_side(Path(session.cache_dir).parent, WAITING, env, session.log)
        TABLE.add_beside(rows)
        if failed := [row.session for row in rows if row.outcome not in ("passed", "skipped")]:
            session.error(f"failed: {', '.join(failed)}")


@nox.session(python=PYTHON, name="docs-serve")
@noted
def docs_serve(session: nox.Session) -> None:
    """Show the documentation site at http://127.0.0.1:8000, and build it anew as you write."""
    session.run("mkdocs", "serve", *session.posargs, env=install_docs(session))


def run_zoo(session: nox.Session, framework: str, *arguments: str) -> None:
    """Run the zoo on the installed wheel and the framework."""
    install_wheel(session, framework)
    zoo(session, framework, *arguments)


def zoo(session: nox.Session, framework: str, *arguments: str, module: str = "zoo") -> None:
    """Run the zoo on what is installed."""
    script = ["python", "-P", "-m", module, *arguments, "--framework", framework]
    session.run(*script, env={"PYTHONPATH": INSTRUMENTS})


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-cfg", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_cfg(session: nox.Session, framework: str) -> None:
    """Measure the cut on a tiny pipeline of every class (or of the families named); writes the
    pages, too."""
    run_zoo(session, framework, "coverage", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-guidance", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_guidance(session: nox.Session, framework: str) -> None:
    """Measure intervals, schedules and rules of guidance on a tiny pipeline of every class (or of
    the families named); writes the pages, too."""
    run_zoo(session, framework, "guidance", *session.posargs)
    zoo(session, framework, "rules", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-previews", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_previews(session: nox.Session, framework: str) -> None:
    """Measure previews on a tiny pipeline of every class (or of the families named); writes the
    pages, too."""
    run_zoo(session, framework, "previews", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-stops", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_stops(session: nox.Session, framework: str) -> None:
    """Stop a tiny pipeline of every class (or of the families named); writes the pages, too."""
    run_zoo(session, framework, "stops", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-steps", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_steps(session: nox.Session, framework: str) -> None:
    """See the steps of every class that calls no callback (or of the families named); writes the
    pages, too."""
    run_zoo(session, framework, "steps", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-observed", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_observed(session: nox.Session, framework: str) -> None:
    """Look at the loop of every class (or of the families named) as if it were unknown; writes the
    pages, too."""
    run_zoo(session, framework, "observed", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-modular", tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def coverage_modular(session: nox.Session, framework: str) -> None:
    """Run tiny modular pipelines with unicb and without (all, or the classes named); writes the
    page, too."""
    install_wheel(session, framework)
    zoo(session, framework, *session.posargs, module="zoo.modular")


#: Environments other than the one that everything else is run in, by the name of their file in
#: constraints/compat: the backend, and the Python.
ENVIRONMENTS = {
    **dict.fromkeys(["lowest", "newest", "numpy-1.26"], ("torch", PYTHON)),
    **{f"diffusers-0.{minor}.0": ("torch", PYTHON) for minor in (34, 36, 38, 40)},
    "python-3.13": ("torch", "3.13"),
    **{f"mindspore-{version}": ("mindspore", PYTHON) for version in ("2.7.0", "2.7.1", "2.8.0")},
    "mindspore-2.8.0-python-3.12": ("mindspore", "3.12"),
}


#: Those that have a release of diffusers or mindone that no other has.
RELEASES = [name for name in ENVIRONMENTS if name.startswith("diffusers")]
RELEASES += ["newest", "mindspore-2.7.0"]


def in_environments(names: Iterable[str]) -> Callable[[Any], Any]:
    """Have a session for each of these. Where its Python is missing, it starts in PYTHON, and
    :func:`install_environment` ends it."""
    installed = {python: is_installed(python) for _, python in ENVIRONMENTS.values()}
    wanted = [ENVIRONMENTS[name][1] for name in names]
    pythons = [python if installed[python] else PYTHON for python in wanted]
    rows = list(zip(pythons, names, strict=True))
    return nox.parametrize("python, environment", rows, ids=list(names))


def install_environment(session: nox.Session, environment: str) -> str:
    """Install the wheel and the versions of an environment; returns its framework."""
    framework, python = ENVIRONMENTS[environment]
    if session.python != python:
        do_without(session, f"there is no python{python} on the path that starts")
    install_wheel(session, framework, constraints=f"compat/{environment}")
    return framework


@nox.session(requires=["wheel"], tags=["more"])
@in_environments(RELEASES)
@noted
def fingerprints(session: nox.Session, environment: str) -> None:
    """Write on which loops of a release the facts are proven: those of another release, and those
    that are measured now."""
    zoo(session, install_environment(session, environment), "fingerprints")


@nox.session(requires=["wheel"], tags=["more"])
@in_environments(ENVIRONMENTS)
@noted
def compat(session: nox.Session, environment: str) -> None:
    """Measure a part of everything with other versions, and write docs/compatibility.md."""
    framework = install_environment(session, environment)
    zoo(session, framework, "compat", "--environment", environment)


@nox.session(python=PYTHON, requires=["wheel"], name="coverage-report")
@noted
def coverage_report(session: nox.Session) -> None:
    """Write docs/coverage.md and docs/coverage/*.md from what was measured; measures nothing."""
    install_wheel(session, "numpy")
    script = ["python", "-P", "-m", "zoo", "report", *session.posargs]
    session.run(*script, env={"PYTHONPATH": "instruments"})


@nox.session(python=PYTHON, requires=["wheel"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def demo(session: nox.Session, framework: str) -> None:
    """Generate with the trained checkpoint on PyTorch and on MindSpore: pictures in out/."""
    install_wheel(session, framework)
    script = ["python", "examples/quickstart.py", "--framework", framework]
    out = f"out/{framework}"
    session.run(*script, "--out", out, *session.posargs)
    session.run(*script, "--out", f"{out}-stopped", "--stop-at", "14", *session.posargs)


@nox.session(python=PYTHON, requires=["wheel"], tags=["more"])
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
@noted
def bench(session: nox.Session, framework: str) -> None:
    """Measure the costs: scripts that need no GPU, or those named; writes docs/benchmarks.md."""
    # source_cost runs the suite's toy of a modular pipeline.
    install_wheel(session, framework, "testing", also=PLOTTING.get(framework, ()))
    usual = [*BENCHMARKS, *(TORCH_BENCHMARKS if framework == "torch" else [])]
    for name in session.posargs or usual:
        script = ["python", f"benchmarks/{name}.py", "--framework", framework]
        # One thread for a framework's own work: the background threads need a core, too.
        session.run(*script, env={"OMP_NUM_THREADS": "1"})
    session.run("python", "benchmarks/report.py")
