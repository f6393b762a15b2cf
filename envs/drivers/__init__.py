"""Drivers that need no learning: the yardsticks of every evaluation."""

from envs.drivers.idm import IDMConfig, IDMDriver
from envs.drivers.simple import ConstantVelocityDriver, HumanDriver, IdleDriver

__all__ = ["ConstantVelocityDriver", "HumanDriver", "IDMConfig", "IDMDriver", "IdleDriver"]
