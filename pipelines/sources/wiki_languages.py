"""What Wikipedia's editions call things, for LLaMA's twenty languages (Touvron et al. 2023, section 2.1), by table.

files, categories  names of the namespaces 6 and 14: a link into them shows no text. Old names and aliases are among them, because
                   pages keep them and a dump's siteinfo names only the present ones.
templates          names of the namespace 10, which may stand in front of a template's own.
redirects          words behind # that make a page point to another.
disambiguations    templates that make a page a list of what its title may mean; not those of surnames and given names, and not the
                   notes about such pages at the head of articles.
suffixes           what the titles of such pages end with, in brackets.

MediaWiki's own English names hold in every edition; those of another language do not ("Imagine: John Lennon" is a film in English
and a file in Romanian). Sources: MediaWiki's language files (namespaces, magic words), the siteinfo of the editions, and their
pages MediaWiki:Disambiguationspage. All in lower case, as they are compared. Another edition is read with the English names, and
with any word behind #.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edition:
    """The names that hold in one edition, the English ones among them."""

    files: frozenset[str]
    categories: frozenset[str]
    templates: frozenset[str]
    redirects: frozenset[str]
    disambiguations: frozenset[str]
    suffixes: frozenset[str]


# In the order of Edition's fields; names are parted by |.
_ENGLISH = (
    "file|image|media",
    "category",
    "template",
    "redirect",
    "disambig|disambiguation|disamb|dab",
    "disambiguation",
)
# Namespaces 1 to 15 as MediaWiki itself calls them: in no edition can an article's title begin with one of these and a colon.
NAMESPACES = frozenset(
    name + suffix for name in ("user", "project", "file", "mediawiki", "template", "help", "category") for suffix in ("", " talk")
) | {"talk"}
_TABLE = {
    "bg": ("файл|картинка|медия", "категория", "шаблон", "пренасочване|виж", "пояснение", "пояснение"),
    "ca": (
        "fitxer|imatge",
        "categoria",
        "plantilla",
        "redirecció|redireccio|redireccion",
        "desambiguació|desambigua|desambigcurta|acrònim",
        "desambiguació",
    ),
    "cs": (
        "soubor|obrázek|obrázok|média",
        "kategorie",
        "šablona",
        "přesměruj|presmeruj",
        "rozcestník|rozcestník - místopisné jméno|rozcestník - sakrální stavba|rozcestník - kostel|rozcestník - chemie"
        "|rozcestník - loď|rozcestník - 2 znaky|rozcestník - 3 znaky|rozcestník - 4 znaky",
        "rozcestník",
    ),
    "da": ("fil|billede", "kategori", "skabelon", "", "flertydig", "flertydig"),
    "de": ("datei|bild|medium", "kategorie", "vorlage", "weiterleitung", "begriffsklärung|bks", "begriffsklärung"),
    "en": (
        "",
        "cat",
        "tm",
        "",
        "geodis|hndis|roaddis|schooldis|hospitaldis|numberdis|mathdab|airport disambiguation|biology disambiguation"
        "|call sign disambiguation|caselaw disambiguation|chinese title disambiguation|disambiguation cleanup"
        "|genus disambiguation|hospital disambiguation|human name disambiguation|human name disambiguation cleanup"
        "|letter–number combination disambiguation|letter-number combination disambiguation|mathematical disambiguation"
        "|military unit disambiguation|music disambiguation|number disambiguation|opus number disambiguation"
        "|phonetics disambiguation|place name disambiguation|portal disambiguation|road disambiguation|school disambiguation"
        "|species latin name abbreviation disambiguation|species latin name disambiguation|station disambiguation"
        "|synagogue disambiguation|taxonomic authority disambiguation|taxonomy disambiguation|template disambiguation",
        "",
    ),
    "es": (
        "archivo|imagen|medio",
        "categoría|cat",
        "plantilla",
        "redirección|redireccion",
        "desambiguación|desambiguacion|desambig|des",
        "desambiguación",
    ),
    "fr": (
        "fichier|média",
        "catégorie",
        "modèle",
        "redirection",
        "homonymie|paronymie|toponymie|isomérie|internationalisation|arrondissements homonymes|batailles homonymes"
        "|cantons homonymes|communes françaises homonymes|films homonymes|gouvernements homonymes|guerres homonymes"
        "|personnes homonymes|saints homonymes|titres homonymes|unités homonymes|villes homonymes|édifices religieux homonymes"
        "|bandeau standard pour page d'homonymie|homonymie bateau|homonymie d'îles|homonymie d'établissements scolaires ou"
        " universitaires|homonymie de clubs sportifs|homonymie de comtés|homonymie de monument|homonymie de nom romain"
        "|homonymie de parti politique|homonymie de route|homonymie dynastique|homonymie vidéoludique|homonymie édifice religieux",
        "homonymie",
    ),
    "hr": ("datoteka|slika|mediji", "kategorija", "predložak", "preusmjeri", "razdvojba|razdvojba1|nova razdvojba", "razdvojba"),
    "hu": (
        "fájl|kép|média",
        "kategória",
        "sablon",
        "átirányítás",
        "egyért|egyert|egyértelműsítő|egyértelműsítő lap|egyért-redir",
        "egyértelműsítő lap",
    ),
    "it": ("immagine", "categoria", "", "rinvia|rinvio|rimando", "disambigua|sigla2|sigla3|sigla4", "disambigua"),
    "nl": (
        "bestand|afbeelding",
        "categorie",  # codespell:ignore categorie
        "sjabloon",
        "doorverwijzing",
        "dp|dp2|dpintro|dp-intro|doorverwijspagina",
        "doorverwijspagina",
    ),
    "pl": (
        "plik|grafika",
        "kategoria",
        "szablon",
        "patrz|przekieruj|tam",
        "ujednoznacznienie|strona ujednoznaczniająca|disambigc|disambrulers",
        "ujednoznacznienie|strona ujednoznaczniająca",
    ),
    "pt": (
        "ficheiro|arquivo|imagem|multimédia",
        "categoria",
        "predefinição",
        "redirecionamento",
        "desambiguação|desambig|desambiguação2",
        "desambiguação",
    ),
    "ro": (
        "fișier|fişier|imagine",
        "categorie",  # codespell:ignore categorie
        "format",
        "redirecteaza|redirecționeaza",
        "dezambiguizare|dez|hndis",
        "dezambiguizare",
    ),
    "ru": (
        "файл|изображение|медиа",
        "категория|к",
        "шаблон|ш",
        "перенаправление|перенапр",
        "неоднозначность|многозначность",
        "значения",
    ),
    "sl": (
        "slika|datoteka",
        "kategorija",
        "predloga",
        "preusmeritev",
        "razločitev|disambig-ship|disambig-unit",
        "razločitev",
    ),
    "sr": (
        "датотека|datoteka|слика|slika|фотографија|fotografija|медиј|медија|medij|medija",
        "категорија|kategorija",
        "шаблон|šablon|предложак|predložak",
        "преусмери|преусмјери|preusmeri|preusmjeri",
        "вишезначна одредница|вишезначна|višeznačna odrednica|vzo",
        "вишезначна одредница|višeznačna odrednica",
    ),
    "sv": (
        "fil|bild",
        "kategori|kat",
        "mall",
        "omdirigering",
        "förgrening|förgreningssida|gren|gaffel|betydelselista|trebokstavsförgrening|trebokstavsförkortning|3lc|4la|tladisambig",
        "olika betydelser",
    ),
    "uk": (
        "файл|зображення|изображение|медіа",
        "категорія|категория",
        "шаблон",
        "перенаправлення|перенаправление|перенапр",
        "неоднозначність|багатозначність|disambigg|disambign",
        "значення",
    ),
}


def _edition(names: tuple[str, ...]) -> Edition:
    return Edition(*(frozenset(f"{own}|{english}".split("|")) - {""} for own, english in zip(names, _ENGLISH, strict=True)))


EDITIONS = {language: _edition(names) for language, names in _TABLE.items()}
_OTHER = _edition(("",) * len(_ENGLISH))

_ANY_REDIRECT = re.compile(r"\s*#\w+\s*(?::\s*)?\[\[")
_TEMPLATE = re.compile(r"\{\{([^{}|<>\[\]]{1,200})")


def edition(language: str) -> Edition:
    """The names of an edition by its language, such as "de" or "pt-BR"; the English ones for one that is not listed."""
    return EDITIONS.get(language.lower().partition("-")[0], _OTHER)


def is_redirect(markup: str, language: str) -> bool:
    """Whether a page's text only points to another: "#REDIRECT [[...", in the edition's words; in any word for other editions."""
    found = _ANY_REDIRECT.match(markup)
    if found is None or language.lower().partition("-")[0] not in EDITIONS:
        return found is not None
    word = found[0].strip().removeprefix("#").rstrip("[ \t\n:")
    return word.lower() in edition(language).redirects


def is_disambiguation(title: str, markup: str, language: str) -> bool:
    """Whether a page lists what its title may mean, by its title or by its templates; comments must be out of the markup."""
    names = edition(language)
    head, bracket, suffix = title.rstrip().removesuffix(")").rpartition("(")
    if bracket and head.strip() and title.rstrip().endswith(")") and suffix.strip().lower() in names.suffixes:
        return True
    return "__DISAMBIG__" in markup or any(_name(found, names) in names.disambiguations for found in _TEMPLATE.findall(markup))


def _name(template: str, names: Edition) -> str:
    """A template's name as it is compared: without its namespace, with single blanks, in lower case."""
    name = " ".join(template.replace("_", " ").lower().split())
    space, colon, rest = name.partition(":")
    return rest.strip() if colon and space.strip() in names.templates else name
