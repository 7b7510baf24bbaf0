"""What modules inside a network put out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from tdc_deploy.errors import TdcError, did_you_mean


@contextmanager
def captured(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict that each run of the model fills anew: module path → its output.

    Raises:
        TdcError: the model has no such module.
    """
    found: dict[str, Tensor] = {}
    modules = [module_at(model, path) for path in paths]

    def keep(path: str) -> object:
        return lambda _module, _inputs, output: found.__setitem__(path, output)

    hooks = [
        module.register_forward_hook(keep(path))  # type: ignore[arg-type]
        for path, module in zip(paths, modules, strict=True)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module of that path; TdcError with the nearest name if there is none."""
    modules = dict(model.named_modules())
    if path not in modules:
        raise TdcError(
            f"no module {path!r} in {type(model).__name__}",
            expected="a module's path, such as layer1.0",
            fix=did_you_mean(path, modules),
        )
    return modules[path]
