"""Adaptation: fine-tuning, report writing, kept results."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from merlin import run
from merlin.evaluation import rivals
from merlin.model import report_writer
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.training import adapt, diseases, official, reports
from merlin.training.checkpoint import load_weights
from merlin.training.losses import TrainingDiverged

TEXTS = np.array([["Normal.", "No ascites."], ["Large spleen, 15.2 cm.", "Ascites."]] * 4, object)
NAMES = ("spleen", "peritoneum")


def test_minimise_finds_a_minimum_and_stops_on_nan():
    x = torch.nn.Parameter(torch.tensor([3.0]))
    log = adapt.minimise([([x], 0.3)], lambda s, r: (x**2).sum(), 60, seed=1, show=False)
    assert abs(x.item()) < 0.2
    assert [row["step"] for row in log] == list(range(60))
    with pytest.raises(TrainingDiverged, match="lower its learning rate"):
        adapt.minimise([([x], 0.1)], lambda s, r: x.sum() * np.nan, 3, seed=1, show=False)


def test_batches_take_every_item_once_an_epoch_and_small_sets_whole():
    draw = adapt.batches(10, 3, seed=1)
    epoch = np.concatenate([draw(s) for s in range(3)])
    assert len(set(epoch)) == 9
    assert sorted(adapt.batches(2, 16, seed=1)(5)) == [0, 1]


def disease_model():
    torch.manual_seed(0)
    config = ImageConfig(depth=14, width=4, stem="patch", n_stages=2, in_channels=1, n_phecodes=2)
    return diseases.DiseaseModel(ImageEncoder(config), 2)


def test_fine_tuning_learns_from_known_labels_only():
    rng = np.random.default_rng(1)
    bright = rng.random(24) < 0.5
    volumes = np.where(bright, 0.8, 0.2)[:, None, None, None] + 0.05 * rng.normal(
        size=(24, 16, 16, 16)
    )
    read = lambda i: torch.from_numpy(volumes[np.asarray(i)]).float()[:, None]  # noqa: E731
    labels = np.column_stack([bright, np.full(24, np.nan)]).astype(float)
    model = disease_model()
    before = model.head.weight[1].detach().clone()
    options = dict(
        n_steps=30, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2, seed=1, show=False
    )
    diseases.fine_tune(model, read, labels, **options)
    p = diseases.predict(model, read, 24, show=False)
    assert p[bright, 0].min() > p[~bright, 0].max()
    assert ((p >= 0) & (p <= 1)).all()
    # Weight decay may shrink the second output; no label may turn it.
    after = model.head.weight[1].detach()
    assert torch.nn.functional.cosine_similarity(before, after, dim=0) > 0.999
    with pytest.raises(ValueError, match="no study has a 5-year label"):
        diseases.fine_tune(model, read, np.full((24, 2), np.nan), **options)


def test_probes_are_scikit_learns_on_known_labels_and_nan_without_two_classes():
    rng = np.random.default_rng(3)
    train, new = 5 + 3 * rng.normal(size=(40, 6)), 5 + 3 * rng.normal(size=(9, 6))
    y = (train[:, 0] > 5).astype(float)
    y[:4] = np.nan
    p = rivals.logistic(train, np.column_stack([y, np.zeros(40)]), new, c=0.1)
    scaler = StandardScaler().fit(train)
    fitted = LogisticRegression(C=0.1, tol=1e-9).fit(scaler.transform(train)[4:], y[4:])
    np.testing.assert_allclose(
        p[:, 0], fitted.predict_proba(scaler.transform(new))[:, 1], atol=1e-6
    )
    assert np.isnan(p[:, 1]).all()


def test_settled_norms_hold_the_statistics_of_the_data():
    model = disease_model()
    volumes = torch.rand(12, 1, 16, 16, 16)
    read = lambda i: volumes[np.asarray(i)]  # noqa: E731
    diseases.settle_norms(model.encoder, read, 12, batch_size=12)
    norm = model.encoder.i3_resnet.bn1
    with torch.no_grad():
        first = model.encoder.i3_resnet.conv1(volumes.permute(0, 1, 4, 2, 3))
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3, 4)), atol=1e-5, rtol=0)
    found = diseases.features(model.encoder, read, 12, batch_size=5, show=False)
    assert found.shape == (12, model.encoder.embedding_size)
    again = diseases.features(model.encoder, read, 12, batch_size=12, show=False)
    np.testing.assert_allclose(found, again, atol=1e-5)  # frozen: no batch changes another


@pytest.fixture(scope="module")
def tokenizer():
    prompts = [report_writer.PROMPT.format(section=n) for n in NAMES]
    return report_writer.train_tokenizer([*TEXTS.ravel(), *prompts], vocabulary=400)


def test_tokeniser_is_reversible(tokenizer):
    for text in TEXTS.ravel():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def small(tokenizer, **more):
    torch.manual_seed(0)
    model = report_writer.small_language_model(
        tokenizer, hidden_size=32, n_layers=1, max_length=128
    )
    return report_writer.ReportWriter(model, tokenizer, 6, **more)


@pytest.mark.parametrize("adapter", report_writer.ADAPTERS)
def test_writer_learns_to_tell_two_images_apart(tokenizer, adapter):
    writer = small(tokenizer, adapter=adapter, n_tokens=2)
    features = torch.zeros(8, 6)
    features[1::2, 0] = 1.0
    features[::2, 1] = 1.0
    if adapter == "tokens":
        features = features[:, None].repeat(1, 3, 1)
    options = dict(n_steps=150, batch_size=8, learning_rate=1e-2, seed=1, show=False)
    log = reports.fit(writer, features, TEXTS, NAMES, **options)
    assert log[-1]["loss"] < 0.2 * log[0]["loss"]
    written = reports.write_reports(writer, features, NAMES, repetition_penalty=1.0, show=False)
    assert written.tolist() == TEXTS.tolist()


def test_each_section_reads_the_image_by_weights_of_its_own(tokenizer):
    prompts = [report_writer.PROMPT.format(section=n) for n in NAMES]
    writer = small(tokenizer, n_tokens=2, prompts=prompts)
    found = writer.prefix(torch.ones(2, 6), prompts[:2])
    assert found.shape == (2, 2, 32)
    assert not torch.allclose(found[0], found[1])
    turned = writer.prefix(torch.ones(2, 6), prompts[1::-1])
    torch.testing.assert_close(turned, found.flip(0))


def test_loss_is_of_the_answer_and_its_end_not_of_the_prompt(tokenizer):
    writer = small(tokenizer)
    features, prompt = torch.rand(1, 6), report_writer.PROMPT.format(section="spleen")
    heads = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    seen = {}
    inner = writer.language_model.forward

    def spy(**kwargs):
        seen.update(kwargs)
        return inner(**kwargs)

    writer.language_model.forward = spy
    writer.loss(features, [prompt], ["Normal."])
    target = seen["labels"][0]
    kept = target[target != -100]
    assert tokenizer.decode(kept) == "Normal.###"
    assert (target[: writer.n_tokens + heads] == -100).all()


def test_lora_trains_little_and_leaves_the_language_model_alone(tokenizer):
    writer = small(tokenizer, lora_rank=2)
    names = [n for n, p in writer.named_parameters() if p.requires_grad]
    assert all("lora_" in n or n.startswith("adapter.") for n in names)
    assert any("lora_" in n for n in names)
    before = {n: p.clone() for n, p in writer.named_parameters() if not p.requires_grad}
    features = torch.rand(8, 6)
    reports.fit(
        writer,
        features,
        TEXTS,
        NAMES,
        n_steps=3,
        batch_size=4,
        learning_rate=1e-2,
        seed=1,
        show=False,
    )
    assert all(torch.equal(before[n], p) for n, p in writer.named_parameters() if n in before)


def test_prompts_of_different_length_are_refused(tokenizer):
    with pytest.raises(ValueError, match="one section at a time"):
        small(tokenizer).write(torch.rand(2, 6), ["a", "a much longer prompt"])


def test_missing_language_model_says_what_to_put_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="RadLLaMA"):
        report_writer.language_model_from(tmp_path)


def test_features_are_encoded_once(tmp_path):
    config = ImageConfig(depth=14, width=4, stem="patch", n_stages=2, in_channels=1, n_phecodes=2)
    encoder, calls = ImageEncoder(config).eval(), []

    def volume(i):
        calls.append(i)
        return np.full((8, 8, 8), 0.1 * i, np.float32)

    options = dict(adapter="tokens", path=tmp_path / "f", mark="one")
    first = reports.encode_features(encoder, volume, 3, **options)
    again = reports.encode_features(encoder, volume, 3, **options)
    assert calls == [0, 0, 1, 2]  # the first is also asked for its size
    np.testing.assert_array_equal(first[0], again[0])
    assert isinstance(first[0], np.memmap)  # read as needed, never whole
    with torch.no_grad():
        found = encoder.i3_resnet.features(torch.full((1, 1, 8, 8, 8), 0.2)).flatten(2)[0].T
    np.testing.assert_allclose(first[0][2], found, atol=2e-3)
    reports.encode_features(encoder, volume, 3, **options | {"mark": "two"})
    assert len(calls) == 8


def test_kept_table_is_made_again_when_its_mark_changes(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return pd.DataFrame({"a": [len(calls)]})

    path = tmp_path / "t.parquet"
    assert [run.kept(path, m, make)["a"].item() for m in ("x", "x", "y")] == [1, 1, 2]


GRID = {"grid": dict(spacing_mm=[9, 9, 9], shape=[16, 16, 16], hu_window=[-1000, 1000])}


def test_a_fine_tuned_model_is_read_back_and_taken_for_no_other(tmp_path):
    path, volume = tmp_path / "five.safetensors", torch.rand(2, 1, 16, 16, 16)
    model = disease_model().eval()
    diseases.save_model(path, model, ["dm", "ckd"], GRID)
    back, names, facts = diseases.load_model(path)
    assert (names, facts) == (["dm", "ckd"], GRID)
    assert torch.equal(back(volume), model(volume))
    with pytest.raises(ValueError, match=r"a five-year model inside\. Expected a report model"):
        reports.load_model(path)
    with pytest.raises(ValueError, match=r"a five-year model inside\. Expected weights written by"):
        load_weights(path)
    with pytest.raises(ValueError, match="depth=14, the paper's is 152") as caught:
        official.export(path, tmp_path / "five.pt")
    assert "outputs dm, ckd, the released ones are cvd, ihd" in str(caught.value)


@pytest.mark.parametrize("from_folder", [False, True])
def test_a_report_model_is_read_back_and_writes_the_same(tokenizer, tmp_path, from_folder):
    path, folder, more = tmp_path / "report.safetensors", "", {}
    prompts = [report_writer.PROMPT.format(section=n) for n in NAMES]
    if from_folder:
        folder, more = tmp_path / "my lm", {"lora_rank": 2}
        plain = small(tokenizer)
        plain.language_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    writer = small(tokenizer, n_tokens=2, prompts=prompts, **more)
    for name, value in writer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    encoder = disease_model().encoder
    reports.save_model(path, encoder, writer, GRID, lm_folder=folder)
    back_encoder, back, facts = reports.load_model(path, lm_folder=folder or None)
    assert facts == GRID
    volume, features = torch.rand(1, 1, 16, 16, 16), torch.rand(3, 6)
    assert torch.equal(back_encoder.embed(volume), encoder.eval().embed(volume))
    ask, how = (features, prompts[:1] * 3), dict(max_new_tokens=8, repetition_penalty=1.0)
    assert back.write(*ask, **how) == writer.write(*ask, **how)
    with pytest.raises(ValueError, match=r"LoRA rank ., the paper's is 512"):
        official.export(path, tmp_path / "report.pt", lm_folder=folder or None)
    if from_folder:
        assert str(tmp_path).encode() not in path.read_bytes()[:20_000]
        with pytest.raises(ValueError, match="from a folder called my lm, which must be named"):
            reports.load_model(path)


def test_another_language_model_of_the_same_shape_is_not_taken(tokenizer, tmp_path):
    first, second = small(tokenizer, lora_rank=2), small(tokenizer)
    small(tokenizer).language_model.save_pretrained(tmp_path / "first")
    torch.nn.init.normal_(second.language_model.transformer.wte.weight)
    second.language_model.save_pretrained(tmp_path / "second")
    for name in ("first", "second"):
        tokenizer.save_pretrained(tmp_path / name)
    path = tmp_path / "report.safetensors"
    reports.save_model(path, disease_model().encoder, first, GRID, lm_folder=tmp_path / "first")
    reports.load_model(path, lm_folder=tmp_path / "first")
    with pytest.raises(
        ValueError, match="another language model than the one that was adapted, first"
    ):
        reports.load_model(path, lm_folder=tmp_path / "second")


@pytest.mark.parametrize("rank", [0, 2])
def test_a_language_model_in_half_precision_trains_and_writes(tokenizer, tmp_path, rank):
    small(tokenizer).language_model.bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    language_model, words = report_writer.language_model_from(tmp_path)
    assert next(language_model.parameters()).dtype == torch.bfloat16
    writer = report_writer.ReportWriter(language_model, words, 6, lora_rank=rank)
    options = dict(n_steps=2, batch_size=4, learning_rate=1e-3, seed=1, show=False)
    log = reports.fit(writer, torch.rand(8, 6), TEXTS, NAMES, **options)
    assert np.isfinite([row["loss"] for row in log]).all()
    plain = dict(repetition_penalty=1.0, show=False)
    found = reports.write_reports(writer, torch.rand(2, 6), NAMES, max_new_tokens=3, **plain)
    assert found.shape == (2, 2)


def test_a_long_text_is_cut_at_what_the_language_model_has_positions_for(tokenizer):
    writer, prompt = small(tokenizer, adapter="tokens"), [report_writer.PROMPT]  # 128 positions
    text = ["Large spleen, 15.2 cm. " * 50]
    assert torch.isfinite(writer.loss(torch.rand(1, 80, 6), prompt, text))
    with pytest.raises(ValueError, match="128 positions: 100 image tokens"):
        writer.loss(torch.rand(1, 100, 6), prompt, text)


def test_a_killed_adaptation_goes_on_to_the_same_numbers(tmp_path):
    def train(checkpoint=None, fail_at=None, fingerprint="a"):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )

        def loss_at(step, rng):
            if step == fail_at:
                raise RuntimeError
            return (net(torch.from_numpy(rng.normal(size=(8, 4))).float()) ** 2).mean()

        more = dict(
            seed=1, show=False, checkpoint=checkpoint, fingerprint=fingerprint, save_every=4
        )
        log = adapt.minimise([(net.parameters(), 0.1)], loss_at, 12, **more)
        return net, [row["loss"] for row in log]

    whole, losses = train()
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(RuntimeError):
        train(path, fail_at=10)
    again, found = train(path, fail_at=3)  # step 3 is not made again
    assert found == losses
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True)
    )
    with pytest.raises(RuntimeError):  # of another call: from the beginning
        train(path, fail_at=3, fingerprint="b")


def test_a_file_that_is_no_safetensors_file_is_named_with_its_mend(tmp_path):
    path = tmp_path / "official.pt"
    torch.save({"a": torch.zeros(9)}, path)
    for read in (load_weights, official.load_five_year, diseases.load_model):
        with pytest.raises(
            ValueError, match=r"official\.pt: not a readable safetensors file.*merlin weights"
        ):
            read(path)


def test_fine_tuning_that_is_killed_goes_on_to_the_same_numbers(tmp_path):
    """Batch statistics and moments too; labels, chunks and recomputation as at size."""
    volumes = torch.rand(12, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = (np.arange(24).reshape(12, 2) % 3 == 0).astype(float)
    labels[5, 0] = np.nan
    how = dict(
        n_steps=4, batch_size=6, learning_rate=1e-3, head_learning_rate=1e-2, seed=1, show=False,
        chunk=3, checkpointing=True, checkpoint=tmp_path / "c.pt", fingerprint="a", save_every=2,
    )  # fmt: skip
    whole = disease_model()
    log = diseases.fine_tune(whole, lambda i: volumes[i], labels, **how)
    (tmp_path / "c.pt").unlink()
    seen = []

    def killed(index):
        seen.append(index)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return volumes[index]

    with pytest.raises(KeyboardInterrupt):
        diseases.fine_tune(disease_model(), killed, labels, **how)
    again = disease_model()
    resumed = diseases.fine_tune(again, lambda i: volumes[i], labels, **how)
    assert [r["loss"] for r in resumed] == [r["loss"] for r in log]
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_chunks_of_a_batch_add_up_to_its_gradient():
    """Where no norm looks at other volumes; unknown labels are counted over the batch."""

    class Flat(torch.nn.Module):
        embedding_size, i3_resnet = 64, torch.nn.Identity()

        def embed(self, volume):
            return volume.flatten(1)

    volumes = torch.rand(6, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = (np.arange(12).reshape(6, 2) % 3 == 0).astype(float)
    labels[[0, 1, 4], 0] = np.nan
    found = []
    for chunk in (0, 1, 4):
        torch.manual_seed(0)
        model = diseases.DiseaseModel(Flat(), 2)
        log = diseases.fine_tune(
            model, lambda i: volumes[i], labels, n_steps=2, batch_size=6, learning_rate=0.0,
            head_learning_rate=0.1, seed=1, chunk=chunk, show=False,
        )  # fmt: skip
        found.append((model.head.weight.detach(), torch.tensor([r["loss"] for r in log])))
    for weight, loss in found[1:]:
        torch.testing.assert_close(weight, found[0][0])
        torch.testing.assert_close(loss, found[0][1])


def test_memory_of_fine_tuning_is_counted_and_falls_with_what_is_set():
    model = disease_model()
    count = lambda **how: diseases.estimate_bytes(model, (32, 32, 32), **how)  # noqa: E731
    eight, two = count(n_at_once=8), count(n_at_once=2)
    assert 3 < eight["step"] / two["step"] < 5
    assert count(n_at_once=8, checkpointing=True)["step"] < eight["step"]
    assert count(n_at_once=8, precision="bf16")["step"] < 0.6 * eight["step"]
    assert two["weights"] == 4 * sum(p.numel() * 4 for p in model.parameters())
    assert not model.encoder.i3_resnet.checkpointing
    with pytest.raises(ValueError, match=r"precision: 'fp16'\. Expected fp32 or bf16"):
        diseases.fine_tune(
            model, None, np.zeros((2, 2)), n_steps=1, batch_size=1, learning_rate=0.1,
            head_learning_rate=0.1, seed=1, precision="fp16",
        )  # fmt: skip


def test_a_gpu_that_is_too_small_is_told_what_to_set(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(diseases, "minimise", full)
    with pytest.raises(
        MemoryError, match=r"with 4 volumes at once\. In 08_five_year set chunk: 2; or p"
    ):
        diseases.fine_tune(
            disease_model(), None, np.zeros((9, 2)), n_steps=1, batch_size=16, learning_rate=0.1,
            head_learning_rate=0.1, seed=1, chunk=4,
        )  # fmt: skip
