// The page of `vlsurgery explore`. All text from the case is set as text, never as markup.
'use strict';
const byId = (id) => document.getElementById(id);
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const config = {displaylogo: false, responsive: true, modeBarButtons: [['toImage', 'zoom2d', 'resetScale2d']]};
const drawn = new Map();  // place of a figure -> what the server sent, for both papers
let found;  // what there is to choose from

function element(tag, words, kind) {
  const made = document.createElement(tag);
  if (words !== undefined) { made.textContent = words; }
  if (kind) { made.className = kind; }
  return made;
}

// The server's answer. What the user can mend comes as an error of one line.
async function ask(path, body) {
  const how = body === undefined ? {} :
    {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)};
  let answer;
  try { answer = await fetch(path, how); } catch (error) {
    throw new Error('the server does not answer: is vlsurgery explore still running?');
  }
  const text = await answer.text();
  let parsed;
  try { parsed = JSON.parse(text); } catch (error) { throw new Error(text.trim() || 'no answer'); }
  if (!answer.ok) { throw new Error(parsed.error); }
  return parsed;
}

function complain(place, error) {
  place.textContent = error ? error.message : '';
  place.hidden = !error;
}

// Runs work on a section; of several that are under way, the last one asked for is shown.
function latest(section, work) {
  let turn = 0;
  const fault = section.querySelector('.fault');
  return async function () {
    const mine = turn += 1;
    section.classList.add('busy');
    try {
      const show = await work();
      if (mine === turn) { show(); complain(fault, null); }
    } catch (error) { if (mine === turn) { complain(fault, error); } }
    if (mine === turn) { section.classList.remove('busy'); }
  };
}

function fill(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, words]) => {
    const option = element('option', words);
    option.value = value;
    return option;
  }));
  if (choices.some(([value]) => value === chosen)) { select.value = chosen; }
}

// Light and dark paper.
function isDark() {
  const wanted = byId('theme').value;
  return wanted === 'auto' ? dark.matches : wanted === 'dark';
}

function paint() {
  document.documentElement.classList.toggle('dark', isDark());
  drawn.forEach((figure, place) => draw(place, figure));
}

function draw(place, figure) {
  const one = isDark() ? figure.dark : figure.light;
  Plotly.react(place, one.data, one.layout, config);
}

// Figures with their titles, and the numbers behind them.
function show(section, answer, clicked) {
  const home = section.querySelector('.figures');
  while (home.children.length > answer.figures.length) {
    drawn.delete(home.lastChild.querySelector('.plot'));
    home.lastChild.remove();
  }
  while (home.children.length < answer.figures.length) {  // all places first: they share the width
    const article = element('article');
    article.append(element('h3'), element('p'), element('div', undefined, 'plot'));
    home.append(article);
  }
  answer.figures.forEach((figure, at) => {
    const [title, subtitle, place] = home.children[at].children;
    title.textContent = figure.title;
    subtitle.textContent = figure.subtitle;
    place.setAttribute('role', 'img');
    place.setAttribute('aria-label', figure.title + '. The numbers are in the table below.');
    drawn.set(place, figure);
    draw(place, figure);
    Plotly.Plots.resize(place);
    if (clicked && at === 0 && !place.dataset.listens) {
      place.dataset.listens = 'yes';
      place.on('plotly_click', clicked);
    }
  });
  tabulate(section, answer.rows);
}

function tabulate(section, rows) {
  const details = section.querySelector('details');
  const table = element('table');
  const names = Object.keys(rows[0] || {});
  const head = element('tr');
  head.append(...names.map((name) => element('th', name)));
  table.append(head, ...rows.map((row) => {
    const line = element('tr');
    line.append(...names.map((name) => element('td', written(row[name]))));
    return line;
  }));
  section.querySelector('.scroll').replaceChildren(table);
  details.hidden = !rows.length;
  details.querySelector('.save').onclick = () => save(section.id + '.csv', rows);
}

function written(value) {
  if (value === null || value === undefined) { return ''; }
  return typeof value === 'number' && !Number.isInteger(value) ? value.toPrecision(4) : String(value);
}

