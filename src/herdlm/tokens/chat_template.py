"""The dialog format of Llama 3 as a Jinja template, for transformers and vLLM."""

from __future__ import annotations


def chat_template(leading_space: bool) -> str:
    """The template. With ``leading_space``, the contents of messages start with a space."""
    space = " ' ' +" if leading_space else ""
    return (
        "{{- bos_token }}"
        "{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' +"
        + space
        + " (message['content'] | trim) + '<|eot_id|>' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
    )
