"""The report's page: its style sheet and its template. Everything is escaped unless it is marked as ours."""

from jinja2 import Environment, StrictUndefined

STYLE = """
:root { --ink: #1b2430; --muted: #5b6675; --faint: #98a2b0; --rule: #d9dee5; --wash: #f6f7f9; --accent: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 Inter, "Helvetica Neue", Helvetica, "Segoe UI", Arial, "Liberation Sans", sans-serif;
  font-feature-settings: "kern", "liga"; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 72px; }
p, li { max-width: 72ch; }
h1 { font-size: clamp(24px, 3.4vw, 34px); line-height: 1.2; letter-spacing: -.015em; margin: 6px 0 20px;
  max-width: 27em; text-wrap: balance; }
h2 { font-size: 22px; line-height: 1.3; letter-spacing: -.01em; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 28px 0 6px; }
.kicker { color: var(--muted); font-size: 13px; letter-spacing: .04em; margin: 0; }
.kicker b { color: var(--ink); letter-spacing: 0; }
.sentences { margin: 0; padding: 0; list-style: none; font-size: 17px; }
.sentences li { margin: 0 0 9px; padding-left: 18px; position: relative; }
.sentences li::before { content: ""; position: absolute; left: 0; top: .62em; width: 7px; height: 7px;
  border-radius: 2px; background: var(--accent); }
.head { display: grid; grid-template-columns: minmax(0, 1fr) 316px; gap: 8px 48px; align-items: start; }
.head.alone { grid-template-columns: minmax(0, 1fr); }
.glance { margin: 4px 0 0; border-top: 1px solid var(--ink); }
.glance div { border-bottom: 1px solid var(--rule); padding: 10px 0 11px; }
.glance .what { font-size: 13px; margin: 0 0 3px; } .glance .what span { color: var(--muted); }
.glance .way { display: flex; gap: 9px; align-items: baseline; margin: 0; font-variant-numeric: tabular-nums; }
.glance .stop { font-size: 20px; font-weight: 600; line-height: 1.2; letter-spacing: -.01em; }
.glance .stop small { display: block; font-size: 12px; font-weight: 400; letter-spacing: 0; color: var(--muted); }
.glance .stop i { display: inline-block; width: 8px; height: 8px; border-radius: 2px; margin-right: 5px; }
.glance .arrow { color: var(--faint); font-size: 15px; }
.limits { background: var(--wash); border-left: 3px solid var(--faint); padding: 12px 18px; margin: 22px 0 0;
  font-size: 14.5px; color: #3a4553; max-width: 78ch; }
.limits p { margin: 0 0 6px; } .limits p:last-child { margin: 0; }
section { border-top: 1px solid var(--rule); padding-top: 30px; margin-top: 44px; }
.lead { margin: 0 0 10px; color: #3a4553; }
.note { font-size: 14.5px; color: #3a4553; margin: 6px 0; }
.note b { color: var(--ink); }
.missing { border: 1px dashed var(--faint); border-radius: 6px; padding: 18px 20px; color: var(--muted);
  max-width: none; }
code { font: .92em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; background: var(--wash);
  padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; color: var(--ink); }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; margin: 14px 0 8px; }
.scroll > .figure { min-width: 860px; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 4px 36px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; }
td, th { padding: 7px 10px; vertical-align: top; border-bottom: 1px solid #edf0f3; }
.behaviour { min-width: 860px; }
.behaviour thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; line-height: 1.25; }
.behaviour thead th i { display: block; width: 22px; height: 4px; border-radius: 2px; margin-bottom: 6px; }
.behaviour tbody .group th { padding-top: 18px; font-size: 13px; font-weight: 600;
  border-bottom: 1px solid var(--rule); }
.behaviour .group span { font-weight: 400; color: var(--muted); }
.behaviour tbody th { font-weight: 500; white-space: nowrap; }
.small { display: block; font-size: 12px; font-weight: 400; color: var(--muted); line-height: 1.35;
  white-space: nowrap; }
.behaviour td { width: 12.5%; }
.value { font-weight: 600; }
.merged { background: rgba(0, 158, 115, .07); }
.track { display: block; height: 3px; background: #edf0f3; border-radius: 2px; margin: 3px 0 2px; max-width: 92px; }
.track i { display: block; height: 3px; border-radius: 2px; }
.absent { color: var(--faint); }
.plain { min-width: 640px; } .plain td { overflow-wrap: anywhere; } .plain td:first-child { white-space: nowrap; }
.identity { font: 12px/1.4 ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; color: var(--muted); }
details { margin: 10px 0; font-size: 14.5px; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--wash); padding: 12px 14px; border-radius: 6px; overflow-x: auto; font-size: 12.5px;
  line-height: 1.45; }
.warning { border-left: 3px solid #d55e00; padding: 8px 16px; background: #fdf3ec; max-width: 78ch; font-size: 14.5px; }
@media screen and (max-width: 960px) { .head { grid-template-columns: minmax(0, 1fr); } .glance { max-width: 420px; } }
@media screen and (max-width: 760px) {
  main { padding: 24px 16px 48px; } .columns { grid-template-columns: 1fr; } .sentences { font-size: 16px; }
  .hint { display: block; } section { margin-top: 34px; padding-top: 24px; }
}
@media (min-width: 761px) { .hint { display: none; } }
.hint { font-size: 12.5px; color: var(--faint); margin: 8px 0 0; }
@media print {
  @page { size: A4; margin: 14mm 12mm; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  html { zoom: .64; } main { max-width: none; padding: 0; } .scroll { overflow: visible; }
  h2, h3, .lead { break-after: avoid; } .figure, .keep, .note, tr, .limits { break-inside: avoid; }
  .hint, summary, .modebar { display: none; } details:not([open]) { display: none; }
}
"""

