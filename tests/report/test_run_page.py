"""The page of a run: whole in itself, safe with any text, and saying what the run found."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from run_records import SAMPLES, VERDICT, records, simulated_metrics

from likewise.engine.config import make_config
from likewise.engine.summary import Finding, Summary
from likewise.report import words
from likewise.report.run_page import PALETTE, SamplePair, embedded_json, run_page

HOSTILE = [
    "</script><script>console.error('ran')</script>",
    "<img src=x onerror=\"console.error('ran')\">",
    "\"><svg onload=console.error('ran')>",
    "'};console.error('ran');//",
    "{{ 7 * 7 }} {% raw %}",
    "<!-- <script>",
]


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, text outside scripts, scripts."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        else:
            (self.styles if "style" in self.open else self.text).append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))

    def tags(self, name):
        return [attrs for tag, attrs in self.elements if tag == name]

    @property
    def curves(self):
        return next(json.loads(text) for attrs, text in self.scripts if attrs.get("id") == "curves")


@pytest.fixture(scope="module", params=["bco", "kto", "dpo"])
def page(request):
    return Page(run_page(**records(request.param), verdict=VERDICT))


def test_elements_are_balanced_and_nothing_is_fetched(page):
    assert page.open == []
    for tag, attrs in page.elements:
        for name, value in attrs.items():
            if name in {"src", "href", "srcset", "data", "action", "poster", "background"}:
                assert value == "data:,", f"<{tag} {name}={value!r}>"
    for style in page.styles:
        assert not re.search(r"@import|url\(|https?:", style)
    policy = next(a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_only_the_scripts_of_the_page_may_run(page):
    policy = next(a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    found = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for attrs, text in page.scripts
        if attrs.get("type") != "application/json"
    }
    assert found == allowed
    assert len(found) == 2
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert not [(tag, name) for tag, attrs in page.elements for name in attrs if name.startswith("on")]


def test_plotly_is_there_once(page):
    assert sum("plotly.js v" in text for _, text in page.scripts) == 1


@pytest.mark.parametrize("objective", ["bco", "kto", "dpo"])
def test_every_finding_is_told_with_its_mark(objective):
    arguments = records(objective)
    page = Page(run_page(**arguments))
    findings = arguments["summary"].findings
    assert len(findings) >= 4
    for finding in findings:
        assert f"{finding.mark} {finding.text}" in page.words
    labels = [a["aria-label"] for a in page.tags("span") if a.get("class") == "mark"]
    meanings = {"✓": "as it should be:", "!": "wants attention:", "·": "a fact:"}
    assert labels == [meanings[f.mark] for f in findings]


def test_the_verdict_comes_before_the_findings():
    page = Page(run_page(**records(), verdict=VERDICT))
    assert VERDICT.headline in page.words
    for name, value in VERDICT.details:
        assert f"{name} {value}" in page.words
    first = records()["summary"].findings[0].text
    assert page.words.index(VERDICT.headline) < page.words.index(first) < page.words.index("Implicit rewards")


def test_points_are_exactly_the_metrics():
    metrics = simulated_metrics("bco")
    figures = Page(run_page(**records(metrics=metrics))).curves["figures"]
    where = {"loss": "loss", "margin": "reward/margin", "grad_norm": "grad_norm", "speed": "tokens_per_second"}
    for name, key in where.items():
        points = next(t for t in figures[name]["data"] if t["mode"] == "markers")
        assert points["x"] == [m["step"] for m in metrics]
        assert points["y"] == [m[key] for m in metrics]
    shift = figures["shift"]["data"][0]
    assert shift["mode"] == "lines"
    assert shift["y"] == [m["objective/shift"] for m in metrics]


def test_there_is_a_place_for_every_figure_and_no_other(page):
    places = {a["id"] for a in page.tags("div") if a.get("class") == "chart"}
    assert places == {f"figure-{name}" for name in page.curves["figures"]}


def test_a_level_to_compare_with_is_named_beside_the_curve():
    page = Page(run_page(**records()))
    assert "model = reference 0.693" in page.words
    dotted = page.curves["figures"]["loss"]["data"][-1]
    assert (dotted["line"]["dash"], dotted["y"]) == ("dot", [pytest.approx(0.6931472), pytest.approx(0.6931472)])


def test_text_of_people_and_models_is_only_ever_text():
    samples = [SamplePair([{"role": text, "content": text}], text, text + "!") for text in HOSTILE]
    samples += [SamplePair(text, text, "") for text in HOSTILE]
    arguments = records(
        samples=samples,
        summary=Summary([Finding("!", text) for text in HOSTILE]),
        facts={text: text for text in HOSTILE},
        config=make_config({"model": HOSTILE[0], "feedback": HOSTILE[1]}),
        metrics=[m | {f"objective/{HOSTILE[0]}": 1.0} for m in simulated_metrics("bco", steps=3)],
    )
    page = Page(run_page(**arguments))
    plain = Page(run_page(**records(metrics=simulated_metrics("bco", steps=3))))
    assert len(page.scripts) == len(plain.scripts)
    assert not page.tags("img")
    assert not page.tags("svg")
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    for text in HOSTILE:
        assert page.words.count(text) >= 5


def test_embedded_json_cannot_leave_its_script_element():
    text = embedded_json({"a": "</script><!-- & \u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


def test_text_that_no_file_can_hold_is_replaced():
    page = run_page(**records(samples=[SamplePair("a\x00b\ud800c", "\x1b[31mred", "x\ty\r\nz")]))
    page.encode("utf-8")
    assert "a\ufffdb\ufffdc" in page
    assert "\ufffd[31mred" in page
    assert "x\ty\nz" in page


def test_samples_show_roles_answers_and_which_true_reward_is_higher():
    page = Page(run_page(**records()))
    for pair in SAMPLES:
        turns = [pair.prompt] if isinstance(pair.prompt, str) else [m["content"] for m in pair.prompt]
        for text in (*turns, pair.base, pair.aligned):
            assert re.sub(r"\s+", " ", text.strip()) in page.words
    assert "2 earlier turns" in page.words
    assert "Base true reward −0.620" in page.words
    assert "Aligned true reward 1.34, the higher" in page.words
    assert page.words.count("Both answered the same.") == 1
    assert page.words.count("an empty answer") == 2


def test_a_page_without_samples_metrics_heldout_or_facts_is_whole():
    bare = records(samples=[], metrics=[], heldout=None, facts={}, settings=[], summary=Summary([]))
    page = Page(run_page(**bare))
    assert page.open == []
    assert page.scripts == []
    assert "side by side" not in page.words
    assert "likewise align --config run.yaml --output-dir NEW" in page.words


def test_metrics_with_missing_keys_and_values_that_are_not_finite_are_fine():
    metrics = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 0.5, "grad_norm": float("inf")}]
    figures = Page(run_page(**records(metrics=metrics, summary=Summary([])))).curves["figures"]
    assert list(figures) == ["loss"]
    assert figures["loss"]["data"][0]["y"] == [0.5]


def test_the_page_says_how_to_repeat_the_run():
    page = Page(run_page(**records()))
    for expected in ("torch", "transformers", "peft", words.hardware(), "Seed 7", "models/pythia-tiny", "2e-5"):
        assert expected in page.words
    given = make_config({"model": "given", "feedback": "given rows"})
    assert "the model and the rows (--model, --feedback)" in Page(run_page(**records(config=given))).words


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "a", "b", "c", "good", "attention"])
def test_text_stands_out_from_its_ground(mode, name):
    for ground in ("paper", "card"):
        assert contrast(PALETTE[mode][name], PALETTE[mode][ground]) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# --- in a browser ----------------------------------------------------------------------------------------------------


def browse(path, profile):
    """(the page after its scripts ran, what the console said), from a headless Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here to load the page with")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_a_browser_draws_every_figure_and_complains_of_nothing(tmp_path):
    arguments = records()
    arguments["samples"] = [*SAMPLES, *(SamplePair(text, text, text) for text in HOSTILE)]
    path = tmp_path / "report.html"
    path.write_text(run_page(**arguments, verdict=VERDICT), encoding="utf-8")
    dom, console = browse(path, tmp_path / "profile")
    assert console == []
    count = len(Page(path.read_text(encoding="utf-8")).curves["figures"])
    assert len(re.findall(r'<div class="chart js-plotly-plot"', dom)) == count
    assert dom.count('class="trace scatter') >= count


def test_the_browser_would_have_told_of_an_error_and_the_policy_stops_foreign_scripts(tmp_path):
    path = tmp_path / "report.html"
    html = run_page(**records(metrics=simulated_metrics("bco", steps=3)))
    path.write_text(html.replace("</main>", "</main><script>document.title = 'ran'</script>"), encoding="utf-8")
    dom, console = browse(path, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>ran</title>" not in dom
