"""What a radiologist remarks on without calling it a finding: size, filling, habitus, technique.

No label exists for these, but the picture shows them and reports say them, which is what lets a
report be told from sixty-three others. A remark is made only where it is true of the body. They
stand in `remarks.yaml`.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from merlin.phantom.body import Body


@dataclass(frozen=True)
class Remark:
    """One observation: where it is dictated, in what words, and when it is true."""

    section: str
    texts: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()  # words of readers who dictate no training report
    unless: tuple[str, ...] = ()  # findings beside which nobody would say it
    below: dict[str, float] = field(default_factory=dict)  # numbers of the body
    above: dict[str, float] = field(default_factory=dict)
    equal: dict[str, str | bool] = field(default_factory=dict)
    incidental: str = ""  # a spot that the body has

    def holds(self, body: Body) -> bool:
        """Whether it is true of a body."""
        return (
            all(getattr(body, name) < limit for name, limit in self.below.items())
            and all(getattr(body, name) > limit for name, limit in self.above.items())
            and all(getattr(body, name) == value for name, value in self.equal.items())
            and (not self.incidental or self.incidental in body.incidental)
        )


def _read(section: str, said: dict) -> Remark:
    said = dict(said)
    texts, elsewhere = tuple(said.pop("say")), tuple(said.pop("elsewhere"))
    unless, equal = tuple(said.pop("unless", ())), said.pop("is", {})
    return Remark(section, texts, elsewhere, unless, equal=equal, **said)


REMARKS = {
    name: _read(section, said)
    for section, remarks in yaml.safe_load(
        (Path(__file__).parent / "remarks.yaml").read_text(encoding="utf-8")
    ).items()
    for name, said in remarks.items()
}


def remarks_of(body: Body, found: Container[str]) -> tuple[str, ...]:
    """Names of the remarks that are true of a body with the given findings."""
    return tuple(
        name
        for name, remark in REMARKS.items()
        if remark.holds(body) and not any(n in found for n in remark.unless)
    )
