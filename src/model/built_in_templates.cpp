// The layout of tags, line breaks and roles is the published encoder's; the explanation of the tools is in this project's words.
#include "model/built_in_templates.h"

namespace hadal {

const std::string_view deepseek_v32_template = R"jinja(
{%- set begin = '<｜begin▁of▁sentence｜>' -%}
{%- set end = '<｜end▁of▁sentence｜>' -%}
{%- set thinks = thinking | default(enable_thinking | default(false)) -%}

{%- macro tag(name) -%} <｜DSML｜{{ name }} {%- endmacro -%}
{%- macro end_tag(name) -%} </｜DSML｜{{ name }}> {%- endmacro -%}

{%- macro explain(tools) -%}
## Tools

These functions can be called to answer the user. To call them, end the reply with one block of this form:

{{ tag('function_calls') }}>
{{ tag('invoke') }} name="$FUNCTION_NAME">
{{ tag('parameter') }} name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE{{ end_tag('parameter') }}
...
{{ end_tag('invoke') }}
{{ tag('invoke') }} name="$FUNCTION_NAME2">
...
{{ end_tag('invoke') }}
{{ end_tag('function_calls') }}

A parameter of type string has string="true" and its value stands as it is, without quotes or escapes. Any other value (number, boolean, array, object) has string="false" and is written as JSON.

The results follow in a block of their own. When thinking is on, think about them before going on:

{{ tag('function_calls') }}>
...
{{ end_tag('function_calls') }}

<function_results>
...
</function_results>

<think>...what the results mean</think>

The functions, each with the JSON Schema of its parameters:

<functions>
{% for tool in tools %}
{{ (tool.function if tool.function is mapping else tool) | tojson }}
{% endfor %}
</functions>
{% endmacro -%}

{%- macro call_tools(calls) -%}
{{ '\n\n' ~ tag('function_calls') ~ '>\n' }}
{%- for call in calls -%}
  {{ tag('invoke') ~ ' name="' ~ call.function.name ~ '">\n' }}
  {%- for key, value in (call.function.arguments | fromjson).items() -%}
    {{ tag('parameter') ~ ' name="' ~ key ~ '" string="' ~ ('true' if value is string else 'false') ~ '">' }}
    {{- (value if value is string else value | tojson) ~ end_tag('parameter') ~ ('' if loop.last else '\n') }}
  {%- endfor -%}
  {{ '\n' ~ end_tag('invoke') ~ '\n' }}
{%- endfor -%}
{{ end_tag('function_calls') }}
{%- endmacro -%}

{%- set place = namespace(question=-1, calls=0, results=0) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set place.question = loop.index0 -%}{%- endif -%}
{%- endfor -%}

{{- begin -}}
{%- if tools and (not messages or messages[0].role != 'system') -%}{{ '\n\n' ~ explain(tools) }}{%- endif -%}
{%- for message in messages -%}
  {#- What opens the reply after this message: left out when no reply is asked for. -#}
  {%- set opens = '' if loop.last and not add_generation_prompt
      else '<think>' if thinks and loop.index0 >= place.question else '</think>' -%}
  {%- if message.role == 'system' -%}
    {{ message.content }}
    {%- if tools and loop.first -%}{{ '\n\n' ~ explain(tools) }}{%- endif -%}
  {%- elif message.role == 'user' -%}
    {{ '<｜User｜>' ~ message.content ~ ('<｜Assistant｜>' ~ opens if opens else '') }}
  {%- elif message.role == 'assistant' -%}
    {%- if thinks and loop.index0 > place.question -%}{{ (message.reasoning_content or '') ~ '</think>' }}{%- endif -%}
    {{ message.content or '' }}
    {%- if message.tool_calls -%}{{ call_tools(message.tool_calls) }}{%- endif -%}
    {{ end }}
    {%- set place.calls = message.tool_calls | default([], true) | length -%}
    {%- set place.results = 0 -%}
  {%- elif message.role == 'tool' -%}
    {%- set place.results = place.results + 1 -%}
    {%- if place.results > place.calls -%}
      {{ raise_exception('a tool message without a call by the assistant before it') }}
    {%- endif -%}
    {%- if place.results == 1 -%}{{ '\n\n<function_results>' }}{%- endif -%}
    {{ '\n<result>' ~ message.content ~ '</result>' }}
    {%- if place.results == place.calls -%}{{ '\n</function_results>' ~ ('\n\n' ~ opens if opens else '') }}{%- endif -%}
  {%- else -%}
    {{ raise_exception('role \'' ~ message.role ~ '\' is not known, expected system, user, assistant or tool') }}
  {%- endif -%}
{%- endfor -%}
)jinja";

}  // namespace hadal
