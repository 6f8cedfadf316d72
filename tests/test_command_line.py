"""``python -m unicb``: what its commands print, and how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unicb.backend
from unicb import Trajectory, bind
from unicb._cli import main
from unicb._cli.doctor import examined
from unicb._cli.explain import explanations
from unicb.backend import Backend
from unicb.latents.formats import builtin_formats
from unicb.ops import TensorOps
from unicb_numpy.pipelines import ToyPipeline


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints."""
    assert main(arguments) == code
    done = capsys.readouterr()
    assert bool(done.err) == (code == 2)
    return done.out or done.err


@pytest.mark.parametrize("command", ["", "doctor", "explain", "preview", "testing"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*([command] if command else []), "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"python -m unicb{'.' if command == 'testing' else ' '}{command}" in said
    if command != "testing":
        assert "xit code" in said


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["explain"], ["doctor", "--nonsense"]])
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


def test_as_a_module() -> None:
    """And no command imports what another needs."""
    script = "import runpy, sys; sys.argv[1:] = ['doctor']\n"
    script += "try: runpy.run_module('unicb', run_name='__main__')\n"
    script += "except SystemExit as left: code = left.code\n"
    script += "print(code, 'unicb.testing' in sys.modules, 'unicb._cli.preview' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 False False"
    assert "numpy      loads" in done.stdout


# doctor


class _Fine(Backend):
    name, install = "fine", "pip install fine"
    distributions = ("numpy",)
    package = "numpy"

    @property
    def ops(self) -> TensorOps:
        return SimpleNamespace()  # type: ignore[return-value]

    @property
    def tensor_type(self) -> type:
        return int

    def devices(self) -> tuple[str, ...]:
        return ("cpu", "npu:0")


class _Missing(_Fine):
    name, install = "missing", "pip install missing"
    distributions = ("no-such-distribution", "pillow")
    package = "no_such_package"


class _Broken(_Fine):
    name, install = "broken", "pip install --upgrade broken"

    @property
    def ops(self) -> TensorOps:
        try:
            raise OSError("libdevice.so.2: no such file")
        except OSError as error:
            raise ImportError("the framework does not load") from error


class _NoLibrary(_Fine):
    name = "no-library"
    library = "numpy.no_such_module"


