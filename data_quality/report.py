"""The page of a suite's results: one file that needs nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$table: $verdict</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.about { color: #57606a; white-space: pre-line; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #d0d7de; }
code { font-size: .85em; overflow-wrap: anywhere; }
.met { color: #116329; } .not-met { color: #a40e26; font-weight: 600; } .warning, .info { color: #7d4e00; }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } th, td { border-color: #30363d; } p.about { color: #9198a1; }
  .met { color: #56d364; } .not-met { color: #ff7b72; } .warning, .info { color: #e3b341; }
}
</style>
</head>
<body>
<h1>$table</h1>
<p class="about">$description</p>
<p><span class="$verdict_class">$verdict</span>: $met of $evaluated expectations are met by $rows rows,
checked $checked_at.</p>
<table>
<thead><tr><th>Expectation</th><th>Result</th><th>Rows that differ</th><th>Seen</th></tr></thead>
<tbody>
$lines
</tbody>
</table>
</body>
</html>
""")
_LINE = Template("""<tr><td>$description<br><code>$expectation</code></td>
<td class="$css">$outcome</td><td>$unexpected</td><td>$seen</td></tr>""")


def write_report(path: Path, table: str, description: str, rows: int, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes the page of a suite's results (``SuiteResult.expectations``) in one step: nobody reads half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(_page(table, description, rows, results, datetime.now(UTC)), "utf-8")
    draft.replace(path)


def _page(table: str, description: str, rows: int, results: Sequence[Mapping[str, Any]], checked_at: datetime) -> str:
    met = sum(bool(result["success"]) for result in results)
    ordered = sorted(results, key=lambda result: bool(result["success"]))
    return _PAGE.substitute(
        table=escape(table),
        description=escape(description),
        verdict="Met" if met == len(results) else "Not met",
        verdict_class="met" if met == len(results) else "not-met",
        met=met,
        evaluated=len(results),
        rows=f"{rows:,}",
        checked_at=f"{checked_at:%Y-%m-%d %H:%M:%S} UTC",
        lines="\n".join(_line(result) for result in ordered),
    )


def _line(result: Mapping[str, Any]) -> str:
    is_met = bool(result["success"])
    css = "met" if is_met else ("not-met" if result["severity"] == "critical" else escape(result["severity"]))
    return _LINE.substitute(
        description=escape(result["description"]),
        expectation=escape(result["expectation"]),
        css=css,
        outcome="met" if is_met else f"not met ({escape(result['severity'])})",
        unexpected="" if result["unexpected"] is None else f"{result['unexpected']:,}",
        seen="" if is_met else _seen(result),
    )


def _seen(result: Mapping[str, Any]) -> str:
    """What was found instead: the error, the observed value, or example rows."""
    texts = [text for text in (result["error"], result["observed"]) if text]
    texts += [", ".join(f"{name} = {value}" for name, value in row.items()) for row in result["examples"]]
    return "<br>".join(f"<code>{escape(text)}</code>" for text in texts)
