"""How a run is shown: its three answers, the waterfall in the terminal, the page in a browser, and as JSON."""
