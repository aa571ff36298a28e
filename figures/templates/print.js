// Printing changes the width of the page, which plotly does not notice: 1090 px is an A4 page at the zoom of page.css.
function fit(size) {
  document.querySelectorAll('.js-plotly-plot').forEach(function (plot) { Plotly.relayout(plot, size); });
}
window.addEventListener('beforeprint', function () { fit({width: 1090, autosize: false}); });
window.addEventListener('afterprint', function () { fit({width: null, autosize: true}); });
