//! A registry in files: `clients/*.toml`, `types/*.toml`, `schemas/*.json`, read and checked as a whole.
//!
//! One run reports every problem of every file, so that an operator does not correct one mistake after another.

use super::client_file::Clients;
use super::model::Registry;
use super::type_file::{Schemas, Types};
use crate::audit::rule::Written;
use crate::config::{Problem, Storage};
use crate::schema::SchemaProblem;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A registry and the files behind it.
#[derive(Debug)]
pub struct Loaded {
    /// The registry. Its types have no ids yet, see [`Registry::with_type_ids`].
    pub registry: Registry,
    /// The schema file of each event type that has one, for problems found when the schemas are compiled.
    pub schema_files: BTreeMap<String, PathBuf>,
    /// The certificate files that clients name.
    pub certificate_files: BTreeSet<PathBuf>,
}

impl Loaded {
    /// What is wrong with schemas, as problems of their files.
    pub fn schema_problems(&self, found: &[SchemaProblem]) -> Vec<Problem> {
        let problem = |found: &SchemaProblem| {
            let named = self.schema_files.get(&found.event_type);
            let file = named.cloned().unwrap_or_else(|| PathBuf::from(&found.event_type));
            Problem::of_file(&file, format!("the schema cannot be used: {found}"))
        };
        found.iter().map(problem).collect()
    }
}

/// Reads the registry in `dir`. `storage` bounds the limits that a client or a type may set, `defaults` is what rules on personal
/// data leave open.
///
/// Reads files and takes as long as that takes: not on an executor.
pub fn load(dir: &Path, storage: &Storage, defaults: &Written) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let types = types(dir, storage, &mut problems);
    let mut clients = Clients::default();
    for (file, text) in texts(&dir.join("clients"), "toml", &mut problems) {
        problems.extend(clients.add(&file, &text, &types, storage, defaults).err().unwrap_or_default());
    }
    loaded(dir, types, clients, problems)
}

/// The same of a registry whose clients come from elsewhere.
pub fn load_without_clients(dir: &Path, storage: &Storage) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let types = types(dir, storage, &mut problems);
    loaded(dir, types, Clients::default(), problems)
}

fn types(dir: &Path, storage: &Storage, problems: &mut Vec<Problem>) -> Types {
    let schemas = schemas(dir, problems);
    let mut types = Types::default();
    for (file, text) in texts(&dir.join("types"), "toml", problems) {
        problems.extend(types.add(&file, &text, &schemas, storage).err().unwrap_or_default());
    }
    types
}

fn loaded(
    dir: &Path,
    types: Types,
    clients: Clients,
    problems: Vec<Problem>,
) -> Result<Loaded, Vec<Problem>> {
    if !problems.is_empty() {
        return Err(problems);
    }
    let path_of = |(name, file)| (name, dir.join("schemas").join(file));
    Ok(Loaded {
        registry: Registry::new(types.types, clients.clients),
        schema_files: types.schema_files.into_iter().map(path_of).collect(),
        certificate_files: clients.certificate_files,
    })
}

fn schemas(dir: &Path, problems: &mut Vec<Problem>) -> Schemas {
    let mut schemas = Schemas::new();
    for (file, text) in texts(&dir.join("schemas"), "json", problems) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let schema = schema(&file, &text).map_err(|problem| problems.push(problem)).ok();
        schemas.insert(name, schema);
    }
    schemas
}

/// A schema is an object or a boolean (JSON Schema 2020-12 core, 4.3).
fn schema(file: &Path, text: &str) -> Result<serde_json::Value, Problem> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Problem::of_json(file, &error))?;
    match json.is_object() || json.is_boolean() {
        true => Ok(json),
        false => Err(Problem::of_file(file, "expected a JSON Schema, which is a JSON object")),
    }
}

