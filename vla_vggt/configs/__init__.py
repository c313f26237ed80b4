"""Configuration as dataclasses; presets are functions that return one."""
