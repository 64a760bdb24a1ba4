"""The tables of the editions: complete for LLaMA's languages, against pages in each language's own words and real dumps."""

from __future__ import annotations

import bz2
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.wiki_languages import EDITIONS, edition, is_disambiguation, is_redirect

# Touvron et al. 2023, section 2.1.
LLAMA = "bg ca cs da de en es fr hr hu it nl pl pt ro ru sl sr sv uk".split()

# language: a redirect, a file, a category, the end of a disambiguation page, such a page's title
WORDS = {
    "bg": ("#пренасочване [[София]]", "Файл", "Категория", "{{Пояснение}}", "Марица (пояснение)"),
    "ca": ("#REDIRECCIÓ [[Girona]]", "Fitxer", "Categoria", "{{Desambiguació}}", "Ter (desambiguació)"),
    "cs": ("#PŘESMĚRUJ [[Brno]]", "Soubor", "Kategorie", "{{Rozcestník}}", "Morava (rozcestník)"),
    "da": ("#REDIRECT [[Odense]]", "Fil", "Kategori", "{{Flertydig}}", "Fyn (flertydig)"),
    "de": ("#WEITERLEITUNG [[Köln]]", "Datei", "Kategorie", "{{Begriffsklärung}}", "Rhein (Begriffsklärung)"),
    "en": ("#REDIRECT [[York]]", "File", "Category", "{{disambiguation|geo}}", "Mercury (disambiguation)"),
    "es": ("#REDIRECCIÓN [[León]]", "Archivo", "Categoría", "{{Desambiguación}}", "Sol (desambiguación)"),
    "fr": ("#REDIRECTION [[Lyon]]", "Fichier", "Catégorie", "{{Homonymie}}", "Loire (homonymie)"),
    "hr": ("#PREUSMJERI [[Split]]", "Datoteka", "Kategorija", "{{Razdvojba}}", "Krka (razdvojba)"),
    "hu": ("#ÁTIRÁNYÍTÁS [[Pécs]]", "Fájl", "Kategória", "{{egyért}}", "Duna (egyértelműsítő lap)"),
    "it": ("#RINVIA [[Pisa]]", "Immagine", "Categoria", "{{Disambigua}}", "Arno (disambigua)"),
    "nl": ("#DOORVERWIJZING [[Delft]]", "Bestand", "Categorie", "{{dp}}", "Maas (doorverwijspagina)"),  # codespell:ignore categorie
    "pl": ("#PATRZ [[Gdynia]]", "Plik", "Kategoria", "{{Ujednoznacznienie}}", "Odra (ujednoznacznienie)"),
    "pt": ("#REDIRECIONAMENTO [[Braga]]", "Ficheiro", "Categoria", "{{Desambiguação}}", "Minho (desambiguação)"),
    "ro": ("#REDIRECTEAZA [[Iași]]", "Fișier", "Categorie", "{{dez}}", "Mureș (dezambiguizare)"),  # codespell:ignore categorie
    "ru": ("#перенаправление [[Псков]]", "Файл", "Категория", "{{неоднозначность}}", "Волга (значения)"),
    "sl": ("#PREUSMERITEV [[Celje]]", "Slika", "Kategorija", "{{razločitev}}", "Sava (razločitev)"),
    "sr": ("#Преусмери [[Ниш]]", "Датотека", "Категорија", "{{вишезначна одредница}}", "Дрина (вишезначна одредница)"),
    "sv": ("#OMDIRIGERING [[Lund]]", "Fil", "Kategori", "{{förgrening}}", "Mälaren (olika betydelser)"),
    "uk": ("#ПЕРЕНАПРАВЛЕННЯ [[Львів]]", "Файл", "Категорія", "{{неоднозначність}}", "Дніпро (значення)"),
}


def test_the_twenty_languages_are_llamas():
    assert sorted(EDITIONS) == LLAMA
    assert sorted(WORDS) == LLAMA


@pytest.mark.parametrize("language", LLAMA)
def test_names_are_as_they_are_compared(language):
    """Lower case without underscores and brackets, none empty, and MediaWiki's English ones in every edition."""
    names = edition(language)
    for kind, english in (
        ("files", "file"), ("files", "image"), ("categories", "category"), ("templates", "template"), ("redirects", "redirect"),
        ("disambiguations", "disambig"), ("suffixes", "disambiguation"),
    ):
        found = getattr(names, kind)
        assert english in found
        assert all(name and name == " ".join(name.lower().split()) and not set(name) & set("_()#:|") for name in found)
    assert not names.files & names.categories


