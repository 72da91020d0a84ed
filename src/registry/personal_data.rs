//! `[[consumer.personal_data]]`: which events hold personal data for a client, and what the record of a transfer says.

use super::model::Consumer;
use crate::audit::rule::{Rule, RuleError, Written};
use crate::config::audit::{report, written};
use crate::config::document::{Document, Located, Section};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Reads the rules of a consumer of `types`. `defaults` is what `[audit]` says.
pub fn rules(
    document: &Document<'_>,
    sections: Vec<Section<'_, '_>>,
    types: &BTreeSet<String>,
    defaults: &Written,
) -> Vec<Arc<Rule>> {
    sections.into_iter().filter_map(|section| rule(document, section, types, defaults)).collect()
}

fn rule(
    document: &Document<'_>,
    mut section: Section<'_, '_>,
    consumed: &BTreeSet<String>,
    defaults: &Written,
) -> Option<Arc<Rule>> {
    let types: Vec<Located<String>> = section.non_empty("types").unwrap_or_default();
    for named in types.iter().filter(|named| !consumed.contains(&named.value)) {
        document.report(named.at, not_consumed(&named.value));
    }
    let sources = section.non_empty("sources").unwrap_or_default();
    let types = types.into_iter().map(|named| named.value).collect();
    let rule = Written { types, sources, ..written(&mut section) }.compile(defaults);
    let rule = rule.map_err(|errors| report(document, &section, errors)).ok();
    section.finish();
    rule.map(Arc::new)
}

fn not_consumed(event_type: &str) -> String {
    format!("the client does not consume the event type \"{event_type}\"; expected one of its `types`")
}

impl Consumer {
    /// The rules of a consumer of `types` that were written somewhere else than in TOML. The errors name the number of the
    /// rule, from 0.
    pub fn compile_rules(
        written: &[Written],
        types: &BTreeSet<String>,
        defaults: &Written,
    ) -> Result<Vec<Arc<Rule>>, Vec<(usize, RuleError)>> {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for (number, written) in written.iter().enumerate() {
            let foreign = written.types.iter().filter(|named| !types.contains(*named));
            errors
                .extend(foreign.map(|named| {
                    (number, RuleError { field: "types", at: 0, message: not_consumed(named) })
                }));
            match written.compile(defaults) {
                Ok(rule) => rules.push(Arc::new(rule)),
                Err(found) => errors.extend(found.into_iter().map(|error| (number, error))),
            }
        }
        if errors.is_empty() { Ok(rules) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::rule::{Missing, Origin};
    use std::path::Path;

    fn read(text: &str) -> Result<Vec<Arc<Rule>>, Vec<String>> {
        let types = ["A.B.C.D".to_owned()].into();
        let defaults = Written { legal_basis: Some("Law 133".into()), ..Written::default() };
        let read = |document: &Document<'_>, mut top: Section<'_, '_>| {
            let rules = rules(document, top.sections("personal_data"), &types, &defaults);
            top.finish();
            Some(rules)
        };
        Document::read(Path::new("f"), text, read)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_are_read_in_their_order_and_completed_by_the_defaults() {
        let rules = read(
            "[[personal_data]]\ntypes = [\"A.B.C.D\"]\nlegal_reason = \"$.reason\"\nsubject = \"$.idnp\"\n\
             subject_type = \"person\"\nmissing = \"withhold\"\n\
             [[personal_data]]\nsources = [\"urn:a\"]\nlegal_basis = \"Law 2\"\nlegal_reason = \"r\"\n\
             subject = \"$..idnp\"\nsubject_type = \"person\"\n",
        )
        .unwrap();
        assert_eq!(rules[0].legal_basis, Origin::Constant("Law 133".into()));
        assert_eq!((rules[0].missing, rules[1].missing), (Missing::Withhold, Missing::Deliver));
        assert!(rules[1].types.is_empty() && rules[1].sources.contains("urn:a") && rules[1].has_query());
    }

    #[test]
    fn mistakes_are_reported_where_they_stand() {
        let problems = read(
            "[[personal_data]]\ntypes = [\"X.B.C.D\"]\nlegal_reason = \"r\"\nsubject = \"$.id[\"\nmissing = \"drop\"\n",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert!(problems[0].starts_with("f:1:1: the rule has no `subject_type`"), "{problems:#?}");
        assert!(problems[1].starts_with("f:2:10: the client does not consume the event type \"X.B.C.D\""));
        assert!(problems[2].starts_with("f:4:16: \"$.id[\" is no JSON path"), "{problems:#?}");
    }

    #[test]
    fn rules_from_json_are_checked_in_the_same_way() {
        let written: Vec<Written> = serde_json::from_str(
            r#"[{"types":["A.B.C.D"],"legal_basis":"b","legal_reason":"r","subject":"$.i","subject_type":"t"},
                {"types":["X.B.C.D"],"legal_basis":"b","subject":"i","subject_type":"t"}]"#,
        )
        .unwrap();
        let types = ["A.B.C.D".to_owned()].into();
        let defaults = Written::default();
        assert_eq!(Consumer::compile_rules(&written[..1], &types, &defaults).unwrap().len(), 1);
        let errors = Consumer::compile_rules(&written, &types, &defaults).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|(number, error)| (*number, error.field)).collect();
        assert_eq!(fields, [(1, "types"), (1, "legal_reason"), (1, "subject")]);
    }
}