def _raising() -> Any:
    raise SyntaxError("its backend.py cannot be read")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs backends for one test: objects, or functions that are called to load them."""

    def install(*backends: Any) -> None:
        points = {}
        for one in backends:
            name = getattr(one, "name", "unreadable")
            load = one if name == "unreadable" else lambda one=one: one
            points[name] = SimpleNamespace(value=f"{name}:backend", load=load, module=name)
        monkeypatch.setattr(unicb.backend, "_entry_points", lambda: points)
        unicb.backend._load_entry_point.cache_clear()

    yield install
    unicb.backend._load_entry_point.cache_clear()


def test_a_backend_that_loads(installed: Any) -> None:
    installed(_Fine())
    found = examined("fine")
    assert (found.state, found.devices, found.cause) == ("loads", ("cpu", "npu:0"), ())
    assert found.versions == {"numpy": np.__version__}


def test_one_whose_framework_is_not_there(
    installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(_Missing(), _Fine())
    found = examined("missing")
    assert (found.state, found.remedy) == ("not installed", "pip install missing")
    assert found.cause == ("no-such-distribution and no_such_package not installed",)
    assert [*found.versions] == ["pillow"]
    assert "to mend it: pip install missing" in printed(capsys, "doctor")


@pytest.mark.parametrize(
    ("backend", "name", "causes"),
    [
        (_Broken(), "broken", ["ImportError: the framework does not load", "libdevice.so.2"]),
        (_NoLibrary(), "no-library", ["no_such_module"]),
        (_raising, "unreadable", ["its backend.py cannot be read"]),
    ],
)
def test_one_that_is_broken(
    installed: Any,
    capsys: pytest.CaptureFixture[str],
    backend: Any,
    name: str,
    causes: list[str],
) -> None:
    installed(backend, _Fine())
    assert examined(name).state == "broken"
    said = printed(capsys, "doctor", code=1)
    assert all(cause in said for cause in causes)
    assert "to mend it:" in said
    found = json.loads(printed(capsys, "doctor", "--json", code=1))
    assert {one["name"]: one["state"] for one in found["backends"]} == {
        name: "broken",
        "fine": "loads",
    }
    assert found["versions"]["unicb"] == unicb.__version__


def test_a_backend_without_the_newer_members_loads(installed: Any) -> None:
    """Such as one that was written before these, and derives from nothing of ours."""
    members = {name: getattr(_Fine(), name) for name in unicb.backend._PARTS}
    installed(SimpleNamespace(**{**members, "name": "old"}))
    assert examined("old").state == "loads"


# explain


def test_explain_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, "explain", "ToyPipeline")
    assert said.startswith("ToyPipeline: numpy (numpy ")
    assert "\n  CFGCutoff         yes\n" in said
    assert "no: IPAdapterScale: ToyPipeline takes no IP-Adapter" in said
    (found,) = json.loads(printed(capsys, "explain", "ToyPipeline", "--json"))
    assert found["features"]["cut"]["works"] is True
    assert (found["basis"], found["noticed_by"]) == ("class", "callback")


def test_a_class_is_explained_as_its_objects_are() -> None:
    (found,) = explanations("unicb_numpy.pipelines.ToyPipeline")
    loaded = unicb.explain(ToyPipeline())
    assert found.features == loaded.features
    assert (found.tensors, found.guidance) == (loaded.tensors, loaded.guidance)


def test_a_class_that_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says so, and the reason is bind's."""
    said = printed(capsys, "explain", "test_explain.Stepless", code=1)
    assert "refused" in said
    assert "calls no callback at the end of a step" in said


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (["NoSuchPipeline"], "no class 'NoSuchPipeline' in "),
        (["no.such.Pipeline"], "no class 'no.such.Pipeline': No module named 'no'"),
        (["unicb_numpy.pipelines.np"], "'unicb_numpy.pipelines.np' is a module, and no class"),
        (["ToyPipeline", "--backend", "nope"], "no backend is called 'nope'"),
        (["builtins.dict"], "a dict is no pipeline"),
        (["types.SimpleNamespace"], "is no pipeline"),
        (["unicb.Step"], "a Step is no pipeline"),
        (["unicb.Interrupt"], "no pipeline that an installed backend knows"),
    ],
)
def test_what_is_not_found(capsys: pytest.CaptureFixture[str], what: list[str], words: str) -> None:
    assert words in printed(capsys, "explain", *what, code=2)


def _checkpoint(folder: Path, **index: Any) -> Path:
    said = {"_class_name": "ToyPipeline", "unet": ["unicb_numpy", "ToyUNet"], **index}
    (folder / "model_index.json").write_text(json.dumps(said), "utf-8")
    return folder


def test_explain_a_folder_that_was_saved_again(tmp_path: Path) -> None:
    """Its index says where it came from."""
    (found,) = explanations(str(_checkpoint(tmp_path, _name_or_path="elsewhere")))
    assert found.features["cut"].works


def test_a_class_of_another_backend_is_an_error() -> None:
    (found,) = explanations("unicb_numpy.pipelines.ToyPipeline", "numpy")
    assert found.backend == "numpy"
    with pytest.raises(unicb.BackendNotFoundError, match="nonsense"):
        list(explanations("unicb_numpy.pipelines.ToyPipeline", "nonsense"))


def test_explain_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = explanations(str(_checkpoint(tmp_path)))
    assert (found.basis, found.features["cut"].works) == ("checkpoint", True)
    assert found.features["preview"].how.startswith("in the colours of the format 'sd'")
    assert "no weights were loaded" in printed(capsys, "explain", str(tmp_path))


def test_a_folder_says_which_components_there_are(tmp_path: Path) -> None:
    (found,) = explanations(str(_checkpoint(tmp_path, unet=[None, None])))
    assert found.features["cut"].why_not == (
        "cannot cut guidance on this ToyPipeline: it has no unet"
    )