@pytest.mark.parametrize("language", LLAMA)
def test_pages_in_the_language_itself(language):
    redirect, file, category, template, title = WORDS[language]
    names = edition(language)
    assert file.lower() in names.files
    assert category.lower() in names.categories
    for written in (redirect, redirect.lower(), redirect.upper(), redirect.replace(" ", ""), redirect.replace(" ", " : ")):
        assert is_redirect(written, language)
    assert is_redirect("#REDIRECT [[x]]", language)
    assert is_disambiguation("Any", f"* [[One]]\n* [[Two]]\n\n{template}", language)
    assert is_disambiguation(title, "* [[One]]", language)
    assert is_disambiguation("Any", "{{ template:DISAMBIG }}", language)
    assert not is_disambiguation("Any", "An article about [[One]] (with brackets).", language)
    assert not is_redirect("An article. #REDIRECT [[x]]", language)


@pytest.mark.parametrize(
    ("title", "markup", "language", "found"),
    [
        ("Mercury", "{{Disambiguation}}", "en", True),
        ("Mercury", "{{ geodis\n}}", "en", True),
        ("Mercury", "{{Human_name  disambiguation|a=b}}", "en", True),
        ("Mercury", "{{template: Hndis}}", "en", True),
        ("Mercury", "__DISAMBIG__", "en", True),
        ("Mercury", "See [[Mercury (disambiguation)]].{{Disambiguation needed|date=May}}", "en", False),
        ("Mercury", "{{Other uses|Mercury (disambiguation)}} A planet.", "en", False),
        ("Mercury", "{{Infobox|name=disambig}} A planet.", "en", False),
        ("Mercury", "Disambiguation is what {{tl|x}} does.", "en", False),
        ("Word-sense disambiguation", "An article.", "en", False),
        ("(disambiguation)", "An article.", "en", False),
        ("Mercury (disambiguation) ", "A list.", "en", True),
        ("Mercury (planet)", "An article.", "en", False),
        ("Rhein", "{{Vorlage:Begriffsklärung}}", "de", True),
        ("Rhein", "{{Vorlage:Begriffsklärung}}", "en", False),  # another edition's words are not this one's
        ("DP", "{{dp}}", "nl", True),
        ("DP", "{{dp}}", "fr", False),
        ("Meyer", "{{Patronyme}}", "fr", False),  # a surname is a subject
        ("水星", "{{Disambig}}", "zh", True),
        ("Rio", "{{desambiguação}}", "pt-BR", True),
    ],
)
def test_disambiguations(title, markup, language, found):
    assert is_disambiguation(title, markup, language) == found


@pytest.mark.parametrize(
    ("markup", "language", "found"),
    [
        ("\n #Redirect : [[A]] {{R from move}}", "en", True),
        ("#ПЕРЕНАПР [[А]]", "uk", True),
        ("#WEITERLEITUNG [[A]]", "en", False),
        ("#one [[A]] stands first in this list", "en", False),
        ("#重定向 [[A]]", "zh", True),  # an edition without a table: any word
        ("#REDIRECT", "en", False),
        ("", "en", False),
        ("#redirect" + " " * 1_000_000, "en", False),  # in linear time
    ],
)
def test_redirects(markup, language, found):
    assert is_redirect(markup, language) == found


@given(st.text(alphabet="{}|_ :#[]()abdisampte\n", max_size=200), st.sampled_from([*LLAMA, "zh"]))
def test_any_markup_is_judged_as_a_plain_search_would(markup, language):
    """Reference: split at the brackets, name by name."""
    names = edition(language)
    found = False
    for piece in re.split(r"\{\{", markup)[1:]:
        name = re.split(r"[{}|<>\[\]]", piece)[0][:200]
        words = re.sub(r"[_\s]+", " ", name).strip().lower()
        for prefix in names.templates:
            words = re.sub(rf"^{prefix} ?: ?", "", words, count=1) if words.startswith(prefix) else words
        found = found or words in names.disambiguations
    assert is_disambiguation("Any", markup, language) == found


@pytest.fixture(scope="module")
def dumps():
    from pipelines import packages, sample

    folder = sample.sample_path(packages.cache_folder()) / "wikipedia"
    if not folder.is_dir():
        pytest.skip("the embedded sample is not in the cache: run winnow demo once")
    found = {}
    for path in sorted(folder.iterdir()):
        data = bz2.decompress(path.read_bytes())
        found[path.name[:2]] = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    return found


def test_the_disambiguations_of_the_real_english_dump(dumps):
    """Eight, as reading their titles says; the redirects are those that the dump itself marks."""
    lists, redirects, marked = [], 0, 0
    for page in re.findall(r"<page>.*?</page>", dumps["en"], re.DOTALL):
        title = re.search("<title>(.*?)</title>", page)[1]
        markup = (re.search("<text[^>]*>(.*?)</text>", page, re.DOTALL) or ["", ""])[1]
        marked += "<redirect" in page
        redirects += is_redirect(markup, "en")
        if is_disambiguation(title, markup, "en"):
            lists.append(title)
    assert sorted(lists) == [
        "Aa River", "Aberdeen (disambiguation)", "Ada", "Alien", "Animal (disambiguation)", "Argument (disambiguation)",
        "Asia Minor (disambiguation)", "Austin (disambiguation)",
    ]
    assert (redirects, marked) == (100, 100)


