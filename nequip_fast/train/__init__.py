"""Training: configuration, loss, metrics, averaged weights, schedule, exact resume, evaluation."""

from nequip_fast.train.config import TrainConfig, read_config

__all__ = ["TrainConfig", "read_config"]
