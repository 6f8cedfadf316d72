"""Everything that can be run on this project: ``nox -l`` lists it, ``nox`` runs the checks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "tests", "conformance", "both", "webui(torch)"]

# MindSpore 2.7.0 has no wheel for a later Python.
PYTHON = "3.11"
FRAMEWORKS = ["torch", "mindspore"]
BACKENDS = ["numpy", *FRAMEWORKS]
STRANGER = "examples/third_party_backend"

#: Those that need no GPU; preview_cuda and guidance_cuda are run by name.
BENCHMARKS = [
    *("preview_cost", "stop_cost", "import_cost", "bind_cost", "machinery_cost"),
    *("cut_saving", "cross_framework"),
]
#: Those that are the same on every framework.
TORCH_BENCHMARKS = ["cut_quality"]

PACKAGES = {
    "numpy": ["numpy"],
    "torch": ["torch", "diffusers", "transformers", "accelerate"],
    "mindspore": ["mindspore", "mindone", "transformers", "numpy"],
    "third-party": ["jax"],
}
# Benchmarks draw plots, and their tests look at one.
PLOTTING = {"torch": ["matplotlib"]}
PACKAGES["both"] = [*PACKAGES["torch"], *PACKAGES["mindspore"]]
PACKAGES["webui"] = [*PACKAGES["torch"], "playwright", "pytest"]
PACKAGES["webui-mindspore"] = [*PACKAGES["mindspore"], "playwright", "pytest"]

#: What Chromium is called, where it is on the path.
CHROMIUMS = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
]


def install_tools(session: nox.Session, *names: str) -> None:
    session.install("-q", "-c", "constraints/tools.txt", *names)


def install_wheel(session: nox.Session, backend: str, *extras: str) -> None:
    """Build the wheel and install it, as users would get it, with the backend's pinned versions."""
    folder = Path(session.create_tmp())
    for old in folder.glob("unicb-*.whl"):
        old.unlink()
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), ".")
    wheel = next(folder.glob("unicb-*.whl"))
    # The framework by name rather than by unicb's extra, which allows more than we pin.
    wanted = [f"{wheel}[{','.join(extras)}]" if extras else str(wheel), *PACKAGES[backend]]
    session.install("-q", "-c", f"constraints/{backend}.txt", *wanted)
    # An environment that is used again has an older build of the same version.
    session.install("-q", "--no-deps", "--force-reinstall", str(wheel))


def install_plotting(session: nox.Session, backend: str) -> None:
    if backend in PLOTTING:
        session.install("-q", "-c", f"constraints/{backend}.txt", *PLOTTING[backend])


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    install_tools(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHON)
def types(session: nox.Session) -> None:
    """Check types in unicb/ and backends/ with mypy --strict."""
    install_tools(session, "mypy", "numpy", "pillow", "pytest", "hypothesis")
    session.run("mypy")


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Test unicb itself on the reference backend, with no framework installed."""
    install_wheel(session, "numpy", "testing")
    install_tools(session, "rich", "safetensors", "tqdm")  # which callbacks use or write for
    session.run("pytest", "-q", *(session.posargs or ["tests"]))


@nox.session(python=PYTHON)
@nox.parametrize("backend", [*BACKENDS, "third-party"], ids=[*BACKENDS, "third-party"])
def conformance(session: nox.Session, backend: str) -> None:
    """Run the conformance suite, and the backend's own tests, on the installed wheel."""
    install_wheel(session, backend, "testing")
    install_plotting(session, backend)
    own, name, env = Path("tests/backends", f"unicb_{backend}"), backend, {}
    if backend == "third-party":
        session.install("-q", "-c", "constraints/third-party.txt", f"./{STRANGER}")
        # JAX has float64 only where it is told so: the first run is without, the second with it.
        own, name, env = Path(STRANGER, "tests"), "jax", {"JAX_ENABLE_X64": "1"}
    # -P: what is tested is the installed wheel, not the folder that this runs in.
    session.run("python", "-P", "-m", "unicb.testing", name, "-q", *session.posargs)
    if own.is_dir():
        session.run("pytest", "-q", str(own), env=env)


@nox.session(python=PYTHON)
def both(session: nox.Session) -> None:
    """Test PyTorch and MindSpore side by side in one process: the same picture from both."""
    install_wheel(session, "both", "testing")
    session.run("pytest", "-q", *(session.posargs or ["tests/both"]))


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


