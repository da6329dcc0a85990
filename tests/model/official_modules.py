"""The authors' modules, loaded by file path into a process of their own: they share our import name."""

import importlib.util
import sys
import types

from resnet2d import ResNet2D


def load(folder, names=("inflate", "i3res")):
    """Modules of `folder`, as attributes of what is returned."""
    sys.modules["merlin"] = types.ModuleType("merlin")
    models = sys.modules["merlin.models"] = types.ModuleType("merlin.models")
    for name in names:
        spec = importlib.util.spec_from_file_location(
            f"merlin.models.{name}", f"{folder}/{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(models, name, module)
    return models


def load_whole(folder, *, text_folder, lm_folder):
    """The whole models too. What they would fetch comes from folders, ImageNet's network is a random one."""
    import transformers

    vision = sys.modules["torchvision"] = types.ModuleType("torchvision")
    vision.models = types.SimpleNamespace(resnet152=lambda pretrained: ResNet2D((3, 8, 36, 3)))
    folders = {"yikuan8/Clinical-Longformer": text_folder, "StanfordAIMI/RadLLaMA-7b": lm_folder}
    for name in ("AutoModel", "AutoTokenizer", "AutoModelForCausalLM"):
        kind = getattr(transformers, name)
        take = lambda hub, f=kind.from_pretrained, **_: f(folders[hub], local_files_only=True)  # noqa: E731
        setattr(transformers, name, types.SimpleNamespace(from_pretrained=take))
    return load(folder, ("inflate", "i3res", "build", "radiology_report_generation"))
