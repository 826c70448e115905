#!/usr/bin/env python3
"""man.py DIRECTORY - writes the manual pages into DIRECTORY/man1, man3 and man7, in mdoc(7).

Section 3 is the comments of include/qnet.h: a page for each function, and for each type that has a
comment of more than its name. qnet(7) is the README's Concepts and the comment at the top of the
header. Section 1 is the usage texts of the examples that packaging/programs names. What the pages
say is written there and nowhere else. SOURCE_DATE_EPOCH sets their date, which is otherwise that of the source.
"""

import errno
import itertools
import os
import pathlib
import re
import sys
import textwrap
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
HEADER = TOP / "include/qnet.h"
ERRNOS = set(errno.errorcode.values())

# What gets a macro of its own, with the punctuation around it. Everything else is text.
TOKEN = re.compile(
    r"(?<!\S)(?P<open>[(\[]?)"
    r"(?P<item>`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*|--[a-z]+|[A-Z][A-Z0-9_]+|qnet_[a-z0-9_]+(?:\(\))?|\w+\(\d\)|[a-z]\w*(?:\(\))?)"
    r"(?P<close>[.,;:)\]?!]*)(?=\s|$)"
)


class Page:
    """A page being written, which knows its own name and what other pages there are."""

    def __init__(self, name, section, others=(), arguments=()):
        self.name, self.section = name, section
        self.others, self.arguments = others, arguments
        self.lines = []

    def macro(self, item):
        """The macro for an item, or None where it is text like any other."""
        if item.startswith("`"):
            inside = item[1:-1]
            known = inside.startswith("QNET_") or inside.removesuffix("()") in self.others
            return self.macro(inside) if known else f"Ql {quoted(inside)}"
        if item.startswith("*"):
            return f"{'Sy' if item.startswith('**') else 'Em'} {quoted(item.strip('*'))}"
        if item.startswith("--"):
            return f"Fl {item[1:]}"
        if item.startswith("QNET_") or item == "NULL":
            return f"Dv {item}"
        if item in self.arguments:
            return f"Ar {item}"
        if item in ERRNOS:
            return f"Er {item}"
        name = item.removesuffix("()")
        if name == self.name.removeprefix("qnet-") and self.section == 1 or name == self.name:
            return f"Fn {name}" if item.endswith("()") else "Nm"
        if name in self.others:
            return f"Xr {name} {self.others[name]}"
        if item.endswith("()"):
            return f"Fn {name}"
        reference = re.fullmatch(r"(\w+)\((\d)\)", item)
        return f"Xr {reference[1]} {reference[2]}" if reference else None

    def text(self, text):
        """Writes running text, each sentence from a new line on."""
        start = 0
        for found in TOKEN.finditer(text):
            macro = self.macro(found["item"])
            # "A lab" is not the program of that name.
            if macro is None or macro == "Nm" and re.search(r"\b(an?|the|this|each)\s*$", text[: found.start()], re.I):
                continue
            self.plain(text[start : found.start()])
            name, _, rest = macro.partition(" ")
            self.lines.append(" ".join(["." + name, *found["open"], *([rest] if rest else []), *found["close"]]))
            start = found.end()
        self.plain(text[start:])

    def plain(self, text):
        for sentence in re.split(r"(?<=[.!?])\s+|(?<=[.!?][)\"])\s+", " ".join(text.split())):
            for line in textwrap.wrap(escaped(sentence), 78, break_on_hyphens=False, break_long_words=False):
                self.lines.append(guarded(line))

    def blocks(self, blocks):
        """Writes blocks, each a kind and what it consists of (see parse_comment, parse_markdown)."""
        for number, (kind, content) in enumerate(blocks):
            if kind == "paragraph":
                if number > 0:
                    self.lines.append(".Pp")
                self.text(content)
            elif kind == "literal":
                self.lines += [".Bd -literal -offset indent", *(guarded(escaped(line, True)) for line in content), ".Ed"]
            else:
                self.lines.append({"tag": ".Bl -tag -width Ds", "bullet": ".Bl -bullet", "enum": ".Bl -enum"}[kind])
                for term, inside in content:
                    self.lines.append(f".It {term}".rstrip())
                    self.blocks(inside)
                self.lines.append(".El")

    def heading(self, title):
        self.lines.append(f".Sh {title}")

    def see_also(self, names):
        """Lists other pages, in the order that mdoc(7) asks for."""
        self.heading("SEE ALSO")
        pages = sorted((section, name) for name, section in names.items() if name != self.name)
        self.lines += [f".Xr {name} {section}{' ,' if page < len(pages) else ''}"
                       for page, (section, name) in enumerate(pages, 1)]

    def write(self, directory, source, about):
        when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", source.stat().st_mtime)))
        date = f"{time.strftime('%B', when)} {when.tm_mday}, {when.tm_year}"
        head = [f".Dd {date}", f".Dt {self.name.upper()} {self.section}", ".Os", ".Sh NAME", f".Nm {self.name}"]
        path = directory / f"man{self.section}" / f"{self.name}.{self.section}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*head, f".Nd {escaped(about)}", *self.lines, ""]))


