"""tools/install_detectron2.py, on small wheels that the tests make."""

import hashlib
import importlib.util
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "install_detectron2.py"
FILES = {
    "LabGym/__init__.py": "raise RuntimeError('never imported')\n",
    "LabGym/detectron2/__init__.py": (
        "from LabGym.detectron2.config import NAME\n__version__ = '0.6'\n"
    ),
    "LabGym/detectron2/config.py": "NAME = 'LabGym.detectron2.config'\n",
    "LabGym/detectron2/model_zoo/a.yaml": "_BASE_: LabGym.detectron2\n",
    "labgym-3.1.2.dist-info/METADATA": "Name: labgym\n",
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    return path


def test_only_detectron2_is_kept_and_renamed_back(tool, wheel, tmp_path):
    made = tool.repackage(wheel, tmp_path)
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
        assert not [name for name in names if "LabGym" in name or "labgym" in name]
        code = archive.read("detectron2/__init__.py").decode()
        assert code.startswith("from detectron2.config import NAME\n")
        assert archive.read("detectron2/model_zoo/a.yaml").decode() == "_BASE_: LabGym.detectron2\n"
        notice = archive.read("detectron2-0.6.dist-info/NOTICE").decode()
        assert "Apache License" in notice
        record = archive.read("detectron2-0.6.dist-info/RECORD").decode()
        assert {line.split(",")[0] for line in record.splitlines()} == names


def test_the_same_input_gives_the_same_bytes(tool, wheel, tmp_path):
    first = tool.repackage(wheel, tmp_path).read_bytes()
    assert tool.repackage(wheel, tmp_path).read_bytes() == first


def test_pip_installs_it_as_detectron2(tool, wheel, tmp_path):
    made = tool.repackage(wheel, tmp_path)
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(made)], check=True)
    code = "import detectron2; print(detectron2.NAME)"
    run = [str(folder / "bin" / "python"), "-c", code]
    assert subprocess.check_output(run, text=True).strip() == "detectron2.config"
    shown = subprocess.check_output([*pip, "show", "detectron2"], text=True)
    assert "Name: detectron2\nVersion: 0.6" in shown


def test_a_wrong_hash_is_one_clear_line(tool, wheel, capsys, monkeypatch):
    monkeypatch.setattr(tool, "installed_version", lambda: None)
    monkeypatch.setattr(tool, "install", lambda _: pytest.fail("installed a file of unknown hash"))
    assert tool.main(["--wheel", str(wheel)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in error


def test_no_network_is_one_clear_line(tool, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "installed_version", lambda: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip finds nothing, as without a network
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert tool.main([]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "labgym==3.1.2" in error


def test_a_recent_detectron2_is_left_alone(tool, capsys, monkeypatch):
    monkeypatch.setattr(tool, "installed_version", lambda: "0.6")
    monkeypatch.setattr(tool, "download_wheel", lambda _: pytest.fail("downloaded for nothing"))
    assert tool.main([]) == 0
    assert "left alone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "enough"), [("0.5", False), ("0.6", True), ("0.7.dev1", True), ("1.0", True)]
)
def test_versions(tool, version, enough):
    assert tool.is_recent_enough(version) is enough
