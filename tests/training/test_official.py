"""The authors' layouts in and out: told apart by names, strict, without unpickling."""

import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from test_text import make_longformer

from merlin import cli
from merlin.model import report_writer
from merlin.model.i3d import I3ResNet, ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import checkpoint, official, official_files

SMALL = ImageConfig(depth=14, width=4, n_phecodes=5)


@pytest.fixture
def towers(tmp_path):
    """A model in the paper's form, small, and the folder of its text encoder."""
    torch.manual_seed(0)
    folder = make_longformer(tmp_path)
    return TwoTowers(TowersConfig(SMALL, TextConfig(folder=str(folder)), (224, 224, 160))), folder


def saved(state, path):
    torch.save(state, path)
    return path


def test_contrastive_checkpoint_goes_in_and_out_without_loss(towers, tmp_path):
    model, folder = towers
    path = saved(model.state_dict(), tmp_path / "official.pt")
    state = official_files.read_state(path)
    assert official.kind_of(state) == "contrastive"
    found = official.import_contrastive(state, folder, image=SMALL)
    checkpoint.save_weights(tmp_path / "w.safetensors", found, {"tier": "full"})
    again, _ = checkpoint.load_weights(tmp_path / "w.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_of_wrappers_are_no_part_of_a_name(towers, tmp_path, prefix):
    state = {prefix + k: v for k, v in towers[0].state_dict().items()}
    found = official_files.read_state(saved({"epoch": 3, "state_dict": state}, tmp_path / "ddp.pt"))
    assert set(found) == set(towers[0].state_dict())
    assert official.kind_of(found) == "contrastive"


def test_every_tensor_that_does_not_fit_is_named(towers):
    model, folder = towers
    state = model.state_dict()
    del state["logit_scale"]
    state["encode_image.i3_resnet.conv1.weight"] = torch.zeros(2, 2)
    state["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="3 tensors do not fit") as caught:
        official.import_contrastive(state, folder, name="x.pt", image=SMALL)
    for said in ("logit_scale: missing", "extra: unexpected", "conv1.weight: shape (2, 2)"):
        assert said in str(caught.value)


def test_five_year_and_report_files_are_told_and_taken_apart(tmp_path):
    torch.manual_seed(1)
    network = I3ResNet(ImageConfig(depth=14, width=4, n_phecodes=6)).eval()
    state = official_files.read_state(saved(network.state_dict(), tmp_path / "five.pt"))
    assert official.kind_of(state) == "five-year"
    found = official.import_image(state, depth=14, width=4)
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    lm = "decode_text.text_decoder.base_model.model.model.layers.0.self_attn.q_proj."
    report = {
        "encode_image.vision_model.features.0.weight": torch.zeros(1),
        "adapter.linear2.weight": torch.zeros(4, 2),
        f"{lm}base_layer.weight": torch.zeros(2),
        f"{lm}lora_A.default.weight": torch.zeros(2),
    }
    assert official.kind_of(report) == "report"
    parts = official.split_report(report)
    assert list(parts["adapter"]) == ["linear2.weight"]
    assert list(parts["image"]) == ["vision_model.features.0.weight"]
    assert [len(parts[k]) for k in ("lora", "language_model")] == [1, 1]


def small_llama(seed):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, pad_token_id=0, **size))


def test_report_writer_of_the_official_layout_writes_as_the_one_it_came_from():
    tokenizer = report_writer.train_tokenizer(["No ascites. Liver normal."] * 3, vocabulary=300)
    ours = report_writer.ReportWriter(
        small_llama(1), tokenizer, feature_size=8, adapter="tokens", lora_rank=3
    )
    for key, value in ours.language_model.named_parameters():
        if "lora_B" in key:  # zero at birth: nothing would be seen of it
            torch.nn.init.normal_(value)
    lm = {f"decode_text.text_decoder.{k}": v for k, v in ours.language_model.state_dict().items()}
    state = lm | {f"adapter.linear2.{k}": v for k, v in ours.adapter.state_dict().items()}
    assert any("q_proj.lora_A.default.weight" in k for k in state)  # as the authors name them
    found = official.import_report_writer(state, small_llama(2), tokenizer)
    tokens, prompt = torch.randn(2, 5, 8), [report_writer.PROMPT.format(section="liver")] * 2
    ours.eval()
    torch.testing.assert_close(
        found.loss(tokens, prompt, ["Normal."] * 2), ours.loss(tokens, prompt, ["Normal."] * 2)
    )
    assert found.write(tokens, prompt, max_new_tokens=6, repetition_penalty=1.0) == ours.write(
        tokens, prompt, max_new_tokens=6, repetition_penalty=1.0
    )
    lost = next(k for k in state if "lora_B" in k)
    with pytest.raises(ValueError, match=r"x\.pt, language model: 1 tensors do not fit") as caught:
        official.import_report_writer(
            {k: v for k, v in state.items() if k != lost}, small_llama(2), tokenizer, name="x.pt"
        )
    assert "lora_B.default.weight: missing" in str(caught.value)


