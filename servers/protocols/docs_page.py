"""``GET /docs``: the OpenAPI description as one page without scripts, so that no other host is asked for any."""

from __future__ import annotations

import json
from html import escape
from typing import Any

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto } td { vertical-align: top }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } pre { background: #282828 } }
"""

_ONE_IMAGE = """curl -F image=@frame.png -F instruction="push the plate" {url}act"""
_IMAGES_AND_STATE = """curl -F full_image=@agentview.png -F wrist_image=@wrist.png \\
  -F state="[-0.2, 0, 1.17, 3.14, 0, 0, 0.04, -0.04]" \\
  -F instruction="push the plate" {url}act"""


def docs_page(description: dict[str, Any], url: str) -> str:
    """Return the page as HTML. description: the OpenAPI document. url: of the server, which ends in a slash."""
    info = description["info"]
    content = description["paths"]["/act"]["post"]["requestBody"]["content"]["application/json"]
    examples = "".join(
        f"<h3>{escape(name)}</h3><pre>{escape(_shortened(example['value']))}</pre>"
        for name, example in content["examples"].items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title><style>{_STYLE}</style></head>
<body><h1>{escape(info["title"])} {escape(info["version"])}</h1>
<p>{escape(info["description"])}</p>
<table><tr><th>request<th>what it does<th>answers</tr>{"".join(_operations(description["paths"]))}</table>
<h2>POST /act</h2>
<p>The form is told by its keys. The JSON bodies:</p>
<table><tr><th>form<th>needs<th>takes</tr>{"".join(map(_form, content["schema"]["anyOf"]))}</table>
<p>A policy of one camera that reads no state:</p><pre>{escape(_ONE_IMAGE.format(url=url))}</pre>
<p>A policy of two cameras that reads the robot's state:</p><pre>{escape(_IMAGES_AND_STATE.format(url=url))}</pre>
<p>Which one this server's policy is, and what its state's parts are, is in <code>GET /metadata</code>. A server with a
token wants <code>-H "Authorization: Bearer TOKEN"</code>, too.</p>
<h2>JSON bodies</h2>{examples}
<p>The whole description is the OpenAPI document <a href="openapi.json">openapi.json</a>.</p>
</body></html>
"""


def _operations(paths: dict[str, Any]) -> list[str]:
    return [
        f"<tr><td><code>{escape(method.upper())} {escape(path)}</code><td>{escape(operation.get('description', ''))}"
        f"<td>{_answers(operation['responses'])}</tr>"
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]


def _answers(responses: dict[str, Any]) -> str:
    return "<br>".join(f"{escape(status)} {escape(answer['description'])}" for status, answer in responses.items())


def _form(schema: dict[str, Any]) -> str:
    needed = schema["required"]
    others = [name for name in schema["properties"] if name not in needed]
    return f"<tr><td>{escape(schema['title'])}<td>{escape(', '.join(needed))}<td>{escape(', '.join(others))}</tr>"


def _shortened(example: Any) -> str:
    """Return an example as JSON in which long texts, such as images in base64, are cut off."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cut(part) for key, part in value.items()}
        return f"{value[:40]}…" if isinstance(value, str) and len(value) > 60 else value

    return json.dumps(cut(example), indent=2, ensure_ascii=False)
