"""Whole models in the released shapes: official ones load here, ours load there, and both say the same.

Weights are random and the text models of few layers; the image network is the released ResNet-152. The
official classes run in a process of their own (`official_modules`).
"""

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_official_parity import OFFICIAL, PAPER, pytestmark  # noqa: F401
from test_text import make_longformer
from torch.nn import BatchNorm3d

from merlin import cli
from merlin.model import report_writer
from merlin.model.i3d import ImageEncoder
from merlin.training import diseases, official, official_files, reports
from merlin.vocabulary import DISEASES

GRID = dict(spacing_mm=[1.5, 1.5, 3.0], shape=[224, 224, 160], hu_window=[-1000, 1000])
TEXTS = [
    "The spleen measures 15.2 cm (enlarged).  No ascites; T2-bright cyst.",
    "Liver: Normal. " * 300,  # beyond the 1,024 tokens that are read
]
PROMPT = report_writer.PROMPT.format(section="spleen")
DECODING = dict(max_new_tokens=8, repetition_penalty=1.2)

SCRIPT = """
import sys
import torch
from safetensors.torch import save_file

official, here, out, text_folder, lm_folder = sys.argv[1:]
sys.path.insert(0, here)
import official_modules
from resnet2d import randomise_
models = official_modules.load_whole(official, text_folder=text_folder, lm_folder=lm_folder)
generator = torch.Generator().manual_seed(7)
volume = torch.rand((2, 1, 64, 64, 32), generator=generator)
read = lambda name: torch.load(f"{out}/{name}", weights_only=True)
torch.set_grad_enabled(False)

both = randomise_(models.build.MerlinArchitecture().eval(), generator)
torch.save(both.state_dict(), f"{out}/official.pt")
image, ehr, text = both(volume, TEXTS)
found = dict(volume=volume, image=image, ehr=ehr, text=text)
network = both.encode_image.i3_resnet
network.return_skips = True
found |= {f"skip{k}": skip for k, skip in enumerate(network(volume)[2])}

torch.nn.init.kaiming_uniform_ = lambda tensor, **_: tensor  # weights of the next ones are loaded
five_year = models.build.MerlinArchitecture(FiveYearPred=True).eval()
five_year.encode_image.i3_resnet.load_state_dict(read("five_year.pt"), strict=True)  # as their load.py
found["five_year"] = five_year(volume)

report = models.radiology_report_generation.Clip3DForTextGeneration().eval()
report.load_state_dict(read("report.pt"))
found["tokens"] = report.adapter(report.encode_image(volume))
end = report.decode_text.tokenizer("###", add_special_tokens=False)["input_ids"][-1]
texts = report.generate(volume, [PROMPT] * 2, do_sample=False, num_beams=1, eos_token_id=end,
                        pad_token_id=0, **DECODING)
save_file({k: v.contiguous() for k, v in found.items()}, f"{out}/outputs.safetensors")
open(f"{out}/texts.txt", "w").write(chr(0).join(texts))
"""


