r"""A tokenizer as a value, and as the standard `tokenizer.json` that Hugging Face `tokenizers` reads.

Byte-level BPE: the alphabet is the 256 bytes, so that every text has ids and there is no unknown token; that is all
that LLaMA's byte fallback promises, by construction. Texts are cut by GPT-2's pattern first, with digits in runs as in
GPT-2 or each by itself as in LLaMA.

Special tokens are ids that no text encodes to: a document that contains the characters "<|endoftext|>" is encoded as
these characters, so that nobody can end a document from within. One of them, END_OF_DOCUMENT, ends every document in
the shards.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import UserError

END_OF_DOCUMENT = "<|endoftext|>"
Digits = Literal["split", "runs"]

PATTERNS: dict[Digits, str] = {
    "runs": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "split": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A byte-level BPE. Ids are 0 to vocab_size - 1, without holes."""

    tokens: tuple[bytes, ...]  # by id; a special token stands as its own name
    merges: tuple[tuple[int, int], ...]  # ids of left and right half, in order of rank
    specials: tuple[int, ...]  # ids that no text encodes to, ascending
    end_of_document: int  # one of them
    digits: Digits

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.tokens)

    @property
    def pattern(self) -> str:
        """The regular expression whose matches are the pieces that no token crosses."""
        return PATTERNS[self.digits]

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of the canonical file."""
        return hashlib.sha256(save(self)).hexdigest()


# -- bytes as printable characters -------------------------------------------------------------------------------------


def _byte_characters() -> str:
    """The character that stands for each byte in vocabulary files (GPT-2): itself where it is printable Latin-1."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    stand_ins = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(stand_ins)) for byte in range(256))


_CHARACTERS = _byte_characters()
_BYTES = {character: byte for byte, character in enumerate(_CHARACTERS)}


def bytes_only() -> Tokenizer:
    """The tokenizer without merges: every byte is a token, in GPT-2's order, then the end-of-document token."""
    by_character = sorted(range(256), key=_CHARACTERS.__getitem__)
    tokens = (*(bytes([byte]) for byte in by_character), END_OF_DOCUMENT.encode())
    return Tokenizer(tokens, merges=(), specials=(256,), end_of_document=256, digits="runs")


def _to_characters(token: bytes) -> str:
    return "".join(_CHARACTERS[byte] for byte in token)


# -- to the file -------------------------------------------------------------------------------------------------------


def save(tokenizer: Tokenizer) -> bytes:
    """The canonical tokenizer.json: equal tokenizers give equal bytes, and `load` gives the tokenizer back."""
    specials = set(tokenizer.specials)
    names = [
        token.decode() if number in specials else _to_characters(token) for number, token in enumerate(tokenizer.tokens)
    ]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": names[number], **added} for number in tokenizer.specials],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(tokenizer.digits),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: number for number, name in enumerate(names)},
            "merges": [[names[left], names[right]] for left, right in tokenizer.merges],
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _pre_tokenizer(digits: Digits) -> dict[str, Any]:
    """The `pre_tokenizer` of the file: GPT-2's own name for its pattern, or the pattern written out."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": digits == "runs"}
    if digits == "runs":
        return byte_level
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[digits]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


# -- from the file -----------------------------------------------------------------------------------------------------


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _AddedToken(_Lenient):
    id: int
    content: str
    special: bool = False


class _Model(_Lenient):
    type: Literal["BPE"]
    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    ignore_merges: bool = False


class _File(_Lenient):
    model: _Model
    added_tokens: list[_AddedToken] = []
    normalizer: Any = None
    pre_tokenizer: Any = None


def load(data: bytes, name: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json; `name` is what errors call it.

    Takes byte-level BPE with GPT-2's pattern (digits in runs or split), no normalizer, and `<|endoftext|>` as a special
    token. Post-processors and the flags of special tokens are not read: they concern special tokens in texts, of which
    winnow writes none. Anything else is a UserError: it would encode to other ids than `tokenizers` does.
    """
    try:
        return _load(data)
    except _Unusable as error:
        raise UserError(f"{name}: {error}") from error


