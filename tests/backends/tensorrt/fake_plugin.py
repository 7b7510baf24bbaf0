"""tensorrt.plugin replaced: what is registered with it is kept, and expressions are plain ints.

A slow test holds the same calls against NVIDIA's own module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass
class TensorDesc:
    shape_expr: tuple[int, ...] = ()
    dtype: str = ""


@dataclass
class KernelLaunchParams:
    grid_x: int = 1
    block_x: int = 1
    shared_mem: int = 0


class SymIntExprs(tuple[int, ...]):
    @classmethod
    def from_tuple(cls, values: tuple[int, ...]) -> SymIntExprs:
        return cls(values)


@dataclass
class AutoTuneCombination:
    types: str
    layouts: str
    tactics: list[int]


@dataclass
class Definition:
    """A plugin's functions, in the order in which TensorRT wants them registered."""

    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def names(self, role: str) -> list[str]:
        return list(inspect.signature(self.functions[role]).parameters)


class FakePlugin(ModuleType):
    """The module."""

    TensorDesc = TensorDesc
    KernelLaunchParams = KernelLaunchParams
    SymIntExprs = SymIntExprs
    AutoTuneCombination = AutoTuneCombination

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.op = SimpleNamespace()
        self.definitions: dict[str, Definition] = {}
        self.register = self._decorator("register")
        self.autotune = self._decorator("autotune")
        self.aot_impl = self._decorator("aot_impl")

    def _decorator(self, role: str) -> Callable[[str], Callable[..., Any]]:
        def of(plugin_id: str) -> Callable[..., Any]:
            def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
                if role == "register":
                    namespace, name = plugin_id.split("::")
                    assert plugin_id not in self.definitions
                    self.definitions[plugin_id] = Definition()
                    if not hasattr(self.op, namespace):
                        setattr(self.op, namespace, SimpleNamespace())
                    setattr(getattr(self.op, namespace), name, object())
                self.definitions[plugin_id].functions[role] = function
                return function

            return decorate

        return of

    @staticmethod
    def cdiv(a: int, b: int) -> int:
        return -(-a // b)

    @staticmethod
    def from_shape_expr(shape: tuple[int, ...], dtype: str) -> Any:
        return TensorDesc(shape, dtype)