def test_the_configurations_in_a_folder_count(tmp_path: Path) -> None:
    _checkpoint(tmp_path, vae=["diffusers", "AutoencoderKL"])
    (tmp_path / "vae").mkdir()
    config = {"latent_channels": 16, "scaling_factor": 7.5}
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config), "utf-8")
    (found,) = explanations(str(tmp_path))
    assert found.features["preview"].why_not is not None
    assert "its VAE has 16 latent channels instead of 4" in found.features["preview"].why_not


def test_a_folder_brings_its_own_colours(tmp_path: Path) -> None:
    builtin_formats()["sdxl"].save(_checkpoint(tmp_path) / "preview.toml")
    (found,) = explanations(str(tmp_path))
    assert "'sdxl'" in found.features["preview"].how


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "has no model_index.json or modular_model_index.json"),
        ("{", "is no JSON"),
        ("[]", "holds a list, and no configuration"),
        ('{"_class_name": "Gone"}', "no class 'Gone' in "),
    ],
)
def test_a_folder_that_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "model_index.json").write_text(text, "utf-8")
    assert words in printed(capsys, "explain", str(tmp_path), code=2)


# preview


@pytest.fixture
def trajectory(tmp_path: Path) -> Path:
    path = tmp_path / "run.npz"
    bind(ToyPipeline(), Trajectory(path))(["a", "b"])
    return path


def test_a_contact_sheet(trajectory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trajectory.with_suffix(".png")
    said = printed(capsys, "preview", str(trajectory), "--format", "sd", "--columns", "5")
    assert said == f"{out}: sd, 10 steps recorded of 10\n"
    wide = Image.open(out)
    printed(capsys, "preview", str(trajectory), "--format", "sd", "--every", "3", "--columns", "5")
    narrow = Image.open(out)  # 0, 3, 6, 9
    assert wide.width > narrow.width
    assert wide.height > narrow.height


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation(trajectory: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    out = trajectory.with_name(f"made{suffix}")
    factors = trajectory.with_suffix(".toml")
    builtin_formats()["sdxl"].save(factors)
    options = ["--out", str(out), "--factors", str(factors), "--size", "32", "--every", "2"]
    assert "sdxl" in printed(capsys, "preview", str(trajectory), *options)
    made = Image.open(out)
    assert made.n_frames == 6  # 0, 2, 4, 6, 8, 9
    assert made.height == 32


def test_the_colours_are_those_of_a_preview(
    trajectory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unicb import Preview

    frames: list[Any] = []
    bind(ToyPipeline(), Preview(frames, source="noisy"))(["a", "b"])
    out = trajectory.with_suffix(".png")
    printed(capsys, "preview", str(trajectory), "--format", "sd", "--every", "99", "--columns", "1")
    sheet = np.asarray(Image.open(out))
    shown = np.asarray(frames[0].images[0])
    found = np.lib.stride_tricks.sliding_window_view(sheet, shown.shape)
    assert (found == shown).all(axis=(-1, -2, -3)).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "do not tell their format: say it by --format, one of sd, "),
        (["--format", "nope"], "no format 'nope'; there are: sd, sdxl"),
        (["--format", "flux"], "do not fit the layout 'bchw' with 16 channels"),
        (["--format", "sd", "--every", "0"], "--every must be at least 1, not 0"),
        (["--format", "sd", "--layout", "xyz"], "is no layout of latents"),
        (["--factors", "nowhere.toml"], "nowhere.toml"),
        (["--format", "sd", "--out", "sheet.nope"], "nope"),
    ],
)
def test_previews_that_cannot_be_made(
    trajectory: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert words in printed(capsys, "preview", str(trajectory), *options, code=2)


def test_a_file_that_is_no_trajectory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in printed(capsys, "preview", str(tmp_path / "gone.npz"), code=2)
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    assert "is no trajectory" in printed(capsys, "preview", str(tmp_path / "other.npz"), code=2)


# testing


def test_testing_is_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["testing", "no-such-backend"]) == 2
    assert "no backend is called 'no-such-backend'" in capsys.readouterr().err


def test_testing_without_pytest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    for name in [name for name in sys.modules if name.startswith("unicb.testing")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["testing", "numpy"]) == 2
    assert "pip install 'unicb[testing]'" in capsys.readouterr().err
