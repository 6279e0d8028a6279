"""How long something takes, in words."""


def in_words(seconds: float) -> str:
    """Return a duration of a minute or more in whole minutes, and from two hours on in whole hours."""
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{seconds / 3600:.0f} hours"
