// Before anything is painted: the colours that the reader chose in this browser.
(function () {
  try {
    var chosen = localStorage.getItem('vlsurgery-theme');
    if (chosen === 'light' || chosen === 'dark') { document.documentElement.dataset.theme = chosen; }
  } catch (denied) { /* a browser may refuse storage to files: then the page follows its setting */ }
})();
