"""Drop-downs inside a figure: each entry shows some of its traces."""

from collections.abc import Collection, Mapping, Sequence

import plotly.graph_objects as go


def show_one(figure: go.Figure, labels: Mapping[str, str], owners: Sequence[Collection[str]], first: str) -> None:
    """Show the traces of one entry at a time, `first` at the start; a single entry gets no drop-down.

    labels: entry -> how it is called. owners: the entries that show each trace.
    """
    for trace, owner in zip(figure.data, owners, strict=True):
        trace.visible = first in owner
    if len(labels) < 2:
        return
    buttons = [
        {
            "label": label,
            "method": "restyle",
            "args": [{"visible": [entry in owner for owner in owners]}],
        }
        for entry, label in labels.items()
    ]
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "active": list(labels).index(first),
                "x": 1,
                "xanchor": "right",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 6},
            }
        ]
    )
