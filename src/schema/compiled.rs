//! One schema, compiled, and what payloads do wrong by it.

use super::guard::{self, Shape};
use super::view::{Taped, View};
use super::{Mismatch, SchemaError, draft};
use crate::event::json::Value;
use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator};
use std::error::Error;

/// Mismatches reported of one payload.
const MISMATCHES_MAX: usize = 8;
/// A payload of more values gets its first mismatch only, and none by a schema with alternatives: gathering all takes
/// time and memory for each.
const EXPLAINED_NODES: usize = 2000;
/// By a schema that refers to itself, a payload nested deeper gets no explanation: finding one may take time that
/// doubles with each level.
const EXPLAINED_DEPTH: usize = 8;
/// Steps back that one match of a pattern may take. Patterns without look-around and back-references take none.
const BACKTRACK_MAX: usize = 10_000;
/// Memory of one compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A schema ready to run.
pub(super) struct Compiled {
    validator: Validator<Taped>,
    shape: Shape,
}

impl Compiled {
    /// Checks and compiles `schema`.
    pub fn new(schema: &serde_json::Value) -> Result<Self, SchemaError> {
        let draft = draft::of(schema)?;
        let shape = guard::check(schema)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(BACKTRACK_MAX)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options_for::<Taped>()
            .with_draft(draft)
            .with_retriever(Offline)
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| SchemaError::new(error.instance_path().as_str(), reason(&error)))?;
        Ok(Self { validator, shape })
    }

    /// What `data` does wrong; nothing if it fits.
    pub fn check(&self, data: Value<'_>) -> Vec<Mismatch> {
        // The plain question remembers what recursive schemas ask repeatedly; the explanation does not.
        if self.validator.is_valid(View(data)) {
            return Vec::new();
        }
        match self.explain(data) {
            unexplained if unexplained.is_empty() => vec![whole("does not fit the schema")],
            mismatches => mismatches,
        }
    }

    /// Where and why `data`, which does not fit, does not fit.
    fn explain(&self, data: Value<'_>) -> Vec<Mismatch> {
        let small = data.nodes() <= EXPLAINED_NODES;
        if self.shape.recursive && data.depth() > EXPLAINED_DEPTH {
            vec![whole("does not fit the schema, and is nested too deeply to say where")]
        } else if small {
            self.validator
                .iter_errors(View(data))
                .take(MISMATCHES_MAX)
                .map(|error| mismatch(&error))
                .collect()
        } else if self.shape.branching {
            vec![whole("does not fit the schema, and is too large to say where")]
        } else {
            self.validator.validate(View(data)).err().iter().map(mismatch).collect()
        }
    }
}

fn whole(reason: &str) -> Mismatch {
    Mismatch { pointer: String::new(), reason: reason.to_owned() }
}

fn mismatch(error: &ValidationError<'_>) -> Mismatch {
    Mismatch { pointer: error.instance_path().as_str().to_owned(), reason: reason(error) }
}

