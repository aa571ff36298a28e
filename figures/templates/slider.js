// The price slider by keyboard, and the command of the position that it shows.
(function () {
  var command = document.getElementById('price-command');
  var plot = command && document.getElementById(command.dataset.figure);
  if (!plot) { return; }
  var commands = JSON.parse(command.dataset.commands);
  var still = {mode: 'immediate', frame: {duration: 0, redraw: true}, transition: {duration: 0}};
  function say(at) {
    command.textContent = commands[at];
    plot.setAttribute('aria-valuenow', at);
    plot.setAttribute('aria-valuetext', 'price ' + plot.layout.sliders[0].steps[at].label);
  }
  function go(at) {
    Plotly.relayout(plot, {'sliders[0].active': at});
    Plotly.animate(plot, [plot.layout.sliders[0].steps[at].label], still);
    say(at);
  }
  plot.tabIndex = 0;
  plot.setAttribute('role', 'slider');
  plot.setAttribute('aria-label', 'price of an over-refusal');
  plot.setAttribute('aria-valuemin', 0);
  plot.setAttribute('aria-valuemax', commands.length - 1);
  plot.on('plotly_sliderchange', function (change) { say(change.slider.active); });
  plot.addEventListener('keydown', function (event) {
    var at = plot.layout.sliders[0].active, last = commands.length - 1;
    var to = {ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last}[event.key];
    if (to === undefined) { return; }
    event.preventDefault();
    go(Math.min(last, Math.max(0, to)));
  });
  say(plot.layout.sliders[0].active);
})();
