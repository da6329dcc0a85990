"""How often findings are drawn, and in whom. Nothing is rendered here."""

import numpy as np
import pytest
from scipy import stats

from merlin.phantom import synthesis
from merlin.phantom.findings import FINDINGS
from merlin.vocabulary import NAMES

TOLERANCE_SD = 4.0  # 90 comparisons: a chance of about 1 in 200 that a right cohort fails one


def declared(name, site):
    """Prevalence at a site: the liability is normal, moved by the site's shift and its age."""
    finding = FINDINGS[name]
    moved = site.liability_shift + finding.age * site.age_shift / 16
    return stats.norm.sf(stats.norm.isf(finding.prevalence) - moved)


def declared_gallstones(site):
    """Stones in those who still have a gallbladder: a bivariate normal tail."""
    stones, absent = FINDINGS["gallstones"], FINDINGS["surgically_absent_gallbladder"]
    shared = dict(absent.factors)
    correlation = stones.age * absent.age + sum(w * shared.get(f, 0) for f, w in stones.factors)
    p, q = declared("gallstones", site), declared("surgically_absent_gallbladder", site)
    limits = [stats.norm.ppf(p), stats.norm.ppf(q)]
    both = stats.multivariate_normal.cdf(limits, cov=[[1, correlation], [correlation, 1]])
    return p - both


@pytest.mark.parametrize("site", ["internal", "site_b", "site_c"])
def test_each_finding_is_as_common_as_declared(drawn, site):
    off = []
    for name in NAMES:
        rows = [d for d in drawn[site] if FINDINGS[name].only_sex in ("", d.patient.sex)]
        expected = declared(name, synthesis.SITES[site])
        if name == "gallstones":
            expected = declared_gallstones(synthesis.SITES[site])
        rate = np.mean([name in d.study.found for d in rows])
        sd = np.sqrt(expected * (1 - expected) / len(rows))
        if abs(rate - expected) > TOLERANCE_SD * sd:
            off.append((name, round(expected, 3), round(float(rate), 3)))
    assert off == []


@pytest.mark.parametrize("name", [n for n, f in FINDINGS.items() if abs(f.age) >= 0.3])
def test_age_related_finding_follows_age(drawn, name):
    rows = [d for site in drawn.values() for d in site]
    rows = [d for d in rows if FINDINGS[name].only_sex in ("", d.patient.sex)]
    age = np.array([d.study.age for d in rows])
    present = np.array([name in d.study.found for d in rows])
    young, old = np.quantile(age, [1 / 3, 2 / 3])
    gap = present[age > old].mean() - present[age <= young].mean()
    assert gap * np.sign(FINDINGS[name].age) > 0.03


def test_gallstones_never_occur_without_a_gallbladder(drawn):
    studies = [d.study.found for rows in drawn.values() for d in rows]
    assert any("gallstones" in s for s in studies)
    assert any("surgically_absent_gallbladder" in s for s in studies)
    assert not any({"gallstones", "surgically_absent_gallbladder"} <= set(s) for s in studies)


def test_prostatomegaly_occurs_in_men_only(drawn):
    sexes = {d.patient.sex for rows in drawn.values() for d in rows}
    with_it = {
        d.patient.sex for rows in drawn.values() for d in rows if "prostatomegaly" in d.study.found
    }
    assert sexes == {"F", "M"}
    assert with_it == {"M"}


def test_companions_keep_company(drawn):
    """Ascites, effusion and anasarca share a factor; osteopenia and appendicitis share none."""
    studies = [d.study.found for rows in drawn.values() for d in rows]

    def phi(a, b):
        return np.corrcoef([a in s for s in studies], [b in s for s in studies])[0, 1]

    assert phi("ascites", "pleural_effusion") > 0.12
    assert phi("ascites", "anasarca") > 0.12
    assert phi("osteopenia", "appendicitis") < 0.05


def test_severities_span_their_range(drawn):
    severity = np.array(
        [f.severity for rows in drawn.values() for d in rows for f in d.study.found.values()]
    )
    assert severity.min() >= 0.03
    assert severity.max() <= 1
    assert np.quantile(severity, 0.1) < 0.30
    assert np.quantile(severity, 0.9) > 0.8


def test_later_visits_come_later():
    site = synthesis.SITES["internal"]
    for i in range(40):
        patient = synthesis.draw_patient(7, f"R{i}", site)
        days = [
            synthesis.draw_study(7, f"R{i}-{v + 1}", patient, site, visit=v).days for v in range(3)
        ]
        assert days == sorted(days)


def test_chronic_findings_return_at_the_next_visit():
    site, again, fresh = synthesis.SITES["internal"], [], []
    for i in range(100):
        patient = synthesis.draw_patient(7, f"R{i}", site)
        first, second = (
            synthesis.draw_study(7, f"R{i}-{v + 1}", patient, site, visit=v) for v in (0, 1)
        )
        assert second.days > first.days == 0
        for name in ("atherosclerosis", "renal_cyst"):
            (again if name in first.found else fresh).append(name in second.found)
    assert np.mean(again) > 0.6 > 0.3 > np.mean(fresh)
