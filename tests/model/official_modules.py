"""The authors' modules, loaded by file path into a process of their own: they share our import name."""

import importlib.util
import sys
import types


def load(folder):
    """Modules `inflate` and `i3res` of `folder`, as attributes of what is returned."""
    sys.modules["merlin"] = types.ModuleType("merlin")
    models = sys.modules["merlin.models"] = types.ModuleType("merlin.models")
    for name in ("inflate", "i3res"):
        spec = importlib.util.spec_from_file_location(
            f"merlin.models.{name}", f"{folder}/{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(models, name, module)
    return models
