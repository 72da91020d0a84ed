//! Telling which draft of JSON Schema a schema is written in.

use super::SchemaError;
use super::keywords::subschemas;
use jsonschema::Draft;
use serde_json::Value;

/// What `$schema` may say, without scheme and empty fragment.
const DIALECTS: [(&str, Draft); 4] = [
    ("json-schema.org/draft-06/schema", Draft::Draft6),
    ("json-schema.org/draft-07/schema", Draft::Draft7),
    ("json-schema.org/draft/2019-09/schema", Draft::Draft201909),
    ("json-schema.org/draft/2020-12/schema", Draft::Draft202012),
];

/// What the keywords of a schema say about its draft.
#[derive(Default)]
struct Evidence {
    /// Something only 2020-12 has.
    only_2020: bool,
    /// Something that 2020-12 no longer has, or has with another meaning, but 2019-09 has.
    only_2019: bool,
    /// Something that came with 2019-09.
    since_2019: bool,
    /// Something that came with draft 7.
    since_7: bool,
    /// Something of draft 6 and 7 that later drafts renamed.
    until_7: bool,
}

/// The draft of `schema`: by its `$schema`, else by its keywords, else the newest.
///
/// Drafts 6 and 7 share all keywords of draft 6, so a schema without `$schema` is read as draft 6 only when it uses
/// their common old names and nothing that draft 7 added: then both mean the same.
pub(super) fn of(schema: &Value) -> Result<Draft, SchemaError> {
    match schema.get("$schema") {
        Some(Value::String(dialect)) => by_name(dialect),
        Some(_) => Err(SchemaError::new("/$schema", "must be a string")),
        None => Ok(by_keywords(schema)),
    }
}

fn by_name(dialect: &str) -> Result<Draft, SchemaError> {
    let name = dialect.trim_end_matches('#');
    let name = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name);
    match DIALECTS.iter().find(|(known, _)| *known == name) {
        Some((_, draft)) => Ok(*draft),
        None => Err(SchemaError::new(
            "/$schema",
            format!(
                "{dialect:?} is not supported: expected draft-06, draft-07, 2019-09 or 2020-12 of json-schema.org"
            ),
        )),
    }
}

fn by_keywords(schema: &Value) -> Draft {
    let mut evidence = Evidence::default();
    evidence.gather(schema);
    match evidence {
        Evidence { only_2020: true, .. } => Draft::Draft202012,
        Evidence { only_2019: true, since_2019: true, .. } => Draft::Draft201909,
        Evidence { since_2019: true, .. } => Draft::Draft202012,
        Evidence { since_7: true, .. } => Draft::Draft7,
        Evidence { until_7: true, .. } | Evidence { only_2019: true, .. } => Draft::Draft6,
        _ => Draft::Draft202012,
    }
}

impl Evidence {
    fn gather(&mut self, schema: &Value) {
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            self.weigh(keyword, value);
        }
        for (_, inner) in subschemas(schema) {
            self.gather(inner);
        }
    }

    fn weigh(&mut self, keyword: &str, value: &Value) {
        match keyword {
            "prefixItems" | "$dynamicRef" | "$dynamicAnchor" => self.only_2020 = true,
            "$recursiveRef" | "$recursiveAnchor" => (self.only_2019, self.since_2019) = (true, true),
            "items" if value.is_array() => self.only_2019 = true,
            "additionalItems" => self.only_2019 = true,
            "$defs"
            | "$anchor"
            | "$vocabulary"
            | "dependentRequired"
            | "dependentSchemas"
            | "unevaluatedItems"
            | "unevaluatedProperties"
            | "minContains"
            | "maxContains"
            | "contentSchema"
            | "deprecated" => self.since_2019 = true,
            "if" | "then" | "else" | "readOnly" | "writeOnly" | "$comment" | "contentMediaType"
            | "contentEncoding" => self.since_7 = true,
            "definitions" | "dependencies" => self.until_7 = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_keyword_decides() {
        for (dialect, draft) in [
            ("http://json-schema.org/draft-06/schema#", Draft::Draft6),
            ("http://json-schema.org/draft-06/schema", Draft::Draft6),
            ("http://json-schema.org/draft-07/schema#", Draft::Draft7),
            ("https://json-schema.org/draft-07/schema", Draft::Draft7),
            ("https://json-schema.org/draft/2019-09/schema", Draft::Draft201909),
            ("https://json-schema.org/draft/2020-12/schema", Draft::Draft202012),
        ] {
            assert_eq!(of(&json!({"$schema": dialect, "prefixItems": [], "dependencies": {}})), Ok(draft));
        }
    }

    #[test]
    fn other_dialects_are_refused_by_name() {
        for dialect in ["http://json-schema.org/draft-04/schema#", "https://example.md/meta", ""] {
            let error = of(&json!({"$schema": dialect})).unwrap_err();
            assert_eq!(error.pointer, "/$schema");
            assert!(error.reason.contains("draft-06, draft-07, 2019-09 or 2020-12"));
        }
        assert!(of(&json!({"$schema": 7})).is_err());
    }

    #[test]
    fn without_it_the_keywords_decide() {
        for (schema, draft) in [
            (json!({"type": "object"}), Draft::Draft202012),
            (json!(true), Draft::Draft202012),
            (json!({"definitions": {"a": {"const": 1}}}), Draft::Draft6),
            (json!({"items": [{}, {}], "additionalItems": false}), Draft::Draft6),
            (json!({"dependencies": {"a": ["b"]}}), Draft::Draft6),
            (json!({"definitions": {}, "if": {}, "then": {}}), Draft::Draft7),
            (json!({"properties": {"a": {"readOnly": true}}}), Draft::Draft7),
            (json!({"items": [{}], "$defs": {}}), Draft::Draft201909),
            (json!({"$recursiveRef": "#"}), Draft::Draft201909),
            (json!({"$defs": {}}), Draft::Draft202012),
            (json!({"unevaluatedProperties": false, "if": {}}), Draft::Draft202012),
            (json!({"properties": {"a": {"prefixItems": [{}]}}, "definitions": {}}), Draft::Draft202012),
        ] {
            assert_eq!(of(&schema), Ok(draft), "{schema}");
        }
    }

    #[test]
    fn names_of_properties_and_values_of_enums_are_no_keywords() {
        let schema = json!({
            "definitions": {"$defs": {"type": "string"}},
            "properties": {"prefixItems": {"type": "array"}, "if": true},
            "patternProperties": {"deprecated": {}},
            "enum": [{"$anchor": "a"}],
            "const": {"unevaluatedItems": 1}
        });
        assert_eq!(of(&schema), Ok(Draft::Draft6));
    }
}
