//! The types and clients of a scenario, for a broker that is started for it.

use crate::scenario::{Mix, MixedType, Scenario};
use nistru::dev;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The schema that generated records are valid against, as `nistru dev` makes it.
const SCHEMA: &str = "Demo.Load.Record.Created.json";

/// Makes a directory for `nistru dev` in which `producer` may produce and consume everything of the scenario, and the
/// clients of its groups what they read.
pub fn prepare(dir: &Path, scenario: &Scenario, producer: &str) -> Result<(), String> {
    dev::scaffold(dir, 0).map_err(|problem| problem.to_string())?;
    let mix = Mix::new(scenario);
    for kind in &mix.types {
        add_type(dir, kind)?;
    }
    let all: Vec<&str> = mix.types.iter().map(|kind| kind.name.as_str()).collect();
    for (client, reads) in clients(scenario, &mix, producer, &all) {
        dev::add_client(dir, client).map_err(|problem| problem.to_string())?;
        let produces = (client == producer).then_some((scenario.load.source.as_str(), &all));
        let text = client_file(client, produces, &reads);
        write(&dir.join("registry/clients").join(format!("{client}.toml")), &text)?;
    }
    Ok(())
}

/// Each client and the types it reads.
fn clients<'s>(
    scenario: &'s Scenario,
    mix: &'s Mix,
    producer: &'s str,
    all: &[&'s str],
) -> BTreeMap<&'s str, BTreeSet<&'s str>> {
    let mut clients = BTreeMap::from([(producer, BTreeSet::from_iter(all.iter().copied()))]);
    for group in &scenario.groups {
        let types = mix.set_of(group);
        let reads = all.iter().enumerate().filter(|(index, _)| types.contains(*index)).map(|(_, name)| *name);
        clients.entry(group.client.as_deref().unwrap_or(producer)).or_default().extend(reads);
    }
    clients
}

fn add_type(dir: &Path, kind: &MixedType) -> Result<(), String> {
    let name = &kind.name;
    let file = dir.join("registry/types").join(format!("{name}.toml"));
    if file.exists() {
        return Ok(());
    }
    let rule =
        if kind.schema { format!("schema = \"{SCHEMA}\"") } else { "payloads = [\"json\"]".to_owned() };
    write(&file, &format!("name = \"{name}\"\n{rule}\n"))
}

fn client_file(client: &str, produces: Option<(&str, &Vec<&str>)>, reads: &BTreeSet<&str>) -> String {
    let id = uuid::Uuid::new_v4();
    let mut text = format!(
        "id = \"{id}\"\nname = {client:?}\nowner_idno = \"1000000000001\"\nnetworks = [\"127.0.0.0/8\", \"::1\"]\n\n\
         [[certificates]]\nfile = \"../../pki/{client}.pem\"\n"
    );
    if let Some((source, types)) = produces {
        text += &format!("\n[producer]\nsources = [{source:?}]\ntypes = {types:?}\n");
    }
    text + &format!("\n[consumer]\ntypes = {:?}\n", reads.iter().collect::<Vec<_>>())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