class _Unusable(Exception):
    """Why a file is no tokenizer that can be used, in a few words."""


@functools.lru_cache(maxsize=1)  # a build asks for the same one in three places, and parsing takes a tenth of a second
def _load(data: bytes) -> Tokenizer:
    try:
        file = _File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise _Unusable(f"no byte-level BPE tokenizer.json: {problem}") from error
    digits = _digits(file.pre_tokenizer)
    unsupported = {
        "a normalizer": file.normalizer is not None,
        "a pre_tokenizer other than byte-level with GPT-2's pattern": digits is None,
        "added tokens that are not special": any(not token.special for token in file.added_tokens),
        "dropout": bool(file.model.dropout),
        "continuing_subword_prefix": bool(file.model.continuing_subword_prefix),
        "end_of_word_suffix": bool(file.model.end_of_word_suffix),
        "ignore_merges": file.model.ignore_merges,
    }
    for what, is_there in unsupported.items():
        if is_there:
            raise _Unusable(f"unsupported tokenizer: {what}; give a byte-level BPE with GPT-2's pattern")
    assert digits is not None
    try:
        return _tokenizer(file, digits)
    except _Inconsistent as error:
        raise _Unusable(f"unsupported tokenizer: {error}") from error


def _digits(pre_tokenizer: Any) -> Digits | None:
    """How the pattern treats digits, or None for another pre-tokenizer."""
    steps = pre_tokenizer
    if isinstance(steps, dict):
        steps = steps.get("pretokenizers") if steps.get("type") == "Sequence" else [steps]
    found = _without_offsets(steps)
    for digits in PATTERNS:
        split = {"type": "Split", "pattern": {"Regex": PATTERNS[digits]}, "behavior": "Isolated", "invert": False}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        if found == [split, byte_level] or (digits == "runs" and found == [{**byte_level, "use_regex": True}]):
            return digits
    return None


def _without_offsets(steps: Any) -> Any:
    """Pre-tokenizer steps without what only moves offsets, and with the default of older files."""
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return None
    kept = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    return [{"use_regex": True, **step} if step.get("type") == "ByteLevel" else step for step in kept]


class _Inconsistent(Exception):
    """What is wrong with the vocabulary, in a few words."""


def _tokenizer(file: _File, digits: Digits) -> Tokenizer:
    specials = {token.content: token.id for token in file.added_tokens}
    numbers = {**file.model.vocab, **specials}
    if any(file.model.vocab.get(content, number) != number for content, number in specials.items()):
        raise _Inconsistent("a special token has two ids")
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise _Inconsistent("ids are not 0, 1, 2, .. without holes")
    if END_OF_DOCUMENT not in specials:
        raise _Inconsistent(f"no special token {END_OF_DOCUMENT} that could end documents")
    tokens = [b""] * len(numbers)
    for text, number in numbers.items():
        tokens[number] = text.encode() if text in specials else _from_characters(text)
    for byte, character in enumerate(_CHARACTERS):
        if character not in numbers or character in specials:
            raise _Inconsistent(f"no token for the byte 0x{byte:02x}")
    merges = []
    for entry in file.model.merges:
        left, _, right = entry.partition(" ") if isinstance(entry, str) else (entry[0], "", entry[1])
        for text in (left, right, left + right):
            if text not in numbers or text in specials:
                raise _Inconsistent(f"the merge {left!r} {right!r} needs {text!r}, which is no ordinary token")
        merges.append((numbers[left], numbers[right]))
    if len(set(merges)) != len(merges):
        raise _Inconsistent("a merge is listed twice")
    return Tokenizer(tuple(tokens), tuple(merges), tuple(sorted(specials.values())), specials[END_OF_DOCUMENT], digits)


def _from_characters(text: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in text)
    except KeyError as error:
        raise _Inconsistent(f"the token {text!r} is not byte-level") from error
