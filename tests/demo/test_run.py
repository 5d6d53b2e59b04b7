"""``make demo`` with tiny budgets: every step runs, results are whole, a second run repeats nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "demo" / "run.py"
RESULTS = (
    "ethanol/model.safetensors",
    "ethanol/parity.png",
    "ethanol/learning_curve.png",
    "ethanol-bonds.png",
    "ethanol-energy.png",
    "ethanol-nve/trajectory.traj",
    "ethanol-nve/thermo.csv",
    "water/model.safetensors",
    "water-structure.png",
)


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(RUN), "--quick", "--out", str(out)]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


def test_interrupted_demo_is_clean_and_goes_on_where_it_stopped(folder: Path) -> None:
    process = start(folder)
    deadline = time.monotonic() + 120
    while not (folder / "ethanol-nvt" / "trajectory.traj").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 130, text
    assert "run the same command again" in text
    assert "Traceback" not in text
    assert list(folder.rglob(".*")) == []

    process = start(folder)
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    assert text.count("not repeated") == 1  # the training that was complete
    assert "total energy" in text
    assert "O–O distance: overlap" in text
    for name in RESULTS:
        assert (folder / name).stat().st_size > 0
        assert Path(name).name in text
    assert text.rstrip().splitlines()[-1].endswith(".png")


def test_second_run_repeats_nothing_and_changed_inputs_are_done_again(folder: Path) -> None:
    before = {name: (folder / name).stat().st_mtime_ns for name in RESULTS}
    record = json.loads((folder / "stages.json").read_text())
    (folder / "ethanol-energy.png").unlink()  # a lost result is made again
    water = next(title for title in record if title.startswith("Liquid water"))
    record[water]["inputs"] = "other"
    (folder / "water-nvt" / "thermo.csv").write_text("of the other inputs")
    (folder / "stages.json").write_text(json.dumps(record))
    process = start(folder)
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    assert text.count("not repeated") == 3
    changed = {name for name in RESULTS if (folder / name).stat().st_mtime_ns != before[name]}
    assert changed == {"ethanol-energy.png", "water-structure.png"}
    assert (folder / "water-nvt" / "thermo.csv").read_text().startswith("step,")


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "water").mkdir()
    process = start(tmp_path)
    assert "not of this demo" in process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["water"]