class Harm:
    """What a malicious pickle would hold."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("old", "new"), [(b"\x80\x02", b"\x80\x00"), (b"\x80\x02", b""), (b"}q\x00", b"q\x00"), (b"K\x02", b"(\x02")]
)  # fmt: skip
def test_a_pickle_that_is_damaged_is_read_or_refused_without_a_warning(tmp_path, old, new):
    path = saved({"a": torch.zeros(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for name, raw in parts.items():
            archive.writestr(name, raw.replace(old, new, 1) if name.endswith("pkl") else raw)
    try:
        assert set(official_files.read_state(tmp_path / "b.pt")) == {"a"}
    except ValueError as error:
        assert str(error).startswith("b.pt: ")  # noqa: PT017 - either is right


def test_nothing_is_unpickled_and_other_files_are_refused(tmp_path, capsys):
    saved({"a": Harm()}, tmp_path / "bad.pt")
    (tmp_path / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harm()))
    for name in ("bad.pt", "lfs.pt", "plain.pt"):
        with pytest.raises(ValueError, match=f"{name}: not readable as a file of tensors"):
            official_files.read_state(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="not one of the released checkpoints: it holds x"):
        official.kind_of({"x": torch.zeros(1)})


def test_export_is_for_the_papers_architecture_alone(towers, tmp_path):
    model, _ = towers
    with pytest.raises(ValueError, match="depth=14, the paper's is 152"):
        official.export_contrastive(model, tmp_path / "out.pt")


def test_command_copies_ours_and_explains_what_is_missing(towers, tmp_path, capsys):
    model, _ = towers
    ours = tmp_path / "ours.safetensors"
    checkpoint.save_weights(ours, model, {"tier": "phantom"})
    out = tmp_path / "new" / "weights.safetensors"
    assert cli.main(["weights", str(ours), "--out", str(out)]) == 0
    assert out.read_bytes() == ours.read_bytes()
    assert cli.main(["weights", str(ours), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    path = saved(model.state_dict(), tmp_path / "official.pt")
    assert cli.main(["weights", str(path), "--out", str(tmp_path / "x.safetensors")]) == 2
    assert "--text-folder is missing" in capsys.readouterr().err


def test_five_year_and_report_files_are_converted_once_and_given_back(
    tmp_path, monkeypatch, capsys
):
    network = I3ResNet(ImageConfig(depth=14, width=8, n_phecodes=6))
    for name in ("import_image", "import_report_image"):  # at this test's size
        whole = getattr(official, name)
        small = lambda *a, f=whole, **k: f(*a, depth=14, width=8, **k)  # noqa: E731
        monkeypatch.setattr(official, name, small)
    five = saved(network.state_dict(), tmp_path / "five.pt")
    assert cli.main(["weights", str(five), "--out", str(tmp_path / "five.safetensors")]) == 0
    assert "official five-year checkpoint, every one in its place" in capsys.readouterr().out
    back = official.read_converted(tmp_path / "five.safetensors", "five-year")
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(v, back[k]) for k, v in network.state_dict().items())
    with pytest.raises(ValueError, match=r"five-year\. Expected the report checkpoint"):
        official.read_converted(tmp_path / "five.safetensors", "report")
    torn = {k: v for k, v in network.state_dict().items() if k != "bn1.bias"}
    torn = saved(torn, tmp_path / "torn.pt")
    assert cli.main(["weights", str(torn), "--out", str(tmp_path / "torn.safetensors")]) == 2
    assert "bn1.bias: missing" in capsys.readouterr().err
    assert not (tmp_path / "torn.safetensors").exists()


def test_a_download_is_checked_against_its_hash(tmp_path, monkeypatch):
    import hashlib

    fetched = tmp_path / "fetched.pt"
    fetched.write_bytes(b"weights")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: str(fetched))
    right = hashlib.sha256(b"weights").hexdigest()
    ask = dict(cache_dir=tmp_path, revision="a" * 40)
    assert official_files.download("contrastive", sha256=right.upper(), **ask) == fetched
    with pytest.raises(ValueError, match="kept, unread"):
        official_files.download("contrastive", sha256="0" * 64, **ask)


def test_download_is_guarded(tmp_path):
    with pytest.raises(ValueError, match="commit hash of 40"):
        official_files.download("contrastive", tmp_path, revision="main", sha256="0" * 64)
    inside = Path(official.__file__).parent
    with pytest.raises(ValueError, match="inside the package"):
        official_files.download("contrastive", inside, revision="a" * 40, sha256="0" * 64)