def test_the_names_of_the_real_bulgarian_dump(dumps):
    """Its siteinfo names what the table has."""
    named = dict(re.findall(r'<namespace key="(6|10|14)"[^>]*>(.*?)</namespace>', dumps["bg"]))
    names = edition("bg")
    assert named["6"].lower() in names.files
    assert named["10"].lower() in names.templates
    assert named["14"].lower() in names.categories


# -- through the reader -----------------------------------------------------------------------------------------------------


def _page(number, title, markup, namespace=0):
    text = markup.replace("&", "&amp;").replace("<", "&lt;")
    revision = f"<revision><id>{number}9</id><text xml:space='preserve'>{text}</text></revision>"
    return f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{revision}</page>"


def _read(folder, language, *pages):
    """(documents, rejects) of an export whose siteinfo names no namespace, as old exports do."""
    from pipelines.records import Input, Limits, Record
    from pipelines.sources import SourceOptions, reader

    path = folder / "dump.xml"
    attribute = f' xml:lang="{language}"' if language else ""
    path.write_text(f"<mediawiki{attribute}><siteinfo><base>https://xx.example/wiki/A</base></siteinfo>{''.join(pages)}</mediawiki>")
    found = list(reader("mediawiki")(Input("dump.xml", str(path), 0, ""), SourceOptions(), Limits(), None))
    return [one for one in found if isinstance(one, Record)], [one for one in found if not isinstance(one, Record)]


@pytest.mark.parametrize("language", LLAMA)
def test_a_dump_in_every_language(language, tmp_path):
    """An article with a file and a category in the language's words, a redirect, and both kinds of disambiguation pages."""
    redirect, file, category, template, title = WORDS[language]
    article = (
        f"'''Text''' with [[{file}:A.jpg|thumb|a caption with a [[link]]]] a [[target|label]].\n\n"
        f"<!-- {template} -->\n[[{category}:Any]]\n[[{category.lower()}:other]]\n[[:{category}:Shown]]"
    )
    (document,), rejects = _read(
        tmp_path, language,
        _page(1, "Article", article), _page(2, "Other name", redirect), _page(3, "Many", f"* [[One]]\n{template}"),
        _page(4, title, "* [[One]]\n* [[Two]]"), _page(5, "Talk", "talk", 1),
    )
    assert document.text == f"Text with  a label.\n\n{category}:Shown"
    assert [(one.locator, one.reason.value, one.detail) for one in rejects] == [
        ("dump.xml#1", "redirect", "Other name"),
        ("dump.xml#2", "not_an_article", "disambiguation: Many"),
        ("dump.xml#3", "not_an_article", f"disambiguation: {title}"),
        ("dump.xml#4", "not_an_article", "Talk"),
    ]


def test_a_name_of_another_edition_is_a_title(tmp_path):
    """"Imagine" is Romanian for a file; in English it is a film's title."""
    link = "He made [[Imagine: John Lennon]] in 1988."
    assert _read(tmp_path, "en", _page(1, "A", link))[0][0].text == "He made Imagine: John Lennon in 1988."
    assert _read(tmp_path, "ro", _page(1, "A", link))[0][0].text == "He made  in 1988."


def test_an_edition_without_a_table_has_the_english_names(tmp_path):
    pages = [_page(1, "甲", "[[File:a.jpg]]text"), _page(2, "乙", "#重定向 [[甲]]"), _page(3, "丙", "{{Disambig}}")]
    for language in ("zh", ""):
        (document,), rejects = _read(tmp_path, language, *pages)
        assert document.text == "text"
        assert [one.reason.value for one in rejects] == ["redirect", "not_an_article"]


def test_the_real_dumps_through_the_reader(dumps, tmp_path):
    """English: 106 articles were read before disambiguations went out, 8 of them; Bulgarian: one article."""
    from collections import Counter

    from pipelines import packages, sample
    from pipelines.records import Input, Limits, Record
    from pipelines.sources import SourceOptions, count_records, reader

    folder = sample.sample_path(packages.cache_folder()) / "wikipedia"
    expected = {
        "en": {"document": 98, "redirect": 99, "disambiguation": 8, "other namespace": 1},
        "bg": {"document": 1, "other namespace": 2},
    }
    for path in sorted(folder.iterdir()):
        one = Input(path.name, str(path), 0, "")
        counts, markup = Counter(), Counter()
        for item in reader("mediawiki")(one, SourceOptions(), Limits(), None):
            if isinstance(item, Record):
                counts["document"] += 1
                markup.update(re.findall(r"\[\[|\]\]|(?:File|Image|Category|Файл|Картинка|Категория):\S", item.text))
            elif item.reason == "redirect":
                counts["redirect"] += 1
            else:
                counts["disambiguation" if item.detail.startswith("disambiguation: ") else "other namespace"] += 1
        assert counts == expected[path.name[:2]]
        assert counts.total() == count_records("mediawiki", one, SourceOptions())
        assert markup == {}
