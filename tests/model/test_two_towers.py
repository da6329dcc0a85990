"""The whole model: official key names, unit embeddings, a configuration that survives JSON."""

import json
import math
import re
from collections import Counter

import pytest
import torch
from test_text import make_longformer

from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import MAX_LOGIT_SCALE, TowersConfig, TwoTowers
from merlin.model.volumes import THREE_WINDOWS


def test_key_names_of_the_paper_configuration_are_the_official_ones(tmp_path):
    """Counts by prefix as measured on the official model; names do not depend on widths."""
    folder = make_longformer(tmp_path, n_layers=12)
    config = TowersConfig(
        image=ImageConfig(width=4, n_phecodes=3),
        text=TextConfig(folder=str(folder)),
        grid_shape=(224, 224, 160),
    )
    keys = list(TwoTowers(config).state_dict())
    prefix = re.compile(r"encode_text\.linear_layer|\w+(\.\w+\.\w+)?")
    found = Counter(prefix.match(key)[0] for key in keys)
    assert found == {
        "logit_scale": 1,
        "encode_image.i3_resnet.conv1": 1,
        "encode_image.i3_resnet.bn1": 5,
        "encode_image.i3_resnet.layer1": 60,
        "encode_image.i3_resnet.layer2": 150,
        "encode_image.i3_resnet.layer3": 654,
        "encode_image.i3_resnet.layer4": 60,
        "encode_image.i3_resnet.classifier": 2,
        "encode_image.i3_resnet.contrastive_head": 2,
        "encode_text.text_encoder.embeddings": 5,
        "encode_text.text_encoder.encoder": 264,
        "encode_text.text_encoder.pooler": 2,
        "encode_text.linear_layer": 2,
    }
    assert len(keys) == 1208
    examples = (
        "encode_image.i3_resnet.layer1.0.downsample.1.running_var",
        "encode_image.i3_resnet.layer4.2.conv3.weight",
        "encode_text.text_encoder.embeddings.position_embeddings.weight",
        "encode_text.text_encoder.encoder.layer.11.attention.self.value_global.weight",
        "encode_text.linear_layer.weight",
    )
    assert set(examples) <= set(keys)


SMALL_TEXT = TextConfig(kind="small", hidden_size=32, n_layers=1, max_length=16, embedding_size=6)


def test_a_compiled_image_tower_keeps_outputs_and_names():
    image = ImageConfig(depth=14, width=4, n_stages=1, pool="mean", n_phecodes=2, embedding_size=6)
    torch.manual_seed(0)
    model = TwoTowers(TowersConfig(image, SMALL_TEXT, (16, 16, 16))).eval()
    volume, names = torch.rand(2, 1, 16, 16, 16), list(model.state_dict())
    plain = model.embed_volumes(volume)
    model.encode_image.compile(backend="eager")  # what compiles to machine code needs a compiler
    for found, expected in zip(model.embed_volumes(volume), plain, strict=True):
        torch.testing.assert_close(found, expected)
    assert list(model.state_dict()) == names


def test_texts_grouped_by_length_come_back_in_order():
    image = ImageConfig(depth=14, width=4, n_stages=1, pool="mean", n_phecodes=2, embedding_size=6)
    torch.manual_seed(0)
    model = TwoTowers(TowersConfig(image, SMALL_TEXT, (16, 16, 16)))
    texts = ["liver", "no ascites is seen", "a cyst of the left kidney"] * 7
    ids, mask, _ = model.encode_text.tokenize(texts)
    together = model.embed_tokens(ids, mask)
    one_by_one = torch.cat(
        [model.embed_tokens(i[None], m[None]) for i, m in zip(ids, mask, strict=True)]
    )
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("windows", [(), THREE_WINDOWS])
def test_configuration_survives_json(windows):
    config = TowersConfig(
        image=ImageConfig(depth=14, windows=windows), text=SMALL_TEXT, grid_shape=(16, 16, 16)
    )
    assert TowersConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(7)
    image = ImageConfig(
        depth=14, width=4, block="basic", stem="patch", pool="grid", grid_cells=2, in_channels=1,
        n_phecodes=3, embedding_size=6,
    )  # fmt: skip
    return TwoTowers(TowersConfig(image=image, text=SMALL_TEXT, grid_shape=(16, 16, 16))).eval()


def test_embeddings_are_unit_vectors_of_one_space(model):
    with torch.no_grad():
        image, logits, features = model.embed_volumes(torch.rand(2, 1, 16, 16, 16))
        text = model.embed_tokens(*model.encode_text.tokenize(["renal cyst", "normal"])[:2])
    assert image.shape == text.shape == (2, 6)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    assert (logits.shape, features.shape) == ((2, 3), (2, model.encode_image.embedding_size))


@pytest.mark.parametrize(("value", "kept"), [(-1.0, 0.0), (3.0, 3.0), (9.0, MAX_LOGIT_SCALE)])
def test_temperature_is_kept_between_1_and_100(model, value, kept):
    with torch.no_grad():
        model.logit_scale.fill_(value)
    model.clamp_logit_scale_()
    assert model.logit_scale.item() == pytest.approx(kept)
    assert model.logit_scale.requires_grad
    assert pytest.approx(math.log(100), abs=1e-4) == MAX_LOGIT_SCALE


@pytest.mark.parametrize("kind", ["small", "longformer"])
def test_text_gradients_are_the_same_when_activations_are_computed_again(kind, tmp_path):
    image = ImageConfig(depth=14, width=4, n_stages=1, pool="mean", n_phecodes=2, embedding_size=6)
    text = SMALL_TEXT
    if kind == "longformer":
        text = TextConfig(folder=str(make_longformer(tmp_path)), embedding_size=6)
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = TwoTowers(TowersConfig(image, text, (16, 16, 16)), checkpointing=checkpointing)
        model.encode_text.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        ids, mask, _ = model.encode_text.tokenize(["liver is normal .", "ascites"])
        model.embed_tokens(ids, mask)[:, 0].sum().backward()
        found.append(
            {n: p.grad for n, p in model.encode_text.named_parameters() if p.grad is not None}
        )
        assert model.encode_text.text_encoder.is_gradient_checkpointing == checkpointing
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)