def exported(path, *more):
    """A model file of ours, through the command, as the official code will read it."""
    ask = ["weights", str(path), "--export", "--out", str(path.with_suffix(".pt")), *more]
    assert cli.main(ask) == 0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Our models, and the folder of what the official code made of them and of its own."""
    out = tmp_path_factory.mktemp("official")
    texts, words = out / "longformer", out / "llama"
    make_longformer(texts, n_layers=2, hidden_size=768, max_length=1024)
    make_llama(words)
    encoder = encoder_as_trained()
    five_year = diseases.DiseaseModel(encoder, 6)
    torch.nn.init.normal_(five_year.head.weight)
    diseases.save_model(out / "five_year.safetensors", five_year, DISEASES, {"grid": GRID})
    exported(out / "five_year.safetensors")
    language_model, tokenizer = report_writer.language_model_from(words)
    options = dict(adapter="tokens", lora_rank=512)
    writer = report_writer.ReportWriter(language_model, tokenizer, 2048, **options).eval()
    for key, value in writer.language_model.named_parameters():
        if "lora_B" in key:  # zero at birth: nothing would be seen of it
            torch.nn.init.normal_(value, std=0.02)
    reports.save_model(out / "report.safetensors", encoder, writer, {"grid": GRID}, lm_folder=words)
    exported(out / "report.safetensors", "--lm-folder", str(words))
    given = f"TEXTS, PROMPT, DECODING = {TEXTS!r}, {PROMPT!r}, {DECODING!r}\n"
    folders = [str(f) for f in (OFFICIAL, Path(__file__).parent, out, texts, words)]
    done = subprocess.run(
        [sys.executable, "-c", given + SCRIPT, *folders],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return SimpleNamespace(
        out=out, text_folder=texts, five_year=five_year, writer=writer,
        expected=load_file(out / "outputs.safetensors"),
    )  # fmt: skip


def equal(found, reference, name=""):
    assert reference.std() > 1e-3, "a reference that hardly varies compares nothing"
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-5, err_msg=name)


def encoder_as_trained():
    """The paper's encoder with norms that have seen data."""
    torch.manual_seed(5)
    model = ImageEncoder(PAPER).eval()
    for norm in (m for m in model.modules() if isinstance(m, BatchNorm3d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
        torch.nn.init.normal_(norm.running_mean, 0, 0.2)
    return model


def make_llama(folder):
    """A Llama of one layer with the hidden size of RadLLaMA-7b; its tokeniser puts a BOS first."""
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = report_writer.train_tokenizer([PROMPT, "No ascites."], vocabulary=300)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4096, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=32, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_both_towers_equal_the_official_ones_and_go_back_without_loss(models, monkeypatch):
    state = official_files.read_state(models.out / "official.pt")
    layer = [k for k in state if k.startswith("encode_text.text_encoder.encoder.layer.0.")]
    assert len(state) + 10 * len(layer) == 1208  # as released, with twelve layers of text
    ours, expected = official.import_contrastive(state, models.text_folder), models.expected
    with torch.no_grad():
        image, logits, _ = ours.embed_volumes(expected["volume"])
        ids, mask, lost = ours.encode_text.tokenize(TEXTS)
        text = ours.embed_tokens(ids, mask)
        skips = ours.encode_image.i3_resnet.stages(expected["volume"])
    assert (lost > 0).tolist() == [False, True]
    for name, found in dict(image=image, ehr=logits, text=text).items():
        equal(found, expected[name], name)
    assert len(skips) == 6
    for k, skip in enumerate(skips):  # theirs are turned back to R, A, S
        equal(skip.permute(0, 1, 3, 4, 2), expected[f"skip{k}"], f"skip {k}")
    with pytest.raises(ValueError, match="text num_hidden_layers=2, the paper's is 12"):
        official.export_contrastive(ours, models.out / "back.pt")
    monkeypatch.setitem(official.LONGFORMER, "num_hidden_layers", 2)
    official.export_contrastive(ours, models.out / "back.pt")
    back = torch.load(models.out / "back.pt", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], v) for k, v in state.items())


@pytest.mark.slow
def test_a_five_year_model_of_ours_runs_in_the_official_code(models):
    volume = models.expected["volume"]
    found = diseases.predict(models.five_year, lambda i: volume[i], 2, show=False)
    equal(found, models.expected["five_year"])
    converted = models.out / "converted.safetensors"
    assert cli.main(["weights", str(models.out / "five_year.pt"), "--out", str(converted)]) == 0
    back, names, _ = official.load_five_year(converted)
    assert names == list(DISEASES)
    assert np.array_equal(found, diseases.predict(back, lambda i: volume[i], 2, show=False))


@pytest.mark.slow
def test_a_report_model_of_ours_runs_in_the_official_code(models):
    writer, encoder = models.writer, models.five_year.encoder
    with torch.no_grad():
        features = official.report_tokens(encoder.i3_resnet, models.expected["volume"])
        equal(writer.prefix(features, [PROMPT] * 2), models.expected["tokens"])
    theirs = (models.out / "texts.txt").read_text().split(chr(0))
    assert all(theirs)
    with warnings.catch_warnings():  # that the penalty is on new tokens alone: so it is in both
        warnings.filterwarnings("ignore", message="Passing `repetition_penalty`")
        ours = writer.write(features, [PROMPT] * 2, **DECODING)
    assert ours == [t.split(report_writer.END)[0].strip() for t in theirs]


@pytest.mark.slow
def test_an_official_report_file_goes_in_and_out_without_loss(models):
    state = official_files.read_state(models.out / "report.pt")
    encoder = ImageEncoder(PAPER)
    encoder.i3_resnet = official.import_report_image(official.split_report(state)["image"])
    fresh = report_writer.language_model_from(models.out / "llama")
    writer = official.import_report_writer(state, *fresh)
    official.export_report(encoder, writer, models.out / "again.pt")
    again = official_files.read_state(models.out / "again.pt")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[k], v) for k, v in state.items())
