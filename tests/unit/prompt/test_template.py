from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rlm_runtime.errors import ModelError
from rlm_runtime.prompt import ChatTemplate, Tokenizer

MakeFolder = Callable[..., Path]

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHATML_DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are M.<|im_end|>\\n' }}"
    "{% endif %}" + CHATML
)
# Header ids, a BOS, trimmed texts; {date} is replaced.
LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if loop.first %}{date}{% endif %}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
# The system text is folded into the first user turn, the assistant is called model.
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set first = messages[0]['content'] + '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
    {{- (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + GEMMA
)
# Earlier answers lose what is between the think tags.
QWEN = """\
{%- set ns = namespace(last=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think></think>' }}{% endif %}
{%- endif %}
"""
# The system text stands in front of the last user text.
MISTRAL = """\
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{% set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if loop.last and system is defined %}
            {{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
        {%- else %}{{- '[INST] ' + message.content + '[/INST]' }}{% endif %}
    {%- else %}{{- ' ' + message.content | trim + eos_token }}{% endif %}
{%- endfor %}
"""
HARMONY = """\
{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}
{%- for message in messages %}
    {%- set role = {'system': 'developer', 'assistant': 'assistant<|channel|>final'} %}
    {{- '<|start|>' + role.get(message.role, message.role) + '<|message|>' + message.content }}
    {{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}
"""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
LLAMA_TOKENS = ("<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA_TOKENS = ("<s>", "<start_of_turn>", "<end_of_turn>")
MISTRAL_TOKENS = ("<s>", "</s>", "[INST]", "[/INST]")
HARMONY_TOKENS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>")
CONFIG = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}}


@pytest.fixture
def learn(make_folder: MakeFolder) -> Callable[..., tuple[ChatTemplate, Tokenizer]]:
    def learnt(source: str, special: Sequence[str]) -> tuple[ChatTemplate, Tokenizer]:
        folder = make_folder(source, special, config=CONFIG)
        tokenizer = Tokenizer.from_folder(folder)
        return ChatTemplate.from_folder(folder, tokenizer), tokenizer

    return learnt


Learn = Callable[..., tuple[ChatTemplate, Tokenizer]]


@pytest.mark.parametrize("source", [CHATML, CHATML_DEFAULT_SYSTEM])
def test_chatml(learn: Learn, source: str) -> None:
    template, tokenizer = learn(source, CHATML_TOKENS)
    encode = tokenizer.encode_template
    assert template.system_open == encode("<|im_start|>system\n")
    assert template.system_to_user == encode("<|im_end|>\n<|im_start|>user\n")
    assert template.user_to_assistant == encode("<|im_end|>\n<|im_start|>assistant\n")
    assert template.turn_end_ids == encode("<|im_end|>")
    assert template.assistant_to_user == encode("\n<|im_start|>user\n")
    assert (template.is_prefix_stable, template.instability, template.inexact) == (True, "", "")


def test_headers_with_a_beginning_of_sequence(learn: Learn) -> None:
    template, tokenizer = learn(LLAMA.replace("{date}", ""), LLAMA_TOKENS)
    encode = tokenizer.encode_template
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert template.system_open == encode("<s>" + head.format("system"))
    assert template.user_to_assistant == encode("<|eot_id|>" + head.format("assistant"))
    assert template.turn_end_ids == encode("<|eot_id|>")
    assert template.assistant_to_user == encode(head.format("user"))
    assert template.is_prefix_stable
    assert not template.inexact


def test_a_system_text_folded_into_the_user_turn(learn: Learn) -> None:
    template, tokenizer = learn(GEMMA, GEMMA_TOKENS)
    encode = tokenizer.encode_template
    assert template.system_open == encode("<s><start_of_turn>user\n")
    assert template.system_to_user == encode("\n\n")
    assert template.turn_end_ids == encode("<end_of_turn>")
    assert template.assistant_to_user == encode("\n<start_of_turn>user\n")
    assert template.is_prefix_stable


def test_dropped_reasoning_is_told_and_harmless(learn: Learn) -> None:
    template, tokenizer = learn(QWEN, CHATML_TOKENS)
    assert not template.is_prefix_stable
    assert template.instability == "the reasoning in earlier answers is dropped"
    assert template.assistant_to_user == tokenizer.encode_template("\n<|im_start|>user\n")


def test_a_system_text_that_moves_to_the_last_turn(learn: Learn) -> None:
    template, tokenizer = learn(MISTRAL, MISTRAL_TOKENS)
    encode = tokenizer.encode_template
    assert template.system_open == encode("<s>[INST] ")
    assert template.system_to_user == encode("\n\n")
    assert template.user_to_assistant == encode("[/INST]")
    assert template.turn_end_ids == encode("</s>")
    assert template.assistant_to_user == encode("[INST] ")
    assert template.instability == "a second turn changes what stands before the first answer"


DATE = "{{ 'Today Date: ' + strftime_now('FORMAT') + '\\n\\n' }}"


@pytest.mark.parametrize("part", ["%d %b %Y", "%Y", "%m", "%d", "%A", "%H", "%M", "%S"])
def test_a_date_or_time_is_refused(learn: Learn, part: str) -> None:
    source = LLAMA.replace("{date}", DATE.replace("FORMAT", part))
    with pytest.raises(ModelError, match=r"writes the date or time.*corrected chat_template"):
        learn(source, LLAMA_TOKENS)


def test_a_date_in_harmony_is_refused(learn: Learn) -> None:
    with pytest.raises(ModelError, match="date or time"):
        learn(HARMONY, HARMONY_TOKENS)


def test_harmony_with_the_date_pinned(learn: Learn) -> None:
    source = HARMONY.replace("strftime_now('%Y-%m-%d')", "'2025-01-01'")
    template, tokenizer = learn(source, HARMONY_TOKENS)
    encode = tokenizer.encode_template
    assert template.turn_end_ids == encode("<|end|>")
    assert template.assistant_to_user == encode("<|start|>user<|message|>")
    assert template.instability.startswith("an earlier answer does not begin where")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (NO_SYSTEM, "can't render the turns system, user: System role not supported"),
        (CHATML.replace("message['content']", "'' if loop.first else message.content"), "leaves"),
        (CHATML.replace("message['content']", "message.content | upper"), "leaves out"),
        (CHATML.replace("message['content']", "message.content | e"), "changes"),
        (CHATML.replace("message['content']", "message.content | tojson"), "changes"),
        (CHATML.replace("message['content']", "message.content | indent"), "changes"),
        (CHATML.replace("message['content']", "message.content * 2"), "repeats"),
        (CHATML.replace("in messages", "in messages | reverse"), "user text after it"),
        (CHATML.replace("{% for", "{{ messages[0].content | length }}{% for"), "depends on them"),
        (CHATML + "{{ messages[5].content + 1 }}", "can't render"),
        ("{% for %}", "syntax error"),
        (
            CHATML.replace(
                "{%- endfor",
                "{{ message.content | length if message.role == 'assistant' else '' }}{%- endfor",
            ),
            "how a turn follows an answer",
        ),
    ],
)
def test_templates_without_room_for_a_shared_prefix_are_refused(
    learn: Learn, source: str, reason: str
) -> None:
    with pytest.raises(ModelError) as caught:
        learn(source, (*CHATML_TOKENS, *GEMMA_TOKENS))
    assert reason in str(caught.value)
    assert "chat_template.jinja into a copy of its folder" in caught.value.remedy


