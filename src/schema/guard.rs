//! Schemas that must not run: too large, too deep, or growing without bound.
//!
//! Validation happens on an executor, so its cost has to be bounded by the sizes of schema and payload. The validator
//! remembers results for objects and arrays behind a `$ref`, so recursion is harmless; what it does not bound is a
//! schema whose references, written out, are many times its size.

use super::SchemaError;
use super::keywords::subschemas;
use serde_json::Value;
use std::collections::HashMap;

/// Values in the schema's JSON.
const NODES_MAX: usize = 50_000;
/// Nesting of its JSON.
const DEPTH_MAX: usize = 64;
/// Subschemas when every reference is replaced by what it refers to.
const EXPANDED_MAX: u64 = 20_000;

/// What a sound schema turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// It may refer to itself, and so fit payloads of any depth.
    pub recursive: bool,
    /// It offers alternatives: finding out why none fits takes every error of every one.
    pub branching: bool,
}

/// Checks that `schema` is safe to compile and run.
pub(super) fn check(schema: &Value) -> Result<Shape, SchemaError> {
    let nodes = count_nodes(schema, 1)?;
    if nodes > NODES_MAX {
        return Err(SchemaError::new("", format!("has {nodes} values, at most {NODES_MAX} are allowed")));
    }
    let places = Places::of(schema);
    let shape = Shape { recursive: false, branching: false };
    let mut survey = Survey { places, sizes: HashMap::new(), shape };
    if survey.size(schema) > EXPANDED_MAX {
        let reason = format!("is larger than {EXPANDED_MAX} subschemas when its references are written out");
        return Err(SchemaError::new("", reason));
    }
    Ok(survey.shape)
}

fn count_nodes(value: &Value, depth: usize) -> Result<usize, SchemaError> {
    if depth > DEPTH_MAX {
        return Err(SchemaError::new("", format!("is nested deeper than {DEPTH_MAX} levels")));
    }
    let inner = |total, value| Ok(total + count_nodes(value, depth + 1)?);
    match value {
        Value::Array(elements) => elements.iter().try_fold(1, inner),
        Value::Object(members) => members.values().try_fold(1, inner),
        _ => Ok(1),
    }
}

/// Where references of a schema may lead. Names are compared by their last segment only: enough to find every target,
/// and finding one too many makes the estimate larger, never smaller.
struct Places<'a> {
    root: &'a Value,
    /// Schemas that have an identifier of their own, by its last segment.
    resources: HashMap<&'a str, Vec<&'a Value>>,
    /// Schemas that have an anchor, by its name.
    anchors: HashMap<&'a str, Vec<&'a Value>>,
    /// The innermost resource around each schema, by the schema's address.
    homes: HashMap<*const Value, &'a Value>,
}

impl<'a> Places<'a> {
    fn of(root: &'a Value) -> Self {
        let mut places =
            Self { root, resources: HashMap::new(), anchors: HashMap::new(), homes: HashMap::new() };
        places.gather(root, root);
        places
    }

    fn gather(&mut self, schema: &'a Value, mut home: &'a Value) {
        let text = |name: &str| schema.get(name).and_then(Value::as_str);
        match text("$id").map(|id| (id, id.strip_prefix('#'))) {
            Some((_, Some(anchor))) => self.anchors.entry(anchor).or_default().push(schema),
            Some((id, None)) => {
                home = schema;
                self.resources.entry(last_segment(id)).or_default().push(schema);
            }
            None => {}
        }
        for anchor in ["$anchor", "$dynamicAnchor"].into_iter().filter_map(text) {
            self.anchors.entry(anchor).or_default().push(schema);
        }
        self.homes.insert(schema, home);
        for (_, inner) in subschemas(schema) {
            self.gather(inner, home);
        }
    }

    /// Everything that `reference`, found in `schema`, may refer to.
    fn targets(&self, schema: &'a Value, reference: &str) -> Vec<&'a Value> {
        let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.anchors.get(fragment).cloned().unwrap_or_default();
        }
        let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy();
        let resources = match uri {
            "" => vec![*self.homes.get(&std::ptr::from_ref(schema)).unwrap_or(&self.root)],
            uri => self.resources.get(last_segment(uri)).cloned().unwrap_or_default(),
        };
        resources.into_iter().filter_map(|resource| resource.pointer(&pointer)).collect()
    }
}

fn last_segment(uri: &str) -> &str {
    let uri = uri.split('#').next().unwrap_or_default();
    uri.rsplit(['/', ':']).next().unwrap_or_default()
}

/// A walk over a schema in which each subschema is measured once.
struct Survey<'a> {
    places: Places<'a>,
    /// Size by address of the subschema; `None` while it is being measured.
    sizes: HashMap<*const Value, Option<u64>>,
    shape: Shape,
}

