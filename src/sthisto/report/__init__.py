"""One HTML page to send: what was trained on what, scores, maps and doubts, in a file that loads nothing from elsewhere.

`sthisto.tl.report` and ``sthisto report`` write it; ``sthisto leaderboard`` writes its tables as such a page.
"""
