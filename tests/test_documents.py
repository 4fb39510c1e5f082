"""What documents name is there: files, modules, tests, make targets, variables."""

import re

import pytest

from loradrop.catalog.settings.declared import ALL
from tests.packaging import PACKAGES, ROOT

if not (ROOT / "watcher").is_dir():
    pytest.skip("not a checkout: the documents speak of one", allow_module_level=True)

DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md")
FOLDERS = (*PACKAGES, "loradrop", "tests", "testkit", "bench", "docker", "docs", "examples", "requirements")
OTHER_VARIABLES = {"LORADROP_"}  # as `LORADROP_...`, which means any of them

_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#]+)\)")
_PATH = re.compile(rf"^(?:(?:{'|'.join(FOLDERS)})/[\w./-]*|[\w-]+\.(?:md|toml|ya?ml|acl))$")
_TEST = re.compile(r"^(tests/[\w/]+\.py)::(\w+)$")
_MODULE = re.compile(r"^loradrop((?:\.\w+)+)$")
_VARIABLE = re.compile(r"\bLORADROP_[A-Z_]*")
_TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def missing(text: str) -> list[str]:
    """Return what `text` names in code and links that is not there."""
    spans = _CODE.findall(_FENCED.sub("", text))
    commands = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    links = [link for link in _LINK.findall(text) if "://" not in link]
    variables = {setting.variable for setting in ALL} | OTHER_VARIABLES
    return [
        *(span for span in spans if not _is_there(span)),
        *(link for link in links if not (ROOT / link).exists()),
        *(f"make {target}" for span in [*spans, *commands] for target in _targets(span) - _TARGETS),
        *(name for name in _VARIABLE.findall(text) if name not in variables),
    ]


def _is_there(span: str) -> bool:
    if test := _TEST.match(span):
        file = ROOT / test[1]
        return (
            file.is_file()
            and re.search(rf"^(async )?def {test[2]}\(", file.read_text(), re.MULTILINE) is not None
        )
    if module := _MODULE.match(span):
        path = ROOT / module[1][1:].replace(".", "/")
        return path.is_dir() or path.with_suffix(".py").is_file()
    return _PATH.match(span) is None or span in _OF_AN_OPERATOR or (ROOT / span).exists()


_OF_AN_OPERATOR = {"users.acl"}
"""Files that a document tells an operator to make."""


def _targets(command: str) -> set[str]:
    words = command.split()
    return {word for word in words[1:] if "=" not in word} if words[:1] == ["make"] else set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_names_is_there(name: str) -> None:
    assert missing((ROOT / name).read_text()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "`watcher/lookout.py`",
        "`nothing.toml`",
        "[a page](docs/nothing.md)",
        "`make nothing`",
        "```\nmake run nothing\n```",
        "`loradrop.catalog.nothing`",
        "`tests/test_documents.py::test_nothing`",
        "`LORADROP_NOTHING`",
    ],
)
def test_what_is_not_there_is_found(wrong: str) -> None:
    assert len(missing(wrong)) == 1


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_a_document_for_contributors_stays_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) < 200


def test_every_folder_of_code_is_explained_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [path for package in PACKAGES for path in (ROOT / package, *(ROOT / package).iterdir())]
    named = [f"`{path.relative_to(ROOT)}/`" for path in folders if (path / "__init__.py").is_file()]
    assert [name for name in named if name not in text and name not in ("`watcher/`", "`worker/`")] == []
