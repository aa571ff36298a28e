// Where the reader is: the section, and what was chosen on the way, in the address, so that a link leads back here.
var Place = (function () {
  var listeners = [];
  function read() {
    var parts = location.hash.slice(1).split('?');
    return {anchor: parts[0], chosen: new URLSearchParams(parts[1] || '')};
  }
  var chosen = read().chosen, here = read().anchor;
  function address(anchor, values) {
    var text = values.toString();
    return '#' + anchor + (text ? '?' + text : '');
  }
  function write() {
    var target = address(here, chosen);
    history.replaceState(null, '', target === '#' ? location.pathname + location.search : target);
  }
  window.addEventListener('hashchange', function () {
    var now = read();
    here = now.anchor;
    if (location.hash.indexOf('?') >= 0) { chosen = now.chosen; } else { write(); }
    listeners.forEach(function (listener) { listener(); });
    show(here);
  });
  function show(anchor) {
    var target = anchor && document.getElementById(anchor);
    if (target) { target.scrollIntoView(); }
  }
  return {
    get: function (key) { return chosen.get(key) || ''; },
    set: function (values, anchor) {
      Object.keys(values).forEach(function (key) {
        if (values[key]) { chosen.set(key, values[key]); } else { chosen.delete(key); }
      });
      if (anchor) { here = anchor; }
      write();
    },
    link: function (anchor, values) { return address(anchor, new URLSearchParams(values)); },
    onChange: function (listener) { listeners.push(listener); },
    arrive: function () { show(here); }
  };
})();
