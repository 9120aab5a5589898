"""From a question to the things it names: what an object-level encoder can look for."""

from __future__ import annotations

import re

# Words that frame a question but name nothing that a picture could show.
_FRAMING = frozenset(
    """
    a about actually after all also am an and any anybody anyone anything anywhere appear appeared appearing
    appears are as at be been before begin beginning begins being both but by camera can clip come comes
    contain contains could depict depicted describe did display displayed do does doing done during each
    either end ending ends every exactly film find first footage for frame frames from get gets give go goes
    going had happen happened happening happens has have having he her here him his how i identify if image
    images in into is it its itself just know last later like list locate look looking looks made make makes
    many may me mention moment moments movie much must my name named next no not now occur occurs of off on
    once one only or other our out over part picture pictures place please point question same say scene
    scenes screen see seen several shall she should show showed showing shown shows so some somebody someone
    something somewhere specific start starts tell than that the their them then there these they thing
    things this those through time times to turn up us use used using very video visible want was we were
    what when where whether which while who whom whose why will with within would you your
    """.split()  # noqa: SIM905
)


def content_phrase(question: str) -> str:
    """The words of a question that name what to look for, in their order.

        >>> content_phrase("When does the rabbit pick up a red apple?")
        'rabbit pick red apple'

    A question without such words, or in a script without spaces, is returned as it is.
    """
    words = re.findall(r"\w+(?:['’-]\w+)*", question)
    kept = [word for word in words if re.sub(r"['’]s$", "", word.lower()) not in _FRAMING]
    return " ".join(kept) if kept else question.strip()
