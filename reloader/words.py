"""How messages say things that several of them say."""


def counted(number: int, noun: str) -> str:
    """Return how many there are, with the noun in its number."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
