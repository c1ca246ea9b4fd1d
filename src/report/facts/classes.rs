//! The jobs by class: by each value of a record that few jobs differ in, such as the values of `--grid`, and by host.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use super::spread::Spread;
use crate::journal::job::{Job, text_of};

/// A name with more values than this is no class: the values differ from job to job.
const MOST_VALUES: usize = 32;
/// Names beyond this number are not looked at.
const MOST_NAMES: usize = 24;
/// A longer value or name is no class.
const LONGEST: usize = 80;
/// After this number of jobs, no names are looked for if there were no classes so far.
const ENOUGH: u64 = 10_000;
/// The most hosts that are told apart.
const MOST_HOSTS: usize = 1 << 12;

/// The jobs of one class.
#[derive(Debug, Clone, Default)]
pub(crate) struct Class {
    pub value: String,
    pub jobs: u64,
    pub failed: u64,
    /// Their wall times in ns.
    pub times: Spread,
}

impl Class {
    fn add(&mut self, job: &Job<'_>) {
        self.jobs += 1;
        self.failed += u64::from(job.has_failed());
        if let Some(ns) = job.ns {
            self.times.add(ns);
        }
    }
}

/// All classes of one name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Classes {
    pub name: String,
    pub classes: Vec<Class>,
}

/// Sorts jobs into classes.
#[derive(Debug, Default)]
pub(crate) struct Sorter {
    /// The classes by value, for each name of a record; `None` for a name with too many values.
    names: BTreeMap<String, Option<HashMap<String, Class>>>,
    order: Vec<String>,
    hosts: HashMap<String, Class>,
    jobs: u64,
}

/// The members of a record: a JSON object in its own order; another value is one member without a name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.len() < MOST_NAMES {
                        members.push((name, value));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Returns the members of a record.
pub(crate) fn members(input: &RawValue) -> Vec<(String, &RawValue)> {
    serde_json::from_str::<Members<'_>>(input.get()).map_or_else(|_| vec![(String::new(), input)], |members| members.0)
}

impl Sorter {
    pub(crate) fn add(&mut self, job: &Job<'_>) {
        self.jobs += 1;
        if let Some(host) = job.host() {
            if self.hosts.len() < MOST_HOSTS || self.hosts.contains_key(&*host) {
                let class = self.hosts.entry(host.to_string()).or_default();
                class.add(job);
            }
        }
        // When all names are known to be none, records are not looked at any more.
        if self.jobs > ENOUGH && self.names.values().all(Option::is_none) {
            return;
        }
        let Some(input) = job.fields.input else { return };
        for (name, value) in members(input) {
            self.add_value(name, value, job);
        }
    }

    fn add_value(&mut self, name: String, value: &RawValue, job: &Job<'_>) {
        if !self.names.contains_key(&name) {
            if self.names.len() >= MOST_NAMES || name.len() > LONGEST {
                return;
            }
            self.order.push(name.clone());
            self.names.insert(name.clone(), Some(HashMap::new()));
        }
        let Some(classes) = self.names.get_mut(&name) else { return };
        let Some(values) = classes else { return };
        let value = text_of(value);
        if value.len() > LONGEST || (values.len() >= MOST_VALUES && !values.contains_key(&*value)) {
            *classes = None;
            return;
        }
        values.entry(value.into_owned()).or_default().add(job);
    }

    /// Returns the classes by each name with at least two values, and those by host.
    pub(crate) fn finish(self) -> (Vec<Classes>, Classes) {
        let Sorter { mut names, order, hosts, jobs } = self;
        let mut all = Vec::new();
        for name in order {
            let Some(values) = names.remove(&name).flatten() else { continue };
            // A few jobs with as many values are no classes.
            let is_class = values.len() > 1 && (values.len() as u64) * 2 <= jobs;
            if is_class {
                let name = if name.is_empty() { "record".into() } else { name };
                all.push(Classes { name, classes: in_order(values) });
            }
        }
        (all, Classes { name: "host".into(), classes: in_order(hosts) })
    }
}

/// Returns classes by value: numbers by size, then texts.
fn in_order(classes: HashMap<String, Class>) -> Vec<Class> {
    let mut classes: Vec<_> = classes.into_iter().map(|(value, class)| Class { value, ..class }).collect();
    classes.sort_by(|a, b| {
        match (a.value.parse::<f64>(), b.value.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            (a, b) => b.is_ok().cmp(&a.is_ok()),
        }
        .then_with(|| a.value.cmp(&b.value))
    });
    classes
}