def test_later_answers_opened_otherwise_are_told(learn: Learn) -> None:
    source = CHATML.replace(
        "{{ '<|im_start|>assistant\\n' }}",
        "{{ '<|im_start|>assistant\\n' + ('' if messages | length < 3 else 'Now: ') }}",
    )
    assert learn(source, CHATML_TOKENS)[0].instability == (
        "a later answer is opened otherwise than the first"
    )


@pytest.mark.parametrize("joined", [": Qsys", ": Quser", ".<|im_end|>\n<|im_start|>assistant"])
def test_tokens_that_differ_from_the_rendering_are_told(
    make_folder: MakeFolder, joined: str
) -> None:
    source = CHATML.replace("'\\n' + message", "': ' + message")
    folder = make_folder(source, CHATML_TOKENS, plain=[joined])
    template = ChatTemplate.from_folder(folder, Tokenizer.from_folder(folder))
    assert template.inexact.startswith("the tokens where a text meets the template differ")


def test_the_folders_own_file_goes_before_the_config(make_folder: MakeFolder) -> None:
    other = CHATML.replace("'\\n' + message", "': ' + message")
    folder = make_folder(CHATML, CHATML_TOKENS, config={"chat_template": other})
    tokenizer = Tokenizer.from_folder(folder)
    own = ChatTemplate.from_folder(folder, tokenizer)
    (folder / "chat_template.jinja").unlink()
    configured = ChatTemplate.from_folder(folder, tokenizer)
    assert own.system_open == tokenizer.encode_template("<|im_start|>system\n")
    assert configured.system_open == tokenizer.encode_template("<|im_start|>system: ")


def test_the_default_of_several_templates_is_taken(make_folder: MakeFolder) -> None:
    named = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": CHATML}]
    folder = make_folder(None, CHATML_TOKENS, config={"chat_template": named})
    template = ChatTemplate.from_folder(folder, Tokenizer.from_folder(folder))
    assert template.is_prefix_stable


def test_what_transformers_gives_templates_is_there(learn: Learn) -> None:
    source = (
        "  {% if true %}\n  {% endif %}\n"
        "{% generation %}{% endgeneration %}{% for i in [1, 2] %}{% break %}{% endfor %}"
        "{{ {'b': '<é>', 'a': none} | tojson(indent=None, sort_keys=true) }}"
        "{% if tools %}{{ 1 }}{% endif %}{{ pad_token }}" + CHATML
    )
    template, tokenizer = learn(source, CHATML_TOKENS)
    assert tokenizer.decode(template.system_open) == '{"a": null, "b": "<é>"}<|im_start|>system\n'


@pytest.mark.parametrize("expression", ["messages.append(1)", "''.__class__.__mro__"])
def test_templates_run_in_a_sandbox(learn: Learn, expression: str) -> None:
    with pytest.raises(ModelError, match="can't render the turns"):
        learn("{{ " + expression + " }}" + CHATML, CHATML_TOKENS)


def test_a_folder_without_a_template_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder(None, CHATML_TOKENS)
    with pytest.raises(ModelError, match=r"no chat template.*instruction-tuned"):
        ChatTemplate.from_folder(folder, Tokenizer.from_folder(folder))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_an_unreadable_file_is_named(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder(CHATML, CHATML_TOKENS)
    (folder / name).write_bytes(b"\xff")
    with pytest.raises(ModelError, match=name):
        ChatTemplate.from_folder(folder, Tokenizer.from_folder(folder))


def test_default_model(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(template.system_open) == "<|im_start|>system\n"
    assert tokenizer.decode(template.system_to_user) == "<|im_end|>\n<|im_start|>user\n"
    assert tokenizer.decode(template.turn_end_ids) == "<|im_end|>"
    assert template.is_prefix_stable
    assert template.inexact == ""
