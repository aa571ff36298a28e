// The transcripts: unpacked when the page is there, filtered here, and written as text, never as markup.
(function () {
  var box = document.getElementById('transcripts');
  if (!box) { return; }
  var element = Figures.element, form = box.querySelector('form'), list = box.querySelector('.results');
  var line = box.querySelector('.count'), more = box.querySelector('.show-more'), STEP = 6, FOLDED_FROM = 320;
  var page = null, found = [], drawn = 0, VERDICTS = ['refused', 'complied', 'neither'];
  var NAMES = ['flip', 'set', 'modality', 'role', 'verdict', 'text', 'id'];

  function filters() {
    var values = {};
    NAMES.forEach(function (name) { values[name] = form.elements[name].value; });
    return values;
  }
  function said(item, role, verdict) {
    return item.said.some(function (one) { return (!role || one[0] === role) && (!verdict || one[1] === verdict); });
  }
  // Whether an item passes all filters but one, so that each filter can say how many each of its choices has.
  function passes(item, values, but) {
    if (but !== 'id' && values.id && item.id !== values.id) { return false; }
    if (but !== 'flip' && values.flip === 'any' && !item.flips.length) { return false; }
    if (but !== 'flip' && values.flip && values.flip !== 'any' && item.flips.indexOf(+values.flip) < 0) { return false; }
    if (but !== 'set' && values.set && item.set !== values.set) { return false; }
    if (but !== 'modality' && values.modality && item.modality !== values.modality) { return false; }
    if (!said(item, but === 'role' ? '' : values.role, but === 'verdict' ? '' : values.verdict)) { return false; }
    return !values.text || item.searched.indexOf(values.text.toLowerCase()) >= 0;
  }
  function recount(values) {
    ['flip', 'set', 'modality', 'role', 'verdict'].forEach(function (name) {
      var items = page.items.filter(function (item) { return passes(item, values, name); });
      Array.from(form.elements[name].options).forEach(function (option) {
        var own = Object.assign({}, values);
        own[name] = option.value;
        var count = items.filter(function (item) { return passes(item, own, ''); }).length;
        option.textContent = option.dataset.name + ' (' + count + ')';
      });
    });
  }
  function option(name, value, text) {
    var made = element('option', {value: value});
    made.dataset.name = text;
    form.elements[name].appendChild(made);
  }
  function fill() {
    var sets = {};
    page.items.forEach(function (item) { sets[item.set] = true; });
    option('flip', '', 'all');
    option('flip', 'any', 'any that flipped');
    page.flips.forEach(function (name, at) {
      if (page.items.some(function (item) { return item.flips.indexOf(at) >= 0; })) { option('flip', at, name); }
    });
    [['set', Object.keys(sets)], ['modality', Object.keys(page.modalities)], ['role', Object.keys(page.roles)],
      ['verdict', VERDICTS]].forEach(function (pair) {
      option(pair[0], '', 'any');
      pair[1].forEach(function (value) {
        var names = {modality: page.modalities[value], role: (page.roles[value] || {}).name};
        option(pair[0], value, names[pair[0]] || value);
      });
    });
  }
  function words(text) {
    if (text.length <= FOLDED_FROM) { return element('p', {'class': 'words'}, text); }
    var fold = element('details', {'class': 'fold'}), head = element('summary', {'class': 'words'}, text.slice(0, FOLDED_FROM));
    head.appendChild(element('span', {'class': 'more'}, ' … more'));
    fold.appendChild(head);
    fold.appendChild(element('p', {'class': 'words'}, text.slice(FOLDED_FROM)));
    return fold;
  }
  function voice(one) {
    var role = page.roles[one[0]], made = element('div', {'class': 'voice'}), who = element('p', {'class': 'who'});
    var swatch = element('i', {'aria-hidden': 'true'});
    swatch.style.background = role.colour;
    who.appendChild(swatch);
    who.appendChild(document.createTextNode(role.name + ' '));
    who.appendChild(element('span', {'class': 'label ' + (VERDICTS.indexOf(one[1]) < 0 ? '' : one[1])}, one[1] || 'not judged'));
    if (page.texts[one[2]]) { who.appendChild(element('span', {'class': 'kind'}, ' ' + page.texts[one[2]])); }
    made.appendChild(who);
    made.appendChild(words(page.texts[one[5]]));
    if (one[6]) { made.appendChild(element('p', {'class': 'kind'}, one[6] + ' more characters are left out here')); }
    var aside = page.texts[one[4]];
    made.appendChild(element('p', {'class': 'reason'}, page.texts[one[3]] + (aside ? ' (' + aside + ')' : '')));
    return made;
  }
  function article(item) {
    var made = element('article'), where = element('p', {'class': 'where'}, item.set + ' · ' + page.modalities[item.modality]);
    item.flips.forEach(function (at) { where.appendChild(element('span', {'class': 'flip'}, page.flips[at].split(':')[0])); });
    where.appendChild(element('a', {href: Place.link('said', {id: item.id})}, 'link to this one'));
    made.appendChild(where);
    made.appendChild(element('h3', {'class': 'asked'}, page.texts[item.prompt]));
    var voices = element('div', {'class': 'voices'});
    item.said.forEach(function (one) { voices.appendChild(voice(one)); });
    made.appendChild(voices);
    return made;
  }
  function showMore() {
    var next = found.slice(drawn, drawn + STEP);
    next.forEach(function (item) { list.appendChild(article(item)); });
    var first = list.children[drawn];
    drawn += next.length;
    more.hidden = drawn >= found.length;
    more.textContent = 'Show ' + Math.min(STEP, found.length - drawn) + ' more of ' + (found.length - drawn);
    return first;
  }
  function show() {
    var values = filters();
    found = page.items.filter(function (item) { return passes(item, values, ''); });
    drawn = 0;
    list.textContent = '';
    line.textContent = found.length + ' of ' + page.items.length + ' prompts' + (values.id ? ': the one that was linked' : '');
    box.querySelector('.all').hidden = NAMES.every(function (name) { return !values[name]; });
    recount(values);
    showMore();
  }
  function fromPlace() {
    NAMES.forEach(function (name) {
      var control = form.elements[name];
      control.value = Place.get(name);
      if (control.value !== Place.get(name)) { control.value = ''; }
    });
    show();
  }
  function toPlace() {
    Place.set(filters(), 'said');
    show();
  }

  if (typeof DecompressionStream === 'undefined') {
    line.textContent = 'This browser is too old to unpack the completions. They are all in completions.jsonl of the case.';
    return;
  }
  Figures.unpack(document.getElementById('said-data')).then(function (data) {
    page = data;
    page.items.forEach(function (item) {
      item.searched = [item.prompt].concat(item.said.map(function (one) { return one[5]; }))
        .map(function (at) { return page.texts[at]; }).join('\n').toLowerCase();
    });
    fill();
    fromPlace();
    form.hidden = false;
    box.dataset.ready = 'yes';
    if (document.getElementById('said').getBoundingClientRect().top < 0) { Place.arrive(); }
    Place.onChange(fromPlace);
    var waiting = null;
    form.addEventListener('submit', function (event) { event.preventDefault(); });
    form.addEventListener('change', function (event) {
      if (event.target.name !== 'text') { form.elements.id.value = ''; toPlace(); }
    });
    form.elements.text.addEventListener('input', function () {
      clearTimeout(waiting);
      waiting = setTimeout(function () { form.elements.id.value = ''; toPlace(); }, 150);
    });
    box.querySelector('.all').addEventListener('click', function () {
      NAMES.forEach(function (name) { form.elements[name].value = ''; });
      toPlace();
    });
    more.addEventListener('click', function () {
      var first = showMore();
      if (first) { first.tabIndex = -1; first.focus(); }
    });
  });
})();