def escaped(text, literal=False):
    """Text in which nothing means anything to roff. A minus is one in code, and where an option begins."""
    text = text.replace("\\", "\\e")
    return text.replace("-", "\\-") if literal else re.sub(r"(?<![\w-])-+(?=\w)", lambda m: "\\-" * len(m[0]), text)


def guarded(line):
    return "\\&" + line if line[:1] in {".", "'"} else line


def quoted(text):
    """One argument of a macro, whatever is in it."""
    return '"\\&' + escaped(text, True).replace('"', "\\(dq") + '"'


def about(text):
    """What a page is about: the beginning of a text, as a part of a sentence."""
    first = re.match(r"(.*?)(?:[.:;](?:\s|$)|$)", " ".join(text.split()))[1].replace("`", "")
    return first if first[1:2].isupper() else first[:1].lower() + first[1:]


# ---- What there is to say: comments, the README, usage texts ----


def chunks(lines):
    """The lines between empty ones."""
    return [list(group) for full, group in itertools.groupby(lines, lambda line: line.strip() != "") if full]


def parse_comment(lines):
    """Paragraphs, numbered lists, and whatever is indented, which stays as it is."""
    blocks = []
    for chunk in chunks(lines):
        if chunk[0].startswith("1. "):
            items = re.split(r"\n(?=\d+\. )", "\n".join(chunk))
            blocks.append(("enum", [("", [("paragraph", item.split(". ", 1)[1])]) for item in items]))
            continue
        for indented, group in itertools.groupby(chunk, lambda line: line.startswith("  ")):
            group = list(group)
            blocks.append(("literal", textwrap.dedent("\n".join(group)).split("\n")) if indented
                          else ("paragraph", " ".join(group)))
    return blocks


def parse_markdown(lines):
    """The paragraphs and lists of a section, which may be nested."""
    blocks, items = [], []
    lines = list(lines)
    while lines:
        line = lines.pop(0)
        if not line.strip():
            continue
        inside = [line]
        if line.startswith("- "):
            while lines and (lines[0].startswith("  ") or not lines[0].strip()):
                inside.append(lines.pop(0))
            items.append(("", parse_markdown([inside[0][2:], *(line[2:] for line in inside[1:])])))
            if lines and lines[0].startswith("- "):
                continue
            blocks.append(("bullet", items))
            items = []
        else:
            while lines and lines[0].strip() and not lines[0].startswith("- "):
                inside.append(lines.pop(0))
            blocks.append(("paragraph", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(inside))))
    return blocks


