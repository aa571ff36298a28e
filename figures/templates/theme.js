// Light and dark: the page follows the browser until the reader chooses. Figures are drawn in light colours and take
// the dark ones by the table that theme.py wrote into the page.
var Theme = (function () {
  var toDark = JSON.parse(document.getElementById('palette').textContent), toLight = {};
  Object.keys(toDark).forEach(function (light) { toLight[toDark[light]] = light; });
  var browser = window.matchMedia('(prefers-color-scheme: dark)'), root = document.documentElement;
  var listeners = [], printing = false, last = null;

  function isDark() {
    if (printing) { return false; }
    return root.dataset.theme ? root.dataset.theme === 'dark' : browser.matches;
  }
  function tint(solid, opacity) {
    var parts = [1, 3, 5].map(function (at) { return parseInt(solid.slice(at, at + 2), 16); });
    return 'rgba(' + parts.join(',') + ',' + opacity + ')';
  }
  function text(value, table) {
    if (/^#[0-9a-f]{6}$/.test(value)) { return table[value] || value; }
    var found = /^rgba\((\d+), ?(\d+), ?(\d+), ?([\d.]+)\)$/.exec(value);
    if (found) {
      var solid = '#' + found.slice(1, 4).map(function (part) { return (+part).toString(16).padStart(2, '0'); }).join('');
      return table[solid] ? tint(table[solid], found[4]) : value;
    }
    if (value.indexOf('color:') < 0) { return value; }
    return value.replace(/color:(#[0-9a-f]{6})/g, function (all, colour) { return 'color:' + (table[colour] || colour); });
  }
  // A copy of a part of a figure, with every colour looked up in a table.
  function recoloured(value, table) {
    if (typeof value === 'string') { return text(value, table); }
    if (Array.isArray(value)) { return value.map(function (part) { return recoloured(part, table); }); }
    if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) { return value; }
    var copy = {};
    Object.keys(value).forEach(function (key) { copy[key] = recoloured(value[key], table); });
    return copy;
  }
  function tell() {
    if (isDark() === last) { return; }
    last = isDark();
    listeners.forEach(function (listener) { listener(last); });
  }
  function choose(name) {
    if (name === 'auto') { delete root.dataset.theme; } else { root.dataset.theme = name; }
    try { localStorage.setItem('vlsurgery-theme', name); } catch (denied) { /* kept until the page is closed */ }
    tell();
  }

  var control = document.getElementById('theme');
  if (control) {
    control.value = root.dataset.theme || 'auto';
    control.addEventListener('change', function () { choose(control.value); });
  }
  last = isDark();
  browser.addEventListener('change', tell);
  return {
    isDark: isDark,
    onChange: function (listener) { listeners.push(listener); },
    print: function (on) { printing = on; tell(); },
    // From light colours to those of the page, of something that was never drawn.
    worn: function (value) { return recoloured(value, isDark() ? toDark : {}); },
    // From the other colours to those of the page, of something that is drawn.
    changed: function (value) { return recoloured(value, isDark() ? toDark : toLight); },
    colour: function (name) { return getComputedStyle(root).getPropertyValue('--' + name).trim(); }
  };
})();
