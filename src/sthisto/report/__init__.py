"""One HTML page to send: what was trained on what, scores, maps and doubts, in one file that loads nothing else.

`sthisto.tl.report` and ``sthisto report`` write it; ``sthisto leaderboard`` writes its tables as such a page.
"""
