// Marks the section in sight in the navigation; the layer is stepped through by [ and ].
(function () {
  var links = Array.from(document.querySelectorAll('#sections a')), bar = document.getElementById('bar'), asked = false;
  var parts = links.map(function (link) { return document.getElementById(link.dataset.to); });
  function mark() {
    asked = false;
    var line = (getComputedStyle(bar).position === 'sticky' && bar.offsetWidth > innerWidth / 2 ? bar.offsetHeight : 0) + 90;
    var at = 0;
    parts.forEach(function (part, index) { if (part.getBoundingClientRect().top <= line) { at = index; } });
    if (innerHeight + scrollY >= document.documentElement.scrollHeight - 2) { at = parts.length - 1; }
    links.forEach(function (link, index) {
      if (index !== at) { link.removeAttribute('aria-current'); return; }
      if (link.hasAttribute('aria-current')) { return; }
      link.setAttribute('aria-current', 'true');
      var holder = document.getElementById('sections');
      holder.scrollLeft = link.offsetLeft - holder.clientWidth / 2 + link.offsetWidth / 2;
    });
  }
  function ask() { if (!asked) { asked = true; requestAnimationFrame(mark); } }
  function fit() { document.documentElement.style.scrollPaddingTop = (bar.offsetWidth > innerWidth / 2 ? bar.offsetHeight : 0) + 12 + 'px'; ask(); }
  addEventListener('scroll', ask, {passive: true});
  addEventListener('resize', fit);
  fit();
  addEventListener('keydown', function (event) {
    var input = document.getElementById('pick'), typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    var step = {'[': -1, ']': 1}[event.key];
    if (!input || typing || !step || event.ctrlKey || event.metaKey || event.altKey) { return; }
    input.selectedIndex = Math.min(input.options.length - 1, Math.max(0, input.selectedIndex + step));
    input.dispatchEvent(new Event('change'));
  });
  Place.arrive();
})();
