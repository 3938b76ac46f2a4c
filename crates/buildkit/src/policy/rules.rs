//! The rules of source policies.

use std::collections::BTreeMap;

use lapstrake_proto::moby::buildkit::v1::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector,
};
use lapstrake_proto::pb;
use regex::Regex;

/// The changes of one source, after which a policy is taken for one without an end.
const MOST_CHANGES: usize = 20;
/// The largest regular expression, in bytes of the compiled form.
const LARGEST: usize = 10 << 20;

/// A policy that cannot be followed, or that forbids a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    /// The last rule that fits forbids the source.
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    /// The rules change a source again and again.
    #[error("too many mutations on a single source: too many operations")]
    Endless,
    /// A rule that says nothing that can be done.
    #[error("{0}")]
    Rule(String),
}

/// The policies of one build. The first one that changes a source begins the round again.
#[derive(Default)]
pub(crate) struct Policies(Vec<Vec<Ready>>);

/// A rule with its compiled patterns.
struct Ready {
    action: PolicyAction,
    name: String,
    pattern: Pattern,
    constraints: Vec<Constraint>,
    /// The name and the attributes that a source gets.
    update: Option<(String, BTreeMap<String, String>)>,
}

/// The names that a rule is for, besides its own.
enum Pattern {
    None,
    Wildcard(Regex),
    Regex(Regex),
}

/// A condition about an attribute.
struct Constraint {
    key: String,
    value: String,
    condition: Condition,
}

enum Condition {
    Equal,
    NotEqual,
    Matches(Regex),
}

impl Policies {
    /// Compiles `policies`.
    ///
    /// # Errors
    /// A rule without a selector, with a pattern that is none, or with an unknown kind of action, match or condition.
    pub(crate) fn new<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Result<Policies, PolicyError> {
        let all = policies.into_iter().map(|policy| policy.rules.iter().map(ready).collect());
        Ok(Policies(all.collect::<Result<_, _>>()?))
    }

    /// Whether there are no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// Changes `source` as the rules say; whether something was changed.
    ///
    /// # Errors
    /// The source is forbidden, or its changes have no end.
    pub(crate) fn evaluate(&self, source: &mut pb::SourceOp) -> Result<bool, PolicyError> {
        let mut changes = 0;
        while self.round(source)? {
            changes += 1;
            if changes > MOST_CHANGES {
                return Err(PolicyError::Endless);
            }
        }
        Ok(changes > 0)
    }

