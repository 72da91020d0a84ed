//! Which keywords of JSON Schema hold schemas: what it takes to walk a schema without mistaking a property that happens
//! to be called `items` for the keyword.

use serde_json::Value;

/// Keywords whose value is a schema or a list of schemas, in any draft from 6 on.
const PLAIN: [&str; 16] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value is an object of schemas. `dependencies` may also hold lists of names.
const NAMED: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// The schemas directly inside `schema`, definitions included, each with the keyword that holds it.
pub(super) fn subschemas(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = schema.as_object().into_iter().flatten();
    members.flat_map(|(keyword, value)| held_by(keyword, value).map(move |schema| (&**keyword, schema)))
}

fn held_by<'a>(keyword: &str, value: &'a Value) -> impl Iterator<Item = &'a Value> {
    let (plain, named) = (PLAIN.contains(&keyword), NAMED.contains(&keyword));
    let one = Some(value).filter(|_| plain);
    let listed = value.as_array().filter(|_| plain).into_iter().flatten();
    let named = value.as_object().filter(|_| named).into_iter().flat_map(|members| members.values());
    one.into_iter().chain(listed).chain(named).filter(|schema| schema.is_object() || schema.is_boolean())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_are_found_behind_keywords_and_nowhere_else() {
        let schema = json!({
            "items": {"title": "1"},
            "allOf": [{"title": "2"}, true],
            "properties": {"items": {"title": "3"}, "enum": {"title": "4"}},
            "dependencies": {"a": {"title": "5"}, "b": ["c"]},
            "enum": [{"title": "no"}],
            "const": {"items": {"title": "no"}},
            "default": {"title": "no"},
            "unknown": {"title": "no"}
        });
        let mut titles: Vec<_> =
            subschemas(&schema).filter_map(|(_, inner)| inner["title"].as_str()).collect();
        titles.sort_unstable();
        assert_eq!(titles, ["1", "2", "3", "4", "5"]);
        assert_eq!(subschemas(&schema).filter(|(keyword, _)| *keyword == "allOf").count(), 2);
        assert_eq!(subschemas(&json!(true)).count(), 0);
    }
}