@nox.session(python=PYTHON)
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
@nox.parametrize("variation", list(ARITHMETIC), ids=list(ARITHMETIC))
def arithmetic(session: nox.Session, backend: str, variation: str) -> None:
    """Run a backend's tests with the arithmetic of other processors, as far as libraries let us."""
    install_wheel(session, backend, "testing")
    install_plotting(session, backend)
    suites = [f"tests/backends/unicb_{backend}"]
    if backend == "numpy":
        install_tools(session, "rich", "safetensors", "tqdm")  # as in the session called tests
        suites = ["tests"]
    env = dict(ARITHMETIC[variation])
    if variation == "compatible":
        printed = str(session.run("python", "-P", "-c", NUMPY_FEATURES, silent=True))
        env["NPY_DISABLE_CPU_FEATURES"] = printed.splitlines()[-1]
        session.log(f"numpy does without {env['NPY_DISABLE_CPU_FEATURES']}")
    if not session.posargs:
        session.run("python", "-P", "-m", "unicb.testing", backend, "-q", env=env)
    session.run("pytest", "-q", *(session.posargs or suites), env=env)


def find_chromium(session: nox.Session) -> str:
    """Path of a Chromium, installed first where Debian has it and this is root.

    Without one the session is skipped, or fails where CI=true.
    """
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None and Path("/etc/debian_version").exists() and os.geteuid() == 0:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium"]
        for command in (["apt-get", "update", "-qq"], install):
            session.run(*command, env=env, external=True, success_codes=range(256))
        found = shutil.which("chromium")
    if found is not None:
        return found
    reason = (
        "there is no Chromium to look at the page with. Install one (Debian: apt-get install "
        "chromium; or Google's or Microsoft's), or set CHROMIUM to the path of one"
    )
    if os.environ.get("CI") == "true":
        session.error(reason)
    session.skip(reason)


@nox.session(python=PYTHON)
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def webui(session: nox.Session, framework: str) -> None:
    """Test examples/webui.py end to end in Chromium, without a window."""
    env = {
        "CHROMIUM": find_chromium(session),
        "OMP_NUM_THREADS": "1",  # the browser needs a core, too
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": session.create_tmp(),
    }
    install_wheel(session, "webui" if framework == "torch" else f"webui-{framework}", "webui")
    arguments = ["tests/webui", "--framework", framework, *session.posargs]
    session.run("pytest", "-q", *arguments, env=env)


@nox.session(python=PYTHON, name="coverage-cfg")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def coverage_cfg(session: nox.Session, framework: str) -> None:
    """Measure the cut on a tiny pipeline of every class (or of the families named); writes
    docs/coverage.md."""
    install_wheel(session, framework)
    script = ["python", "-P", "-m", "zoo", "coverage", *session.posargs, "--framework", framework]
    session.run(*script, env={"PYTHONPATH": "instruments"})


@nox.session(python=PYTHON, name="coverage-guidance")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def coverage_guidance(session: nox.Session, framework: str) -> None:
    """Measure intervals and schedules of guidance on a tiny pipeline of every class (or of the
    families named); writes docs/coverage.md."""
    install_wheel(session, framework)
    script = ["python", "-P", "-m", "zoo", "guidance", *session.posargs, "--framework", framework]
    session.run(*script, env={"PYTHONPATH": "instruments"})


@nox.session(python=PYTHON, name="coverage-previews")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def coverage_previews(session: nox.Session, framework: str) -> None:
    """Measure previews on a tiny pipeline of every class (or of the families named); writes
    docs/coverage.md."""
    install_wheel(session, framework)
    script = ["python", "-P", "-m", "zoo", "previews", *session.posargs, "--framework", framework]
    session.run(*script, env={"PYTHONPATH": "instruments"})


@nox.session(python=PYTHON, name="coverage-stops")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def coverage_stops(session: nox.Session, framework: str) -> None:
    """Stop a tiny pipeline of every class (or of the families named); writes docs/coverage.md."""
    install_wheel(session, framework)
    script = ["python", "-P", "-m", "zoo", "stops", *session.posargs, "--framework", framework]
    session.run(*script, env={"PYTHONPATH": "instruments"})


@nox.session(python=PYTHON)
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def demo(session: nox.Session, framework: str) -> None:
    """Generate with the trained checkpoint on PyTorch and on MindSpore: pictures in out/."""
    install_wheel(session, framework)
    script = ["python", "examples/quickstart.py", "--framework", framework]
    out = f"out/{framework}"
    session.run(*script, "--out", out, *session.posargs)
    session.run(*script, "--out", f"{out}-stopped", "--stop-at", "14", *session.posargs)


@nox.session(python=PYTHON)
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def bench(session: nox.Session, framework: str) -> None:
    """Measure the costs: scripts that need no GPU, or those named; writes docs/benchmarks.md."""
    install_wheel(session, framework)
    install_plotting(session, framework)
    usual = [*BENCHMARKS, *(TORCH_BENCHMARKS if framework == "torch" else [])]
    for name in session.posargs or usual:
        script = ["python", f"benchmarks/{name}.py", "--framework", framework]
        # One thread for a framework's own work: the background threads need a core, too.
        session.run(*script, env={"OMP_NUM_THREADS": "1"})
    session.run("python", "benchmarks/report.py")
