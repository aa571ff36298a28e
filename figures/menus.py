"""Drop-downs inside a figure: each entry shows some of its traces."""

from collections.abc import Collection, Mapping, Sequence

import plotly.graph_objects as go

from vlsurgery.figures import theme

HEIGHT = 40  # of a drop-down, in pixels


def show_one(
    figure: go.Figure,
    labels: Mapping[str, str],
    owners: Sequence[Collection[str]],
    first: str,
    legend_rows: int,
    panels: bool = False,
) -> None:
    """Show the traces of one entry at a time, `first` at the start; a single entry gets no drop-down.

    labels: entry -> how it is called. owners: the entries that show each trace. legend_rows, panels: as the figure was
    framed with; the drop-down stands above these.
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
    below = theme.LEGEND_ROW * legend_rows + (theme.PANEL_TITLE if panels else 0) + 12
    figure.update_layout(
        height=figure.layout.height + HEIGHT,
        margin_t=figure.layout.margin.t + HEIGHT,
        updatemenus=[
            {
                "buttons": buttons,
                "active": list(labels).index(first),
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": below},
            }
        ],
    )
    room = figure.layout.meta["room"]
    theme.note(figure, room=room | {"top": room["top"] + HEIGHT})  # which a page, with a control of its own, takes back