/// The validator's own words, without the value it found: that can be long, and private.
fn reason(error: &ValidationError<'_>) -> String {
    let text = error.masked_with("the value").to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Refuses every document that the schema refers to and does not contain.
struct Offline;

impl Retrieve for Offline {
    fn retrieve(&self, uri: &Uri<String>) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        Err(format!("{uri} is not part of the schema, and nothing is fetched").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::Tape;
    use serde_json::json;

    fn check(schema: serde_json::Value, data: &str) -> Vec<Mismatch> {
        let compiled = Compiled::new(&schema).unwrap();
        compiled.check(Tape::default().read_all(data.as_bytes()).unwrap().root())
    }

    fn fits(schema: serde_json::Value, data: &str) -> bool {
        check(schema, data).is_empty()
    }

    #[test]
    fn every_draft_is_read_in_its_own_way() {
        let tuple = json!({"items": [{"type": "string"}], "additionalItems": false});
        for dialect in [
            "http://json-schema.org/draft-06/schema#",
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2019-09/schema",
        ] {
            let mut schema = tuple.clone();
            schema["$schema"] = dialect.into();
            assert!(fits(schema.clone(), r#"["a"]"#), "{dialect}");
            assert!(!fits(schema.clone(), r#"["a",1]"#) && !fits(schema, "[1]"), "{dialect}");
        }
        let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "string"}], "items": false});
        assert!(
            fits(schema.clone(), r#"["a"]"#) && !fits(schema.clone(), r#"["a",1]"#) && !fits(schema, "[1]")
        );
        let conditional = json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}});
        for (dialect, heeded) in [
            ("http://json-schema.org/draft-06/schema#", false),
            ("http://json-schema.org/draft-07/schema#", true),
        ] {
            let mut schema = conditional.clone();
            schema["$schema"] = dialect.into();
            assert_eq!(fits(schema, r#"{"a":1}"#), !heeded, "{dialect}");
        }
        let unevaluated = json!({"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false});
        assert!(fits(unevaluated.clone(), r#"{"a":1}"#) && !fits(unevaluated, r#"{"b":1}"#));
    }

    #[test]
    fn formats_are_checked_where_the_draft_says_so() {
        let date = |dialect: &str| json!({"$schema": dialect, "format": "date"});
        for dialect in ["http://json-schema.org/draft-06/schema#", "http://json-schema.org/draft-07/schema#"]
        {
            assert!(
                fits(date(dialect), r#""2024-02-29""#) && !fits(date(dialect), r#""2023-02-29""#),
                "{dialect}"
            );
        }
        for dialect in
            ["https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema"]
        {
            assert!(fits(date(dialect), r#""tomorrow""#), "{dialect}");
        }
    }

    #[test]
    fn numbers_mean_what_they_say_beyond_doubles() {
        assert!(fits(json!({"type": "integer"}), "1.0") && fits(json!({"type": "integer"}), "1e2"));
        assert!(fits(json!({"type": "integer"}), "123456789012345678901234567890"));
        assert!(!fits(json!({"type": "integer"}), "1.5"));
        assert!(!fits(json!({"maximum": 10}), "1e999") && !fits(json!({"minimum": 10}), "-1e999"));
        assert!(fits(json!({"maximum": 18446744073709551615_u64}), "18446744073709551615"));
        assert!(!fits(json!({"maximum": 18446744073709551614_u64}), "18446744073709551615"));
        assert!(fits(json!({"const": 1}), "1.0") && fits(json!({"enum": [-0.0]}), "0"));
        assert!(fits(json!({"multipleOf": 0.01}), "4.02") && !fits(json!({"multipleOf": 0.01}), "4.025"));
    }

    #[test]
    fn escapes_count_as_what_they_mean() {
        assert!(fits(json!({"maxLength": 1}), r#""\ud83d\ude00""#));
        assert!(fits(json!({"const": "aé"}), r#""\u0061\u00e9""#));
        assert!(fits(json!({"required": ["a/b"]}), r#"{"a\/b":1}"#));
        assert!(fits(json!({"propertyNames": {"pattern": "^a"}}), r#"{"\u0061x":1}"#));
        assert!(!fits(json!({"propertyNames": {"maxLength": 1}}), r#"{"ab":1}"#));
        assert!(fits(json!({"patternProperties": {"^a": {"type": "null"}}}), r#"{"ab":null,"b":1}"#));
        assert!(!fits(json!({"uniqueItems": true}), r#"["a","\u0061"]"#));
        assert!(!fits(json!({"uniqueItems": true}), r#"[{"a":1,"b":[2]},{"b":[2.0],"a":1}]"#));
        assert!(fits(
            json!({"contains": {"const": {"a": [null, true, false]}}}),
            r#"[{"a":[null,true,false]}]"#
        ));
    }

    #[test]
    fn mismatches_point_into_the_data_and_do_not_quote_it() {
        let schema =
            json!({"properties": {"a/b": {"items": {"type": "integer"}}, "c": {"enum": ["x", "y"]}}});
        let mismatches = check(schema, r#"{"a/b":[1,"secret"],"c":"secret"}"#);
        let pointers: Vec<_> = mismatches.iter().map(|mismatch| mismatch.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a~1b/1", "/c"]);
        assert!(mismatches.iter().all(|mismatch| !mismatch.reason.contains("secret")), "{mismatches:?}");
        assert!(mismatches[1].reason.contains("\"x\""), "{mismatches:?}");
    }

    #[test]
    fn mismatches_are_limited_and_large_data_gets_the_first() {
        let schema = json!({"items": {"type": "integer"}});
        let array = |length| format!("[{}]", vec!["null"; length].join(","));
        assert_eq!(check(schema.clone(), &array(50)).len(), MISMATCHES_MAX);
        let mismatches = check(schema, &array(5000));
        assert_eq!((mismatches.len(), mismatches[0].pointer.as_str()), (1, "/0"));
        let alternatives = json!({"anyOf": [{"items": {"type": "integer"}}, {"items": {"type": "string"}}]});
        assert!(!check(alternatives.clone(), &array(50))[0].reason.contains("too large"));
        assert!(check(alternatives, &array(5000))[0].reason.contains("too large"));
    }

    #[test]
    fn a_schema_that_leaves_its_document_is_refused_without_being_fetched() {
        for reference in
            ["https://example.md/other.json", "other.json", "file:///etc/passwd", "#/$defs/none", "#none"]
        {
            let error = verify_error(json!({"properties": {"a": {"$ref": reference}}}));
            assert!(!error.reason.is_empty(), "{reference}");
        }
        let error = verify_error(json!({"$ref": "https://example.md/other.json"}));
        assert!(error.to_string().contains("example.md/other.json"), "{error}");
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_its_place() {
        for (schema, pointer) in [
            (json!({"type": "strin"}), "/type"),
            (json!({"properties": {"a": {"minimum": "1"}}}), "/properties/a/minimum"),
            (json!({"$schema": "http://json-schema.org/draft-07/schema#", "required": "a"}), "/required"),
            (json!({"pattern": "("}), "/pattern"),
            (json!({"exclusiveMinimum": true}), "/exclusiveMinimum"),
        ] {
            assert_eq!(verify_error(schema.clone()).pointer, pointer, "{schema}");
        }
        for schema in [json!(7), json!("x"), json!([]), json!(null)] {
            verify_error(schema);
        }
    }

    fn verify_error(schema: serde_json::Value) -> SchemaError {
        Compiled::new(&schema).err().unwrap_or_else(|| panic!("{schema} was taken"))
    }

    #[test]
    fn published_metaschemas_need_no_fetching() {
        let schema = json!({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"s": {"$ref": "http://json-schema.org/draft-07/schema#"}}});
        assert!(fits(schema.clone(), r#"{"s":{"type":"string"}}"#) && !fits(schema, r#"{"s":{"type":1}}"#));
    }

    #[test]
    fn patterns_that_backtrack_without_end_are_cut_short() {
        let schema = json!({"properties": {"a": {"pattern": "^(?=a)(a|aa)+$(?<!b)\\1"}}});
        let data = format!(r#"{{"a":"{}!"}}"#, "a".repeat(30_000));
        assert!(!fits(schema, &data));
        let linear = json!({"pattern": "^(a+)+$"});
        assert!(!fits(linear, &format!("\"{}!\"", "a".repeat(30_000))));
    }

    #[test]
    fn recursive_schemas_stay_fast_on_deep_data() {
        let branch = json!({"properties": {"l": {"$ref": "#/$defs/n"}, "r": {"$ref": "#/$defs/n"}}});
        let node = json!({"type": "object", "oneOf": [
            {"allOf": [branch.clone(), {"required": ["x"]}]}, {"allOf": [branch.clone(), {"not": {"required": ["x"]}}]}]});
        let schema = json!({"$defs": {"n": node}, "$ref": "#/$defs/n"});
        let deep = (0..60).fold("{}".to_owned(), |inner, _| format!(r#"{{"l":{inner}}}"#));
        assert!(fits(schema.clone(), &deep));
        let mismatches = check(schema, &deep.replace("{}", r#"{"l":7}"#));
        assert!(mismatches[0].reason.contains("nested too deeply"), "{mismatches:?}");
    }
}
