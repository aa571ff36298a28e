"""`vlsurgery explore`: a case as a page on this machine's loopback address, with selections that a file can't hold.

The page is served by the standard library's http.server and drawn by plotly's own script, both of which are here
already. Dash was the other way: it brings Flask, Werkzeug and its own React, and its callbacks leave the checks of
host, origin and token to the program all the same.
"""
