"""The job of `09_report_generation`: a writer learns to write, writes all test reports, and they are scored.

Scores by language models (BERTScore, RadGraph-F1) are computed here, where the network is: what judges
the reports afterwards counts words.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from merlin import jobs, run
from merlin.data.extract import section_table
from merlin.data.preprocess import load_input
from merlin.evaluation import generation
from merlin.model import report_writer, text_scores
from merlin.model.cpu import prepare_cpu
from merlin.model.text import load_model, minilm_folder
from merlin.streams import Stream, stream_of
from merlin.training import reports
from merlin.training.adapt import grid_of
from merlin.training.checkpoint import load_weights
from merlin.vocabulary import SECTIONS

TASK = "report_generation"
DECODING = ("max_new_tokens", "repetition_penalty")
AFTERWARDS = (
    "n_resamples",
    "n_bertscore",
    "writing_batch",
    *DECODING,
)  # what training does not read


def new_writer(
    settings: SimpleNamespace, lessons: np.ndarray, feature_size: int
) -> report_writer.ReportWriter:
    """Adapter and language model before training.

    Parameters
    ----------
    settings : SimpleNamespace
        With `lm_folder` its model; without, a small one with a tokeniser of the lessons.
    lessons : (n, n_sections) str
    feature_size : int
    """
    torch.manual_seed(settings.seed)
    prompts = [report_writer.PROMPT.format(section=s) for s in SECTIONS]
    if settings.lm_folder:
        language_model, tokenizer = report_writer.language_model_from(settings.lm_folder)
    else:
        texts = [t for t in lessons.ravel() if t]
        vocabulary = settings.vocabulary
        tokenizer = report_writer.train_tokenizer([*texts, *prompts], vocabulary=vocabulary)
        sizes = dict(hidden_size=settings.hidden_size, n_layers=settings.n_layers)
        language_model = report_writer.small_language_model(tokenizer, max_length=512, **sizes)
    writer = report_writer.ReportWriter(
        language_model, tokenizer, feature_size, prompts=prompts,
        **{n: getattr(settings, n) for n in ("adapter", "n_tokens", "lora_rank")},
    )  # fmt: skip
    n_all = sum(p.numel() for p in writer.parameters())
    n_trained = sum(p.numel() for p in writer.parameters() if p.requires_grad)
    print(f"{n_trained:,} of {n_all:,} parameters train; {len(tokenizer)} tokens")
    return writer


def job(settings: SimpleNamespace, _: str = "writer") -> None:
    """Train the writer (from its checkpoint, if it was killed), then write and score the test reports."""
    prepare_cpu(settings.n_threads)
    if settings.lm_folder:
        report_writer.require_language_model(settings.lm_folder)
    studies = jobs.internal(jobs.inputs(TASK, settings)[0])
    studies = studies[studies["split"] != "val"].reset_index(drop=True)
    sections = section_table(studies["findings"].fillna(""))
    train, test = (np.flatnonzero(studies["split"] == s) for s in ("train", "test"))
    features, image, writer = _trained(settings, studies["volume"].tolist(), sections, train)

    def written() -> pd.DataFrame:
        texts = reports.write_reports(
            writer, features, SECTIONS, rows=test, batch_size=settings.writing_batch, device=_device(),
            **{n: getattr(settings, n) for n in DECODING},
        )  # fmt: skip
        by_model = {"reference": sections[test], "writer": texts}
        by_model |= generation.baselines(sections, image, train, test)
        who = [c for c in ("study_id", "patient_id", "sex") if c in studies]
        ids = studies.iloc[test][who].reset_index(drop=True)
        tables = [
            ids.assign(model=name, **dict(zip(SECTIONS, found.T, strict=True)))
            for name, found in by_model.items()
        ]
        return _with_model_scores(pd.concat(tables, ignore_index=True), settings)

    jobs.keep(TASK, settings, "writer-reports", written)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _trained(
    settings: SimpleNamespace, volumes: list, sections: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray, report_writer.ReportWriter]:
    """Features and unit embeddings of all volumes, and the writer that learnt from those of `train`."""
    base, (source, weights) = run.folder(settings.profile), jobs.inputs(TASK, settings)
    model, facts = load_weights(weights)
    encoder, grid = model.encode_image.eval().to(_device()), grid_of(weights)
    same = (jobs.weights_hash(weights), run.cohort_hash(source))
    encoding = run.code_hash("merlin.model.i3d", "merlin.data.preprocess")
    features, image = reports.encode_features(
        encoder,
        lambda i: load_input(volumes[i], grid, cache_dir=base / "cache").image,
        len(volumes),
        adapter=settings.adapter,
        path=base / TASK / "features",
        mark=run.fingerprint(*same, encoding, settings.adapter),
        device=_device(),
    )
    writer = new_writer(settings, sections[train], features.shape[-1]).to(_device())
    made_by = {
        k: v for k, v in vars(settings).items() if k not in ("profile", "main_seeds", *AFTERWARDS)
    }
    if settings.lm_folder:
        made_by["language model"] = reports.frozen_mark(writer)
    mark = run.fingerprint(*same, run.code_hash("merlin.training.reports"), made_by)
    path, logged = base / TASK / "weights.safetensors", base / TASK / "log.parquet"
    if path.exists() and run.is_kept(logged, mark):
        return (
            features,
            image,
            reports.load_model(path, lm_folder=settings.lm_folder)[1].to(_device()),
        )
    for made_before in (logged, base / TASK / "writer-reports.parquet"):
        made_before.unlink(missing_ok=True)
    log = reports.fit(
        writer, features, sections[train], SECTIONS, rows=train, device=_device(),
        checkpoint=base / TASK / "checkpoint.pt", fingerprint=mark,
        **{n: getattr(settings, n) for n in ("n_steps", "batch_size", "learning_rate", "seed")},
    )  # fmt: skip
    made = facts | {"profile": settings.profile, "seed": settings.seed}
    reports.save_model(path, encoder, writer, made, lm_folder=settings.lm_folder)
    run.kept(logged, mark, lambda: pd.DataFrame(log))
    return features, image, writer


def _with_model_scores(written: pd.DataFrame, settings: SimpleNamespace) -> pd.DataFrame:
    """Columns `bertscore`, `radgraph_f1` and, where that could not be computed, `radgraph_reason`.

    Of some studies alone, drawn by the seed: they cost a language model's pass over every text.
    """
    whole = {
        m: generation.join_sections(t[list(SECTIONS)].to_numpy(object))
        for m, t in written.groupby("model")
    }
    n = len(whole["reference"])
    some = stream_of(settings.seed, Stream.BERTSCORE).permutation(n)[: settings.n_bertscore]
    some = np.sort(some)
    written = written.assign(bertscore=np.nan, radgraph_f1=np.nan, radgraph_reason="")
    encoder = load_model(minilm_folder())
    for name in [m for m in whole if m != "reference"]:
        rows = np.flatnonzero(written["model"] == name)[some]
        made, true = whole[name][some], whole["reference"][some]
        written.loc[rows, "bertscore"] = text_scores.bertscore(made, true, *encoder)
        try:
            written.loc[rows, "radgraph_f1"] = text_scores.radgraph_f1(made, true)
        except RuntimeError as error:
            written.loc[written["model"] == name, "radgraph_reason"] = str(error)
    return written


if __name__ == "__main__":
    jobs.main(TASK, job)