// A spreadsheet would run a cell that begins like a formula: such text gets a quote before it.
function cell(value) {
  if (value === null || value === undefined) { return ''; }
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function save(name, rows) {
  const names = Object.keys(rows[0]);
  const lines = [names.map(cell), ...rows.map((row) => names.map((each) => cell(row[each])))];
  const link = element('a');
  link.href = URL.createObjectURL(new Blob([lines.map((line) => line.join(',')).join('\n') + '\n'], {type: 'text/csv'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Two directions.
const pairSection = byId('directions');
const side = (key) => found.sides.find((each) => each.key === key);

function pairChoices() {
  const [first, second] = [side(byId('pair-first').value), side(byId('pair-second').value)];
  const both = first.positions.filter((each) => second.positions.includes(each));
  fill(byId('pair-position'), both.map((each) => [each, place(each)]), byId('pair-position').value || found.shown?.[0]);
  byId('pair-layer').max = Math.min(first.layers, second.layers) - 1;
}

function place(position) {
  return position === 'instruction' ? 'last instruction token' : 'token ' + position;
}

const pair = latest(pairSection, async () => {
  const layer = byId('pair-layer').value;
  byId('pair-layer-text').textContent = layer;
  const query = new URLSearchParams({first: byId('pair-first').value, second: byId('pair-second').value,
    position: byId('pair-position').value, layer: layer});
  const answer = await ask('pair?' + query);
  return () => show(pairSection, answer, (event) => pickLayer(event.points[0].y));
});

function pickLayer(layer) {
  byId('pair-layer').value = layer;
  pair();
}

// What they said.
const saidSection = byId('said');
let page = 0;

const said = latest(saidSection, async () => {
  const flips = [byId('said-flip-first').value, byId('said-flip-second').value];
  const query = new URLSearchParams({grep: byId('said-grep').value, set: byId('said-set').value,
    role: byId('said-role').value, verdict: byId('said-verdict').value,
    flipped: flips[0] && flips[1] ? flips.join(':') : '', page: page});
  const answer = await ask('completions?' + query);
  return () => list(answer);
});

function list(answer) {
  const last = Math.min(answer.first + found.page, answer.count);
  saidSection.querySelector('.count').textContent = answer.count ?
    `Prompts ${answer.first + 1} to ${last} of ${answer.count}` : 'No prompt meets these conditions.';
  saidSection.querySelector('.list').replaceChildren(...answer.prompts.map(prompt));
  saidSection.querySelector('.pager').hidden = !answer.count;
  byId('said-before').disabled = page === 0;
  byId('said-after').disabled = last >= answer.count;
  saidSection.querySelector('.save').onclick = () => save('completions.csv', answer.prompts.flatMap((each) =>
    each.answers.map((one) => ({id: each.id, set: each.set, modality: each.modality, prompt: each.prompt, role: one.role,
      text: one.text, label: one.label, kind: one.kind, reason: one.reason}))));
}

function prompt(each) {
  const article = element('article');
  const head = element('header');
  const again = element('button', 'Read it above');
  again.type = 'button';
  again.onclick = () => { typeAgain(each); };
  head.append(element('span', each.where, 'small'), again);
  const voices = element('div', undefined, 'voices');
  voices.append(...each.answers.map((one) => voice(one, one.kind, [one.reason, one.as_text ? 'asked as text' : '',
    one.cut ? 'cut' : '', one.left_out ? one.left_out + ' more characters' : ''])));
  article.append(head, element('p', each.prompt, 'asked'), voices);
  return article;
}

function voice(one, kind, asides) {
  const home = element('div', undefined, 'voice');
  const who = element('p', undefined, 'small');
  who.append(element('span', one.role, 'who'));
  if (one.label) { who.append(' ', element('span', one.label, 'label ' + one.label), ' ' + kind); }
  home.append(who, element('p', one.text || '(empty)', 'words'));
  asides.filter(Boolean).forEach((words) => home.append(element('p', words, 'small')));
  return home;
}

// A prompt of yours.
const typedSection = byId('typed');

function typeAgain(each) {
  byId('typed-text').value = each.prompt;
  if (found.pictures.some((one) => one.key === each.modality)) { byId('typed-picture').value = each.modality; }
  typedSection.scrollIntoView();
  byId('typed-text').focus();
}

function typedPositions() {
  const chosen = side(byId('typed-direction').value);
  fill(byId('typed-position'), chosen.positions.map((each) => [each, place(each)]),
    byId('typed-position').value || found.shown?.[0]);
}

async function read(event) {
  event.preventDefault();
  const roles = [...typedSection.querySelectorAll('#typed-roles input:checked')].map((each) => each.value);
  const asked = {text: byId('typed-text').value, modality: byId('typed-picture').value,
    direction: byId('typed-direction').value, position: byId('typed-position').value};
  const fault = typedSection.querySelector('.fault');
  complain(fault, !asked.text.trim() ? new Error('Type a prompt first.') :
    roles.length ? null : new Error('Tick a role to read it with.'));
  if (!fault.hidden) { return; }
  byId('typed-read').disabled = true;
  const faults = [];
  for (const role of roles) {
    const ended = watch(role);
    try { told(await ask('read', {...asked, role: role})); } catch (error) { faults.push(`${role}: ${error.message}`); }
    ended();
  }
  complain(fault, faults.length ? new Error(faults.join(' · ')) : null);
  byId('typed-read').disabled = false;
}

// Says what the server does while a request is under way. Returns what ends that.
function watch(role) {
  const status = typedSection.querySelector('.count');
  const began = Date.now();
  let known = `waiting for ${role}`;
  const say = () => { status.textContent = `${known} … ${Math.round((Date.now() - began) / 1000)} s`; };
  const timer = setInterval(async () => {
    try { known = (await ask('doing')).doing || known; } catch (error) { known = error.message; }
    if (status.dataset.watched === role) { say(); }
  }, 500);
  status.dataset.watched = role;
  say();
  return () => { clearInterval(timer); status.dataset.watched = ''; status.textContent = ''; };
}

function told(answer) {
  typedSection.querySelector('.voices').replaceChildren(...answer.answers.map((one) =>
    voice(one, '', [one.cut ? 'cut at the limit of tokens' : '', ...one.notes])));
  show(typedSection, answer);
}

function seat(one) {
  const label = element('label');
  const box = element('input');
  box.type = 'checkbox';
  box.value = one.role;
  box.disabled = Boolean(one.absent);
  box.checked = !one.absent && (one.role === 'base' || one.role === 'adapted');
  label.append(box, one.name);
  return label;
}

function seats() {
  const home = byId('typed-roles');
  home.append(...found.seats.map(seat));
  home.append(...found.seats.filter((one) => one.absent).map((one) => element('p', one.absent, 'absent')));
  const none = found.seats.every((one) => one.absent);
  const lacking = none ? 'No checkpoint of the case is at hand, so that no prompt can be read.' :
    found.sides.length ? '' : 'This case holds no directions yet. This makes them: vlsurgery probe';
  complain(typedSection.querySelector('.fault'), lacking ? new Error(lacking) : null);
  typedSection.querySelectorAll('#typed-form input, #typed-form select, #typed-form textarea, #typed-form button')
    .forEach((each) => { if (lacking) { each.disabled = true; } });
}

function begin() {
  byId('name').textContent = found.name;
  byId('verdict').textContent = found.verdict;
  const keys = found.sides.map((each) => [each.key, each.name]);
  fill(byId('pair-first'), keys, 'base/text');
  fill(byId('pair-second'), keys, keys.some(([key]) => key === 'adapted/benign') ? 'adapted/benign' : 'adapted/text');
  fill(byId('typed-direction'), keys, 'base/text');
  fill(byId('typed-picture'), found.pictures.map((each) => [each.key, each.name]), 'text');
  if (keys.length) { pairChoices(); typedPositions(); }
  byId('pair-layer').value = found.shown ? found.shown[1] : 0;
  const any = [['', 'any']];
  const roles = found.roles.map((each) => [each.role, each.name]);
  fill(byId('said-set'), any.concat(found.cells.map((each) => [each, each.replace('.', ', ')])), '');
  fill(byId('said-role'), any.concat(roles), '');
  fill(byId('said-verdict'), any.concat(found.labels.map((each) => [each, each])), '');
  fill(byId('said-flip-first'), [['', 'no matter']].concat(roles), '');
  fill(byId('said-flip-second'), [['', 'no matter']].concat(roles), '');
  byId('typed-text').maxLength = found.max_prompt;
  seats();
  listen();
  pair();
  said();
}

function listen() {
  const again = () => { page = 0; said(); };
  ['pair-first', 'pair-second'].forEach((id) => byId(id).addEventListener('change', () => { pairChoices(); pair(); }));
  byId('pair-position').addEventListener('change', pair);
  byId('pair-layer').addEventListener('input', pair);
  let waiting;
  byId('said-grep').addEventListener('input', () => { clearTimeout(waiting); waiting = setTimeout(again, 250); });
  byId('said-form').addEventListener('change', again);
  byId('said-form').addEventListener('submit', (event) => { event.preventDefault(); again(); });
  byId('said-before').addEventListener('click', () => { page -= 1; said(); });
  byId('said-after').addEventListener('click', () => { page += 1; said(); });
  byId('pair-form').addEventListener('submit', (event) => event.preventDefault());
  byId('typed-direction').addEventListener('change', typedPositions);
  byId('typed-form').addEventListener('submit', read);
}

byId('theme').addEventListener('change', paint);
dark.addEventListener('change', paint);
paint();
ask('case').then((answer) => { found = answer; begin(); }).catch((error) => complain(byId('fault'), error));
