"""Trained weights → embeddings: what `03_embeddings` encodes of an arm, and `02_pretraining` of a sweep's run."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from merlin import run
from merlin.data import extract, manifest
from merlin.data.cohort_codes import Coding, read_coding
from merlin.data.preprocess import Grid, load_input
from merlin.embeddings import Embeddings, save_embeddings
from merlin.model.cpu import prepare_cpu
from merlin.model.inference import folded
from merlin.model.two_towers import TwoTowers
from merlin.training import encode
from merlin.training.checkpoint import load_weights
from merlin.training.pretraining_run import Arm, Trained, is_first
from merlin.training.texts import TextCache
from merlin.vocabulary import SECTIONS


@dataclass(frozen=True)
class Encoder:
    """An arm's trained network and the studies that it shall encode.

    Attributes
    ----------
    model : TwoTowers
    facts : dict
        Of its weights: grid, phecodes, provenance.
    device : str
    studies : DataFrame
        All but the training ones.
    source, weights : path
    cache : path
        Of model inputs, and of sentences.
    read : TextCache
    """

    model: TwoTowers
    facts: dict
    device: str
    studies: pd.DataFrame
    source: Path
    weights: Path
    cache: Path
    read: TextCache

    @property
    def grid(self) -> Grid:
        """Of the model's input."""
        g = self.facts["grid"]
        return Grid(tuple(g["spacing_mm"]), tuple(g["shape"]), tuple(g["hu_window"]))

    def images(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) float32 of unit length, and (n, n_phecodes) logits."""
        return encode.encode_images(
            self.model, _reader(self.studies, self.grid, self.cache), len(self.studies),
            batch_size=batch_size, device=self.device,
        )  # fmt: skip

    def texts(self) -> tuple[dict[str, np.ndarray], int]:
        """Findings, impression and the 12 sections, each text whole.

        Returns
        -------
        arrays : dict of str to array
            Arrays of `Embeddings`.
        n_cut : int
            Distinct findings texts, or sentences of them, longer than the encoder's limit.
        """
        findings, n_cut = self._texts(self.studies["findings"].fillna(""), "findings")
        impression, _ = self._texts(self.studies["impression"].fillna(""), "impressions")
        headings = self.facts.get("parameters", {}).get("section_headings", False)  # as trained
        table = extract.section_table(self.studies["findings"].fillna(""), headings=headings)
        flat, _ = self._texts(table.ravel(), "sections")
        sections = flat.reshape(*table.shape, -1).astype(np.float16)
        found = dict(findings=findings, impression=impression, sections=sections)
        return found | {"section": np.array(SECTIONS)}, n_cut

    def _texts(self, texts, desc: str) -> tuple[np.ndarray, int]:
        return encode.encode_texts(self.model, texts, read=self.read, desc=desc)

    def tokens(self) -> dict:
        """Tokens of the judged studies' findings, and the encoder's limit."""
        judged = (self.studies["split"] == "test") & (self.studies["site"] == "internal")
        return encode.token_lengths(self.model, self.studies["findings"].fillna("")[judged])

    def prompts(self, file: str | Path = "") -> tuple[dict[str, np.ndarray], str | int]:
        """The user's prompts, or where no file is given ours, encoded; and the name of their bank."""
        return encode.encode_prompts(self.model, self.read, file=file)

    def coding(self, settings: SimpleNamespace) -> Coding:
        """Codes of the studies.

        Raises
        ------
        ValueError
            If codes of the user's own come without a map.
        """
        how = dict(tier=settings.tier, code_map=settings.code_map, rollup=settings.rollup)
        coding = read_coding(self.source.parent, **how)
        if all(p.startswith("output ") for p in self.facts["phecodes"]):
            coding = coding.without_codes()  # outputs without a name match no code
        if settings.tier == "full" and len(coding.codes) and not settings.code_map:
            raise ValueError("codes of your own need code_map, from their codes to phecodes")
        return coding

    def labels(self, coding: Coding) -> dict[str, np.ndarray]:
        """What the embeddings will be judged by."""
        return encode.study_labels(
            self.studies, coding.codes, coding.code_map, self.facts["phecodes"], **coding.rules
        )


