"""Jobs of `09_report_generation`: a writer with one seed learns to write, writes all test reports; rivals too.

Scores by language models (BERTScore, RadGraph-F1) are computed here, where the network is: what judges
the reports afterwards counts words.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from merlin import jobs, run
from merlin.data.extract import section_table
from merlin.data.preprocess import load_input
from merlin.evaluation import generation, report_rivals, zero_shot
from merlin.evaluation.regression import logistic
from merlin.model import report_writer, text_scores
from merlin.model.cpu import prepare_cpu
from merlin.model.text import load_model, minilm_folder
from merlin.streams import Stream, stream_of
from merlin.training import reports
from merlin.training.adapt import grid_of
from merlin.training.checkpoint import load_weights
from merlin.training.encode import encode_prompts
from merlin.vocabulary import NAMES, SECTIONS

TASK = "report_generation"
PLANS = ("none", "scores", "probe")
PROBE_C = (0.0003, 0.003, 0.03)  # inverse penalties to choose from
DECODING = ("max_new_tokens", "repetition_penalty")
AFTERWARDS = (
    "n_resamples",
    "n_bertscore",
    "writing_batch",
    *DECODING,
)  # what training does not read


def new_writer(
    settings: SimpleNamespace, lessons: np.ndarray, feature_size: int, seed: int
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


@dataclass(frozen=True)
class Seen:
    """What the frozen towers of one pretraining make of the studies.

    Attributes
    ----------
    features : (n, F) or (n, tokens, F) float16
    image : (n, D) float32
        Unit length.
    scores : (n, n_findings) float
        Zero-shot, with prompts as reports phrase them.
    logits : (n, n_phecodes) float32
    """

    features: np.ndarray
    image: np.ndarray
    scores: np.ndarray
    logits: np.ndarray


def job(settings: SimpleNamespace, name: str = "writer") -> None:
    """Train a writer (from its checkpoint, if it was killed), then write and score the test reports."""
    prepare_cpu(settings.n_threads)
    if settings.lm_folder:
        report_writer.require_language_model(settings.lm_folder)
    studies = jobs.internal(jobs.inputs(TASK, settings, name)[0])
    sections = section_table(studies["findings"].fillna(""))
    rows = {s: np.flatnonzero(studies["split"] == s) for s in ("train", "val", "test")}
    seen = _seen(settings, name, studies["volume"].tolist())
    sexes = studies["sex"].tolist() if "sex" in studies else None
    truth = generation.stated(generation.join_sections(sections, SECTIONS), sexes)
    plan = planned(settings.plan, seen, truth, rows)
    features = with_plan(seen.features, plan)
    writer = _trained(settings, name, features, sections, rows["train"])

    def written() -> pd.DataFrame:
        test = rows["test"]
        texts = reports.write_reports(
            writer, features, SECTIONS, rows=test, batch_size=settings.writing_batch, device=_device(),
            **{n: getattr(settings, n) for n in DECODING},
        )  # fmt: skip
        readers = studies["reader"].fillna("").to_numpy(str) if "reader" in studies else None
        by_model = {"reference": sections[test], "writer": texts}
        by_model |= report_rivals.rivals(
            sections, seen.image, seen.scores, truth, rows, SECTIONS, readers=readers
        )
        if plan is not None:
            book = report_rivals.phrase_book(sections[rows["train"]], SECTIONS)
            by_model["planned"] = report_rivals.filled(plan[test], *book, SECTIONS)
        who = [c for c in ("study_id", "patient_id", "sex") if c in studies]
        ids = studies.iloc[test][who].reset_index(drop=True)
        tables = [
            ids.assign(model=m, **dict(zip(SECTIONS, found.T, strict=True)))
            for m, found in by_model.items()
        ]
        made = _with_model_scores(pd.concat(tables, ignore_index=True), settings)
        return made.assign(seed=jobs.seed_of(name)[1])

    jobs.keep(TASK, settings, f"{name}-reports", written, name)


def planned(
    plan: str, seen: Seen, truth: np.ndarray, rows: dict[str, np.ndarray]
) -> np.ndarray | None:
    """What the writer is told to state: (n, n_findings) bool, or None where it is told nothing.

    Training studies get what their own reports state, so that the writer learns to follow; all others what
    their image is called for, above thresholds of validation.

    Parameters
    ----------
    plan : {"none", "scores", "probe"}
        Nothing, zero-shot scores, or logistic regressions on frozen features of training reports, their
        penalty chosen on validation.
    truth : (n, n_findings) bool
        What each report states; of test studies it is not looked at.
    """
    if plan == "none":
        return None
    if plan not in PLANS:
        raise ValueError(f"plan must be one of {PLANS}; got {plan!r}")
    train, val = rows["train"], rows["val"]
    scores = seen.scores
    if plan == "probe":
        known = np.concatenate([seen.image, seen.logits], 1)
        tried = [
            np.nan_to_num(logistic(known[train], truth[train].astype(float), known, c=c))
            for c in PROBE_C
        ]
        called = [report_rivals.called_above(t[val], t[val], truth[val]) for t in tried]
        ones = np.ones((len(val), 1))
        scores = tried[
            int(np.argmax([generation.micro_f1(c, truth[val], ones)[0] for c in called]))
        ]
    out = report_rivals.called_above(scores, scores[val], truth[val])
    out[train] = truth[train]
    return out


def with_plan(features: np.ndarray, plan: np.ndarray | None) -> np.ndarray:
    """Features with the plan's bits behind them, as 1 and −1.

    Raises
    ------
    ValueError
        If features are tokens: a plan needs `adapter: flat`.
    """
    if plan is None:
        return features
    if features.ndim == 3:
        raise ValueError("plan needs adapter: flat; with tokens, set plan: none")
    return np.concatenate([features, 2.0 * plan - 1], 1).astype(np.float16)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _same(settings: SimpleNamespace, name: str) -> tuple[str, str]:
    """Fingerprints of the weights and the cohort of a job."""
    source, weights = jobs.inputs(TASK, settings, name)
    return jobs.weights_hash(weights), run.cohort_hash(source)


def _suffix(name: str) -> str:
    """Of the files of a seed: none for the first."""
    number = jobs.seed_of(name)[1]
    return f"-{number}" if number else ""


def _seen(settings: SimpleNamespace, name: str, volumes: list) -> Seen:
    """All volumes through the frozen image tower, and the prompts through the text tower."""
    base, weights = run.folder(settings.profile), jobs.inputs(TASK, settings, name)[1]
    model, grid = load_weights(weights)[0].eval(), grid_of(weights)
    bank = encode_prompts(model)[0]
    use = bank["prompt_wording"] == "reported"
    prompts = [bank[f"prompt_{k}"][use] for k in ("embedding", "finding", "kind")]
    encoding = run.code_hash("merlin.model.i3d", "merlin.data.preprocess")
    features, image, logits = reports.encode_features(
        model.encode_image.to(_device()),
        lambda i: load_input(volumes[i], grid, cache_dir=base / "cache").image,
        len(volumes),
        adapter=settings.adapter,
        path=base / TASK / f"features{_suffix(name)}",
        mark=run.fingerprint(*_same(settings, name), encoding, settings.adapter, "with logits"),
        device=_device(),
    )
    scored = zero_shot.score(image, *prompts)
    order = [scored.findings.index(f) for f in NAMES]
    return Seen(features, image, scored.value[:, order], logits)


def _trained(
    settings: SimpleNamespace, name: str, features: np.ndarray, sections: np.ndarray, train: np.ndarray
) -> report_writer.ReportWriter:  # fmt: skip
    """The writer that learnt from the reports of `train`."""
    base, weights = run.folder(settings.profile) / TASK, jobs.inputs(TASK, settings, name)[1]
    model, facts = load_weights(weights)
    seed, behind = settings.seed + jobs.seed_of(name)[1], _suffix(name)
    writer = new_writer(settings, sections[train], features.shape[-1], seed).to(_device())
    left_out = ("profile", "main_seeds", *AFTERWARDS)
    made_by = {k: v for k, v in vars(settings).items() if k not in left_out}
    if settings.lm_folder:
        made_by["language model"] = reports.frozen_mark(writer)
    code = run.code_hash(*jobs.TASKS[TASK].code)
    mark = run.fingerprint(*_same(settings, name), code, made_by, seed)
    path, logged = base / f"weights{behind}.safetensors", base / f"log{behind}.parquet"
    if path.exists() and run.is_kept(logged, mark):
        return reports.load_model(path, lm_folder=settings.lm_folder)[1].to(_device())
    for made_before in (logged, base / f"{name}-reports.parquet"):
        made_before.unlink(missing_ok=True)
    log = reports.fit(
        writer, features, sections[train], SECTIONS, rows=train, device=_device(), seed=seed,
        checkpoint=base / f"checkpoint{behind}.pt", fingerprint=mark,
        **{n: getattr(settings, n) for n in ("n_steps", "batch_size", "learning_rate")},
    )  # fmt: skip
    made = facts | {"profile": settings.profile, "seed": seed, "plan": settings.plan}
    reports.save_model(path, model.encode_image, writer, made, lm_folder=settings.lm_folder)
    run.kept(logged, mark, lambda: pd.DataFrame(log))
    return writer


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