class Item:
    """A declaration of the header with its comment."""

    def __init__(self, lines, declaration, group):
        self.declaration, self.group = declaration, group
        self.lines, self.parameters, self.returned, self.promises = [], [], "", []
        self.name = re.search(r"(qnet_\w+)\s*(?:\)?\(|;$|\s*\{)", declaration)[1]
        self.is_function = re.match(r"[a-z].*\bqnet_\w+\(", declaration) is not None
        self.mentions = set(re.findall(r"\bqnet_[a-z0-9_]+", " ".join(lines)))
        into = "text"
        for line in lines:
            if found := re.match(r"@param (\w+)\s+(.*)", line):
                self.parameters.append([found[1], found[2]])
                into = "parameter"
            elif found := re.match(r"@return (.*)", line):
                self.returned, into = found[1], "return"
            elif found := re.match(r"(Blocks|Calls back): (.*)", line):
                self.promises.append([found[1], found[2]])
                into = "promise"
            elif not line or into == "text":
                self.lines.append(line)
                into = "text"
            elif into == "return":
                self.returned += " " + line.strip()
            else:
                (self.parameters if into == "parameter" else self.promises)[-1][1] += " " + line.strip()

    def members(self):
        """The members of a struct or an enum: what to call each, and what it is."""
        found = re.findall(r"    /\*\*\n((?:     \*.*\n)+?)     \*/\n    (.*?)[,;]\n", self.declaration)
        for comment, member in found:
            macro = re.sub(r"(QNET_\w+) = (.*)", r"Dv \1 Pq \2", member)
            text = " ".join(line.removeprefix("     *").strip() for line in comment.splitlines())
            yield (macro if macro != member else f"Vt {quoted(member)}"), [("paragraph", text)]

    def codes(self):
        return dict.fromkeys(re.findall(r"QNET_ERR_[A-Z_]+", self.returned))


def read_header():
    """The comment at the top, and the declarations by name, in order."""
    text = HEADER.read_text()
    uncomment = lambda comment: [re.sub(r"^ \* ?", "", line) for line in comment.strip("\n").split("\n")]
    top = uncomment(re.match(r"/\*\n(.*?)\n \*/", text, re.S)[1])
    pattern = r"^/\* ---- (.*) \(\w+\) -+ \*/$|^/\*\*\n((?: \*.*\n)+?) \*/\n([a-z](?:.*\{\n(?:.*\n)+?\}.*;|(?:.*\n)*?.*;))$"
    group, items = "Types", {}
    for found in re.finditer(pattern, text, re.M):
        if found[1]:
            group = found[1]
        else:
            item = Item(uncomment(found[2]), found[3], group)
            items[item.name] = item
    return top, items


def is_opaque(item):
    return re.fullmatch(r"typedef struct (\w+) \1;", item.declaration) is not None


# ---- Pages ----


def synopsis(page, item):
    page.heading("SYNOPSIS")
    page.lines.append(".In qnet.h")
    signature = re.fullmatch(r"(.*?)(\(\*\w+\)|\w+)\((.*)\);", " ".join(item.declaration.split()))
    if signature is None or "{" in item.declaration:
        page.lines.append(".Vt " + quoted(" ".join(item.declaration.split("{")[0].split()[1:])) + " ;")
        return
    page.lines += [f".Ft {quoted(signature[1].strip())}", f".Fo {signature[2]}",
                   *(f".Fa {quoted(argument)}" for argument in signature[3].split(", ")), ".Fc"]