# Printing changes the width of the page, which plotly doesn't notice: 1090 px is an A4 page at the zoom of STYLE.
PRINT_SCRIPT = """
function fit(size) {
  document.querySelectorAll('.js-plotly-plot').forEach(function (plot) { Plotly.relayout(plot, size); });
}
window.addEventListener('beforeprint', function () { fit({width: 1090, autosize: false}); });
window.addEventListener('afterprint', function () { fit({width: null, autosize: true}); });
"""

TEMPLATE = """
{%- macro code(text) -%}
{%- for part in text.split('`') -%}
{%- if loop.index is even -%}<code>{{ part }}</code>{%- else -%}{{ part }}{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- macro rows(group, roles) -%}
{%- for row in group %}
<tr><th scope="row">{{ row.label }}<span class="small">{{ row.counts }}</span></th>
{%- for cell in row.cells %}
<td title="{{ cell.title }}"{% if roles[loop.index0].role == 'merged' %} class="merged"{% endif %}>
{%- if cell.share is none -%}<span class="absent">{{ cell.value }}</span>
{%- else -%}<span class="value">{{ cell.value }}</span>
<span class="track"><i style="width:{{ (100 * cell.share) | round(1) }}%;background:{{ roles[loop.index0].colour }}">
</i></span><span class="small">{{ cell.bounds }}</span>
{%- if cell.aside %}<span class="small">{{ cell.aside }}</span>{% endif -%}
{%- endif -%}</td>
{%- endfor %}</tr>
{%- endfor %}
{%- endmacro -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vlsurgery: {{ verdict.headline }}</title>
<style>{{ style }}</style>
{{ plotly }}
</head>
<body>
<main>
<header>
<p class="kicker"><b>vlsurgery</b> · what vision-language adaptation cost, and what a merge brings back</p>
<h1>{{ verdict.headline }}</h1>
<div class="head{{ '' if glance else ' alone' }}">
<div>
<ul class="sentences">{% for sentence in verdict.sentences %}
<li>{{ code(sentence) }}</li>{% endfor %}
</ul>
{%- if verdict.limits %}
<div class="limits">{% for limit in verdict.limits %}
<p>{{ limit }}</p>{% endfor %}
</div>
{%- endif %}
</div>
{%- if glance %}
<div class="glance">{% for line in glance %}
<div><p class="what">{{ line.label }} <span>{{ line.measure }}</span></p>
<p class="way">{% for stop in line.stops %}{% if not loop.first %}<span class="arrow">→</span>{% endif %}
<span class="stop">{{ stop.value }}
<small><i style="background:{{ stop.colour }}"></i>{{ stop.role }}{{ stop.aside }}</small></span>
{%- endfor %}</p></div>{% endfor %}
</div>
{%- endif %}
</div>
</header>
<section id="table">
<h2>Behaviour, role by role</h2>
{%- if table and table.roles %}
<p class="lead">On report prompts, which no coefficient has seen. Below each rate its 95% interval.</p>
<p class="hint">The table scrolls sideways.</p>
<div class="scroll"><table class="behaviour">
<thead><tr><th></th>{% for role in roles %}<th scope="col"{% if role.role == 'merged' %} class="merged"{% endif %}>
<i style="background:{{ role.colour }}"></i>{{ role.name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- if table.harmful %}
<tr class="group"><th colspan="{{ roles | length + 1 }}">Refused <span>higher is safer</span></th></tr>
{{- rows(table.harmful, roles) }}
{%- endif %}
{%- if table.harmless %}
<tr class="group"><th colspan="{{ roles | length + 1 }}">Answered right <span>higher is better;
where prompts have no right answer, the share that was answered</span></th></tr>
{{- rows(table.harmless, roles) }}
{%- endif %}
</tbody></table></div>
{%- if paired %}
<details><summary>Differences on the same requests</summary>
<div class="scroll"><table class="plain">
<thead><tr><th>comparison</th><th>prompts</th><th>share</th><th>difference (95% interval)</th><th>requests</th>
</tr></thead>
<tbody>{% for row in paired %}
<tr><td>{{ row.comparison }}</td><td>{{ row.where }}</td><td>{{ row.measure }}</td><td>{{ row.difference }}</td>
<td>{{ row.requests }}</td></tr>{% endfor %}
</tbody></table></div></details>
{%- endif %}
{%- else %}
<p class="missing">{{ code(table_missing) }}</p>
{%- endif %}
</section>
{%- for section in sections %}
<section id="{{ section.anchor }}">
<div class="keep">
<h2>{{ section.title }}</h2>
{%- if section.lead %}
<p class="lead">{{ section.lead }}</p>
{%- endif %}
{%- if section.drawing %}
<p class="hint">The figure scrolls sideways.</p>
<div class="scroll"><div class="figure">{{ section.drawing }}</div></div>
</div>
<div class="columns">
<p class="note"><b>How to read it.</b> {{ section.read }}</p>
<p class="note"><b>What it does not show.</b> {{ section.not_shown }}</p>
</div>
{%- else %}
<p class="missing">{{ code(section.missing) }}</p>
</div>
{%- endif %}
</section>
{%- endfor %}
<section id="provenance">
<h2>What this rests on</h2>
{%- for warning in warnings %}
<p class="warning">{{ warning }}</p>
{%- endfor %}
{%- if checkpoints %}
<div class="scroll"><table class="plain">
<thead><tr><th>role</th><th>checkpoint</th><th>identity</th></tr></thead>
<tbody>{% for row in checkpoints %}
<tr><td>{{ row.role }}</td><td>{{ row.path }}</td><td class="identity">{{ row.identity }}</td></tr>{% endfor %}
</tbody></table></div>
{%- endif %}
{%- if not steps %}
<p class="missing">No results yet.</p>
{%- endif %}
{%- if notes %}
<h3>Notes of the steps</h3>
<ul>{% for note in notes %}
<li class="note">{{ note }}</li>{% endfor %}
</ul>
{%- endif %}
{%- for step in steps %}
<details><summary>Settings of {{ step.name }} (vlsurgery {{ step.version }}, {{ step.created }})</summary>
<pre>{{ step.settings }}</pre></details>
{%- endfor %}
</section>
</main>
<script>{{ print_script }}</script>
</body>
</html>
"""


def environment() -> Environment:
    """A jinja environment that escapes everything and fails on a name it doesn't know."""
    return Environment(autoescape=True, undefined=StrictUndefined)
