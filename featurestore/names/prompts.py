"""What a text generator is asked about a feature, and what of its answer can be a name.

It sees pieces of documents in which the tokens that the feature marks stand between « and », after three worked
examples, so that a model that only continues text understands as well as one that follows instructions. Pieces are
anybody's text: whatever they say, what comes back is one short line without control characters, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token

PIECES = 8  # of a prompt: the strongest documents and others in turn
BEFORE, AFTER = 12, 6  # tokens around the strongest: a causal model's feature has its reasons before it
MARKED = 0.5  # of the strongest activation: what fires faintly beside it is not what it is about
MOST_CHARACTERS = 120  # of a name

_TASK = "In each list of pieces, the words between « and » have something in common. Say in a few words what it is.\n\n"
_EXAMPLES = (
    (("He drank a cup of «coffee»", "would you like some «tea»?", "«Cocoa», with milk"), "hot drinks"),
    (("We leave «on Monday»", "it opened «in 1987»", "see you «tomorrow»"), "points in time"),
    (("«def» main():", "«class» Reader(Base):", "    «return» value"), "keywords of Python"),
)
_ASKED = "In common:"


def prompt(documents: Sequence[DocumentEvidence], sae: str, feature: int) -> str | None:
    """What to ask about a feature; None where it fires in none of the documents.

    Args:
        documents: Evidence, in the order in which documents are wanted.
        sae: Whose feature.
        feature: Which.
    """
    pieces = [
        piece
        for document in documents
        for one in document.features
        if (one.sae, one.feature) == (sae, feature) and (piece := _piece(document.tokens, one))
    ]
    if not pieces:
        return None
    blocks = [*_EXAMPLES, (tuple(dict.fromkeys(pieces))[:PIECES], "")]
    lists = ("".join(f"- {piece}\n" for piece in some) + f"{_ASKED} {name}".rstrip() for some, name in blocks)
    return _TASK + "\n\n".join(lists)


def name_in(answer: str) -> str | None:
    """The name in what a generator wrote on; None where there is none."""
    line = next((line for line in answer.strip().splitlines() if line.strip()), "")
    text = " ".join("".join(char if char.isprintable() else " " for char in line).split())
    text = text.removeprefix(_ASKED).strip(" \"'`*#-.:;,«»")
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS].rpartition(" ")[0] or text[:MOST_CHARACTERS]
    return text if any(char.isalnum() for char in text) else None


def _piece(tokens: Sequence[Token], feature: FeatureEvidence) -> str:
    """The tokens around the strongest one in one line, those that fire marked; empty where none does."""
    if feature.max <= 0:
        return ""
    at = feature.values.index(feature.max)
    text, is_open = "", False
    for k in range(max(at - BEFORE, 0), min(at + AFTER + 1, len(tokens))):
        token = tokens[k]
        if token.start == token.stop:  # of the template, not of the text
            continue
        fires = feature.values[k] >= MARKED * feature.max
        shown = "".join(char if char.isprintable() else " " for char in token.text).replace("«", "<").replace("»", ">")
        bare = shown.lstrip(" ")
        if fires != is_open:
            space = shown[: len(shown) - len(bare)]
            shown = f"{space}«{bare}" if fires else f"»{shown}"
            is_open = fires
        text += shown
    return " ".join((text + ("»" if is_open else "")).split())