def write_item(item, items, pages, directory):
    page = Page(item.name, 3, pages)
    synopsis(page, item)
    page.heading("DESCRIPTION")
    parts = parse_comment(item.lines)
    # Paragraphs that stand behind @return concern the call as a whole, and so do these.
    members = [(f"Fa {name}", [("paragraph", text)]) for name, text in item.parameters] or list(item.members())
    if members:
        parts.append(("tag", members))
    parts += [("paragraph", f"{title}: {text}") for title, text in item.promises]
    page.blocks(parts)
    if item.returned:
        page.heading("RETURN VALUES")
        page.text(item.returned)
    if item.codes():
        meanings = {name: text for name, text in ((macro.split()[1], text) for macro, text in items["qnet_error"].members())}
        page.heading("ERRORS")
        page.lines.append("The codes mean in general:")
        page.blocks([("tag", [(f"Dv {code}", meanings[code]) for code in item.codes()])])
    siblings = {other.name for other in items.values() if other.is_function and (
        other.group == item.group or re.search(rf"\b{item.name}\b", other.declaration))}
    named = set(re.findall(r"\bqnet_[a-z0-9_]+", item.declaration)) | item.mentions | siblings
    named |= {"qnet_error"} if item.codes() else set()
    named |= {"qnet_option"} if "QNET_OPT_" in " ".join(item.lines + [item.returned]) else set()
    page.see_also({name: pages[name] for name in named | {"qnet"} if name in pages})
    page.write(directory, HEADER, about(" ".join(item.lines)))


def write_concepts(top, items, pages, directory):
    readme = TOP / "README.md"
    page = Page("qnet", 7, pages)
    page.heading("DESCRIPTION")
    section = re.search(r"^## Concepts\n(.*?)^## ", readme.read_text(), re.S | re.M)[1]
    page.blocks(parse_markdown(section.splitlines()))
    page.heading("CONVENTIONS")
    page.blocks(parse_comment(top[4:]))
    page.heading("FUNCTIONS AND TYPES")
    for group, members in itertools.groupby((items[name] for name in pages if name in items), lambda item: item.group):
        page.lines.append(f".Ss {group}")
        page.blocks([("tag", [(f"Xr {item.name} 3", [("paragraph", about(" ".join(item.lines)) + ".")])
                              for item in members])])
    page.write(directory, readme, about(top[0].split(" - ", 1)[1].replace("libqnet, ", "a library ")))


def usage_of(source):
    """The usage text of a program, with the texts of the headers that it is made of."""
    found = re.search(r"static const char usage\[\] =(.*?);\n", source.read_text(), re.S)
    headers = "".join(header.read_text() for header in sorted(source.parent.glob("*.h")))
    macros = dict(re.findall(r'#define (\w+) +\\\n((?: *".*\n)+)', headers))
    text = found[1]
    for _ in macros:  # a text of a header may have others in it
        text = re.sub(r'"(?:[^"\\]|\\.)*"|\w+', lambda part: macros.get(part[0], part[0]), text)
    pieces = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), "".join(pieces))


def write_program(source, programs, pages, directory):
    name = source.stem
    head, *body = usage_of(source).split("\n\n")
    page = Page(f"qnet-{name}", 1, pages, set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", head)))
    page.heading("SYNOPSIS")
    # A line as far in as the program's name begins another form; one that is farther in goes on.
    for form in re.split(r"\n {7}(?! )", head.removeprefix("usage: ")):
        start, _, rest = form.partition(" ")
        page.lines += [".Nm"] if start == name else [".Pp"]
        page.plain(rest if start == name else form)
    page.heading("DESCRIPTION")
    blocks = parse_comment("\n\n".join(body).splitlines())
    page.blocks([(kind, [re.sub(rf"^{name} ", f"qnet-{name} ", line) for line in content] if kind == "literal" else content)
                 for kind, content in blocks])
    page.see_also({"qnet": 7, **{f"qnet-{other}": 1 for other in programs}})
    summary = re.match(r"/\*\n \* \S+ - ((?:.*\n)*?) \*(?:/|\n)", source.read_text())[1].replace("\n * ", " ")
    page.write(directory, source, about(summary))


def main():
    directory = pathlib.Path(sys.argv[1])
    top, items = read_header()
    pages = {name: 3 for name, item in items.items() if not is_opaque(item)} | {"qnet": 7}
    for name in pages.keys() - {"qnet"}:
        write_item(items[name], items, pages, directory)
    write_concepts(top, items, pages, directory)
    programs = {name: TOP / f"examples/{name}.c" for name in (TOP / "packaging/programs").read_text().split()}
    for source in programs.values():
        write_program(source, programs, pages, directory)


main()