def chosen_weights(folder: Path, epoch: str) -> Path:
    """An arm's weights: of the last step, or those that were best on validation.

    Where training kept no best ones (weights from elsewhere, or no validation), the last are taken, and
    it is said.

    Parameters
    ----------
    folder : path
        Of the arm.
    epoch : {"last", "best"}
    """
    if epoch not in ("last", "best"):
        raise ValueError(f"epoch: {epoch!r}. Expected last or best.")
    last, best = folder / "weights.safetensors", folder / "weights_best.safetensors"
    if epoch == "best" and best.exists():
        return best
    if epoch == "best":
        sys.stdout.write(f"No {best.name} was kept: {last.name} is encoded with.\n")
    return run.upstream(last, "02_pretraining")


def load_encoder(settings: SimpleNamespace) -> Encoder:
    """An arm's weights, ready to encode, and the studies that no arm learnt from."""
    base = run.folder(settings.profile)
    source = run.upstream(base / "cohort" / "manifest.csv", "01_cohort")
    weights = chosen_weights(base / "pretraining" / settings.arm, settings.epoch)
    model, facts = load_weights(weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.fold:
        model.encode_image = folded(model.encode_image)
    prepare_cpu(settings.n_threads)
    studies = manifest.load_manifest(source)
    studies = studies[studies["split"] != "train"].reset_index(drop=True)
    cache = base / "cache"
    read = TextCache(model.encode_text, cache, show=True)
    return Encoder(model.to(device), facts, device, studies, source, weights, cache, read)


def gather(
    settings: SimpleNamespace,
    encoder: Encoder,
    arrays: dict[str, np.ndarray],
    *,
    version: str | int,
    coding: Coding,
) -> Embeddings:
    """All that was encoded, with ids and with where it came from.

    Parameters
    ----------
    arrays : dict of str to array
        Arrays of `Embeddings`, other than ids and phecodes.
    version : str or int
        Of the prompts.
    coding : Coding
    """
    studies = encoder.studies
    asked = settings.prompts or encode.PROMPTS
    origin = run.provenance(settings, [encoder.source, encoder.weights, asked])
    origin |= {"model": settings.arm, "checkpoint": run.file_hash(encoder.weights)}
    origin |= {"seed": encoder.facts.get("seed"), "prompts": version, "grid": encoder.facts["grid"]}
    origin |= {"findings_tokens": encoder.tokens(), "coding": coding.notes(studies["study_id"])}
    left_out = encoder.source.parent / "left_out.csv"  # of a data set: without a readable volume
    if left_out.exists():
        origin["n_left_out"] = int((run.read_csv(left_out, dtype=str)["split"] == "test").sum())
    ids = {c: studies[c].to_numpy(str) for c in ("study_id", "patient_id", "site", "split")}
    phecode = np.array(encoder.facts["phecodes"])
    return Embeddings(**ids, **arrays, phecode=phecode, meta=origin)


def encode_sweep(arm: Arm, trained: dict[str, Trained]) -> list[Path]:
    """Encode the internal test studies with every run of an arm, for the headline scores alone.

    Returns
    -------
    list of Path
        The embeddings files; none where another process writes them.
    """
    if not is_first():
        return []
    settings, cohort, coding = arm.settings, arm.cohort, arm.cohort.coding
    base, test = run.folder(settings.profile), cohort.test()
    phecodes = cohort.phenotypes["phecode"].tolist()
    labels = encode.study_labels(test, coding.codes, coding.code_map, phecodes, **coding.rules)
    read, made = _reader(test, cohort.grid, base / "cache"), []
    for name, t in trained.items():
        weights = base / "pretraining" / name / "weights.safetensors"
        origin = run.provenance(settings, [cohort.source, weights, encode.PROMPTS])
        origin |= {"seed": settings.trainings[name], "model": name}
        origin |= {"checkpoint": run.file_hash(weights)}
        encoded = encode.encode_for_headlines(
            t.model.eval(), test, read, labels, phecodes, meta=origin, device=arm.device,
            read=TextCache(t.model.encode_text, base / "cache"),
        )  # fmt: skip
        made.append(base / "embeddings" / f"{name}.npz")
        save_embeddings(made[-1], encoded)
    return made


def _reader(studies: pd.DataFrame, grid: Grid, cache: Path) -> Callable[[int], np.ndarray]:
    """Position of a study → its model input."""
    paths = studies["volume"].tolist()
    return lambda i: load_input(paths[i], grid, cache_dir=cache).image
