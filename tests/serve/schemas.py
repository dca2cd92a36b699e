"""Values that a JSON schema allows, for the part of JSON schema that our OpenAPI document uses."""

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FAR = 2**40


def values(schema, known):
    """A strategy for ``schema``; ``known`` are the document's named schemas."""
    if "$ref" in schema:
        return st.deferred(lambda: values(known[schema["$ref"].rsplit("/", 1)[1]], known))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([values(each, known) for each in schema["anyOf"]])
    kinds = {
        "object": objects,
        "array": arrays,
        "string": strings,
        "integer": integers,
        "number": numbers,
        "boolean": lambda schema, known: st.booleans(),
        "null": lambda schema, known: st.none(),
        None: lambda schema, known: JSON,
    }
    return kinds[schema.get("type")](schema, known)


def objects(schema, known):
    properties = schema.get("properties", {})
    if not properties:
        inner = schema.get("additionalProperties", True)
        inner = JSON if isinstance(inner, bool) else values(inner, known)
        names = st.text("0123456789", min_size=1, max_size=3) | st.text(max_size=8)
        return st.dictionaries(names, inner, max_size=3)
    required = {name: values(properties[name], known) for name in schema.get("required", [])}
    optional = {name: values(each, known) for name, each in properties.items() if name not in required}
    if not optional:
        return st.fixed_dictionaries(required)
    # A few at a time: of many that must go together hardly any would.
    few = st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True)
    return few.flatmap(lambda names: st.fixed_dictionaries(required | {name: optional[name] for name in names}))


def arrays(schema, known):
    least = schema.get("minItems", 0)
    items = values(schema.get("items", {}), known)
    return st.lists(items, min_size=least, max_size=min(schema.get("maxItems", 4), least + 3))


def strings(schema, known):
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    return st.text(max_size=min(schema.get("maxLength", 30), 30))


def integers(schema, known):
    low = schema.get("minimum", schema.get("exclusiveMinimum", -FAR - 1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", FAR + 1) - 1)
    return st.integers(int(low), int(high)) | st.integers(int(low), min(int(low) + 9, int(high)))


def numbers(schema, known):
    return st.floats(
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
        exclude_min="exclusiveMinimum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )
