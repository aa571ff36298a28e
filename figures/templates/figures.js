// Draws the figures, those in sight first; gives each its controls, its numbers as a table and as CSV, and a picture.
var Figures = (function () {
  var plots = [], waiting = [], idle = window.requestIdleCallback || function (work) { setTimeout(work, 30); };

  function element(name, attributes, text) {
    var made = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text !== undefined) { made.textContent = text; }
    return made;
  }
  function save(blob, name) {
    var link = element('a', {href: URL.createObjectURL(blob), download: name});
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  }

  // ---- numbers
  function columns(rows) {
    var found = {};
    rows.forEach(function (row) { Object.keys(row).forEach(function (key) { found[key] = true; }); });
    return Object.keys(found);
  }
  // A cell that a spreadsheet would run as a formula is quoted by an apostrophe; plain numbers are not.
  function cell(value) {
    var text = value === null || value === undefined ? '' : String(value);
    if (/^[=+\-@\t\r]/.test(text) && !/^[-+]?[\d.]+(e[-+]?\d+)?$/.test(text)) { text = "'" + text; }
    return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }
  function csv(rows) {
    var names = columns(rows), lines = [names.map(cell).join(',')];
    rows.forEach(function (row) { lines.push(names.map(function (name) { return cell(row[name]); }).join(',')); });
    return lines.join('\n') + '\n';
  }
  function shown(value) {
    if (typeof value !== 'number') { return value === null || value === undefined ? '–' : value; }
    return String(Number.isInteger(value) ? value : Number(value.toPrecision(3))).replace('-', '−');
  }
  function fillTable(plot) {
    var rows = plot.spec.rows, names = columns(rows), holder = plot.box.querySelector('.numbers');
    var table = element('table', {'class': 'plain'}), head = table.createTHead().insertRow();
    table.appendChild(element('caption', {}, plot.title));
    names.forEach(function (name) { head.appendChild(element('th', {scope: 'col'}, name)); });
    var body = table.createTBody();
    rows.forEach(function (row) {
      var line = body.insertRow();
      line.dataset.layer = row.block !== undefined && row.block !== null ? row.block : row.layer;
      names.forEach(function (name) { line.insertCell().textContent = shown(row[name]); });
    });
    var scroll = element('div', {'class': 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Numbers of: ' + plot.title});
    scroll.appendChild(table);
    holder.appendChild(scroll);
    markRows(plot);
  }

  // ---- drawing
  function draw(plot) {
    if (plot.drawn) { return plot.drawn; }
    var spec = plot.spec, layout = Theme.worn(spec.layout);
    layout.shapes = (layout.shapes || []).concat(marks(plot));
    plot.drawn = Plotly.newPlot(plot.div, Theme.worn(spec.data), layout, spec.config).then(function () {
      plot.div.on('plotly_click', function (event) { clicked(plot, event.points[0]); });
      if (spec.frames.length) { return Plotly.addFrames(plot.div, Theme.worn(spec.frames)); }
    }).then(function () {
      plot.controls.forEach(function (control) { control.apply(); });
      plot.box.dataset.drawn = 'yes';
    });
    return plot.drawn;
  }
  // Each in turn when there is nothing else to do, so that no figure holds up the page.
  function drawNext() {
    waiting = waiting.filter(function (plot) { return !plot.drawn; });
    var next = waiting.shift();
    if (next) { draw(next).then(function () { idle(drawNext); }); }
  }
  function recolour() {
    plots.forEach(function (plot) {
      if (!plot.drawn) { return; }
      plot.drawn = plot.drawn.then(function () {
        var layout = Theme.changed(plot.div.layout);
        layout.shapes = own(layout.shapes).concat(marks(plot));
        return Plotly.react(plot.div, Theme.changed(plot.div.data), layout, plot.spec.config);
      }).then(function () {
        if (plot.spec.frames.length) { return Plotly.addFrames(plot.div, Theme.worn(plot.spec.frames)); }
      });
    });
  }

  // ---- controls: sliders and menus of a figure as the browser's own, which have keys and names
  function perform(plot, step) {
    if (!plot.drawn) { return; }
    var call = {animate: Plotly.animate, update: Plotly.update, restyle: Plotly.restyle, relayout: Plotly.relayout};
    if (call[step.method]) { call[step.method].apply(null, [plot.div].concat(Theme.worn(step.args))); }
  }
  function addControl(plot, spec, at, commands) {
    var id = plot.anchor + '-control-' + at, label = element('label', {'for': id}, spec.name);
    var input, value = element('output', {'for': id});
    if (spec.kind === 'slider') {
      input = element('input', {type: 'range', id: id, min: 0, max: spec.steps.length - 1, step: 1});
      input.value = spec.active;
    } else {
      input = element('select', {id: id});
      spec.steps.forEach(function (step, index) { input.appendChild(element('option', {value: index}, step.label)); });
      input.value = spec.active;
    }
    var command = plot.box.querySelector('.command code');
    function say() {
      var step = spec.steps[input.value];
      if (spec.kind === 'slider') { value.textContent = step.label; input.setAttribute('aria-valuetext', step.label); }
      if (command && commands.length) { command.textContent = commands[input.value]; }
    }
    function apply() { say(); perform(plot, spec.steps[input.value]); }
    input.addEventListener('input', apply);
    say();
    var holder = element('p', {'class': 'control'});
    [label, input, value].forEach(function (part) { holder.appendChild(part); });
    plot.box.querySelector('.controls').appendChild(holder);
    return {
      apply: function () { if (+input.value !== spec.active) { apply(); } },
      to: function (label) {
        var found = spec.steps.findIndex(function (step) { return step.label === label; });
        if (found >= 0) { input.value = found; apply(); }
      }
    };
  }

  // ---- layers: one picked in a figure is marked in all that have layers
  function own(shapes) { return (shapes || []).filter(function (shape) { return shape.name !== 'picked'; }); }
  function layerOf(name) {
    var found = /^(\d+)(\.|$)/.exec(name);
    return found ? +found[1] : null;
  }
  // Of one axis, every stretch that the picked layer or block takes there. A block stands at its place, a layer at those
  // of its blocks; an axis without places is that of layer numbers.
  function stretches(axis, picked) {
    var layer = layerOf(picked), blocks = Object.keys(axis.places);
    if (!blocks.length) { return layer === null ? [] : [[layer - .5, layer + .5]]; }
    return blocks.filter(function (block) {
      return block === picked || (picked === String(layer) && layerOf(block) === layer);
    }).map(function (block) { return [axis.places[block] - .25, axis.places[block] + .25]; });
  }
  function marks(plot) {
    var picked = Place.get('layer'), found = [];
    if (!picked) { return found; }
    plot.layered.forEach(function (axis) {
      var across = axis.axis[0] === 'x', other = (across ? 'y' : 'x') + axis.axis.slice(1) + ' domain';
      stretches(axis, picked).forEach(function (ends) {
        var shape = {
          name: 'picked', type: 'rect', layer: 'above', fillcolor: Theme.colour('accent'), opacity: .22,
          line: {width: 1, color: Theme.colour('accent')}
        };
        if (across) { Object.assign(shape, {xref: axis.axis, yref: other, x0: ends[0], x1: ends[1], y0: 0, y1: 1}); }
        else { Object.assign(shape, {yref: axis.axis, xref: other, y0: ends[0], y1: ends[1], x0: 0, x1: 1}); }
        found.push(shape);
      });
    });
    return found;
  }
  function markRows(plot) {
    var picked = Place.get('layer'), layer = layerOf(picked);
    plot.box.querySelectorAll('.numbers tbody tr').forEach(function (row) {
      var its = row.dataset.layer, same = picked && (its === picked || (picked === String(layer) && layerOf(its) === layer));
      row.classList.toggle('picked', Boolean(same) || (picked !== '' && its === String(layer)));
    });
  }
  function markAll() {
    var count = 0;
    plots.forEach(function (plot) {
      markRows(plot);
      if (!plot.layered.length) { return; }
      count += marks(plot).length ? 1 : 0;
      if (!plot.drawn) { return; }
      plot.drawn = plot.drawn.then(function () {
        return Plotly.relayout(plot.div, {shapes: own(plot.div.layout.shapes).concat(marks(plot))});
      });
    });
    var picked = Place.get('layer'), said = document.getElementById('picked-said'), input = document.getElementById('pick');
    if (input) { input.value = picked; }
    if (said) { said.textContent = picked ? 'Marked in ' + count + ' figures: ' + picked : ''; }
  }
  function pick(name) {
    Place.set({layer: name === Place.get('layer') ? '' : name});
    markAll();
  }
  function clicked(plot, point) {
    var moves = (plot.spec.layout.meta || {}).moves;
    if (moves && point.customdata !== undefined) { move(moves, String(point.customdata)); return; }
    var axis = plot.layered.find(function (each) {
      var name = each.axis[0] === 'x' ? point.xaxis : point.yaxis;
      return name && name._id === each.axis;
    });
    if (!axis) { return; }
    var at = axis.axis[0] === 'x' ? point.x : point.y, best = null;
    if (axis.places[at] !== undefined) { pick(at); return; }
    Object.keys(axis.places).forEach(function (block) {
      if (best === null || Math.abs(axis.places[block] - at) < Math.abs(axis.places[best] - at)) { best = block; }
    });
    pick(best === null ? String(Math.round(at)) : best);
  }
  function fillPicker() {
    var input = document.getElementById('pick'), layers = {}, blocks = {};
    if (!input) { return; }
    plots.forEach(function (plot) {
      plot.layered.forEach(function (axis) {
        Object.keys(axis.places).forEach(function (block) { blocks[block] = true; layers[layerOf(block)] = true; });
      });
      plot.spec.rows.forEach(function (row) { if (typeof row.layer === 'number') { layers[row.layer] = true; } });
    });
    delete layers['null'];
    function group(name, labels, values) {
      var made = element('optgroup', {label: name});
      values.forEach(function (value) { made.appendChild(element('option', {value: value}, labels + value)); });
      if (values.length) { input.appendChild(made); }
    }
    group('Layers', 'layer ', Object.keys(layers).sort(function (a, b) { return a - b; }));
    group('Blocks', '', Object.keys(blocks));
    input.closest('label').hidden = input.options.length < 2;
    input.addEventListener('change', function () { Place.set({layer: input.value}); markAll(); });
  }

  // Moves the first control of another figure to the step of a label, and goes there.
  function move(anchor, label) {
    var plot = plots.find(function (each) { return each.anchor === anchor; });
    if (!plot || !plot.controls.length) { return; }
    draw(plot).then(function () {
      plot.controls[0].to(label);
      plot.box.scrollIntoView();
    });
  }

  // ---- a picture, with title, in the colours of the page
  function picture(plot) {
    draw(plot).then(function () {
      var layout = JSON.parse(JSON.stringify(plot.div.layout)), wide = Math.max(1100, plot.div.clientWidth);
      layout.title = Theme.worn(plot.spec.title);
      layout.margin.t += plot.spec.room;
      layout.height += plot.spec.room;
      return Plotly.downloadImage({data: plot.div.data, layout: layout}, {
        format: 'png', width: wide, height: layout.height, scale: 2, filename: 'vlsurgery-' + plot.anchor
      });
    });
  }

  function unpack(script) {
    var bytes = Uint8Array.from(atob(script.textContent.trim()), function (letter) { return letter.charCodeAt(0); });
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).json();
  }
  function adopt(box, spec) {
    var anchor = box.dataset.plot;
    var plot = {
      anchor: anchor, box: box, spec: spec, div: document.getElementById('figure-' + anchor), drawn: null,
      layered: (spec.layout.meta && spec.layout.meta.layers) || [], title: box.querySelector('h3').textContent
    };
    plot.controls = spec.controls.map(function (control, at) { return addControl(plot, control, at, spec.commands); });
    box.querySelector('.save-csv').addEventListener('click', function () {
      save(new Blob([csv(spec.rows)], {type: 'text/csv;charset=utf-8'}), 'vlsurgery-' + anchor + '.csv');
    });
    box.querySelector('.save-picture').addEventListener('click', function () { picture(plot); });
    var numbers = box.querySelector('.numbers');
    numbers.addEventListener('toggle', function () {
      if (numbers.open && !numbers.querySelector('table')) { fillTable(plot); }
    });
    plots.push(plot);
  }

  function begin(boxes, specs) {
    boxes.forEach(function (box, at) { adopt(box, specs[at]); });
    fillPicker();
    markAll();
    waiting = plots.slice();
    plots.forEach(function (plot) { seen.observe(plot.box); });
    idle(drawNext);
    Theme.onChange(recolour);
    Place.onChange(markAll);
  }
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) { return; }
      seen.unobserve(entry.target);
      draw(plots.find(function (plot) { return plot.box === entry.target; }));
    });
  }, {rootMargin: '300px'});
  var boxes = Array.from(document.querySelectorAll('figure.plot'));
  if (typeof DecompressionStream === 'undefined') {
    boxes.forEach(function (box) {
      var told = 'This browser is too old to unpack the figures: any of 2023 or later can.';
      box.querySelector('.controls').appendChild(element('p', {'class': 'missing'}, told));
    });
  } else {
    Promise.all(boxes.map(function (box) { return unpack(box.querySelector('.data')); })).then(function (specs) {
      begin(boxes, specs);
    });
  }
  // Printing changes the width of the page, which plotly does not notice: 1090 px is an A4 page at the zoom of page.css.
  function fit(size) { plots.forEach(function (plot) { if (plot.drawn) { Plotly.relayout(plot.div, size); } }); }
  window.addEventListener('beforeprint', function () {
    plots.forEach(draw);
    Theme.print(true);
    fit({width: 1090, autosize: false});
  });
  window.addEventListener('afterprint', function () { Theme.print(false); fit({width: null, autosize: true}); });
  return {element: element, unpack: unpack};
})();