/// The files of `dir` with that extension and their texts, in the order of their names. Hidden files are
/// skipped: editors and deployment tools leave such behind.
fn texts(dir: &Path, extension: &str, problems: &mut Vec<Problem>) -> Vec<(PathBuf, String)> {
    let mut files = match listed(dir) {
        Ok(files) => files,
        Err(error) => {
            let message =
                format!("expected a directory of .{extension} files, but it cannot be read: {error}");
            problems.push(Problem::of_file(dir, message));
            return Vec::new();
        }
    };
    files.retain(|file| file.extension().is_some_and(|found| found == extension) && !is_hidden(file));
    files.sort();
    let read = |file: PathBuf| match text(&file) {
        Ok(text) => Some((file, text)),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    files.into_iter().filter_map(read).collect()
}

fn listed(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn is_hidden(file: &Path) -> bool {
    file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn text(file: &Path) -> Result<String, Problem> {
    let bytes = fs::read(file).map_err(|error| Problem::of_file(file, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Problem::at(file, &String::from_utf8_lossy(error.as_bytes()), valid, "expected UTF-8 text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClientId;
    use crate::registry::model::{CertificateKey, PayloadKinds, Rates};

    const CLIENT: &str = r#"
id = "dc4dd888-e0a8-428e-a6be-82828800b1f5"
name = "A"
owner_idno = "1002600024700"
networks = ["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"]
[[certificates]]
issuer = "CN=ca, O=x"
serial = "0A:0b"
[producer]
sources = ["urn:a"]
types = ["A.B.C.D"]
[limits]
request_bytes_max = "256 KiB"
events_per_second_max = 100
bytes_per_second_max = "1 MiB"
connections_max = 10
instances_max = 4
"#;

    struct Dir(tempfile::TempDir);

    impl Dir {
        /// `files` are (path, content).
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["clients", "types", "schemas"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            for (path, content) in files {
                fs::write(dir.path().join(path), content).unwrap();
            }
            Self(dir)
        }

        fn load(&self) -> Result<Loaded, Vec<Problem>> {
            load(self.0.path(), &Storage::new("data".into()), &Written::default())
        }

        /// The problems, without the directory's own path.
        fn problems(&self) -> Vec<String> {
            let root = format!("{}/", self.0.path().display());
            let problems = self.load().unwrap_err();
            problems.iter().map(|problem| problem.to_string().replace(&root, "")).collect()
        }
    }

    fn assert_parts(problems: &[String], parts: &[&str]) {
        assert_eq!(problems.len(), parts.len(), "{problems:#?}");
        for (problem, part) in problems.iter().zip(parts) {
            assert!(problem.contains(part), "{part} not in {problem}");
        }
    }

    #[test]
    fn a_registry_is_read_with_everything_its_files_say() {
        let dir = Dir::new(&[
            ("clients/a.toml", CLIENT),
            ("clients/.a.toml.swp", "not for us"),
            ("clients/notes.txt", "not for us"),
            ("types/t.toml", "name = \"A.B.C.D\"\nschema = \"s.json\"\ndeduplicate_for = \"10m\"\n"),
            ("schemas/s.json", "{\"type\": \"object\"}"),
        ]);
        let loaded = dir.load().unwrap();
        let registry = &loaded.registry;
        let key = CertificateKey { issuer: "CN=ca,O=x".into(), serial: "a0b".into() };
        let client = registry.client_of(&key).unwrap();
        assert_eq!(client.id, ClientId(*uuid::uuid!("dc4dd888-e0a8-428e-a6be-82828800b1f5").as_bytes()));
        assert_eq!(client.networks.len(), 3);
        assert!(client.enabled && client.consumer.is_none());
        let limits = client.limits;
        assert_eq!(limits.request_bytes_max, Some(256 * 1024));
        let rates = Rates { events_per_second_max: Some(100), bytes_per_second_max: Some(1 << 20) };
        assert_eq!((limits.rates, limits.connections_max, limits.instances_max), (rates, Some(10), Some(4)));
        let event_type = &registry.type_by_name["A.B.C.D"];
        assert_eq!(event_type.dedup_window_s, 600);
        assert_eq!(event_type.payloads, PayloadKinds { json: true, text: false, binary: false });
        assert_eq!(event_type.schema.as_ref().unwrap().json["type"], "object");
        assert_eq!(loaded.schema_files["A.B.C.D"], dir.0.path().join("schemas/s.json"));
    }

    #[test]
    fn an_empty_registry_is_a_registry() {
        assert!(Dir::new(&[]).load().unwrap().registry.clients.is_empty());
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let dir = Dir::new(&[]);
        fs::remove_dir(dir.0.path().join("types")).unwrap();
        assert_parts(&dir.problems(), &["types: expected a directory of .toml files"]);
    }

    #[test]
    fn every_mistake_of_a_client_is_found_in_one_run() {
        let dir = Dir::new(&[(
            "clients/a.toml",
            "id = \"7\"\nowner_idno = \"123\"\nnetworks = [\"10.0.0.1/8\", \"::ffff:10.0.0.1\", \"x\"]\n\
             enabled = \"yes\"\n[[certificates]]\nissuer = \"nobody\"\n[[certificates]]\nfile = \"no.pem\"\n\
             [producer]\nsources = [\"a b\"]\ntypes = []\nfoo = 1\n[limits]\nevent_bytes_max = \"1 TiB\"\n\
             connections_max = 0\n",
        )]);
        let parts = [
            "clients/a.toml:1:1: the key `name` is missing",
            "a.toml:1:6: expected a GUID",
            "a.toml:2:14: \"123\" is no IDNO; expected 13 digits",
            "a.toml:3:13: expected an IP address",
            "a.toml:3:27: expected an IP address",
            "a.toml:3:46: expected an IP address",
            "a.toml:4:11: expected true or false",
            "a.toml:5:1: the key `serial` in [certificates] is missing",
            "a.toml:6:10: `nobody` is not of the form",
            "a.toml:8:8: clients/no.pem: cannot be read",
            "a.toml:10:12: \"a b\" is no URI-reference",
            "a.toml:11:9: `types` is empty",
            "a.toml:12:1: the key `foo` is unknown in [producer]; expected `sources`, `types`",
            "a.toml:14:19: expected a size",
            "a.toml:15:19: `connections_max` is 0; expected between 1 and 1000000",
        ];
        assert_parts(&dir.problems(), &parts);
    }

    #[test]
    fn every_mistake_of_types_and_schemas_is_found_in_one_run() {
        let dir = Dir::new(&[
            ("types/a.toml", "name = \"A.B\"\nschema = \"gone.json\"\npayloads = [\"json\", \"xml\"]\n"),
            ("types/b.toml", "name = \"A.B.C.D\"\nschema = \"broken.json\"\npayloads = [\"text\"]\n"),
            ("types/c.toml", "name = \"A.B.C.D\"\nevent_bytes_max = 10\ndeduplicate_for = \"25h\"\n"),
            ("schemas/broken.json", "{\n  \"type\": object\n}"),
            ("schemas/list.json", "[]"),
        ]);
        let parts = [
            "schemas/broken.json:2:11: expected JSON: expected value",
            "schemas/list.json: expected a JSON Schema",
            "types/a.toml:1:8: \"A.B\" is no name of an event type",
            "types/a.toml:2:10: schemas/gone.json does not exist",
            "types/a.toml:3:21: expected \"json\", \"text\" or \"binary\"",
            "types/b.toml:3:12: a type with a schema takes only [\"json\"]",
            "types/c.toml:1:8: the event type A.B.C.D is already defined in types/b.toml",
            "types/c.toml:2:19: `event_bytes_max` is 10 B; expected between 1 KiB and 16 MiB",
            "types/c.toml:3:19: `deduplicate_for` is 25h; expected between 0ms and 24h",
        ];
        assert_parts(&dir.problems(), &parts);
    }

    #[test]
    fn clients_must_not_share_a_guid_or_a_certificate_or_name_unknown_types() {
        let dir = Dir::new(&[("clients/a.toml", CLIENT), ("clients/b.toml", CLIENT)]);
        let parts = [
            "clients/a.toml:11:10: no file of types/ defines the event type \"A.B.C.D\"",
            "clients/b.toml:2:6: the client dc4dd888-e0a8-428e-a6be-82828800b1f5 is already registered in clients/a.toml",
            "clients/b.toml:8:10: the certificate a0b of \"CN=ca,O=x\" is already registered in clients/a.toml",
            "clients/b.toml:11:10: no file of types/",
        ];
        assert_parts(&dir.problems(), &parts);
    }

    #[test]
    fn a_type_file_that_cannot_be_read_does_not_make_its_type_unknown_to_clients() {
        let dir = Dir::new(&[("clients/a.toml", CLIENT), ("types/t.toml", "name = \"A.B.C.D\n")]);
        let problems = dir.problems();
        assert!(problems.iter().all(|problem| problem.starts_with("types/t.toml:1:")), "{problems:#?}");
    }

    #[test]
    fn text_that_is_not_utf_8_is_reported_with_its_place() {
        let dir = Dir::new(&[]);
        fs::write(dir.0.path().join("types/t.toml"), b"name = 1\n#\xff").unwrap();
        assert_parts(&dir.problems(), &["types/t.toml:2:2: expected UTF-8 text"]);
    }
}
