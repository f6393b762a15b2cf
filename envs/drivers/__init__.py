"""Drivers that need no learning: the yardsticks of every evaluation."""

from drivecast.envs.drivers.idm import IDMConfig, IDMDriver
from drivecast.envs.drivers.simple import ConstantVelocityDriver, HumanDriver, IdleDriver

__all__ = ["ConstantVelocityDriver", "HumanDriver", "IDMConfig", "IDMDriver", "IdleDriver"]