    fn round(&self, source: &mut pb::SourceOp) -> Result<bool, PolicyError> {
        for rules in &self.0 {
            if once(rules, source)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Follows the rules of one policy up to the first change. Of the rules that allow and forbid, the last one counts.
fn once(rules: &[Ready], source: &mut pb::SourceOp) -> Result<bool, PolicyError> {
    let mut denied = false;
    for rule in rules {
        if !rule.fits(source) {
            continue;
        }
        match rule.action {
            PolicyAction::Allow => denied = false,
            PolicyAction::Deny => denied = true,
            PolicyAction::Convert => {
                if rule.change(source)? {
                    return Ok(true);
                }
            }
        }
    }
    if denied { Err(PolicyError::Denied(source.identifier.clone())) } else { Ok(false) }
}

fn ready(rule: &Rule) -> Result<Ready, PolicyError> {
    let wrong = |text: String| PolicyError::Rule(text);
    let selector =
        rule.selector.as_ref().ok_or_else(|| wrong("invalid nil selector in policy".to_owned()))?;
    let Selector { identifier, match_type, constraints } = selector;
    let kind =
        MatchType::try_from(*match_type).map_err(|_| wrong(format!("unknown match type: {match_type}")))?;
    let pattern = match kind {
        MatchType::Exact => Pattern::None,
        MatchType::Regex => Pattern::Regex(compiled(identifier)?),
        MatchType::Wildcard if identifier.contains("**") => {
            return Err(wrong(format!(
                "failed to translate wildcard {identifier:?} to regexp: invalid wildcard: \"**\""
            )));
        }
        MatchType::Wildcard => {
            let parts: Vec<String> = identifier.split('*').map(regex::escape).collect();
            Pattern::Wildcard(compiled(&format!("^{}$", parts.join("(.*)")))?)
        }
    };
    let action = PolicyAction::try_from(rule.action)
        .map_err(|_| wrong(format!("source policy: rule {} {identifier}: unknown type", rule.action)))?;
    Ok(Ready {
        action,
        name: identifier.clone(),
        pattern,
        constraints: constraints.iter().map(constraint).collect::<Result<_, _>>()?,
        update: rule.updates.clone().map(|update| (update.identifier, update.attrs.into_iter().collect())),
    })
}

fn constraint(constraint: &AttrConstraint) -> Result<Constraint, PolicyError> {
    let AttrConstraint { key, value, condition } = constraint.clone();
    let condition = match AttrMatch::try_from(condition) {
        Ok(AttrMatch::Equal) => Condition::Equal,
        Ok(AttrMatch::Notequal) => Condition::NotEqual,
        Ok(AttrMatch::Matches) => Condition::Matches(compiled(&value)?),
        Err(_) => return Err(PolicyError::Rule(format!("unknown attr condition: {condition}"))),
    };
    Ok(Constraint { key, value, condition })
}

fn compiled(pattern: &str) -> Result<Regex, PolicyError> {
    let built = regex::RegexBuilder::new(pattern).size_limit(LARGEST).build();
    built.map_err(|error| PolicyError::Rule(format!("invalid regex {pattern:?}: {error}")))
}

impl Constraint {
    fn holds(&self, attrs: &BTreeMap<String, String>) -> bool {
        let found = attrs.get(&self.key).map_or("", String::as_str);
        match &self.condition {
            Condition::Equal => found == self.value,
            Condition::NotEqual => found != self.value,
            Condition::Matches(pattern) => pattern.is_match(found),
        }
    }
}

impl Ready {
    fn fits(&self, source: &pb::SourceOp) -> bool {
        let named = || match &self.pattern {
            _ if source.identifier == self.name => true,
            Pattern::Wildcard(pattern) | Pattern::Regex(pattern) => pattern.is_match(&source.identifier),
            Pattern::None => false,
        };
        self.constraints.iter().all(|constraint| constraint.holds(&source.attrs)) && named()
    }

    /// Puts the name and the attributes of the rule into `source`; whether that changed something.
    fn change(&self, source: &mut pb::SourceOp) -> Result<bool, PolicyError> {
        let missing = || {
            PolicyError::Rule("error mutating source policy: missing destination for convert rule".to_owned())
        };
        let (name, attrs) = self.update.as_ref().ok_or_else(missing)?;
        let name = if name.is_empty() { &self.name } else { name };
        let name = match &self.pattern {
            Pattern::None => name.clone(),
            Pattern::Regex(pattern) => pattern.replace_all(&source.identifier, name.as_str()).into_owned(),
            Pattern::Wildcard(pattern) => match pattern.captures(&source.identifier) {
                // The name may be that of the rule, which its own pattern need not fit.
                None => source.identifier.clone(),
                Some(found) => {
                    let mut made = String::new();
                    found.expand(name, &mut made);
                    made
                }
            },
        };
        let mut changed = !name.is_empty() && name != source.identifier;
        if changed {
            source.identifier = name;
        }
        for (key, value) in attrs {
            changed |= source.attrs.insert(key.clone(), value.clone()).as_ref() != Some(value);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use lapstrake_proto::moby::buildkit::v1::sourcepolicy::Update;

    use super::*;

    fn rule(action: PolicyAction, kind: MatchType, name: &str) -> Rule {
        let selector =
            Selector { identifier: name.to_owned(), match_type: kind.into(), constraints: Vec::new() };
        Rule { action: action.into(), selector: Some(selector), updates: None }
    }

    fn to(kind: MatchType, name: &str, other: &str, attrs: &[(&str, &str)]) -> Rule {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let updates = Some(Update { identifier: other.to_owned(), attrs });
        Rule { updates, ..rule(PolicyAction::Convert, kind, name) }
    }

    fn follow(rules: &[Vec<Rule>], name: &str) -> Result<(String, bool), String> {
        let policies: Vec<Policy> =
            rules.iter().map(|rules| Policy { version: 1, rules: rules.clone() }).collect();
        let policies = Policies::new(&policies).map_err(|error| error.to_string())?;
        let mut source = pb::SourceOp { identifier: name.to_owned(), ..pb::SourceOp::default() };
        let changed = policies.evaluate(&mut source).map_err(|error| error.to_string())?;
        Ok((source.identifier, changed))
    }

    #[test]
    fn the_last_rule_counts() {
        use MatchType::{Exact, Regex, Wildcard};
        use PolicyAction::{Allow, Deny};
        let denied = Err(r#"source "a://b" denied by policy: source denied by policy"#.to_owned());
        let same = Ok(("a://b".to_owned(), false));
        for (rules, result) in [
            (vec![], &same),
            (vec![rule(Deny, Exact, "a://b")], &denied),
            (vec![rule(Deny, Exact, "a://")], &same),
            (vec![rule(Deny, Wildcard, "*"), rule(Allow, Wildcard, "a://*")], &same),
            (vec![rule(Allow, Wildcard, "a://*"), rule(Deny, Regex, "^a")], &denied),
            (vec![rule(Deny, Regex, "^b")], &same),
            (vec![rule(Deny, Wildcard, "a:/*")], &denied),
            (vec![rule(Deny, Wildcard, "a.//*")], &same),
        ] {
            assert_eq!(follow(std::slice::from_ref(&rules), "a://b"), *result, "{rules:?}");
        }
        // Each policy forbids for itself.
        let two = [vec![rule(Deny, Wildcard, "*")], vec![rule(Allow, Wildcard, "*")]];
        assert_eq!(follow(&two, "a://b"), denied);
    }

    #[test]
    fn sources_are_replaced() {
        use MatchType::{Exact, Regex, Wildcard};
        let made = |rules: &[Rule], name: &str| follow(&[rules.to_vec()], name);
        let ok = |name: &str| Ok((name.to_owned(), true));
        assert_eq!(made(&[to(Exact, "a", "b", &[])], "a"), ok("b"));
        assert_eq!(
            made(&[to(Wildcard, "i://*/g:*", "i://$1/h:${2}-x", &[])], "i://r/g:1"),
            ok("i://r/h:1-x")
        );
        assert_eq!(made(&[to(Regex, "g:([0-9]+)", "h:$1", &[])], "i://g:17"), ok("i://h:17"));
        // The result of one rule meets the others.
        let chain =
            [to(Exact, "b", "c", &[]), to(Exact, "a", "b", &[]), rule(PolicyAction::Deny, Exact, "c")];
        assert!(made(&chain, "a").unwrap_err().contains("denied"));
        let circle = [to(Exact, "b", "a", &[]), to(Exact, "a", "b", &[])];
        assert!(made(&circle, "a").unwrap_err().contains("too many"));
        // Without a name only attributes change.
        assert_eq!(made(&[to(Exact, "a", "", &[("http.checksum", "x")])], "a"), ok("a"));
    }

    #[test]
    fn attributes_are_compared() {
        let with = |condition: AttrMatch, value: &str| {
            let mut rule = rule(PolicyAction::Deny, MatchType::Wildcard, "*");
            let constraint =
                AttrConstraint { key: "k".to_owned(), value: value.to_owned(), condition: condition.into() };
            rule.selector.as_mut().unwrap().constraints.push(constraint);
            let policies = Policies::new(&[Policy { version: 1, rules: vec![rule] }]).unwrap();
            let attrs = [("k".to_owned(), "value".to_owned())].into();
            policies.evaluate(&mut pb::SourceOp { identifier: "x".to_owned(), attrs }).is_err()
        };
        assert!(with(AttrMatch::Equal, "value") && !with(AttrMatch::Equal, "v"));
        assert!(with(AttrMatch::Notequal, "v") && !with(AttrMatch::Notequal, "value"));
        assert!(with(AttrMatch::Matches, "^v.*e$") && !with(AttrMatch::Matches, "^a"));
    }

    #[test]
    fn rules_that_cannot_be() {
        let bare = Rule::default();
        let no_update = rule(PolicyAction::Convert, MatchType::Exact, "a");
        for (rule, word) in [
            (bare, "nil selector"),
            (no_update, "missing destination"),
            (rule(PolicyAction::Deny, MatchType::Regex, "("), "invalid regex"),
            (rule(PolicyAction::Deny, MatchType::Wildcard, "a**"), "invalid wildcard"),
            (Rule { action: 9, ..rule(PolicyAction::Deny, MatchType::Exact, "a") }, "unknown type"),
        ] {
            let error = follow(&[vec![rule]], "a").unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
