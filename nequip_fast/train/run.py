"""A whole training run: folder, data, model, training, test."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from nequip_fast import model as models
from nequip_fast.errors import InputError, require
from nequip_fast.files import sha256, write_text
from nequip_fast.train.checkpoint import read_plain
from nequip_fast.train.config import TrainConfig, differing_keys
from nequip_fast.train.dataset import Datasets, load_datasets
from nequip_fast.train.evaluate import Evaluation, evaluate_graphs, plot_parity
from nequip_fast.train.metrics import ErrorSums, trivial_prediction
from nequip_fast.train.report import Reporter, error_table
from nequip_fast.train.trainer import Trainer, make_fabric

OUTPUTS = (
    "model.safetensors",
    "metrics.csv",
    "learning_curve.png",
    "parity.png",
    "errors.json",
    "best.safetensors",
    "last.safetensors",
    "config.yaml",
)


def train(config: TrainConfig) -> int:
    """Train, or continue what is in ``config.output``; returns the exit status: 0, or 128 + signal if interrupted.

    Raises:
        InputError: anything wrong with the configuration, the data, or the folder.
    """
    before = torch.get_num_threads()
    try:
        return _train(config)
    finally:
        torch.set_num_threads(before)


def _train(config: TrainConfig) -> int:
    output = Path(config.output)
    fabric = make_fabric(config.device, config.devices)
    reporter = Reporter(config.training.log_every, output / "learning_curve.png", quiet=not fabric.is_global_zero)
    identity = _identity(config)
    resuming = _prepare(output, config, identity, fabric)
    stored = read_plain(output / "last.safetensors") if resuming else None
    if stored and stored["position"]["finished"] and (output / "model.safetensors").exists():
        reporter.say(
            f"{output}: this run is finished ({stored['position']['finished']}); overwrite=true starts it again"
        )
        return 0
    threads = stored["threads"] if stored else config.threads
    if threads:
        torch.set_num_threads(threads)  # sums in another number of threads would not be the same bit for bit
    reporter.say(f"reading {config.data.file}")
    datasets = load_datasets(config)
    reporter.say(datasets.summary)
    torch.manual_seed(config.seed)  # nothing draws from it today; if something does, runs still repeat
    model = build(config, datasets)
    weights = sum(parameter.numel() for parameter in model.parameters())
    reporter.say(f"NequIP model with {weights:,} weights, r_max {model.r_max:g} Å, on {fabric.device}")
    reporter.trivial = _trivial_errors(datasets)
    trainer = Trainer(config, model, datasets, identity, reporter, fabric)
    if resuming:
        trainer.resume()
        position = trainer.position
        reporter.say(f"resuming in epoch {position.epoch + 1}, step {position.step}, after {position.elapsed:.0f} s")
    elif fabric.is_global_zero:
        write_text(output / "config.yaml", _yaml(config))
    stopped_by = trainer.fit()
    if fabric.is_global_zero:
        reporter.draw(trainer.history)
        if stopped_by:
            reporter.say(f"interrupted in epoch {trainer.position.epoch + 1}; run the same command again to resume")
        else:
            _conclude(config, trainer, reporter)
    return 128 + stopped_by if stopped_by else 0


def build(config: TrainConfig, datasets: Datasets) -> Any:
    """The untrained GraphModel: what the configuration says, completed with the statistics of the data."""
    arguments = {name: value for name, value in vars(config.model).items() if value is not None and name != "preset"}
    arguments = {**datasets.model_arguments, **arguments, "type_names": datasets.type_names, "seed": config.seed}
    if config.model.preset:
        return models.PresetNequIPGNNModel(preset=config.model.preset, **arguments)
    return models.NequIPGNNModel(**arguments)


def _identity(config: TrainConfig) -> dict[str, Any]:
    """What a resumed run must agree with: all that changes the result, and the content of the data files."""
    tree = config.to_dict()
    for name in ("output", "overwrite", "device", "devices", "threads"):
        tree.pop(name)
    tree["training"].pop("log_every")
    tree["training"].pop("checkpoint_interval")
    files = {}
    for name in ("file", "test_file"):
        path = getattr(config.data, name)
        if path is not None and Path(path).is_file():
            files[name] = sha256(path)
        tree["data"].pop(name)  # the content counts, not the name
    return {"config": json.loads(json.dumps(tree)), "data": files}


def _prepare(output: Path, config: TrainConfig, identity: dict[str, Any], fabric: Any) -> bool:
    """Make the folder ready; true if it holds a run to continue."""
    if output.exists() and not output.is_dir():
        raise InputError(f"output: {output} is a file; name a folder")
    if config.overwrite and fabric.is_global_zero:
        for name in reversed(OUTPUTS):  # the resume point goes before what it refers to
            (output / name).unlink(missing_ok=True)
    fabric.barrier()
    last = output / "last.safetensors"
    if not last.exists():
        for name in ("metrics.csv", "model.safetensors"):
            if (output / name).exists():
                raise InputError(
                    f"{output}: holds {name} but no last.safetensors to resume; give another output or overwrite=true"
                )
        return False
    stored = read_plain(last)["run"]
    if different := differing_keys(identity["config"], stored["config"]):
        key = different[0]
        raise InputError(
            f"{output}: holds a run with {key}={_value(stored['config'], key)}, but now {key}="
            f"{_value(identity['config'], key)}; give another output, the old value, or overwrite=true"
        )
    if different := differing_keys(identity["data"], stored["data"]):
        raise InputError(
            f"{output}: holds a run with other content in data.{different[0]}; give another output, the old file, or "
            "overwrite=true"
        )
    return True


def _conclude(config: TrainConfig, trainer: Trainer, reporter: Reporter) -> None:
    """Test the best weights; write the model with a summary, the plots and the errors."""
    output, position = trainer.output, trainer.position
    reporter.say(f"finished: {position.finished}; the best weights are those of epoch {position.best_epoch}")
    model = models.load_model(trainer.best)
    parts = {"validation": trainer.datasets.val, "test": trainer.datasets.test}
    results: dict[str, Evaluation] = {
        name: evaluate_graphs(model, part.graphs, trainer.fabric.device) for name, part in parts.items() if len(part)
    }
    for name, result in results.items():
        title = f"{name} errors, {result.num_structures} structures"
        reporter.console.print(error_table(result.errors, result.trivial, title))
    shown = results["test" if "test" in results else "validation"]
    plot_parity(shown, output / "parity.png")
    errors = {name: result.to_json() for name, result in results.items()}
    write_text(output / "errors.json", json.dumps(errors, indent=2, ensure_ascii=False) + "\n")
    summary = {
        "stopped": position.finished,
        "epochs": position.epoch,
        "best_epoch": position.best_epoch,
        "steps": position.step,
        "seconds": round(position.elapsed, 1),
        "errors": errors,
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "config": config.to_dict(),
    }
    models.save_model(output / "model.safetensors", model.cpu(), extra={"training": summary})
    for name in OUTPUTS:
        if (output / name).exists():
            reporter.say(f"wrote {output / name}")


def _trivial_errors(datasets: Datasets) -> dict[str, float]:
    batch = datasets.val.batch(range(len(datasets.val)))
    sums = ErrorSums(datasets.type_names)
    sums.add(trivial_prediction(batch.reference, len(datasets.type_names)), batch.reference)
    return sums.result()


def _value(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _yaml(config: TrainConfig) -> str:
    tree = config.to_dict()
    tree["overwrite"] = False  # running the copy again must resume
    return str(require("yaml", "train").safe_dump(tree, sort_keys=False, allow_unicode=True))
