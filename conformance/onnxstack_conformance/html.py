"""The report as one HTML page: no script, no asset of elsewhere, readable in light and in dark."""

from __future__ import annotations

from html import escape
from itertools import groupby

from onnxstack_conformance import __version__
from onnxstack_conformance.verdict import Finding, Judged, Report, Word

STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5b6470; --back: #fff; --line: #dfe3e8; --code: #f4f6f8;
  --passed: #16794c; --broken: #c0262d; --missing: #8a6100; --untested: #5b6470; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --soft: #9aa5b1; --back: #14171a; --line: #2c3238;
  --code: #1d2226; --passed: #55c98e; --broken: #ff7b80; --missing: #e0b04a; --untested: #9aa5b1; } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 1100px;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
h3 { font-size: 1rem; margin: 1rem 0 0 }
.soft { color: var(--soft) }
.counts { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1rem 0 }
.counts b { font-size: 1.6rem; display: block; line-height: 1.2 }
.passed { color: var(--passed) } .broken { color: var(--broken) } .missing { color: var(--missing) }
.untested { color: var(--untested) }
table { border-collapse: collapse; width: 100% }
td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td:first-child, td.few { white-space: nowrap }
td code { margin-right: .4rem; display: inline-block }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: var(--code); padding: .6rem .8rem; border-radius: 6px; white-space: pre-wrap; margin: .3rem 0 }
.finding { border-left: 3px solid var(--broken); padding-left: .8rem; margin: 1rem 0 }
.finding p { margin: .2rem 0 }
a { color: inherit }
summary { cursor: pointer; color: var(--soft) }
summary h2 { display: inline }
"""


def page(report: Report) -> str:
    """The page."""
    words: tuple[Word, ...] = ("passed", "broken", "missing", "untested")
    counts = "".join(f'<div class="{word}"><b>{report.count(word)}</b>{word}</div>' for word in words)
    parts = [
        f"<h1>Conformance of {escape(report.url)}</h1>",
        f'<p class="soft">Llama Stack v1 · {len(report.operations)} operations · {escape(report.started)} · '
        f"{report.seconds:.0f} s · onnxstack-conformance {__version__}</p>",
        f'<div class="counts"><div><b>{report.score:.0%}</b>score</div>{counts}</div>',
        _by_api(report),
        *_findings(report),
        _reasons(report, "missing", "What the server does not have"),
        _reasons(report, "untested", "What could not be tested"),
        *_list("Left behind: the contract has no way to take these away", report.left_behind),
        *_list("Could not be taken away", report.not_cleaned),
        *_list("In the baseline, and no longer found", report.mended),
        *_list("The kit itself failed", report.errors),
        *_list("Load", [f"{name}: {value}" for name, value in report.load.items()]),
        _rules(report),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Conformance of {escape(report.url)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _by_api(report: Report) -> str:
    rows = []
    ordered = sorted(report.operations.values(), key=lambda judged: (judged.api, judged.operation))
    for api, members in groupby(ordered, key=lambda judged: judged.api):
        passed, of = report.by_api[api]
        names = " ".join(map(_name, members))
        rows.append(f'<tr><td>{escape(api)}</td><td class="few">{passed} of {of}</td><td>{names}</td></tr>')
    return f"<h2>Operations</h2>\n<table>{''.join(rows)}</table>"


def _name(judged: Judged) -> str:
    kept = f"{len(judged.kept)} rules kept" if judged.verdict == "passed" else judged.verdict
    name = f'<code class="{judged.verdict}" title="{escape(judged.label)}: {kept}">{escape(judged.operation)}</code>'
    return name if judged.verdict == "passed" else f'<a href="#{escape(judged.operation)}">{name}</a>'


def _reasons(report: Report, verdict: Word, title: str) -> str:
    """Why operations are missing or untested."""
    found = [judged for judged in report.operations.values() if judged.verdict == verdict]
    if not found:
        return ""
    rows = "".join(
        f'<tr id="{escape(judged.operation)}"><td class="{verdict}">{escape(judged.operation)}</td>'
        f"<td><code>{escape(judged.label)}</code></td><td>{_why(judged)}</td></tr>"
        for judged in found
    )
    return f"<h2>{escape(title)}</h2><table>{rows}</table>"


def _why(judged: Judged) -> str:
    reasons = judged.missing if judged.verdict == "missing" else judged.skips
    return "<br>".join(escape(reason[:300]) for reason in dict.fromkeys(reasons)) or "no rule reached it"


def _findings(report: Report) -> list[str]:
    if not report.findings:
        return []
    parts = ["<h2>What is broken</h2>"]
    for judged in report.operations.values():
        if judged.findings:
            parts.append(
                f'<h3 id="{escape(judged.operation)}">{escape(judged.operation)} '
                f"<code>{escape(judged.label)}</code></h3>"
            )
            parts += [_finding(finding, finding.key in report.known) for finding in judged.findings]
    return parts


def _finding(finding: Finding, known: bool) -> str:
    curl = f"<p>To repeat it:</p><pre>{escape(finding.curl)}</pre>" if finding.curl else ""
    shown = (
        f"<details><summary>The answer</summary><pre>{escape(finding.shown)}</pre></details>" if finding.shown else ""
    )
    mark = ' <span class="soft">(in the baseline)</span>' if known else ""
    return (
        f'<div class="finding"><p><b>{escape(finding.message)}</b>{mark}</p>'
        f"<p>{escape(finding.says)}</p>"
        f'<p class="soft">{escape(finding.source)} · {escape(finding.layer)} · <code>{escape(finding.rule)}</code></p>'
        f"{curl}{shown}</div>"
    )


def _list(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    return [
        f"<h2>{escape(title)}</h2><ul>{''.join(f'<li><code>{escape(entry)}</code></li>' for entry in entries)}</ul>"
    ]


def _rules(report: Report) -> str:
    colour = {"skipped": "untested", "error": "broken"}
    rows = "".join(
        f'<tr><td class="{colour.get(rule.outcome, rule.outcome)}">{rule.outcome}</td><td>{escape(rule.says)}'
        f'<br><code class="soft">{escape(rule.name)}</code></td>'
        f"<td>{escape(rule.message[:300]) if rule.outcome != 'passed' else ''}</td></tr>"
        for rule in report.rules
    )
    title = f"<summary><h2>All {len(report.rules)} rules</h2></summary>"
    return f"<details>{title}<table>{rows}</table></details>"