impl<'a> Survey<'a> {
    /// Subschemas in `schema`, itself included, references written out; a reference back to where the walk comes
    /// from counts as one.
    fn size(&mut self, schema: &'a Value) -> u64 {
        match self.sizes.get(&std::ptr::from_ref(schema)) {
            Some(Some(size)) => return *size,
            Some(None) => {
                self.shape.recursive = true;
                return 1;
            }
            None => self.sizes.insert(schema, None),
        };
        let mut size = 1_u64;
        for (keyword, inner) in subschemas(schema) {
            self.shape.branching |= matches!(keyword, "anyOf" | "oneOf");
            // Definitions cost nothing unless something refers to them.
            if !matches!(keyword, "$defs" | "definitions") {
                size = size.saturating_add(self.size(inner));
            }
        }
        size = size.saturating_add(self.referred(schema));
        self.sizes.insert(schema, Some(size));
        size
    }

    /// Size of what `schema` refers to. A target that the schema does not contain is a published meta-schema, which is
    /// recursive, or unknown, which compiling finds out.
    fn referred(&mut self, schema: &'a Value) -> u64 {
        let mut total = 0_u64;
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(Value::String(reference)) = schema.get(keyword) else {
                continue;
            };
            let targets = self.places.targets(schema, reference);
            self.shape.recursive |= targets.is_empty() || keyword != "$ref";
            let largest = targets.into_iter().map(|target| self.size(target)).max();
            total = total.saturating_add(largest.unwrap_or(0));
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(schema: &Value) -> String {
        check(schema).unwrap_err().reason
    }

    /// `levels` definitions, each of which refers to the next one `width` times by `reference`.
    fn doubling(levels: usize, width: usize, keyword: &str, reference: impl Fn(usize) -> String) -> Value {
        let mut schema = json!({"$ref": reference(0), "$defs": {}});
        for level in 0..levels {
            let next: Vec<_> = (0..width).map(|_| json!({keyword: reference(level + 1)})).collect();
            schema["$defs"][format!("d{level}")] =
                json!({"$anchor": format!("d{level}"), "$id": format!("d{level}"), "allOf": next});
        }
        schema["$defs"][format!("d{levels}")] =
            json!({"$anchor": format!("d{levels}"), "$id": format!("d{levels}")});
        schema
    }

    #[test]
    fn references_that_multiply_are_refused_however_they_are_written() {
        type Reference = fn(usize) -> String;
        let by: [(&str, Reference); 4] = [
            ("$ref", |level| format!("#d{level}")),
            ("$dynamicRef", |level| format!("#d{level}")),
            ("$ref", |level| format!("d{level}")),
            ("$ref", |level| format!("https://example.md/d{level}#")),
        ];
        for (keyword, reference) in by {
            assert!(refusal(&doubling(20, 2, keyword, reference)).contains("written out"), "{keyword}");
            assert!(check(&doubling(8, 2, keyword, reference)).is_ok(), "{keyword}");
        }
    }

    #[test]
    fn pointers_are_followed_inside_their_resource() {
        let mut schema = json!({"$ref": "#/definitions/d0", "definitions": {"d20": true}});
        for level in 0..20 {
            let next = json!({"$ref": format!("#/definitions/d{}", level + 1)});
            schema["definitions"][format!("d{level}")] = json!({"properties": {"a": next, "b%": next}});
        }
        assert!(refusal(&schema).contains("written out"));
        let inner = json!({"$ref": "inner", "definitions": {"x": {"$id": "inner", "allOf": [{"$ref": "#/definitions/a"}], "definitions": {"a": {}}}}});
        assert_eq!(check(&inner), Ok(Shape { recursive: false, branching: false }));
    }

    #[test]
    fn recursion_is_allowed_and_noticed() {
        for schema in [
            json!({"properties": {"next": {"$ref": "#"}}}),
            json!({"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
            json!({"$recursiveAnchor": true, "items": {"$recursiveRef": "#"}}),
            json!({"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}}),
            json!({"$ref": "http://json-schema.org/draft-07/schema#"}),
        ] {
            assert_eq!(check(&schema), Ok(Shape { recursive: true, branching: false }), "{schema}");
        }
        let plain = json!({"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/a"}}});
        assert_eq!(check(&plain), Ok(Shape { recursive: false, branching: false }));
    }

    #[test]
    fn alternatives_are_noticed_wherever_they_are_used() {
        let used = json!({"$defs": {"a": {"oneOf": [{}]}}, "items": {"$ref": "#/$defs/a"}});
        assert_eq!(check(&used), Ok(Shape { recursive: false, branching: true }));
        let property = json!({"properties": {"anyOf": {"type": "array"}}});
        assert_eq!(check(&property), Ok(Shape { recursive: false, branching: false }));
    }

    #[test]
    fn size_and_nesting_are_limited() {
        let wide = json!({"enum": vec![1; NODES_MAX]});
        assert!(refusal(&wide).contains("at most 50000"));
        let deep = (0..DEPTH_MAX).fold(json!({}), |inner, _| json!({"not": inner}));
        assert!(refusal(&deep).contains("deeper than 64"));
    }
}
